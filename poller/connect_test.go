package poller

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestConnectSource: the peer sees the address asked for.
func TestConnectSource(t *testing.T) {
	l := listen(t, ":0", ListenOptions{})
	_, port := splitPort(t, l)
	tests := []struct {
		name, source, target string
		want                 error
	}{
		{"loopback alias", "127.0.0.9", "127.0.0.1", nil},
		{"mapped", "::ffff:127.0.0.8", "127.0.0.1", nil},
		{"IPv6", "::1", "::1", nil},
		{"other family", "127.0.0.9", "::1", ErrAddress},
		{"somebody else's", "192.0.2.1", "127.0.0.1", syscall.EADDRNOTAVAIL},
	}
	for _, test := range tests {
		source := netip.MustParseAddr(test.source)
		target := netip.AddrPortFrom(netip.MustParseAddr(test.target), port).String()
		if test.want != nil {
			if _, err := Connect(target, ConnectOptions{Source: source}); !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
			continue
		}
		connect(t, target, ConnectOptions{Source: source})
		if _, peer := acceptOne(t, l); peer.Addr() != source.Unmap() {
			t.Errorf("%s: peer %v, want %v", test.name, peer, source.Unmap())
		}
	}
}

func splitPort(t *testing.T, l *Listener) (host netip.Addr, port uint16) {
	t.Helper()
	addr, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return addr.Addr(), addr.Port()
}

func TestConnectRefused(t *testing.T) {
	directory := t.TempDir()
	tests := []struct {
		name, address string
		want          error
	}{
		{"no port", "127.0.0.1", ErrAddress},
		{"no host", ":80", ErrAddress},
		{"no name", "nosuchhost.invalid:80", ErrAddress},
		{"no socket file", unixPrefix + filepath.Join(directory, "none"), os.ErrNotExist},
	}
	for _, test := range tests {
		fd, err := Connect(test.address, ConnectOptions{})
		if fd != -1 || !errors.Is(err, test.want) {
			t.Errorf("%s: %d, %v; want %v", test.name, fd, err, test.want)
		}
	}
}

func TestConnectByName(t *testing.T) {
	l := listen(t, "localhost:0", ListenOptions{})
	host, port := splitPort(t, l)
	if !host.IsLoopback() {
		t.Fatalf("localhost is %v", host)
	}
	connect(t, netip.AddrPortFrom(host, port).String(), ConnectOptions{})
	acceptOne(t, l)
}
