package server

import (
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestClientHeartbeats: what becomes of {"type":"heartbeat"} by setting, in every mode of the server's own heartbeats.
func TestClientHeartbeats(t *testing.T) {
	beats := []struct{ sent, ack string }{
		{`{"type":"heartbeat"}`, `{"type":"heartbeat_ack"}`},
		{`{"type":"heartbeat","ts":1732301000123}`, `{"type":"heartbeat_ack","ts":1732301000123}`},
		{` { "ts" : "2026-11-22T12:00:00Z" , "type" : "heartbeat" } `, `{"type":"heartbeat_ack","ts":"2026-11-22T12:00:00Z"}`},
	}
	for _, tt := range []struct {
		name      string
		setting   JSONHeartbeats
		answered  bool
		delivered bool
	}{
		{"edge", JSONHeartbeatsEdge, true, false},
		{"by default", JSONHeartbeatsDefault, true, false},
		{"forward", JSONHeartbeatsForward, true, true},
		{"off", JSONHeartbeatsOff, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				h, _, messages, _ := reporter()
				s := v.start(t, Config{JSONHeartbeats: tt.setting}, h)
				for _, mode := range []string{"ping", "text", "none"} {
					p := s.dial(t, "/ws?heartbeat="+mode)
					if mode == "text" {
						p.next() // hello
					}
					for _, beat := range beats {
						p.send(wsframe.Text, beat.sent)
						if tt.answered {
							p.expect(wsframe.Text, beat.ack)
						}
						if tt.delivered {
							if got := receive(t, "the message", messages); got != "text "+beat.sent {
								t.Errorf("delivered %q, want %q", got, beat.sent)
							}
						}
					}
					p.send(wsframe.Binary, beats[0].sent) // binary is always data
					if got := receive(t, "the message", messages); got != "binary "+beats[0].sent {
						t.Errorf("delivered %q", got)
					}
					p.send(wsframe.Ping, "end")
					p.expect(wsframe.Pong, "end") // and nothing in between
				}
				if n := len(messages); n != 0 {
					t.Errorf("%d messages too many", n)
				}
				want := uint64(0)
				if tt.answered {
					want = uint64(3 * len(beats))
				}
				await(t, "they are counted", func() bool { return s.Stats().HeartbeatsReceived["text"] == want })
			})
		})
	}
}

// TestAcknowledgements are consumed where the server beats in text, and are plain data elsewhere.
func TestAcknowledgements(t *testing.T) {
	const ack = `{"type":"heartbeat_ack"}`
	each(t, variants(), func(t *testing.T, v variant) {
		h, _, messages, _ := reporter()
		s := v.start(t, Config{}, h)
		for _, mode := range []string{"ping", "none"} {
			s.dial(t, "/ws?heartbeat="+mode).send(wsframe.Text, ack)
			if got := receive(t, "the message in mode "+mode, messages); got != "text "+ack {
				t.Errorf("mode %s: %q", mode, got)
			}
		}
		p := s.dial(t, "/ws?heartbeat=text")
		p.send(wsframe.Text, ack)
		p.send(wsframe.Text, "next")
		if got := receive(t, "the next message", messages); got != "text next" {
			t.Errorf("mode text: %q", got)
		}
	})
}

// TestTextHeartbeatBetweenFragments: the server's heartbeat is a message of its own; it may come while the client is in the
// middle of one, and so may the client's answer not, but any byte is alive.
func TestTextHeartbeatBetweenFragments(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HeartbeatMode: HeartbeatText, HeartbeatInterval: 100 * time.Millisecond, HeartbeatTimeout: time.Minute}, Echo{})
		p := s.dial(t, "/ws")
		p.write(masked(wsframe.Text, false, "one "))
		p.expect(wsframe.Text, `{"type":"heartbeat"}`)
		p.write(masked(wsframe.Continuation, true, "two"))
		for {
			m := p.nextBut()
			if string(m.Payload) == "one two" {
				return
			}
			if string(m.Payload) != `{"type":"heartbeat"}` {
				t.Fatalf("got %q", m.Payload)
			}
		}
	})
}
