package server

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

func TestUpgradeHookAccepts(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		asked := make(chan *Request, 1)
		opened := make(chan Conn, 1)
		var openedWith *Request
		s := v.start(t, Config{Upgrade: func(r *Request) (Accept, error) {
			asked <- r
			return Accept{
				Protocol: "superchat", User: "ann", Value: 42, MessageSizeLimit: 10,
				Header: http.Header{"Set-Cookie": {"a=1", "b=2"}, "X-Node": {"seven"}},
			}, nil
		}}, hooks{
			open:    func(c Conn, r *Request) { openedWith = r; opened <- c },
			message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) },
		})
		p := s.dial(t, "/ws?token=secret", "Sec-WebSocket-Protocol: chat, superchat")
		for _, line := range []string{"Sec-WebSocket-Protocol: superchat", "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Node: seven"} {
			if !strings.Contains(p.response, "\r\n"+line+"\r\n") {
				t.Errorf("no line %q in\n%s", line, p.response)
			}
		}
		r := receive(t, "Upgrade", asked)
		c := receive(t, "Open", opened)
		if r.RawQuery != "token=secret" || r.Path != "/ws" || len(r.Protocols) != 2 {
			t.Errorf("request %+v", r)
		}
		if openedWith != r {
			t.Error("Open got another request than Upgrade")
		}
		if c.User() != "ann" || c.Value() != 42 {
			t.Errorf("user %q, value %v", c.User(), c.Value())
		}
		p.send(wsframe.Text, "0123456789")
		p.expect(wsframe.Text, "0123456789")
		p.send(wsframe.Text, "0123456789a")
		p.expectClose(wsframe.CloseTooBig)
	})
}

// TestMessageSizeLimitOfOne: the limit that Upgrade sets holds for that connection alone, and never above the server's.
func TestMessageSizeLimitOfOne(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{MessageSizeLimit: 100, Upgrade: func(r *Request) (Accept, error) {
			if r.RawQuery == "small" {
				return Accept{MessageSizeLimit: 10}, nil
			}
			return Accept{MessageSizeLimit: 1000}, nil
		}}, Echo{})
		small, large := s.dial(t, "/ws?small"), s.dial(t, "/ws")
		message := strings.Repeat("x", 100)
		large.send(wsframe.Binary, message)
		large.expect(wsframe.Binary, message)
		small.send(wsframe.Binary, message)
		small.expectClose(wsframe.CloseTooBig)
		large.send(wsframe.Binary, message+"x")
		large.expectClose(wsframe.CloseTooBig)
	})
}

func TestUpgradeHookRefuses(t *testing.T) {
	injected := http.Header{"X-A": {"b\r\nSet-Cookie: evil=1"}}
	tests := []struct {
		name   string
		accept Accept
		err    error
		panics bool
		status string
		lines  []string
		body   string
		reason string
	}{
		{name: "status, body and headers", err: &RefusalError{Status: 401, Body: "who are you?", Header: http.Header{"WWW-Authenticate": {"Bearer"}}}, status: "401 Unauthorized", lines: []string{"WWW-Authenticate: Bearer"}, body: "who are you?\n", reason: "upgrade"},
		{name: "wrapped", err: errors.Join(errors.New("why"), &RefusalError{Status: 429, Body: "slowly"}), status: "429 Too Many Requests", body: "slowly\n", reason: "upgrade"},
		{name: "another error says nothing to strangers", err: errors.New("database password is x"), status: "500 Internal Server Error", body: "internal error\n", reason: "upgrade"},
		{name: "a status that is no refusal", err: &RefusalError{Status: 200, Body: "no"}, status: "403 Forbidden", body: "no\n", reason: "upgrade"},
		{name: "no status", err: &RefusalError{Body: "no"}, status: "403 Forbidden", body: "no\n", reason: "upgrade"},
		{name: "a body of two lines", err: &RefusalError{Status: 403, Body: "a\r\nb\xff"}, status: "403 Forbidden", body: `a\r\nb\xff` + "\n", reason: "upgrade"},
		{name: "a header that injects a line is left out", err: &RefusalError{Status: 403, Body: "no", Header: injected}, status: "403 Forbidden", body: "no\n", reason: "upgrade"},
		{name: "panic", panics: true, status: "500 Internal Server Error", body: "internal error\n", reason: "panic"},
		{name: "an accepting header that injects a line", accept: Accept{Header: injected}, status: "500 Internal Server Error", body: "internal error\n", reason: "upgrade"},
		{name: "a header of the handshake itself", accept: Accept{Header: http.Header{"Sec-Websocket-Accept": {"x"}}}, status: "500 Internal Server Error", body: "internal error\n", reason: "upgrade"},
		{name: "a subprotocol that was not offered", accept: Accept{Protocol: "chat"}, status: "500 Internal Server Error", body: "internal error\n", reason: "upgrade"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				s := v.start(t, Config{Upgrade: func(*Request) (Accept, error) {
					if tt.panics {
						panic("in Upgrade")
					}
					return tt.accept, tt.err
				}}, hooks{open: func(Conn, *Request) { t.Error("Open was called") }, close: func(Conn, uint16, string) { t.Error("Close was called") }})
				r := roundTrip(t, s.addr, upgradeRequest("/ws"))
				if r.status != tt.status || r.body != tt.body {
					t.Errorf("%q with %q, want %q with %q", r.status, r.body, tt.status, tt.body)
				}
				for _, line := range append(tt.lines, "Connection: close") {
					if !r.has(line) {
						t.Errorf("no line %q in the header%s", line, r.header)
					}
				}
				if strings.Contains(r.header, "evil") {
					t.Errorf("a line was injected:%s", r.header)
				}
				await(t, "it is counted", func() bool { return s.Stats().Rejected[tt.reason] == 1 })
				if got := s.Stats().Panics == 1; got != tt.panics {
					t.Errorf("%d panics", s.Stats().Panics)
				}
			})
		})
	}
}

