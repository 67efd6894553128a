package wsframe

import (
	"net/netip"
	"strings"
	"testing"
)

// TestHosts: names, addresses and ports of the Host field.
func TestHosts(t *testing.T) {
	for _, c := range []struct {
		name, host string
		ok         bool
	}{
		{name: "empty", host: "", ok: true},
		{name: "name", host: "chat.example.com", ok: true},
		{name: "name with a port", host: "a_b-c~d:8080", ok: true},
		{name: "port without digits", host: "a:", ok: true},
		{name: "IPv4", host: "127.0.0.1:80", ok: true},
		{name: "IPv6", host: "[2001:db8::1]:80", ok: true},
		{name: "IPv6 without a port", host: "[::]", ok: true},
		{name: "empty brackets", host: "[]"},
		{name: "name in brackets", host: "[a.b]"},
		{name: "IPv6 with a zone", host: "[fe80::1%25eth0]"},
		{name: "open bracket", host: "[::1"},
		{name: "text behind the bracket", host: "[::1]a"},
		{name: "IPv6 without brackets", host: "::1"},
		{name: "user", host: "user@host"},
		{name: "two hosts", host: "a, b"},
		{name: "path", host: "a/b"},
		{name: "port that is none", host: "a:8a"},
		{name: "not ASCII", host: "\xE4.example"},
	} {
		if got := isHost([]byte(c.host)); got != c.ok {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

// FuzzIPv6 holds isIPv6 against net/netip.
func FuzzIPv6(f *testing.F) {
	for _, s := range []string{
		"::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1::2::3", ":::", "1:", ":1",
		"12345::", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "::01.2.3.4", "::1.2.3.256", "::1.2.3.4.5", "1.2.3.4", "g::", "::1.2.3.4:5",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, err := netip.ParseAddr(s)
		want := err == nil && addr.Is6() && !strings.Contains(s, "%")
		if got := isIPv6([]byte(s)); got != want {
			t.Fatalf("%q: got %v, want %v", s, got, want)
		}
	})
}
