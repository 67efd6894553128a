package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
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

// boundedListener lets no more than so many connections exist at once; others wait in the kernel's backlog, where they cost no
// descriptor.
type boundedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	close  func() error
}

func newBoundedListener(l net.Listener, connections int) *boundedListener {
	b := &boundedListener{Listener: l, slots: make(chan struct{}, connections), closed: make(chan struct{})}
	b.close = sync.OnceValue(func() error {
		close(b.closed)
		return l.Close()
	})
	return b
}

func (b *boundedListener) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &boundedConn{Conn: c, release: sync.OnceFunc(func() { <-b.slots })}, nil
}

func (b *boundedListener) Close() error { return b.close() }

// boundedConn gives its slot back when it is closed.
type boundedConn struct {
	net.Conn
	release func()
}

func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
