package poller

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAccepted checks the sockets of both sides, and the peer's name.
func TestAccepted(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		l := listenNetwork(t, network, ListenOptions{})
		client := connect(t, dialable(l), ConnectOptions{})
		server, peer := acceptOne(t, l)
		for name, fd := range map[string]int{
			"listener": l.FD(), "reserve": l.reserve, "accepted": server.fd, "connected": client.fd,
		} {
			wantFlags(t, network+" "+name, fd)
		}
		if network == "unix" {
			if peer.IsValid() {
				t.Errorf("peer of a Unix socket is %v, want none", peer)
			}
			continue
		}
		wantOption(t, "accepted", server.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		wantOption(t, "connected", client.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		name, err := unix.Getsockname(client.fd)
		if err != nil || peer != addrPortOf(name) {
			t.Errorf("peer %v, want %v (%v)", peer, addrPortOf(name), err)
		}
	}
}

// TestDualStack: ":0" takes IPv4 and IPv6, and IPv4 peers look like IPv4.
func TestDualStack(t *testing.T) {
	for _, address := range []string{":0", "[::]:0"} {
		l := listen(t, address, ListenOptions{})
		bound, ok := l.Addr().(*net.TCPAddr)
		if !ok || bound.Port == 0 || !bound.IP.IsUnspecified() {
			t.Fatalf("bound to %v, want the actual port of all addresses", l.Addr())
		}
		for _, host := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
			connect(t, netip.AddrPortFrom(host, uint16(bound.Port)).String(), ConnectOptions{})
			if _, peer := acceptOne(t, l); peer.Addr() != host {
				t.Errorf("%s: peer %v, want %v", address, peer, host)
			}
		}
	}
}

func TestListenOneFamily(t *testing.T) {
	tests := []struct {
		address, accepts, refuses string
	}{
		{"0.0.0.0:0", "127.0.0.1", "::1"},
		{"127.0.0.1:0", "127.0.0.1", "::1"},
		{"[::1]:0", "::1", "127.0.0.1"},
		{"localhost:0", "", ""},
	}
	for _, test := range tests {
		t.Run(test.address, func(t *testing.T) {
			l := listen(t, test.address, ListenOptions{})
			port := uint16(l.Addr().(*net.TCPAddr).Port)
			if test.accepts == "" {
				return
			}
			connect(t, netip.AddrPortFrom(netip.MustParseAddr(test.accepts), port).String(), ConnectOptions{})
			acceptOne(t, l)
			fd, err := Connect(netip.AddrPortFrom(netip.MustParseAddr(test.refuses), port).String(), ConnectOptions{})
			if err == nil {
				awaitReady(t, fd, unix.POLLOUT)
				err = SocketError(fd)
				_ = Close(fd)
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("connecting to %s: %v, want ECONNREFUSED", test.refuses, err)
			}
		})
	}
}

// TestListenWithoutIPv6 takes IPv6 away in the ways a system may.
func TestListenWithoutIPv6(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EADDRNOTAVAIL} {
		open := func(family int) (int, error) {
			if family == unix.AF_INET6 {
				return -1, sysError("socket", errno)
			}
			return openSocket(family)
		}
		l := &Listener{fd: -1, reserve: -1}
		if err := l.listenTCP(":0", open); err != nil {
			t.Fatalf("%v: %v", errno, err)
		}
		bound := l.Addr().(*net.TCPAddr)
		if bound.IP.To4() == nil || bound.Port == 0 {
			t.Errorf("%v: bound to %v, want IPv4", errno, bound)
		}
		connect(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(bound.Port)).String(), ConnectOptions{})
		acceptOne(t, l)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		// An address that names IPv6 has no fallback.
		explicit := &Listener{fd: -1, reserve: -1}
		if err := explicit.listenTCP("[::]:0", open); !errors.Is(err, errno) {
			t.Errorf("[::]:0 with %v: %v", errno, err)
		}
	}
	// Such as a system that has IPv6, but none that takes IPv4 too: the option fails.
	only4 := &Listener{fd: -1, reserve: -1}
	err := only4.listenTCP(":0", func(int) (int, error) { return openSocket(unix.AF_INET) })
	if err != nil || only4.Addr().(*net.TCPAddr).IP.To4() == nil {
		t.Errorf("IPV6_V6ONLY refused: %v, %v; want IPv4", only4.Addr(), err)
	}
	if err := only4.Close(); err != nil {
		t.Error(err)
	}
	// A port that is taken over IPv6 only must not become a server for IPv4 only.
	taken := listen(t, "[::1]:0", ListenOptions{})
	l, err := Listen(fmt.Sprintf(":%d", taken.Addr().(*net.TCPAddr).Port), ListenOptions{})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("taken over IPv6: %v, %v; want ErrInUse", l, err)
	}
	// Any other failure is told, not hidden by a socket that half the peers can't reach.
	broken := func(int) (int, error) { return -1, sysError("socket", unix.EMFILE) }
	l = &Listener{fd: -1, reserve: -1}
	if err := l.listenTCP(":0", broken); !errors.Is(err, ErrDescriptors) {
		t.Errorf("out of descriptors: %v, want ErrDescriptors", err)
	}
}

