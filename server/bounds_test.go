package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestBounds: each bound of what a peer may send, at the limit, one beyond and far beyond. At the limit everything is served; beyond it the
// peer is told with the code of that bound, and the count has its reason. (Control frames: TestControlFlood. Heads: TestHeadBounds. Unsent
// bytes: TestSlowConsumer. Messages a second: TestMessageRateAtTheLimit. Addresses and connections: TestConnectionLimit….)
func TestBounds(t *testing.T) {
	const size, fragments = 1000, 10
	message := func(n int) string { return string(masked(wsframe.Text, true, strings.Repeat("x", n))) }
	inFragments := func(bytes, n int, part string) string {
		var all strings.Builder
		for i := range n {
			op := wsframe.Continuation
			if i == 0 {
				op = wsframe.Text
			}
			payload := part
			if i == n-1 {
				payload = strings.Repeat("x", bytes-(n-1)*len(part))
			}
			all.Write(masked(op, i == n-1, payload))
		}
		return all.String()
	}
	for _, tt := range []struct {
		name  string
		cfg   Config
		sent  string
		echo  int // bytes; 0: it is refused
		code  wsframe.CloseCode
		cause string
	}{
		{"bytes at the limit", Config{MessageSizeLimit: size}, message(size), size, 0, ""},
		{"a byte beyond", Config{MessageSizeLimit: size}, message(size + 1), 0, wsframe.CloseTooBig, "too_big"},
		{"a thousand times the bytes", Config{MessageSizeLimit: size}, message(1000 * size), 0, wsframe.CloseTooBig, "too_big"},
		{"bytes in fragments at the limit", Config{MessageSizeLimit: size}, inFragments(size, 4, strings.Repeat("x", 250)), size, 0, ""},
		{"a byte beyond in the last fragment", Config{MessageSizeLimit: size}, inFragments(size+1, 4, strings.Repeat("x", 250)), 0, wsframe.CloseTooBig, "too_big"},
		{"fragments at the limit", Config{MaxFragments: fragments}, inFragments(fragments, fragments, "x"), fragments, 0, ""},
		{"a fragment beyond", Config{MaxFragments: fragments}, inFragments(fragments+1, fragments+1, "x"), 0, wsframe.ClosePolicy, "policy"},
		{"a hundred times the fragments", Config{MaxFragments: fragments}, inFragments(100*fragments, 100*fragments, "x"), 0, wsframe.ClosePolicy, "policy"},
		{"empty fragments at the limit", Config{MaxFragments: -1}, inFragments(1, emptyFragmentsMax+1, ""), 1, 0, ""},
		{"an empty fragment beyond", Config{MaxFragments: -1}, inFragments(1, emptyFragmentsMax+2, ""), 0, wsframe.ClosePolicy, "policy"},
		{"a hundred times the empty fragments", Config{MaxFragments: -1}, inFragments(1, 100*emptyFragmentsMax, ""), 0, wsframe.ClosePolicy, "policy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, runners(), func(t *testing.T, v variant) {
				s := v.start(t, tt.cfg, Echo{})
				p := s.dial(t, "/ws")
				if _, err := p.Write([]byte(tt.sent)); err != nil && tt.echo > 0 {
					t.Fatal(err)
				}
				if tt.echo > 0 {
					p.expect(wsframe.Text, strings.Repeat("x", tt.echo))
					return
				}
				m := p.nextBut()
				if code, _, err := wsframe.ParseClose(m.Payload); m.Opcode != wsframe.Close || err != nil || code != tt.code {
					t.Errorf("got %v %q, want a Close with %d", m.Opcode, m.Payload, tt.code)
				}
				_ = p.Close()
				await(t, "it is counted", func() bool { return s.Stats().Closed[tt.cause] == 1 })
			})
		})
	}
}

// TestHeadBounds: a request head of as many bytes, as long a line and as many lines as permitted is served; one more of each is 431.
func TestHeadBounds(t *testing.T) {
	const limit = 2048
	plain := upgradeRequest("/ws")
	filled := func(bytes int) string {
		line := "X-Fill: \r\n"
		return strings.Replace(plain, "\r\n\r\n", "\r\nX-Fill: "+strings.Repeat("f", bytes-len(plain)-len(line))+"\r\n\r\n", 1)
	}
	longLine := func(bytes int) string {
		return strings.Replace(plain, "\r\n\r\n", "\r\nX-Long: "+strings.Repeat("l", bytes-len("X-Long: "))+"\r\n\r\n", 1)
	}
	lines := func(n int) string {
		return strings.Replace(plain, "\r\n\r\n", "\r\n"+strings.Repeat("X: y\r\n", n-(strings.Count(plain, "\r\n")-2))+"\r\n", 1)
	}
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HandshakeSizeLimit: limit}, Echo{})
		roomy := v.start(t, Config{}, Echo{})
		wide := v.start(t, Config{HandshakeSizeLimit: 16 << 10}, Echo{})
		for _, tt := range []struct {
			name    string
			server  *running
			request string
			status  int
		}{
			{"bytes at the limit", s, filled(limit), 101},
			{"a byte beyond", s, filled(limit + 1), 431},
			{"far beyond", s, filled(20 * limit), 431},
			{"a line at the limit", roomy, longLine(handshakeLineBytesMax - len("\r\n")), 101},
			{"a byte beyond in a line", roomy, longLine(handshakeLineBytesMax - len("\r\n") + 1), 431},
			{"a line far beyond", roomy, longLine(2 * handshakeLineBytesMax), 431},
			{"half of a large head in a line", wide, longLine(8<<10 - len("\r\n")), 101},
			{"a byte beyond it", wide, longLine(8<<10 - len("\r\n") + 1), 431},
			{"lines at the limit", roomy, lines(handshakeHeadersMax), 101},
			{"a line more", roomy, lines(handshakeHeadersMax + 1), 431},
			{"far too many lines", roomy, lines(10 * handshakeHeadersMax), 431},
		} {
			if tt.status == 101 {
				p := newPeer(t, connect(t, tt.server.addr))
				p.write([]byte(tt.request))
				p.readUpgrade()
				_ = p.Close()
			} else if r := roundTrip(t, tt.server.addr, tt.request); !strings.HasPrefix(r.status, fmt.Sprint(tt.status)) {
				t.Errorf("%s: %s, want %d", tt.name, r.status, tt.status)
			}
		}
	})
}
