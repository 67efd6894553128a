package server

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// The same design was shipped by a large product once and taken back within days. Each cause is a test: these two, and
// TestRefusals ("the proxy speaks HTTP/1.0"), TestHalves, TestPanicsAreContained, TestAdoptRefuses (TLS hides the descriptor).

// TestClientPingsAreAnswered: while idle, between the fragments of a message, inside a burst, and while a handler is busy, whatever their payload.
func TestClientPingsAreAnswered(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		p.send(wsframe.Ping, "")
		p.expect(wsframe.Pong, "")
		p.send(wsframe.Ping, strings.Repeat("p", wsframe.ControlBytesMax))
		p.expect(wsframe.Pong, strings.Repeat("p", wsframe.ControlBytesMax))

		p.write(masked(wsframe.Text, false, "in "))
		p.send(wsframe.Ping, "between")
		p.expect(wsframe.Pong, "between")
		p.write(masked(wsframe.Continuation, false, "three "))
		p.send(wsframe.Ping, "again")
		p.expect(wsframe.Pong, "again")
		p.write(masked(wsframe.Continuation, true, "parts"))
		p.expect(wsframe.Text, "in three parts")
	})
}

// TestStormOfResets: connections that are reset while the server writes to them, while it closes them and while they open end once: the handler is
// told once of each, and every descriptor is closed once, so that none that was opened meanwhile is closed under its owner.
func TestStormOfResets(t *testing.T) {
	const rounds, crowd = 8, 60
	each(t, variants(), func(t *testing.T, v variant) {
		var opened, closed atomic.Int64
		var ends sync.Map
		s := v.start(t, Config{}, hooks{
			open: func(c Conn, _ *Request) {
				opened.Add(1)
				_ = c.Send(Text, []byte("welcome"))
			},
			message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) },
			close: func(c Conn, _ uint16, _ string) {
				closed.Add(1)
				if _, twice := ends.LoadOrStore(c.ID(), true); twice {
					t.Errorf("connection %s ended twice", c.ID())
				}
			},
		})
		// It lives through all of it: a descriptor closed twice would be its own sooner or later.
		steady := s.dial(t, "/ws")
		steady.expect(wsframe.Text, "welcome")
		for round := range rounds {
			var peers []*peer
			for range crowd {
				peers = append(peers, s.dial(t, "/ws"))
			}
			var harm sync.WaitGroup
			harm.Go(func() { _, _ = s.Broadcast(Binary, []byte(randomText(2000))) })
			harm.Go(func() {
				n := 0
				for c := range s.Conns() {
					if n++; n > 1 && n%3 == round%3 { // the first is the steady one
						c.Close(4000, "storm")
					}
				}
			})
			for i, p := range peers {
				if i%2 == 0 {
					_, _ = p.Write(masked(wsframe.Text, true, "a word, and away"))
				}
				p.reset()
			}
			harm.Wait()
		}
		for {
			m := steady.nextBut()
			if m.Opcode == wsframe.Close {
				t.Fatalf("the steady connection was closed: %q", m.Payload)
			}
			if m.Opcode == wsframe.Binary {
				break // a broadcast came through
			}
		}
		await(t, "all ended", func() bool { return closed.Load() == rounds*crowd })
		during(50*time.Millisecond, func() {})
		if o, c := opened.Load(), closed.Load(); o != c+1 {
			t.Errorf("%d opened, %d ended", o, c)
		}
		steady.send(wsframe.Text, "still here")
		for string(steady.nextBut().Payload) != "still here" {
			continue
		}
	})
}