func TestListenRefused(t *testing.T) {
	taken := listen(t, "127.0.0.1:0", ListenOptions{})
	directory := t.TempDir()
	regular := filepath.Join(directory, "regular")
	if err := os.WriteFile(regular, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, address string
		want          error
	}{
		{"taken", taken.Addr().String(), ErrInUse},
		{"no port", "127.0.0.1", ErrAddress},
		{"empty", "", ErrAddress},
		{"port out of range", "127.0.0.1:65536", ErrAddress},
		{"unknown service", ":nosuchservice", ErrAddress},
		{"somebody else's address", "192.0.2.1:0", syscall.EADDRNOTAVAIL},
		{"no path", "unix:", ErrAddress},
		{"abstract name", "unix:@name", ErrAddress},
		{"regular file", unixPrefix + regular, ErrNotSocket},
		{"directory", unixPrefix + directory, ErrNotSocket},
		{"no directory", unixPrefix + directory + "/none/s", os.ErrNotExist},
		{"long path", unixPrefix + directory + "/" + strings.Repeat("x", 200), syscall.EINVAL},
	}
	for _, test := range tests {
		l, err := Listen(test.address, ListenOptions{})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if err == nil {
			_ = l.Close()
		} else if !strings.Contains(err.Error(), test.address) {
			t.Errorf("%s: %q doesn't name the address", test.name, err)
		}
	}
	if text, err := os.ReadFile(regular); string(text) != "precious" {
		t.Errorf("regular file now %q, %v", text, err)
	}
}

// TestReusePort: two listeners of one port, on request only.
func TestReusePort(t *testing.T) {
	first := listen(t, "127.0.0.1:0", ListenOptions{ReusePort: true})
	second := listen(t, first.Addr().String(), ListenOptions{ReusePort: true})
	if first.Addr().String() != second.Addr().String() {
		t.Errorf("bound to %v and %v", first.Addr(), second.Addr())
	}
}

// TestBuffersInherited: connections have the bounds given to the listener, from
// their first byte on. Linux doubles the figures.
func TestBuffersInherited(t *testing.T) {
	const send, receive = 64 << 10, 32 << 10
	for _, network := range []string{"tcp", "unix"} {
		l := listenNetwork(t, network, ListenOptions{SendBufferBytes: send, ReceiveBufferBytes: receive})
		client := connect(t, dialable(l), ConnectOptions{SendBufferBytes: receive, ReceiveBufferBytes: send})
		server, _ := acceptOne(t, l)
		for _, want := range []struct {
			name              string
			fd, option, bytes int
		}{
			{"accepted, send", server.fd, unix.SO_SNDBUF, send},
			{"accepted, receive", server.fd, unix.SO_RCVBUF, receive},
			{"connected, send", client.fd, unix.SO_SNDBUF, receive},
			{"connected, receive", client.fd, unix.SO_RCVBUF, send},
		} {
			got, err := unix.GetsockoptInt(want.fd, unix.SOL_SOCKET, want.option)
			if err != nil || got < want.bytes || got > 2*want.bytes {
				t.Errorf("%s %s: %d, %v; want %d or twice that", network, want.name, got, err, want.bytes)
			}
		}
		if total := fill(t, server.fd); total > 1<<20 {
			t.Errorf("%s: the kernel took %d bytes in spite of the bounds", network, total)
		}
	}
}

