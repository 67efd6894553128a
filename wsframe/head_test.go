package wsframe

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestParseHeadRefuses has the ways in which a head can be malformed (RFC 9112) or too large.
func TestParseHeadRefuses(t *testing.T) {
	const get, host = "GET / HTTP/1.1", "Host: a"
	lim := HeadLimits{Bytes: 300, LineBytes: 100, Headers: 5}
	cases := []struct {
		name   string
		head   string
		reason string
	}{
		{name: "TLS", head: "\x16\x03\x01\x02", reason: "tls-on-plain-port"},
		{name: "no method", head: " / HTTP/1.1\r\n\r\n", reason: "bad-request-line"},
		{name: "leading empty line", head: "\r\n" + request(get, host), reason: "bad-request-line"},
		{name: "method no token", head: request("G@T / HTTP/1.1", host), reason: "bad-request-line"},
		{name: "two words", head: request("GET /", host), reason: "bad-request-line"},
		{name: "no target", head: request("GET  HTTP/1.1", host), reason: "bad-request-line"},
		{name: "four words", head: request("GET / x HTTP/1.1", host), reason: "bad-http-version"},
		{name: "two spaces", head: request("GET /  HTTP/1.1", host), reason: "bad-http-version"},
		{name: "tab for a space", head: request("GET\t/ HTTP/1.1", host), reason: "bad-request-line"},
		{name: "HTTP/2.0", head: request("PRI * HTTP/2.0"), reason: "bad-http-version"},
		{name: "HTTP/1.2", head: request("GET / HTTP/1.2", host), reason: "bad-http-version"},
		{name: "lower case version", head: request("GET / http/1.1", host), reason: "bad-http-version"},
		{name: "fragment", head: request("GET /ws#x HTTP/1.1", host), reason: "bad-target"},
		{name: "not ASCII", head: request("GET /wß HTTP/1.1", host), reason: "bad-target"},
		{name: "NUL in the target", head: request("GET /\x00 HTTP/1.1", host), reason: "bad-target"},
		{name: "broken escape", head: request("GET /%zz HTTP/1.1", host), reason: "bad-target"},
		{name: "escape cut short", head: request("GET /%4 HTTP/1.1", host), reason: "bad-target"},
		{name: "asterisk", head: request("OPTIONS * HTTP/1.1", host), reason: "bad-target"},
		{name: "authority", head: request("CONNECT a:80 HTTP/1.1", host), reason: "bad-target"},
		{name: "relative target", head: request("GET ws HTTP/1.1", host), reason: "bad-target"},
		{name: "foreign scheme", head: request("GET ftp://a/ws HTTP/1.1", host), reason: "bad-target"},
		{name: "absolute without host", head: request("GET http:///ws HTTP/1.1", host), reason: "bad-target"},
		{name: "user in the target", head: request("GET http://u:p@a/ws HTTP/1.1", host), reason: "bad-target"},
		{name: "bare LF in the request line", head: "GET / HTTP/1.1\nHost: a\r\n\r\n", reason: "bare-lf"},
		{name: "bare LF between fields", head: "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", reason: "bare-lf"},
		{name: "bare LF at the end", head: "GET / HTTP/1.1\r\nHost: a\r\n\n", reason: "bare-lf"},
		{name: "bare CR before the end", head: "GET / HTTP/1.1\r\nHost: a\rb", reason: "bare-cr"},
		{name: "bare CR in a value", head: request(get, host, "X: a\rb"), reason: "bare-cr"},
		{name: "CR twice at the end of a line", head: "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", reason: "bare-cr"},
		{name: "NUL in a value", head: request(get, host, "X: a\x00b"), reason: "bad-header-value"},
		{name: "DEL in a long value", head: request(get, host, "X: 0123456789abc\x7f0123456789"), reason: "bad-header-value"},
		{name: "control after a tab", head: request(get, host, "X: 0\t23456\x01"), reason: "bad-header-value"},
		{name: "folded line", head: request(get, host, "X: a", " b"), reason: "folded-header"},
		{name: "folded first line", head: request(get, "\tX: a", host), reason: "folded-header"},
		{name: "no colon", head: request(get, host, "X"), reason: "bad-header-name"},
		{name: "blank before colon", head: request(get, "Host : a"), reason: "bad-header-name"},
		{name: "no name", head: request(get, host, ": a"), reason: "bad-header-name"},
		{name: "name no token", head: request(get, host, "X(y): a"), reason: "bad-header-name"},
		{name: "no Host", head: request(get, "X: y"), reason: "no-host"},
		{name: "Host twice", head: request(get, host, "HOST: a"), reason: "duplicate-host"},
		{name: "Host with a path", head: request(get, "Host: a/b"), reason: "bad-host"},
		{name: "Host with a user", head: request(get, "Host: u@a"), reason: "bad-host"},
		{name: "Host with a bad port", head: request(get, "Host: a:8x"), reason: "bad-host"},
		{name: "Host of two", head: request(get, "Host: a, b"), reason: "bad-host"},
		{name: "Host with open bracket", head: request(get, "Host: [::1"), reason: "bad-host"},
		{name: "request line too long", head: request("GET /" + strings.Repeat("x", 100) + " HTTP/1.1"), reason: "line-too-long"},
		{name: "field too long", head: request(get, host, "X: "+strings.Repeat("y", 96)), reason: "line-too-long"},
		{name: "too many fields", head: request(get, host, "A: 1", "B: 2", "C: 3", "D: 4", "E: 5"), reason: "too-many-headers"},
		{name: "too large", head: request(get, host, "X: "+strings.Repeat("y", 90), "X: "+strings.Repeat("y", 90), "X: "+strings.Repeat("y", 90)), reason: "head-too-large"},
		{name: "too large without an end", head: "GET /" + strings.Repeat("x", 295), reason: "head-too-large"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, r := parse(t, c.head, lim)
			if r == nil || r.Reason != c.reason {
				t.Fatalf("got %v, want %q", r, c.reason)
			}
			want := http.StatusBadRequest
			if strings.Contains(c.reason, "too-") {
				want = http.StatusRequestHeaderFieldsTooLarge
			}
			if r.Status != want {
				t.Errorf("status: got %d, want %d", r.Status, want)
			}
			// Dripped in, it is refused too, at the latest with its last byte.
			scanned := 0
			for i := 1; i <= len(c.head); i++ {
				if _, n, err := ParseHead([]byte(c.head[:i]), &scanned, lim); err != nil {
					return
				} else if n != 0 {
					t.Fatalf("accepted after %d bytes", i)
				}
			}
			t.Error("byte by byte it is never refused")
		})
	}
}

