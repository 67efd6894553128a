package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestMessageRateAtTheLimit: a second's worth of messages may come at once and isn't slowed; one more is.
func TestMessageRateAtTheLimit(t *testing.T) {
	const limit = 50
	for _, tt := range []struct {
		messages int
		slowed   bool
	}{{limit - 1, false}, {limit, false}, {limit + 5, true}} {
		t.Run(fmt.Sprint(tt.messages), func(t *testing.T) {
			each(t, runners(), func(t *testing.T, v variant) {
				s := v.start(t, Config{MessageRateLimit: limit}, Echo{})
				p := s.dial(t, "/ws")
				var all []byte
				for range tt.messages {
					all = append(all, masked(wsframe.Text, true, "x")...)
				}
				p.write(all)
				for range tt.messages {
					p.expect(wsframe.Text, "x")
				}
				if n := s.Stats().Slowed; (n > 0) != tt.slowed {
					t.Errorf("%d pauses", n)
				}
			})
		})
	}
}

// TestMessageRateFarBeyond: a flood is served at the limit and no faster, whole and in order; nothing is lost and nobody is closed. Its
// pings wait behind its messages, but what others send it doesn't, it can close and be closed, and others don't notice.
func TestMessageRateFarBeyond(t *testing.T) {
	const limit, messages = 100, 300 // the first hundred at once, two hundred in two seconds
	each(t, variants(), func(t *testing.T, v variant) {
		connected := make(chan Conn, 2)
		s := v.start(t, Config{MessageRateLimit: limit, HeartbeatInterval: 300 * time.Millisecond, HeartbeatTimeout: 900 * time.Millisecond}, hooks{
			open:    func(c Conn, _ *Request) { connected <- c },
			message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) },
		})
		p := s.dial(t, "/ws")
		flooder := receive(t, "Open", connected)
		began := time.Now()
		var all []byte
		for i := range messages {
			all = append(all, masked(wsframe.Text, true, fmt.Sprint(i))...)
		}
		p.write(all)
		await(t, "it is slowed", func() bool { return s.Stats().Slowed > 0 })

		// Meanwhile: a message of somebody else arrives at once, and a neighbour is served.
		if err := flooder.Send(Text, []byte("from elsewhere")); err != nil {
			t.Fatal(err)
		}
		neighbour := s.dial(t, "/ws")
		neighbour.send(wsframe.Text, "hello")
		neighbour.expect(wsframe.Text, "hello")
		_ = neighbour.Close()

		next, elsewhere := 0, time.Duration(0)
		for next < messages {
			m := p.nextBut()
			switch string(m.Payload) {
			case "from elsewhere":
				elsewhere = time.Since(began)
			case fmt.Sprint(next):
				next++
			default:
				t.Fatalf("got %q, want %d", m.Payload, next)
			}
		}
		if took := time.Since(began); took < 1900*time.Millisecond || took > 2200*time.Millisecond+slack {
			t.Errorf("%d messages took %v at %d a second", messages, took, limit)
		}
		if elsewhere == 0 || elsewhere > slack {
			t.Errorf("what another sent came after %v", elsewhere)
		}
		p.write(append(all, masked(wsframe.Close, true, "\x03\xe8")...))
		flooder.Close(4000, "enough")
		for {
			if m := p.nextBut(); m.Opcode == wsframe.Close {
				break
			}
		}
		if st := s.Stats(); st.Expired != 0 {
			t.Errorf("%d expired", st.Expired)
		}
	})
}

// TestMessageRateLeavesNothing: where the rate is limited, what is kept of a connection that falls silent goes with its next heartbeat.
func TestMessageRateLeavesNothing(t *testing.T) {
	s := start(t, Config{MessageRateLimit: 10, HeartbeatInterval: 200 * time.Millisecond, HeartbeatTimeout: time.Minute, HandlerInline: true}, Echo{})
	p := s.dial(t, "/ws")
	p.send(wsframe.Text, "x")
	p.expect(wsframe.Text, "x")
	go p.answer()
	await(t, "the side table is empty", func() bool { return s.sidesKept() == 0 })
	_ = p.Close()
}
