package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// terms are those of a connection's heartbeats.
type terms struct {
	mode              HeartbeatMode
	interval, timeout time.Duration
}

// TestNegotiation: what a client asks for in its query is clamped to the bounds, and the timeout keeps its proportion.
func TestNegotiation(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name   string
		cfg    Config
		query  string
		accept Accept
		want   terms
	}{
		{name: "defaults", want: terms{HeartbeatPing, 25 * s, 75 * s}},
		{name: "mode only", query: "heartbeat=text", want: terms{HeartbeatText, 25 * s, 75 * s}},
		{name: "none has no interval", query: "heartbeat=none", want: terms{HeartbeatNone, 0, 75 * s}},
		{name: "interval", query: "heartbeat_interval=30s", want: terms{HeartbeatPing, 30 * s, 90 * s}},
		{name: "bare number", query: "heartbeat_interval=30", want: terms{HeartbeatPing, 30 * s, 90 * s}},
		{name: "both", query: "heartbeat=text&heartbeat_interval=1m", want: terms{HeartbeatText, 60 * s, 180 * s}},
		{name: "none, but its own timeout", query: "heartbeat=none&heartbeat_interval=1m", want: terms{HeartbeatNone, 0, 180 * s}},
		{name: "too short", query: "heartbeat_interval=10ms", want: terms{HeartbeatPing, 5 * s, 15 * s}},
		{name: "nothing", query: "heartbeat_interval=0", want: terms{HeartbeatPing, 5 * s, 15 * s}},
		{name: "too long", query: "heartbeat_interval=100h", want: terms{HeartbeatPing, 10 * time.Minute, 30 * time.Minute}},
		{name: "the timeout has a bound", cfg: Config{HeartbeatTimeout: 10 * time.Minute}, query: "heartbeat_interval=10m", want: terms{HeartbeatPing, 10 * time.Minute, 30 * time.Minute}},
		{name: "the bounds are not of the server's own interval", cfg: Config{HeartbeatInterval: s}, want: terms{HeartbeatPing, s, 75 * s}},
		{name: "never expires", cfg: Config{HeartbeatTimeout: -1}, query: "heartbeat_interval=30s", want: terms{HeartbeatPing, 30 * s, 0}},
		{name: "mode of the server", cfg: Config{HeartbeatMode: HeartbeatNone}, want: terms{HeartbeatNone, 0, 75 * s}},
		{name: "the client's over the server's", cfg: Config{HeartbeatMode: HeartbeatNone}, query: "heartbeat=ping", want: terms{HeartbeatPing, 25 * s, 75 * s}},
		{name: "other parameters", query: "token=abc&heartbeat=text&x", want: terms{HeartbeatText, 25 * s, 75 * s}},
		{name: "the application's over the client's", query: "heartbeat=text&heartbeat_interval=1m", accept: Accept{HeartbeatMode: HeartbeatNone}, want: terms{HeartbeatNone, 0, 180 * s}},
		{name: "the application's interval", query: "heartbeat_interval=1m", accept: Accept{HeartbeatInterval: s}, want: terms{HeartbeatPing, s, 3 * s}},
		{name: "a number beyond all bounds", query: "heartbeat_interval=99999999999999999999", want: terms{HeartbeatPing, 10 * time.Minute, 30 * time.Minute}},
		{name: "a fraction of a second", query: "heartbeat_interval=1.5", want: terms{HeartbeatPing, 5 * s, 15 * s}},
		{name: "beside what can't be parsed", query: "token=a;b&x=%zz&heartbeat=text", want: terms{HeartbeatText, 25 * s, 75 * s}},
		{name: "the application's timeout", accept: Accept{HeartbeatTimeout: 100 * s}, want: terms{HeartbeatPing, 25 * s, 100 * s}},
		{name: "the application's timeout is too short", accept: Accept{HeartbeatTimeout: s}, want: terms{HeartbeatPing, 25 * s, 50 * s}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opened := make(chan Conn, 1)
			tt.cfg.Upgrade = func(*Request) (Accept, error) { return tt.accept, nil }
			server := variants()[0].start(t, tt.cfg, hooks{open: func(c Conn, _ *Request) { opened <- c }})
			server.dial(t, "/ws?"+tt.query)
			info, ok := receive(t, "Open", opened).Info()
			if got := (terms{info.Mode, info.Interval, info.Timeout}); !ok || got != tt.want {
				t.Errorf("granted %+v (%v), want %+v", got, ok, tt.want)
			}
		})
	}
}

