package server

import (
	"strings"
	"testing"
)

func TestOriginPolicy(t *testing.T) {
	tests := []struct {
		name    string
		allowed []string
		trusted []string
		host    string
		origin  string
		want    bool
	}{
		{name: "same host and port", host: "example.com:8080", origin: "http://example.com:8080", want: true},
		{name: "same host, default port", host: "example.com", origin: "https://example.com", want: true},
		{name: "same host, default port written out", host: "example.com:443", origin: "https://example.com", want: true},
		{name: "upper case", host: "Example.COM", origin: "HTTPS://EXAMPLE.com", want: true},
		{name: "IPv6", host: "[::1]:8080", origin: "http://[::1]:8080", want: true},
		{name: "another port", host: "example.com:8080", origin: "http://example.com:8081"},
		{name: "the port of another scheme", host: "example.com:80", origin: "https://example.com"},
		{name: "another host", host: "example.com", origin: "https://example.org"},
		{name: "a subdomain is another host", host: "example.com", origin: "https://a.example.com"},
		{name: "a longer host", host: "example.com", origin: "https://example.com.evil.org"},
		{name: "a host in front", host: "example.com", origin: "https://evilexample.com"},
		{name: "null", host: "example.com", origin: "null"},
		{name: "empty", host: "example.com", origin: ""},
		{name: "a user in front", host: "example.com", origin: "https://example.com@evil.org"},
		{name: "a user in front of us", host: "example.com", origin: "https://evil.org@example.com"},
		{name: "a path", host: "example.com", origin: "https://example.com/path"},
		{name: "another scheme", host: "example.com", origin: "file://example.com"},
		{name: "trusted beside the same host", trusted: []string{"http://127.0.0.1:8081"}, host: "example.com", origin: "http://127.0.0.1:8081", want: true},
		{name: "not trusted beside the same host", trusted: []string{"http://127.0.0.1:8081"}, host: "example.com", origin: "http://127.0.0.1:8082"},

		{name: "exact", allowed: []string{"https://app.example.com"}, host: "ws.example.com", origin: "https://app.example.com", want: true},
		{name: "exact with the default port", allowed: []string{"https://app.example.com:443"}, host: "x", origin: "https://app.example.com", want: true},
		{name: "exact, another scheme", allowed: []string{"https://app.example.com"}, host: "x", origin: "http://app.example.com"},
		{name: "a list replaces the same host", allowed: []string{"https://app.example.com"}, host: "ws.example.com", origin: "https://ws.example.com"},
		{name: "a list replaces the trusted", allowed: []string{"https://a.b"}, trusted: []string{"http://127.0.0.1:8081"}, host: "x", origin: "http://127.0.0.1:8081"},
		{name: "wildcard", allowed: []string{"https://*.example.com"}, host: "x", origin: "https://a.b.example.com", want: true},
		{name: "wildcard, upper case", allowed: []string{"https://*.Example.com"}, host: "x", origin: "https://A.example.com", want: true},
		{name: "wildcard is not the domain itself", allowed: []string{"https://*.example.com"}, host: "x", origin: "https://example.com"},
		{name: "wildcard needs the dot", allowed: []string{"https://*.example.com"}, host: "x", origin: "https://evilexample.com"},
		{name: "wildcard, another scheme", allowed: []string{"https://*.example.com"}, host: "x", origin: "http://a.example.com"},
		{name: "wildcard, another port", allowed: []string{"https://*.example.com"}, host: "x", origin: "https://a.example.com:8443"},
		{name: "wildcard with a port", allowed: []string{"https://*.example.com:8443"}, host: "x", origin: "https://a.example.com:8443", want: true},
		{name: "wildcard and a user", allowed: []string{"https://*.example.com"}, host: "x", origin: "https://evil.org?a.example.com"},
		{name: "everything", allowed: []string{"*"}, host: "x", origin: "https://anything.org", want: true},
		{name: "everything, null too", allowed: []string{"*"}, host: "x", origin: "null", want: true},
		{name: "null by name", allowed: []string{"null"}, host: "x", origin: "null", want: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, pattern := range tt.allowed {
				if !validOriginPattern(pattern) {
					t.Fatalf("pattern %q is refused", pattern)
				}
			}
			if got := newOrigins(tt.allowed, tt.trusted).allow(tt.origin, tt.host); got != tt.want {
				t.Errorf("origin %q at host %q: %v, want %v", tt.origin, tt.host, got, tt.want)
			}
		})
	}
}

func TestOriginOnTheWire(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		s.dial(t, "/ws")                                // no browser sends no Origin
		s.dial(t, "/ws", "Origin: https://example.com") // the Host of upgradeRequest
		r := roundTrip(t, s.addr, upgradeRequest("/ws", "Origin: https://evil.org"))
		if r.status != "403 Forbidden" || !strings.Contains(r.body, "https://evil.org") || !strings.Contains(r.body, "example.com") {
			t.Errorf("%q %q, want a 403 that names both", r.status, r.body)
		}
		if r := roundTrip(t, s.addr, upgradeRequest("/ws", "Origin: https://example.com", "Origin: https://evil.org")); strings.HasPrefix(r.status, "101") {
			t.Error("two origins were allowed")
		}
		// What a stranger writes into the header comes back as one line of plain text.
		r = roundTrip(t, s.addr, upgradeRequest("/ws", "Origin: https://<script>\xff\xfe</script>"))
		if r.status != "403 Forbidden" || !r.has("Content-Type: text/plain; charset=utf-8") || strings.ContainsRune(r.body, '\xff') {
			t.Errorf("%q %q%s", r.status, r.body, r.header)
		}
		await(t, "two are counted", func() bool { return s.Stats().Rejected["origin"] == 2 })
	})
}
