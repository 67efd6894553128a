package poller

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// wantFlags checks that fd is non-blocking and close-on-exec.
func wantFlags(t *testing.T, name string, fd int) {
	t.Helper()
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("%s: flags %#x, %v; want O_NONBLOCK", name, flags, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("%s: descriptor flags %#x, %v; want FD_CLOEXEC", name, flags, err)
	}
}

func wantOption(t *testing.T, name string, fd, level, option, want int) {
	t.Helper()
	if got, err := unix.GetsockoptInt(fd, level, option); err != nil || got != want {
		t.Errorf("%s: option %d is %d, %v; want %d", name, option, got, err, want)
	}
}

func TestRead(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		client, server := pair(t, network)
		p := make([]byte, 8)
		if n, err := Read(server.fd, p); n != 0 || err != ErrWouldBlock {
			t.Errorf("%s, nothing there: %d, %v; want ErrWouldBlock", network, n, err)
		}
		if n, err := Peek(server.fd); n != 0 || err != ErrWouldBlock {
			t.Errorf("%s, Peek of nothing: %d, %v; want ErrWouldBlock", network, n, err)
		}
		write(t, client.fd, "0123456789")
		awaitReady(t, server.fd, unix.POLLIN)
		if n, err := Read(server.fd, nil); n != 0 || err != nil {
			t.Errorf("%s, into nothing: %d, %v; want 0, nil", network, n, err)
		}
		if n, err := Peek(server.fd); n != 1 || err != nil {
			t.Errorf("%s, Peek: %d, %v; want 1", network, n, err)
		}
		for _, want := range []string{"01234567", "89"} {
			if n, err := Read(server.fd, p); string(p[:n]) != want || err != nil {
				t.Errorf("%s: %q, %v; want %q", network, p[:n], err, want)
			}
		}
		if err := CloseWrite(client.fd); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, server.fd, unix.POLLIN)
		for range 2 {
			if n, err := Read(server.fd, p); n != 0 || err != io.EOF {
				t.Errorf("%s, end: %d, %v; want io.EOF", network, n, err)
			}
			if n, err := Peek(server.fd); n != 0 || err != io.EOF {
				t.Errorf("%s, Peek at the end: %d, %v; want io.EOF", network, n, err)
			}
		}
		write(t, server.fd, "still open this way")
		awaitReady(t, client.fd, unix.POLLIN)
		if got := readText(t, client.fd); got != "still open this way" {
			t.Errorf("%s: read %q", network, got)
		}
	}
	if _, err := Read(-1, make([]byte, 1)); err != syscall.EBADF {
		t.Errorf("Read(-1): %v, want EBADF", err)
	}
	if _, err := Write(-1, make([]byte, 1)); err != syscall.EBADF {
		t.Errorf("Write(-1): %v, want EBADF", err)
	}
}

// TestWriteShort writes more than fits: some of it is taken, in order, and the
// rest is refused without an error until there is room.
func TestWriteShort(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		client, server := pair(t, network)
		if n, err := Write(server.fd, nil); n != 0 || err != nil {
			t.Errorf("%s, nothing: %d, %v; want 0, nil", network, n, err)
		}
		sent := make([]byte, 16<<20)
		for i := range sent {
			sent[i] = byte(i % 251)
		}
		total, short := 0, 0
		var got []byte
		p := make([]byte, 1<<20)
		for len(got) < len(sent) {
			n, err := Write(server.fd, sent[total:])
			if err != nil && err != ErrWouldBlock {
				t.Fatal(err)
			}
			if n > 0 && total+n < len(sent) {
				short++
			}
			total += n
			for {
				n, err := Read(client.fd, p)
				if err == ErrWouldBlock {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, p[:n]...)
			}
		}
		if short == 0 || !bytes.Equal(got, sent) {
			t.Errorf("%s: %d short writes, %d bytes; want some, and the same bytes", network, short, len(got))
		}
	}
}

func TestWritev(t *testing.T) {
	tests := []struct {
		name string
		bufs []string
		want string
	}{
		{"none", nil, ""},
		{"only empty", []string{"", ""}, ""},
		{"one", []string{"a"}, "a"},
		{"empty between", []string{"", "a", "", "bc", ""}, "abc"},
		{"eight", []string{"a", "b", "c", "d", "e", "f", "g", "h"}, "abcdefgh"},
		{"nine", []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}, "abcdefgh"},
		{"eight and empty ones", []string{"", "a", "b", "", "c", "d", "e", "f", "g", "", "h", "", "i"}, "abcdefgh"},
	}
	for _, network := range []string{"tcp", "unix"} {
		client, server := pair(t, network)
		for _, test := range tests {
			bufs := make([][]byte, len(test.bufs))
			for i, text := range test.bufs {
				bufs[i] = []byte(text)
			}
			n, err := Writev(server.fd, bufs)
			if n != len(test.want) || err != nil {
				t.Errorf("%s, %s: %d, %v; want %d", network, test.name, n, err, len(test.want))
			}
			if test.want == "" {
				continue
			}
			awaitReady(t, client.fd, unix.POLLIN)
			if got := readText(t, client.fd); got != test.want {
				t.Errorf("%s, %s: peer read %q, want %q", network, test.name, got, test.want)
			}
		}
		fill(t, server.fd)
		if n, err := Writev(server.fd, [][]byte{{1}, {2}}); n != 0 || err != ErrWouldBlock {
			t.Errorf("%s, full: %d, %v; want ErrWouldBlock", network, n, err)
		}
	}
}