func TestBadQuery(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		queries := []string{
			"heartbeat=yes", "heartbeat=", "heartbeat=PING", "heartbeat_interval=", "heartbeat_interval=soon",
			"heartbeat_interval=inf", "heartbeat_interval=0x1p5", "heartbeat_interval=1e3", "heartbeat_interval=+5", "heartbeat_interval=1.2.3", "heartbeat_interval=.",
			"heartbeat=text&heartbeat=bogus", "heartbeat=text&heartbeat=text", "heartbeat_interval=30s&heartbeat_interval=1m",
			"heartbeat_interval=-1s", "heartbeat_interval=-1", "heartbeat_interval=NaN", "heartbeat=%zz", "token=a;b&heartbeat_interval=5;",
		}
		for _, query := range queries {
			r := roundTrip(t, s.addr, upgradeRequest("/ws?"+query))
			if r.status != "400 Bad Request" || strings.Count(r.body, "\n") != 1 {
				t.Errorf("%s: %q %q, want a 400 of one line", query, r.status, r.body)
			}
		}
		await(t, "all are counted", func() bool { return s.Stats().Rejected["heartbeat"] == uint64(len(queries)) })
	})
}

// TestHello: who asks for text heartbeats is told what was granted, before anything else, and nobody else is.
func TestHello(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		opened := make(chan Conn, 1)
		s := v.start(t, Config{NodeName: `node "7"`}, hooks{open: func(c Conn, _ *Request) {
			_ = c.Send(Text, []byte("welcome"))
			opened <- c
		}})
		p := s.dial(t, "/ws?heartbeat=text&heartbeat_interval=30")
		hello := p.nextBut()
		var got struct {
			Type, ID, Node string
			Interval       int64 `json:"interval_ms"`
			Timeout        int64 `json:"timeout_ms"`
		}
		if err := json.Unmarshal(hello.Payload, &got); err != nil || hello.Opcode != wsframe.Text {
			t.Fatalf("%v %q: %v", hello.Opcode, hello.Payload, err)
		}
		c := receive(t, "Open", opened)
		if got.Type != "hello" || got.ID != c.ID() || got.Node != `node "7"` || got.Interval != 30_000 || got.Timeout != 90_000 {
			t.Errorf("hello %+v of connection %s", got, c.ID())
		}
		if len(got.ID) != 16 || strings.Trim(got.ID, "0123456789abcdef") != "" {
			t.Errorf("id %q is not 16 hexadecimal digits", got.ID)
		}
		p.expect(wsframe.Text, "welcome")

		for _, query := range []string{"", "?heartbeat=ping", "?heartbeat=none", "?heartbeat_interval=30"} {
			other := s.dial(t, "/ws"+query)
			other.expect(wsframe.Text, "welcome")
			if id := receive(t, "Open", opened).ID(); id == got.ID {
				t.Errorf("two connections with id %s", id)
			}
		}
	})
}

// TestTextByConfiguration: the server's own mode is text, but a client that did not ask for it gets no hello.
func TestTextByConfiguration(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HeartbeatMode: HeartbeatText, HeartbeatInterval: 60 * time.Millisecond}, Echo{})
		p := s.dial(t, "/ws")
		p.expect(wsframe.Text, `{"type":"heartbeat"}`)
	})
}
