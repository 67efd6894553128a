//go:build darwin || freebsd

package poller

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sockaddr is empty: x/sys returns the peer's address by itself.
type sockaddr struct{}

// openSocket returns a non-blocking, close-on-exec stream socket. Not every
// system sets the flags in the same call, so a fork is held off meanwhile.
func openSocket(family int) (int, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, sysError("socket", err)
	}
	if err := quiet(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// quiet makes fd non-blocking and its writes free of SIGPIPE.
func quiet(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NOSIGPIPE, 1))
}

// accept takes one connection. What it inherits from the listener differs
// between the systems, so nothing is relied upon.
func (l *Listener) accept() (fd int, peer netip.AddrPort, errno syscall.Errno) {
	syscall.ForkLock.RLock()
	fd, name, err := unix.Accept(l.fd)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, peer, errnoOf(err)
	}
	if err := quiet(fd); err != nil {
		// The peer has reset the connection already (darwin: EINVAL).
		_ = unix.Close(fd)
		return -1, peer, unix.ECONNABORTED
	}
	if peer = addrPortOf(name); peer.IsValid() {
		_ = noDelay(fd)
	}
	return fd, peer, 0
}

// acceptAborted reports an error of the connection, which accept has consumed,
// as opposed to one of the listener.
func acceptAborted(errno syscall.Errno) bool {
	return errno == unix.ECONNABORTED || errno == unix.EINTR
}

// backlogMax reads the bound that the kernel cuts a longer backlog to.
func backlogMax() int {
	n, err := unix.SysctlUint32("kern.ipc.somaxconn")
	if err != nil || n == 0 {
		return unix.SOMAXCONN
	}
	return int(n)
}

// SetUserTimeout does nothing here: see its twin for Linux.
func SetUserTimeout(int, time.Duration) error { return nil }

// Unacknowledged knows nothing here: see its twin for Linux.
func Unacknowledged(int) (segments int, sinceAck time.Duration, err error) { return 0, 0, nil }

// listenQueue knows nothing here: see its twin for Linux.
func listenQueue(int) (waiting, limit int) { return 0, 0 }

// setReusePort lets several listeners share a port.
func setReusePort(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// setLatePort has no counterpart here: a source address gives each of its ports once.
func setLatePort(int) error { return nil }

func sysRead(fd int, p []byte) (int, syscall.Errno) {
	n, err := unix.Read(fd, p)
	return max(n, 0), errnoOf(err)
}

func sysPeek(fd int) (int, syscall.Errno) {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK)
	return max(n, 0), errnoOf(err)
}

func sysSend(fd int, p []byte) (int, syscall.Errno) {
	n, err := unix.SendmsgN(fd, p, nil, nil, 0)
	return max(n, 0), errnoOf(err)
}

func sysSendmsg(fd int, bufs [][]byte) (int, syscall.Errno) {
	filled := make([][]byte, 0, iovecsPerCall)
	for _, b := range bufs {
		if len(b) > 0 && len(filled) < iovecsPerCall {
			filled = append(filled, b)
		}
	}
	if len(filled) == 0 {
		return 0, 0
	}
	n, err := unix.SendmsgBuffers(fd, filled, nil, nil, 0)
	return max(n, 0), errnoOf(err)
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		return unix.EIO
	}
	return errno
}
