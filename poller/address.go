package poller

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// resolve understands "host:port". The literal forms cost no look-up; an empty
// host is the address of dual.
func resolve(address string) (addr netip.AddrPort, anyHost bool, err error) {
	if addr, err := netip.ParseAddrPort(address); err == nil {
		return addr, false, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return addr, false, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return addr, false, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(tcp.Port)), true, nil
	}
	addr = tcp.AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), false, nil
}

// listenTCP binds as Listen documents. open stands for openSocket, so that a
// test can take IPv6 away.
func (l *Listener) listenTCP(address string, open func(family int) (int, error)) error {
	addr, anyHost, err := resolve(address)
	if err != nil {
		return err
	}
	if err = l.bindTCP(addr, open); anyHost && lacksIPv6(err) {
		_ = l.closeSocket()
		err = l.bindTCP(netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()), open)
	}
	if err != nil {
		return err
	}
	return l.start()
}

func (l *Listener) bindTCP(addr netip.AddrPort, open func(family int) (int, error)) error {
	family, name := sockaddrOf(addr)
	fd, err := open(family)
	if err != nil {
		return err
	}
	l.fd = fd
	// Without it a restarted server finds its port taken by its old connections.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if l.options.ReusePort {
		if err := setReusePort(fd); err != nil {
			return err
		}
	}
	if family == unix.AF_INET6 {
		only := 1
		if addr.Addr().IsUnspecified() {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := noDelay(fd); err != nil {
		return err
	}
	if err := unix.Bind(fd, name); err != nil {
		return sysError("bind", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	l.addr = net.TCPAddrFromAddrPort(addrPortOf(bound))
	return nil
}

// lacksIPv6 tells the ways in which a system says that it has no IPv6, or none
// that takes IPv4 as well, from other failures.
func lacksIPv6(err error) bool {
	for _, errno := range []error{unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EADDRNOTAVAIL, unix.EINVAL, unix.ENOPROTOOPT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (l *Listener) closeSocket() error {
	if l.fd < 0 {
		return nil
	}
	fd := l.fd
	l.fd = -1
	return unix.Close(fd)
}

// listenUnix binds a path. Between the look at a stale file and its removal
// another starting server could put its own socket there, and between bind and
// listen a socket looks stale; so all of it happens under a lock on the
// directory, which every server of ours takes. Without permission to read the
// directory there is no lock, only the smaller chance.
func (l *Listener) listenUnix(path string) error {
	if path == "" || path[0] == '@' {
		return fmt.Errorf("%w: %q is no path", ErrAddress, path)
	}
	directory, err := os.Open(filepath.Dir(path))
	if err == nil {
		defer directory.Close() //nolint:errcheck // nothing was written; with it ends the lock
		for unix.Flock(int(directory.Fd()), unix.LOCK_EX) == unix.EINTR {
			continue // a signal, of which Go's scheduler sends many
		}
	}
	if err := removeStale(path); err != nil {
		return err
	}
	if l.fd, err = openSocket(unix.AF_UNIX); err != nil {
		return err
	}
	if err := unix.Bind(l.fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return sysError("bind", err)
	}
	l.path = path
	l.addr = &net.UnixAddr{Name: path, Net: "unix"}
	if l.file, err = os.Lstat(path); err != nil {
		return err
	}
	return l.start()
}

// removeStale removes the socket file at path if nobody listens on it. Only a
// refused connection proves that. A full backlog, or a socket that isn't a stream,
// proves the contrary.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return ErrNotSocket
	}
	fd, err := openSocket(unix.AF_UNIX)
	if err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	_ = unix.Close(fd)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EPROTOTYPE):
		return ErrInUse
	case errors.Is(err, unix.ENOENT):
		return nil // its owner has just removed it
	}
	return os.NewSyscallError("connect", err)
}