// TestParseHeadAtTheLimits: each bound is inclusive.
func TestParseHeadAtTheLimits(t *testing.T) {
	head := request("GET / HTTP/1.1", "Host: a", "X: "+strings.Repeat("y", 40))
	exact := HeadLimits{Bytes: len(head), LineBytes: 45, Headers: 2}
	if _, r := parse(t, head, exact); r != nil {
		t.Errorf("at the limits: %v", r)
	}
	for _, c := range []struct {
		name string
		lim  HeadLimits
	}{
		{name: "bytes", lim: HeadLimits{Bytes: len(head) - 1}},
		{name: "line", lim: HeadLimits{LineBytes: 44}},
		{name: "headers", lim: HeadLimits{Headers: 1}},
	} {
		if _, r := parse(t, head, c.lim); r == nil || r.Status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s beyond the limit: %v", c.name, r)
		}
	}
	// What follows the head, such as a frame sent too early, does not count.
	scanned := 0
	if _, n, err := ParseHead([]byte(head+"more than the limit"), &scanned, exact); n != len(head) || err != nil {
		t.Errorf("with bytes after it: %d %v", n, err)
	}
}

func TestHeadFields(t *testing.T) {
	h, r := parse(t, request("GET /ws/a%20b?x=1&y=2?3 HTTP/1.1", "hOST: [::1]:8080", "X-A:  one \t", "x-a:two", "Origin: https://a",
		"Sec-WebSocket-Protocol: chat,, super ", "SEC-WEBSOCKET-PROTOCOL: \"last\"", "Empty:"), HeadLimits{})
	if r != nil {
		t.Fatal(r)
	}
	got := []string{string(h.Method), string(h.Path), string(h.RawQuery), string(h.Host)}
	if want := []string{"GET", "/ws/a%20b", "x=1&y=2?3", "[::1]:8080"}; !slices.Equal(got, want) || h.Minor != 1 {
		t.Errorf("got %q, minor %d, want %q", got, h.Minor, want)
	}
	for _, c := range []struct {
		name, value string
		count       int
	}{{"X-a", "one", 2}, {"origin", "https://a", 1}, {"empty", "", 1}, {"none", "", 0}, {"host", "[::1]:8080", 1}} {
		if value, count := h.Header(c.name); string(value) != c.value || count != c.count {
			t.Errorf("%s: got %q %d, want %q %d", c.name, value, count, c.value, c.count)
		}
	}
	var protocols []string
	for p := range h.Protocols {
		protocols = append(protocols, string(p))
	}
	if want := []string{"chat", "super", `"last"`}; !slices.Equal(protocols, want) {
		t.Errorf("protocols: got %q, want %q", protocols, want)
	}
	for p := range h.Tokens("sec-websocket-protocol") {
		if string(p) != "chat" {
			t.Errorf("the first token: got %q", p)
		}
		break
	}
	var names []string
	for name := range h.Each {
		if names = append(names, string(name)); len(names) == 3 {
			break
		}
	}
	if want := []string{"hOST", "X-A", "x-a"}; !slices.Equal(names, want) {
		t.Errorf("names: got %q, want %q", names, want)
	}
}