// TestBlockingUpgrade: while one Upgrade waits, others go on, its own input waits behind it, and it still ends at the timeout.
func TestBlockingUpgrade(t *testing.T) {
	t.Parallel()
	for _, v := range variants()[2:] {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			asked := make(chan struct{}, 2)
			s := v.start(t, Config{Workers: 3, HandshakeTimeout: time.Second, Upgrade: func(r *Request) (Accept, error) {
				if r.RawQuery != "" {
					asked <- struct{}{}
					<-release
				}
				return Accept{User: r.RawQuery}, nil
			}}, Echo{})
			late := newPeer(t, connect(t, s.addr))
			late.write([]byte(upgradeRequest("/ws?late")))
			receive(t, "the first question", asked)

			other := s.dial(t, "/ws")
			other.send(wsframe.Text, "others go on")
			other.expect(wsframe.Text, "others go on")

			r := readResponse(t, late)
			if r.status != "408 Request Timeout" {
				t.Errorf("the one that took too long: %q", r.status)
			}
			slow := newPeer(t, connect(t, s.addr))
			slow.write(append([]byte(upgradeRequest("/ws?slow")), masked(wsframe.Text, true, "early")...))
			receive(t, "the second question", asked)
			slow.send(wsframe.Text, "later")
			close(release)
			slow.readUpgrade()
			slow.expect(wsframe.Text, "early")
			slow.expect(wsframe.Text, "later")
			_ = late.Close()
			await(t, "the late verdict is dropped", func() bool { return s.Stats().Active == 2 && s.Stats().Handshakes == 0 })
		})
	}
}

// TestPeerLeavesDuringUpgrade: the verdict on somebody who left meanwhile harms nobody, the next one in its slot least of all.
func TestPeerLeavesDuringUpgrade(t *testing.T) {
	for _, v := range variants()[2:] {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			asked, release := make(chan struct{}), make(chan struct{})
			s := v.start(t, Config{HandshakeTimeout: 100 * time.Millisecond, Upgrade: func(r *Request) (Accept, error) {
				if r.RawQuery == "gone" {
					asked <- struct{}{}
					<-release
				}
				return Accept{User: r.RawQuery}, nil
			}}, hooks{open: func(c Conn, _ *Request) { _ = c.Send(Text, []byte(c.User())) }})
			gone := newPeer(t, connect(t, s.addr))
			gone.write([]byte(upgradeRequest("/ws?gone")))
			receive(t, "the question", asked)
			gone.reset()
			await(t, "it is forgotten", func() bool { return s.Stats().Handshakes == 0 })
			next := s.dial(t, "/ws?next") // in the same slot
			next.expect(wsframe.Text, "next")
			close(release)
			another := s.dial(t, "/ws?another")
			another.expect(wsframe.Text, "another")
			next.send(wsframe.Ping, "still there")
			next.expect(wsframe.Pong, "still there")
		})
	}
}

// TestErrorsAsClose: a browser can't see the status of a refused upgrade. Who asks gets it as a Close frame.
func TestErrorsAsClose(t *testing.T) {
	refuse := func(status int, header http.Header) func(*Request) (Accept, error) {
		return func(*Request) (Accept, error) {
			return Accept{}, &RefusalError{Status: status, Body: "no", Header: header}
		}
	}
	tests := []struct {
		name   string
		cfg    Config
		lines  []string
		code   wsframe.CloseCode // 0: the plain status
		status string
		reason string
	}{
		{name: "401", cfg: Config{Upgrade: refuse(401, nil)}, code: wsframe.CloseToken, reason: "refused"},
		{name: "403", cfg: Config{Upgrade: refuse(403, nil)}, code: wsframe.CloseKicked, reason: "refused"},
		{name: "429", cfg: Config{Upgrade: refuse(429, nil)}, code: wsframe.CloseOverload, reason: "refused"},
		{name: "503 with the time to wait", cfg: Config{Upgrade: refuse(503, http.Header{"retry-after": {"17"}})}, code: wsframe.CloseOverload, reason: "refused; retry-after=17"},
		{name: "origin", lines: []string{"Origin: https://evil.org"}, code: wsframe.CloseKicked, reason: "origin"},
		{name: "a status without a code", cfg: Config{Upgrade: refuse(418, nil)}, status: "418 I'm a teapot"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				s := v.start(t, tt.cfg, hooks{open: func(Conn, *Request) { t.Error("Open was called") }})
				if tt.code == 0 {
					if r := roundTrip(t, s.addr, upgradeRequest("/ws?errors=close", tt.lines...)); r.status != tt.status {
						t.Errorf("status %q, want %q", r.status, tt.status)
					}
					return
				}
				p := s.dial(t, "/ws?errors=close", tt.lines...)
				if reason := p.expectClose(tt.code); reason != tt.reason {
					t.Errorf("reason %q, want %q", reason, tt.reason)
				}
				if n := s.Stats().Total; n != 0 {
					t.Errorf("%d connections were upgraded", n)
				}
			})
		})
	}
}
