package server

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

func TestUpgrade(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		opened := make(chan *Request, 1)
		s := v.start(t, Config{Path: "/sockets"}, hooks{open: func(_ Conn, r *Request) { opened <- r }})
		p := s.dial(t, "/sockets?a=1&b=%20x", "User-Agent: test", "X-Two: 1", "X-Two: 2", "Sec-WebSocket-Protocol: chat, superchat")
		for _, line := range []string{"HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="} {
			if !strings.Contains("\r\n"+p.response, "\r\n"+line+"\r\n") {
				t.Errorf("no line %q in the response\n%s", line, p.response)
			}
		}
		if strings.Contains(p.response, "Sec-WebSocket-Protocol") || strings.Contains(p.response, "Sec-WebSocket-Extensions") {
			t.Errorf("a subprotocol or an extension that nobody chose:\n%s", p.response)
		}
		r := receive(t, "Open", opened)
		if r.Method != "GET" || r.Path != "/sockets" || r.RawQuery != "a=1&b=%20x" || r.Host != "example.com" || r.Query().Get("b") != " x" {
			t.Errorf("request %+v", r)
		}
		if got := strings.Join(r.Header.Values("X-Two"), ","); got != "1,2" || r.Header.Get("user-agent") != "test" {
			t.Errorf("header %v", r.Header)
		}
		if got := strings.Join(r.Protocols, ","); got != "chat,superchat" {
			t.Errorf("subprotocols %q", got)
		}
		if got, want := r.RemoteAddr.String(), p.LocalAddr().String(); got != want {
			t.Errorf("remote address %s, want %s", got, want)
		}
		await(t, "it is counted", func() bool {
			st := s.Stats()
			return st.Active == 1 && st.Total == 1 && st.Handshakes == 0
		})
	})
}