// TestTargets: RFC 9112, section 3.2: origin form and absolute form, whose host wins over the field.
func TestTargets(t *testing.T) {
	for _, c := range []struct{ name, target, path, query, host string }{
		{"origin form", "/ws?a", "/ws", "a", "field:1"},
		{"two slashes", "//ws", "//ws", "", "field:1"},
		{"absolute", "http://target:2/ws?a", "/ws", "a", "target:2"},
		{"websocket scheme", "WS://target/ws", "/ws", "", "target"},
		{"secure schemes", "wss://target/", "/", "", "target"},
		{"no path", "https://target", "/", "", "target"},
		{"query without path", "http://[::1]?a=b", "/", "a=b", "[::1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, r := parse(t, request("GET "+c.target+" HTTP/1.1", "Host: field:1"), HeadLimits{})
			if r != nil || string(h.Path) != c.path || string(h.RawQuery) != c.query || string(h.Host) != c.host {
				t.Errorf("got %v %q %q %q", r, h.Path, h.RawQuery, h.Host)
			}
		})
	}
}

// TestHTTP10WithoutHost: health checks of balancers are like that, and are no upgrade.
func TestHTTP10WithoutHost(t *testing.T) {
	h, r := parse(t, request("GET /healthz HTTP/1.0"), HeadLimits{})
	if r != nil || h.Minor != 0 || string(h.Path) != "/healthz" {
		t.Errorf("got %v %q", r, h.Path)
	}
}

// TestEqualFold compares ASCII letters without case and nothing else: bytes that differ in the same bit are no letters.
func TestEqualFold(t *testing.T) {
	for _, c := range []struct {
		name string
		p, s string
		want bool
	}{
		{name: "letters", p: "WebSocket", s: "webSOCKET", want: true},
		{name: "other length", p: "websocket", s: "websockets"},
		{name: "hyphen and CR", p: "a-b", s: "a\rb"},
		{name: "at and grave", p: "@", s: "`"},
		{name: "bracket and brace", p: "[", s: "{"},
		{name: "Kelvin sign", p: "websoc\u212Aet", s: "websocket"},
	} {
		if got := equalFold([]byte(c.p), c.s); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
