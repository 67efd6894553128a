package poller

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ConnectOptions are the options of Connect; the zero value is the default.
type ConnectOptions struct {
	// Source is the local address to connect from, if valid. Its ports are shared
	// over destinations where the system can (Linux), so that each source address
	// gives some 28,000 connections to each destination.
	Source netip.Addr
	// SendBufferBytes and ReceiveBufferBytes bound the kernel's memory; zero
	// leaves it to the kernel.
	SendBufferBytes    int
	ReceiveBufferBytes int
}

// Connect begins to connect to "host:port" or "unix:/path" and returns at once
// with a non-blocking, close-on-exec socket (TCP_NODELAY). Register it; at the
// first CanWrite, SocketError says how it went. A host name may wait for the
// resolver, a literal address doesn't. A Unix socket whose backlog is full
// answers ErrWouldBlock, and there is nothing to wait on: try again later.
func Connect(address string, o ConnectOptions) (fd int, err error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		fd, err = connectTo(unix.AF_UNIX, &unix.SockaddrUnix{Name: path}, o)
	} else {
		var addr netip.AddrPort
		var anyHost bool
		addr, anyHost, err = resolve(address)
		switch {
		case err == nil && anyHost:
			err = fmt.Errorf("%w: no host", ErrAddress)
		case err == nil:
			family, name := sockaddrOf(addr)
			fd, err = connectTo(family, name, o)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("connect to %s: %w", address, err)
	}
	return fd, nil
}

func connectTo(family int, name unix.Sockaddr, o ConnectOptions) (int, error) {
	fd, err := openSocket(family)
	if err != nil {
		return -1, err
	}
	if err := prepare(fd, family, o); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	switch err := unix.Connect(fd, name); {
	case err == nil, errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EINTR):
		return fd, nil // interrupted: it goes on in the background as well
	case errors.Is(err, unix.EAGAIN) && family == unix.AF_UNIX:
		_ = unix.Close(fd)
		return -1, ErrWouldBlock
	default:
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
}

// prepare sets what must be set before the connection exists.
func prepare(fd, family int, o ConnectOptions) error {
	if err := setBuffers(fd, o.SendBufferBytes, o.ReceiveBufferBytes); err != nil {
		return err
	}
	if family == unix.AF_UNIX {
		return nil
	}
	if err := noDelay(fd); err != nil {
		return err
	}
	if !o.Source.IsValid() {
		return nil
	}
	sourceFamily, source := sockaddrOf(netip.AddrPortFrom(o.Source, 0))
	if sourceFamily != family {
		return fmt.Errorf("%w: source %s is of another family", ErrAddress, o.Source)
	}
	if err := setLatePort(fd); err != nil {
		return err
	}
	return sysError("bind", unix.Bind(fd, source))
}