// TestRefusals: each refusal has its status and its headers, says why in one line, and closes.
func TestRefusals(t *testing.T) {
	valid := upgradeRequest("/ws")
	without := func(header string) string {
		lines := strings.SplitAfter(valid, "\r\n")
		kept := lines[:0:0]
		for _, line := range lines {
			if !strings.HasPrefix(line, header+":") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	with := func(old, new string) string { return strings.Replace(valid, old, new, 1) }
	tests := []struct {
		name    string
		request string
		status  string
		lines   []string // of the header
		body    string   // a part
		reason  string   // label of the count
	}{
		{name: "another path", request: upgradeRequest("/other"), status: "404 Not Found", reason: "path"},
		{name: "a longer path", request: upgradeRequest("/ws/"), status: "404 Not Found", reason: "path"},
		{name: "post", request: with("GET ", "POST "), status: "405 Method Not Allowed", lines: []string{"Allow: GET"}, reason: "malformed"},
		{name: "head", request: with("GET ", "HEAD "), status: "405 Method Not Allowed", lines: []string{"Allow: GET"}, reason: "malformed"},
		{name: "no upgrade at all", request: "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", status: "426 Upgrade Required", lines: []string{"Upgrade: websocket"}, reason: "malformed"},
		{name: "another version", request: with("Version: 13", "Version: 8"), status: "426 Upgrade Required", lines: []string{"Sec-WebSocket-Version: 13"}, reason: "malformed"},
		{name: "no version", request: without("Sec-WebSocket-Version"), status: "400 Bad Request", lines: []string{"Sec-WebSocket-Version: 13"}, reason: "malformed"},
		{name: "no key", request: without("Sec-WebSocket-Key"), status: "400 Bad Request", body: "Sec-WebSocket-Key", reason: "malformed"},
		{name: "short key", request: with("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), status: "400 Bad Request", body: "Sec-WebSocket-Key", reason: "malformed"},
		{name: "the proxy dropped Upgrade", request: without("Upgrade"), status: "400 Bad Request", body: "proxy", reason: "malformed"},
		{name: "the proxy speaks HTTP/1.0", request: with("HTTP/1.1", "HTTP/1.0"), status: "400 Bad Request", body: "proxy", reason: "malformed"},
		{name: "no host", request: without("Host"), status: "400 Bad Request", body: "Host", reason: "malformed"},
		{name: "a body", request: with("Host:", "Content-Length: 5\r\nHost:"), status: "400 Bad Request", reason: "malformed"},
		{name: "bare line feeds", request: strings.ReplaceAll(valid, "\r\n", "\n"), status: "400 Bad Request", reason: "malformed"},
		{name: "TLS on the plain port", request: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", status: "400 Bad Request", body: "TLS", reason: "malformed"},
		{name: "no HTTP", request: "\x00\x01\x02\x03", status: "400 Bad Request", reason: "malformed"},
		{name: "a head too large", request: "GET /ws HTTP/1.1\r\n" + strings.Repeat("X: "+strings.Repeat("y", 500)+"\r\n", 20), status: "431 Request Header Fields Too Large", reason: "malformed"},
		{name: "a line too long", request: "GET /ws HTTP/1.1\r\nX: " + strings.Repeat("y", 5000) + "\r\n\r\n", status: "431 Request Header Fields Too Large", reason: "malformed"},
		{name: "too many lines", request: "GET /ws HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 200) + "\r\n", status: "431 Request Header Fields Too Large", reason: "malformed"},
	}
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		for _, tt := range tests {
			before := s.Stats().Rejected[tt.reason]
			r := roundTrip(t, s.addr, tt.request)
			if r.status != tt.status {
				t.Errorf("%s: status %q, want %q (%q)", tt.name, r.status, tt.status, r.body)
			}
			for _, line := range append(tt.lines, "Connection: close") {
				if !r.has(line) {
					t.Errorf("%s: no line %q in the header%s", tt.name, line, r.header)
				}
			}
			if !strings.Contains(r.body, tt.body) || strings.Count(r.body, "\n") != 1 || !strings.HasSuffix(r.body, "\n") {
				t.Errorf("%s: body %q, want one line with %q in it", tt.name, r.body, tt.body)
			}
			await(t, "the refusal is counted: "+tt.name, func() bool { return s.Stats().Rejected[tt.reason] == before+1 })
		}
		if n := s.Stats().Total; n != 0 {
			t.Errorf("%d connections were upgraded", n)
		}
	})
}

func TestHealthChecks(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{ConnectionLimit: 1, DrainDelay: time.Hour}, Echo{})
		check := func(name, method, path, status, body string) {
			t.Helper()
			r := roundTrip(t, s.addr, method+" "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			if r.status != status || r.body != body || !r.has("Connection: close") {
				t.Errorf("%s: %s %s: %q with body %q, want %q with %q%s", name, method, path, r.status, r.body, status, body, r.header)
			}
		}
		check("idle", "GET", "/healthz", "200 OK", "ok\n")
		check("idle", "GET", "/readyz", "200 OK", "ok\n")
		check("idle", "GET", "/readyz?verbose", "200 OK", "ok\n")
		check("the answer to HEAD has no body (RFC 9110, 9.3.2)", "HEAD", "/healthz", "200 OK", "")
		if r := roundTrip(t, s.addr, "HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n"); !r.has("Content-Length: 3") {
			t.Errorf("HEAD tells another length than GET:%s", r.header)
		}
		if r := roundTrip(t, s.addr, "POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); r.status != "405 Method Not Allowed" || !r.has("Allow: GET, HEAD") {
			t.Errorf("POST: %q%s", r.status, r.header)
		}

		p := s.dial(t, "/ws")
		check("at the limit", "GET", "/healthz", "200 OK", "ok\n")
		check("at the limit", "GET", "/readyz", "503 Service Unavailable", "at the connection limit\n")
		_ = p.Close()
		await(t, "there is room again", func() bool { return s.Ready() == nil })
		check("room again", "GET", "/readyz", "200 OK", "ok\n")

		ctx, cancel := context.WithCancel(t.Context())
		shut := make(chan error, 1)
		go func() { shut <- s.Shutdown(ctx) }()
		await(t, "the shutdown began", func() bool { return s.Ready() != nil })
		check("draining", "GET", "/healthz", "200 OK", "ok\n")
		check("draining", "GET", "/readyz", "503 Service Unavailable", "draining\n")
		cancel()
		receive(t, "the end of the shutdown", shut)
		for reason, n := range s.Stats().Rejected {
			if n != 0 && reason != "malformed" { // the POST
				t.Errorf("health checks count as refused handshakes: %d of %s", n, reason)
			}
		}
	})
}

// TestDrippedHead sends the head byte by byte: each write is a segment, and most of them an event of its own.
func TestDrippedHead(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HandshakeTimeout: time.Minute}, Echo{})
		p := newPeer(t, connect(t, s.addr))
		for _, b := range []byte(upgradeRequest("/ws")) {
			p.write([]byte{b})
		}
		p.readUpgrade()
		p.send(wsframe.Text, "hello")
		p.expect(wsframe.Text, "hello")
	})
}

