package poller

import (
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Read reads once into p. ErrWouldBlock means that nothing waits (for an
// edge-triggered registration: that the next edge is armed), io.EOF that the
// peer has ended its direction and all its bytes are read; any other failure is
// the bare errno. A short read proves that nothing more waited, except on Unix
// sockets, around urgent data, and when the event said Hangup. An empty p reads
// nothing. Nothing here allocates.
func Read(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return received(sysRead(fd, p))
}

// Peek reports, without taking it, whether a byte waits: 1, or what Read would
// have said.
func Peek(fd int) (int, error) {
	return received(sysPeek(fd))
}

// Write writes once, possibly less than all of p, never raising SIGPIPE. ErrWouldBlock
// means no room at all; otherwise a failure is the bare errno (EPIPE and
// ECONNRESET for a peer that is gone). After a short write the edge for more
// room is not armed everywhere: write on until ErrWouldBlock, or all is gone.
func Write(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return sent(sysSend(fd, p))
}

// iovecsPerCall bounds what Writev prepares on its stack.
const iovecsPerCall = 8

// Writev is Write for the bytes of bufs in their order, as one system call. It
// takes the first eight that aren't empty; with more it is a short write.
func Writev(fd int, bufs [][]byte) (int, error) {
	return sent(sysSendmsg(fd, bufs))
}

// received and sent keep the hot path free of allocation: an errno below 256
// becomes an error without one.
func received(n int, errno syscall.Errno) (int, error) {
	switch {
	case n > 0:
		return n, nil
	case errno == 0:
		return 0, io.EOF
	case errno == unix.EAGAIN, errno == unix.EINTR:
		// EINTR cannot happen to a call that doesn't sleep; if it does, level and
		// edge are as they were, so the caller's next look at the socket is due.
		return 0, ErrWouldBlock
	}
	return 0, errno
}

func sent(n int, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return n, nil
	case unix.EAGAIN, unix.EINTR:
		return 0, ErrWouldBlock
	}
	return 0, errno
}

// CloseWrite ends our direction of the stream: the peer reads io.EOF after what
// was written before.
func CloseWrite(fd int) error {
	return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR))
}

// Close closes fd, even if it returns an error. What was written is still sent,
// unless unread bytes wait here: then the kernel resets the connection.
func Close(fd int) error {
	// The number is free again even after EINTR, so a retry could close a
	// descriptor that another goroutine has just been given.
	return os.NewSyscallError("close", unix.Close(fd))
}

// Reset closes fd with a TCP reset: unsent bytes are dropped, the peer reads
// ECONNRESET and no TIME_WAIT stays behind.
func Reset(fd int) error {
	err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	if closed := unix.Close(fd); err == nil {
		return os.NewSyscallError("close", closed)
	}
	return os.NewSyscallError("setsockopt", err)
}

// SocketError takes the error that the socket has pending, as a bare errno; nil
// if there is none. After Connect and the first CanWrite it is the outcome.
func SocketError(fd int) error {
	pending, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if pending != 0 {
		return syscall.Errno(pending)
	}
	return nil
}

// Detach duplicates the descriptor of a connection of package net, so that it
// can be driven from a Poller: non-blocking, close-on-exec, TCP_NODELAY and
// without a lingering close. peer is zero if the connection isn't TCP. The caller
// then closes c, which leaves the connection itself alone; bytes that were read
// into a buffer above c are the caller's to keep.
func Detach(c syscall.Conn) (fd int, peer netip.AddrPort, err error) {
	conn, err := c.SyscallConn()
	if err != nil {
		return -1, peer, err
	}
	var failed error
	err = conn.Control(func(original uintptr) {
		fd, failed = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = sysError("fcntl", failed)
	}
	if err != nil {
		return -1, peer, err
	}
	if err = unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return -1, peer, os.NewSyscallError("fcntl", err)
	}
	name, err := unix.Getpeername(fd)
	if err != nil {
		_ = unix.Close(fd)
		return -1, peer, os.NewSyscallError("getpeername", err)
	}
	if peer = addrPortOf(name); peer.IsValid() {
		_ = noDelay(fd) // an optimisation; and a peer that is gone shows at the first read
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	}
	return fd, peer, nil
}

// DescriptorLimit raises the soft limit of descriptors to the hard one and
// returns what it is then. (A Go program starts with it raised already.)
func DescriptorLimit() (soft uint64, err error) {
	// Package syscall and not x/sys: it remembers that the limit was set on
	// purpose and doesn't put the old one back for child processes.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	if limit.Cur < limit.Max {
		before := limit.Cur
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			limit.Cur = before // darwin refuses more than kern.maxfilesperproc
		}
	}
	return unsigned(limit.Cur), nil
}

// unsigned exists because freebsd counts descriptors in int64.
func unsigned[T ~int64 | ~uint64](n T) uint64 { return uint64(n) }

func noDelay(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

// setBuffers bounds the kernel's memory per direction, in bytes; zero leaves the
// kernel's own sizing. Linux doubles the figure for its bookkeeping.
func setBuffers(fd, send, receive int) error {
	if send > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, send); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if receive > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receive); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// addrPortOf is zero for anything but IP. A mapped IPv4 address is unmapped, so
// that it prints, and compares, like one that came in over an IPv4 socket.
func addrPortOf(name unix.Sockaddr) netip.AddrPort {
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
	case *unix.SockaddrInet6:
		addr := withZone(netip.AddrFrom16(name.Addr).Unmap(), name.ZoneId)
		return netip.AddrPortFrom(addr, uint16(name.Port))
	}
	return netip.AddrPort{}
}

// withZone adds the scope of a link-local address, by number: its name costs a
// system call and may be gone.
func withZone(addr netip.Addr, scope uint32) netip.Addr {
	if scope == 0 || !addr.IsLinkLocalUnicast() {
		return addr
	}
	return addr.WithZone(strconv.FormatUint(uint64(scope), 10))
}

// sockaddrOf is the inverse of addrPortOf; an IPv4 address goes out on an IPv4 socket.
func sockaddrOf(addr netip.AddrPort) (family int, name unix.Sockaddr) {
	ip := addr.Addr().Unmap()
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	}
	name6 := &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		if scope, err := strconv.ParseUint(zone, 10, 32); err == nil {
			name6.ZoneId = uint32(scope)
		} else if link, err := net.InterfaceByName(zone); err == nil {
			name6.ZoneId = uint32(link.Index)
		}
	}
	return unix.AF_INET6, name6
}