// TestUnixSocketReplaced: the file of a listener that is gone makes way, the file
// of a live one doesn't, and Close removes no file but its own.
func TestUnixSocketReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	// A killed server leaves its file behind.
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if _, err := Listen(unixPrefix+path, ListenOptions{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a live socket: %v, want ErrInUse", err)
	}
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	l := listen(t, unixPrefix+path, ListenOptions{})
	if addr, ok := l.Addr().(*net.UnixAddr); !ok || addr.Name != path {
		t.Errorf("Addr is %v, want %s", l.Addr(), path)
	}
	connect(t, unixPrefix+path, ConnectOptions{})
	acceptOne(t, l)
	if _, err := Listen(unixPrefix+path, ListenOptions{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("own live socket: %v, want ErrInUse", err)
	}

	// Somebody removes the file and puts a successor there: Close leaves it alone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	successor := listen(t, unixPrefix+path, ListenOptions{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	connect(t, unixPrefix+path, ConnectOptions{})
	acceptOne(t, successor)
	if err := successor.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v, want the file gone", err)
	}
	if err := successor.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close: %v, want ErrClosed", err)
	}
	if _, err := successor.Accept(make([]Accepted, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("Accept after Close: %v, want ErrClosed", err)
	}
	if _, err := successor.Shed(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Shed after Close: %v, want ErrClosed", err)
	}
}

// TestUnixSocketBusy: a full backlog is no proof of a dead listener, and a
// datagram socket none at all.
func TestUnixSocketBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := listen(t, unixPrefix+path, ListenOptions{Backlog: 1})
	for {
		fd, err := Connect(unixPrefix+path, ConnectOptions{})
		if errors.Is(err, ErrWouldBlock) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		own(t, fd)
	}
	if _, err := Listen(unixPrefix+path, ListenOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("busy socket: %v, want ErrInUse", err)
	}
	acceptOne(t, l) // it still is the one

	datagram := filepath.Join(t.TempDir(), "d")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: datagram, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := Listen(unixPrefix+datagram, ListenOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("datagram socket: %v, want ErrInUse", err)
	}
}

// TestUnixSocketContended: of servers that start at once over a stale file, one wins.
func TestUnixSocketContended(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		left.SetUnlinkOnClose(false)
		if err := left.Close(); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var winners []*Listener
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				l, err := Listen(unixPrefix+path, ListenOptions{})
				if err != nil {
					if !errors.Is(err, ErrInUse) {
						t.Errorf("loser: %v, want ErrInUse", err)
					}
					return
				}
				mu.Lock()
				winners = append(winners, l)
				mu.Unlock()
			})
		}
		group.Wait()
		if len(winners) != 1 {
			t.Errorf("%d servers on one path", len(winners))
		}
		for _, l := range winners {
			connect(t, unixPrefix+path, ConnectOptions{})
			acceptOne(t, l)
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestAcceptBatch: as many as fit, then the rest, then none.
func TestAcceptBatch(t *testing.T) {
	l := listen(t, "127.0.0.1:0", ListenOptions{})
	for range 5 {
		connect(t, dialable(l), ConnectOptions{})
	}
	awaitReady(t, l.FD(), unix.POLLIN)
	batch := make([]Accepted, 3)
	for _, want := range []int{3, 2, 0} {
		n, err := l.Accept(batch)
		if n != want || err != nil {
			t.Fatalf("Accept = %d, %v; want %d", n, err, want)
		}
		for _, accepted := range batch[:n] {
			own(t, accepted.FD)
		}
	}
}

// TestAcceptFails: an error of the listener itself is no aborted connection, and
// ends the call.
func TestAcceptFails(t *testing.T) {
	fd, err := openSocket(unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	l := &Listener{fd: fd, reserve: -1}
	if n, err := l.Accept(make([]Accepted, 2)); n != 0 || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("not listening: %d, %v; want EINVAL", n, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for errno, want := range map[syscall.Errno]bool{
		unix.ECONNABORTED: true, unix.EINTR: true,
		unix.EINVAL: false, unix.EBADF: false, unix.EMFILE: false, unix.ENOMEM: false,
	} {
		if got := acceptAborted(errno); got != want {
			t.Errorf("%v aborted: %v, want %v", errno, got, want)
		}
	}
}
