package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
)

// ErrExposed is the error of an address that others than this machine may reach, without a token that would keep them out.
var ErrExposed = errors.New("reachable from other machines without a token: set a token, or listen on loopback or a Unix socket")

// CheckAddress says whether an address may be listened on: host:port, or unix:/path. Off loopback it takes a token.
func CheckAddress(address string, hasToken bool) error {
	if path, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
		if path == "" {
			return errors.New("a Unix socket needs a path")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("not host:port or unix:/path: %w", err)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("not a port: %q", port)
	}
	if !hasToken && !isLoopbackHost(host) {
		return ErrExposed
	}
	return nil
}

// isLoopbackHost says whether a host, without a port, is this machine alone. Every resolver must answer localhost with loopback
// (RFC 6761, section 6.3).
func isLoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Listen binds an address as CheckAddress understands it. A Unix socket that nobody listens on any more is replaced, and the
// new one is open to the owner and its group.
func Listen(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return net.Listen("tcp", address)
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && isStale(path) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// isStale says whether a path is a socket that refuses connections: its process is gone.
func isStale(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close() // It was only a question.
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Origins are those of pages that a browser on this machine loads from a bound address: what a server may trust beside its own
// host. Off loopback there are none, and neither are there on a Unix socket.
func Origins(addr net.Addr) []string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return nil
	}
	port := fmt.Sprint(tcp.Port)
	var origins []string
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		origins = append(origins, "http://"+net.JoinHostPort(host, port))
	}
	return origins
}