// TestWriteToDeadPeer: EPIPE and no signal. A plain write(2) afterwards proves
// that the signal would have been seen.
func TestWriteToDeadPeer(t *testing.T) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGPIPE, syscall.SIGTERM)
	defer signal.Stop(signals)
	for _, network := range []string{"tcp", "unix"} {
		client, server := pair(t, network)
		if err := Reset(client.fd); err != nil {
			t.Fatal(err)
		}
		client.gone()
		awaitReady(t, server.fd, unix.POLLIN)
		// The first write over TCP takes the pending ECONNRESET.
		if _, err := Write(server.fd, []byte("x")); err != syscall.EPIPE && err != syscall.ECONNRESET {
			t.Errorf("%s: first write: %v, want ECONNRESET or EPIPE", network, err)
		}
		if _, err := Write(server.fd, []byte("x")); err != syscall.EPIPE {
			t.Errorf("%s: Write: %v, want EPIPE", network, err)
		}
		if _, err := Writev(server.fd, [][]byte{[]byte("x")}); err != syscall.EPIPE {
			t.Errorf("%s: Writev: %v, want EPIPE", network, err)
		}
		// Signals are delivered in the order of their numbers: with a SIGPIPE
		// pending, this one would come second.
		if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if got := <-signals; got != syscall.SIGTERM {
			t.Errorf("%s: %v after Write", network, got)
		}
		if _, err := unix.Write(server.fd, []byte("x")); err != unix.EPIPE {
			t.Fatalf("write(2): %v, want EPIPE", err)
		}
		if writeRaises {
			if got := <-signals; got != syscall.SIGPIPE {
				t.Errorf("write(2) raised %v, want SIGPIPE", got)
			}
		}
	}
}

func TestReset(t *testing.T) {
	client, server := pair(t, "tcp")
	write(t, server.fd, "lost?")
	if err := Reset(server.fd); err != nil {
		t.Fatal(err)
	}
	server.gone()
	if err := readAll(t, client.fd); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("peer read %v, want ECONNRESET", err)
	}
	if err := Reset(-1); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Reset(-1): %v, want EBADF", err)
	}
	if err := Close(-1); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Close(-1): %v, want EBADF", err)
	}
}

func TestSocketError(t *testing.T) {
	l := listenNetwork(t, "tcp", ListenOptions{})
	nobody := dialable(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fd, err := Connect(nobody, ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := own(t, fd)
	awaitReady(t, s.fd, unix.POLLOUT)
	if err := SocketError(s.fd); err != syscall.ECONNREFUSED {
		t.Errorf("SocketError: %v, want ECONNREFUSED", err)
	}
	if err := SocketError(s.fd); err != nil {
		t.Errorf("SocketError again: %v, want nil: it was taken", err)
	}
	if err := SocketError(-1); !errors.Is(err, syscall.EBADF) {
		t.Errorf("SocketError(-1): %v, want EBADF", err)
	}
}

func TestDetach(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		l, err := net.Listen(network, map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"}[network])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dialed, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer dialed.Close()
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if tcp, ok := accepted.(*net.TCPConn); ok {
			// What an application may have set, and a loop can't live with.
			if err := errors.Join(tcp.SetLinger(5), tcp.SetNoDelay(false)); err != nil {
				t.Fatal(err)
			}
		}
		fd, peer, err := Detach(accepted.(syscall.Conn))
		if err != nil {
			t.Fatal(err)
		}
		own(t, fd)
		if err := accepted.Close(); err != nil {
			t.Fatal(err)
		}
		wantFlags(t, network, fd)
		want := ""
		if network == "tcp" {
			want = dialed.LocalAddr().String()
			wantOption(t, network, fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			if linger, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER); err != nil || linger != 0 {
				t.Errorf("SO_LINGER is %d, %v; want off", linger, err)
			}
		}
		if peer.IsValid() != (want != "") || peer.IsValid() && peer.String() != want {
			t.Errorf("%s: peer %v, want %q", network, peer, want)
		}
		write(t, fd, "on its own")
		p := make([]byte, 32)
		if n, err := dialed.Read(p); string(p[:n]) != "on its own" || err != nil {
			t.Errorf("%s: peer read %q, %v", network, p[:n], err)
		}
		if _, _, err := Detach(accepted.(syscall.Conn)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: Detach of a closed connection: %v, want net.ErrClosed", network, err)
		}
	}
}

func TestDescriptorLimit(t *testing.T) {
	soft, err := DescriptorLimit()
	if err != nil || soft < 64 {
		t.Fatalf("DescriptorLimit = %d, %v", soft, err)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || unsigned(limit.Cur) != soft {
		t.Fatalf("limit is %d, %v; reported %d", limit.Cur, err, soft)
	}
}

// TestSockaddrRoundTrip: the address of a socket call and back.
func TestSockaddrRoundTrip(t *testing.T) {
	links, err := net.Interfaces()
	if err != nil || len(links) == 0 {
		t.Fatalf("no interfaces: %v", err)
	}
	byIndex := strconv.Itoa(links[0].Index)
	tests := []struct {
		given, want string
		family      int
	}{
		{"127.0.0.1:1", "127.0.0.1:1", unix.AF_INET},
		{"[::ffff:10.0.0.1]:2", "10.0.0.1:2", unix.AF_INET},
		{"[2001:db8::1]:65535", "[2001:db8::1]:65535", unix.AF_INET6},
		{"[fe80::1%7]:3", "[fe80::1%7]:3", unix.AF_INET6},
		{"[fe80::1%" + links[0].Name + "]:3", "[fe80::1%" + byIndex + "]:3", unix.AF_INET6},
		{"[fe80::1%nosuchlink]:3", "[fe80::1]:3", unix.AF_INET6},
	}
	for _, test := range tests {
		family, name := sockaddrOf(netip.MustParseAddrPort(test.given))
		if got := addrPortOf(name).String(); got != test.want || family != test.family {
			t.Errorf("%s: family %d, %s; want %d, %s", test.given, family, got, test.family, test.want)
		}
	}
}
