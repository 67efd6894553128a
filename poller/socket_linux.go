package poller

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sockaddr is the kernel's struct sockaddr_in6, the longest that accept has to
// tell; a Unix name is cut off, since nobody asks for it.
//
//	family:2 (machine order) port:2 (network order) then
//	AF_INET:  address:4
//	AF_INET6: flow:4 address:16 scope:4 (machine order)
type sockaddr [28]byte

// openSocket returns a non-blocking, close-on-exec stream socket.
func openSocket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return fd, sysError("socket", err)
}

// accept takes one connection. Linux hands TCP_NODELAY and the buffer sizes
// down from the listener.
func (l *Listener) accept() (fd int, peer netip.AddrPort, errno syscall.Errno) {
	l.name[0], l.name[1] = unix.AF_UNSPEC, 0
	fd, errno = sysAccept(l.fd, &l.name)
	if errno != 0 {
		return -1, peer, errno
	}
	return fd, l.name.addrPort(), 0
}

// acceptAborted reports an error of the connection, which accept has consumed,
// as opposed to one of the listener: Linux passes on what is pending on the new
// socket (accept(2), "Error handling").
func acceptAborted(errno syscall.Errno) bool {
	switch errno {
	case unix.ECONNABORTED, unix.EINTR, unix.EPROTO, unix.ENOPROTOOPT, unix.EPERM,
		unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENONET:
		return true
	}
	return false
}

func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(s[2:])
	switch binary.NativeEndian.Uint16(s[:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s[4:8])), port)
	case unix.AF_INET6:
		addr := netip.AddrFrom16([16]byte(s[8:24])).Unmap()
		return netip.AddrPortFrom(withZone(addr, binary.NativeEndian.Uint32(s[24:])), port)
	}
	return netip.AddrPort{}
}

// backlogMax reads the bound that the kernel cuts a longer backlog to.
func backlogMax() int {
	const otherwise = 4096 // the kernel's own default since Linux 5.4
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return otherwise
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n <= 0 {
		return otherwise
	}
	return n
}

// SetUserTimeout bounds how long what was written may stay unacknowledged, or
// meet a closed window, before the kernel ends the connection with ETIMEDOUT
// (RFC 5482; tcp(7), TCP_USER_TIMEOUT); in milliseconds, at most 24 days. Without
// it that takes some 15 minutes of retransmissions. Connections inherit it from
// their listener. Elsewhere than on Linux it does nothing.
func SetUserTimeout(fd int, d time.Duration) error {
	ms := min(int64((d+time.Millisecond-1)/time.Millisecond), math.MaxInt32)
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ms)))
}

// Unacknowledged tells how many segments the peer's kernel has not acknowledged,
// and how long ago it last acknowledged anything (tcp(7), TCP_INFO): it tells a
// host that can't be reached from a program that doesn't answer. Zeros for other
// sockets than TCP, and elsewhere than on Linux.
func Unacknowledged(fd int) (segments int, sinceAck time.Duration, err error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOPROTOOPT):
		return 0, 0, nil
	case err != nil:
		return 0, 0, os.NewSyscallError("getsockopt", err)
	}
	return int(info.Unacked), time.Duration(info.Last_ack_recv) * time.Millisecond, nil
}

// listenQueue: a listening socket tells its queue where others tell of segments
// (tcp_get_info: sk_ack_backlog and sk_max_ack_backlog).
func listenQueue(fd int) (waiting, limit int) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0
	}
	return int(info.Unacked), int(info.Sacked)
}

// setReusePort lets several listeners share a port; the kernel spreads connections.
func setReusePort(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// setLatePort leaves the choice of the source port to connect, which knows the
// destination: otherwise each port of a source address serves one connection
// only, whatever the destination. For IPv6 sockets too the option is IPPROTO_IP's.
func setLatePort(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
}