// TestFramesBehindTheHead: a client that knows the server need not wait for the 101 before it sends.
func TestFramesBehindTheHead(t *testing.T) {
	upgrade := func(*Request) (Accept, error) { return Accept{}, nil }
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"without Upgrade", Config{}},
		{"with Upgrade", Config{Upgrade: upgrade}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				h, _, messages, _ := reporter()
				s := v.start(t, tt.cfg, h)
				long := strings.Repeat("x", 30_000)
				early := append(masked(wsframe.Text, true, "one"), masked(wsframe.Ping, true, "p")...)
				early = append(early, masked(wsframe.Binary, true, long)...)
				last := masked(wsframe.Text, true, "three")
				early = append(early, last[:3]...)
				p := newPeer(t, connect(t, s.addr))
				p.write(append([]byte(upgradeRequest("/ws")), early...))
				p.readUpgrade()
				p.expect(wsframe.Pong, "p")
				p.write(last[3:])
				for _, want := range []string{"text one", "binary " + long, "text three"} {
					if got := receive(t, "a message", messages); got != want {
						t.Fatalf("got %.50q, want %.50q", got, want)
					}
				}
			})
		})
	}
}

// TestHalfHeadTimesOut: no head, half a head and a dripping head all end at the timeout, with 408, and hold no goroutine.
func TestHalfHeadTimesOut(t *testing.T) {
	const timeout = 400 * time.Millisecond
	for _, tt := range []struct{ name, sent string }{
		{"nothing", ""},
		{"half a head", "GET /ws HTTP/1.1\r\nHost: exam"},
		{"all but the last byte", strings.TrimSuffix(upgradeRequest("/ws"), "\n")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, runners(), func(t *testing.T, v variant) {
				s := v.start(t, Config{HandshakeTimeout: timeout}, Echo{})
				before := time.Now()
				c := connect(t, s.addr)
				if _, err := io.WriteString(c, tt.sent); err != nil {
					t.Fatal(err)
				}
				after := time.Now()
				r := readResponse(t, c)
				if r.status != "408 Request Timeout" {
					t.Errorf("status %q", r.status)
				}
				if took := time.Since(before); took < timeout {
					t.Errorf("it took %v, less than %v", took, timeout)
				}
				if took := time.Since(after); took > timeout+2*tick+slack {
					t.Errorf("it took %v, far more than %v", took, timeout)
				}
				_ = c.Close()
				await(t, "the timeout is counted", func() bool { return s.Stats().Rejected["timeout"] == 1 })
			})
		})
	}
}

// TestHandshakeTimeoutIsNotRefreshed: a peer that drips its head without end is not heard into a longer life.
func TestHandshakeTimeoutIsNotRefreshed(t *testing.T) {
	const timeout = 400 * time.Millisecond
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HandshakeTimeout: timeout}, Echo{})
		c := connect(t, s.addr)
		began := time.Now()
		_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nX-Drip: ")
		dripping := make(chan struct{})
		go func() {
			defer close(dripping)
			during(2*timeout, func() { _, _ = io.WriteString(c, "x") }) // fails once the server has closed
		}()
		if r := readResponse(t, c); r.status != "408 Request Timeout" {
			t.Errorf("status %q", r.status)
		}
		if took := time.Since(began); took < timeout || took > timeout+2*tick+slack {
			t.Errorf("it took %v, want %v", took, timeout)
		}
		receive(t, "the end of the drip", dripping)
		_ = c.Close()
	})
}

// TestLargestHead fills the read buffer with a head that has no end: nothing is left to read into, and that must not be
// taken for an empty read.
func TestLargestHead(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HandshakeSizeLimit: readBytes}, Echo{})
		line := "X: " + strings.Repeat("y", 2000) + "\r\n"
		head := "GET /ws HTTP/1.1\r\n" + strings.Repeat(line, readBytes/len(line)+1)
		if r := roundTrip(t, s.addr, head[:readBytes]); r.status != "431 Request Header Fields Too Large" {
			t.Errorf("status %q", r.status)
		}
		s.dial(t, "/ws")
	})
}

// TestPeerLeavesInHandshake: who leaves before the upgrade is forgotten, with its descriptor.
func TestPeerLeavesInHandshake(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		for i, leave := range []func(p *peer){
			func(p *peer) { _ = p.Close() },
			func(p *peer) { p.reset() },
		} {
			p := newPeer(t, connect(t, s.addr))
			p.write([]byte("GET /ws HT"))
			await(t, "it was accepted", func() bool { return s.Stats().Handshakes == 1 })
			leave(p)
			await(t, "it is gone", func() bool { return s.Stats().Rejected["gone"] == uint64(i+1) })
		}
		if n := s.Stats().Handshakes; n != 0 {
			t.Errorf("%d in their handshake", n)
		}
	})
}
