package server

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

func TestUnixSocket(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		path := filepath.Join(t.TempDir(), "s")
		opens := make(chan Conn, 10)
		s := v.start(t, Config{Listen: []string{"unix:" + path}, ConnectionLimitPerIP: 1}, hooks{
			open:    func(c Conn, _ *Request) { opens <- c },
			message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) },
		})
		if s.addr != path {
			t.Fatalf("bound to %q, want %q", s.addr, path)
		}
		p, q := s.dial(t, "/ws"), s.dial(t, "/ws") // nobody's address: the limit per address doesn't count them
		c := receive(t, "Open", opens)
		if c.RemoteAddr().IsValid() {
			t.Errorf("remote address %v on a Unix socket", c.RemoteAddr())
		}
		// A short read doesn't mean that a Unix socket is empty: what comes in many writes must not be left lying.
		for range 50 {
			payload := randomText(5000)
			frame := masked(wsframe.Binary, true, payload)
			for len(frame) > 0 {
				n := min(len(frame), 700)
				p.write(frame[:n])
				frame = frame[n:]
			}
			p.expect(wsframe.Binary, payload)
		}
		q.send(wsframe.Close, "\x03\xe8")
		q.expectClose(1000)
		_ = q.Close()
		if err := p.Conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.expectEnd()
	})
}

// TestDualStack: one listener takes both families, and mapped addresses are shown as what they are.
func TestDualStack(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		opens := make(chan Conn, 10)
		s := v.start(t, Config{Listen: []string{":0"}, ConnectionLimitPerIP: 1}, hooks{open: func(c Conn, _ *Request) { opens <- c }})
		_, port, err := net.SplitHostPort(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"127.0.0.1", "::1"} {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), patience)
			if err != nil {
				t.Fatalf("%s: %v", host, err)
			}
			t.Cleanup(func() { _ = c.Close() })
			p := newPeer(t, c)
			p.write([]byte(upgradeRequest("/ws")))
			p.readUpgrade() // each is the only one of its address
			conn := receive(t, "Open", opens)
			if got, want := conn.RemoteAddr().String(), c.LocalAddr().String(); got != want {
				t.Errorf("remote address %s, want %s", got, want)
			}
			if info, _ := conn.Info(); info.RemoteAddr != conn.RemoteAddr() {
				t.Errorf("info has %v", info.RemoteAddr)
			}
			refused := roundTrip(t, c.RemoteAddr().String(), upgradeRequest("/ws"))
			if refused.status != "429 Too Many Requests" {
				t.Errorf("the second one of %s: %q", host, refused.status)
			}
		}
	})
}

func TestSeveralListeners(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		path := filepath.Join(t.TempDir(), "s")
		s := v.start(t, Config{Listen: []string{"127.0.0.1:0", "unix:" + path, "127.0.0.1:0"}, Loops: 2}, Echo{})
		for _, addr := range s.Addrs() {
			p := newPeer(t, connect(t, addr.String()))
			p.write([]byte(upgradeRequest("/ws")))
			p.readUpgrade()
			p.send(wsframe.Text, "hello")
			p.expect(wsframe.Text, "hello")
		}
	})
}

// TestListenSyntax: what is no address at all is told with everything else that is wrong, before anything is bound.
func TestListenSyntax(t *testing.T) {
	for _, address := range []string{"nonsense", "127.0.0.1", "127.0.0.1:", ":99999", "unix:", "a:b:c"} {
		if _, err := New(Config{Listen: []string{address}, Path: "?"}, Echo{}); err == nil || strings.Count(err.Error(), "\n") != 1 {
			t.Errorf("%q: %v, want two lines", address, err)
		}
	}
}

// TestListenErrors: what can't be bound ends Serve at once, with an error that says which, and leaves nothing open.
func TestListenErrors(t *testing.T) {
	taken := start(t, Config{}, Echo{})
	for _, tt := range []struct {
		name   string
		listen []string
		want   error
	}{
		{"a taken port", []string{taken.addr}, poller.ErrInUse},
		{"the second one is taken", []string{"127.0.0.1:0", taken.addr}, poller.ErrInUse},
		{"no such directory", []string{"unix:/nonexistent/directory/socket"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := New(Config{Listen: tt.listen}, Echo{})
			if err != nil {
				t.Fatal(err)
			}
			shut := make(chan error, 1)
			go func() { // a Shutdown that comes meanwhile must not wait for a start that never comes
				<-s.stopped
				shut <- s.Shutdown(t.Context())
			}()
			err = s.Serve()
			if err == nil || errors.Is(err, ErrClosed) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Serve: %v, want %v", err, tt.want)
			}
			if err := receive(t, "Shutdown", shut); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if s.Addrs() != nil || s.Ready() == nil {
				t.Errorf("addresses %v, ready %v", s.Addrs(), s.Ready())
			}
			if st := s.Stats(); st.Active != 0 {
				t.Errorf("stats %+v", st)
			}
		})
	}
	taken.dial(t, "/ws") // still served
}

// TestNothingListens: a server that only adopts has no address.
func TestNothingListens(t *testing.T) {
	s := start(t, Config{Listen: []string{"none"}}, Echo{})
	if len(s.Addrs()) != 0 || s.Ready() != nil {
		t.Errorf("addresses %v, ready %v", s.Addrs(), s.Ready())
	}
	during(50*time.Millisecond, func() {}) // an idle loop without a timer
}

// TestConfigErrors: all that is wrong is told at once.
func TestConfigErrors(t *testing.T) {
	_, err := New(Config{Path: "ws", HeartbeatInterval: time.Millisecond, Workers: -1, AllowedOrigins: []string{"example.com"}}, nil)
	var several interface{ Unwrap() []error }
	if !errors.As(err, &several) || len(several.Unwrap()) != 4 {
		t.Errorf("got %v, want four complaints", err)
	}
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"path with a query", Config{Path: "/ws?x"}},
		{"path of the health checks", Config{Path: "/healthz"}},
		{"timeout below twice the interval", Config{HeartbeatInterval: 10 * time.Second, HeartbeatTimeout: 19 * time.Second}},
		{"mode", Config{HeartbeatMode: 9}},
		{"bounds of the interval", Config{HeartbeatMin: time.Minute, HeartbeatMax: time.Second}},
		{"largest interval", Config{HeartbeatMax: time.Hour}},
		{"JSON heartbeats", Config{JSONHeartbeats: 9}},
		{"handshake timeout", Config{HandshakeTimeout: time.Microsecond}},
		{"handshake size", Config{HandshakeSizeLimit: 1 << 20}},
		{"loops", Config{Loops: 1000}},
		{"drain rate", Config{DrainRate: -1}},
		{"shutdown timeout", Config{ShutdownTimeout: -1}},
		{"origin with a path", Config{AllowedOrigins: []string{"https://example.com/x"}}},
		{"origin with a star inside", Config{AllowedOrigins: []string{"https://a*.example.com"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.cfg, nil); err == nil {
				t.Error("no complaint")
			}
			if err := tt.cfg.Validate(); err == nil {
				t.Error("Validate doesn't complain")
			}
		})
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}
