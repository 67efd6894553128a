package server

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/pool"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestOrder: for one connection the calls come one at a time and in order; different connections don't wait for each other.
func TestOrder(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		const peers, messages = 20, 300
		type state struct {
			running atomic.Int32
			next    int
			opened  bool
			closed  bool
		}
		var states sync.Map // by Conn
		var done sync.WaitGroup
		done.Add(peers)
		enter := func(c Conn) (*state, func()) {
			value, _ := states.LoadOrStore(c, new(state))
			st := value.(*state) //nolint:forcetypeassert // nothing else is stored
			if st.running.Add(1) != 1 {
				t.Error("two calls for one connection at the same time")
			}
			return st, func() { st.running.Add(-1) }
		}
		s := v.start(t, Config{}, hooks{
			open: func(c Conn, _ *Request) {
				st, leave := enter(c)
				defer leave()
				if st.opened || st.next != 0 {
					t.Error("Open is not the first call")
				}
				st.opened = true
			},
			message: func(c Conn, _ Op, data []byte) {
				st, leave := enter(c)
				defer leave()
				if !st.opened || st.closed || string(data) != fmt.Sprint(st.next) {
					t.Errorf("message %q, want %d (opened %v, closed %v)", data, st.next, st.opened, st.closed)
				}
				st.next++
			},
			close: func(c Conn, _ uint16, _ string) {
				st, leave := enter(c)
				defer leave()
				if !st.opened || st.closed || st.next != messages {
					t.Errorf("Close after %d messages (opened %v, closed %v)", st.next, st.opened, st.closed)
				}
				st.closed = true
				done.Done()
			},
		})
		for range peers {
			p := s.dial(t, "/ws")
			go func() {
				var packet []byte
				for i := range messages {
					packet = append(packet, masked(wsframe.Text, true, fmt.Sprint(i))...)
					if i%7 == 0 || i == messages-1 {
						_, _ = p.Write(packet)
						packet = packet[:0]
					}
				}
				_, _ = p.Write(masked(wsframe.Close, true, "\x03\xe8"))
				_, _ = io.Copy(io.Discard, p)
				_ = p.Close()
			}()
		}
		ended := make(chan struct{})
		go func() { done.Wait(); close(ended) }()
		receive(t, "all calls of Close", ended)
	})
}

// TestStuckHandler: a connection whose handler is stuck still gets heartbeats and what others send it, and is not expired;
// other connections don't notice; and what it said meanwhile is delivered in order.
func TestStuckHandler(t *testing.T) {
	t.Parallel()
	for _, v := range variants()[2:] {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			const interval, timeout = 100 * time.Millisecond, 500 * time.Millisecond
			stuck, release := make(chan Conn, 1), make(chan struct{})
			got := make(chan string, 100)
			s := v.start(t, Config{Workers: 2, HeartbeatInterval: interval, HeartbeatTimeout: timeout}, hooks{message: func(c Conn, op Op, data []byte) {
				switch string(data) {
				case "get stuck":
					stuck <- c
					<-release
				case "echo":
					_ = c.Send(op, data)
				default:
					got <- string(data)
				}
			}})
			p, other := s.dial(t, "/ws"), s.dial(t, "/ws")
			p.send(wsframe.Text, "get stuck")
			c := receive(t, "the handler", stuck)
			for i := range 10 {
				p.send(wsframe.Text, fmt.Sprint(i))
			}
			beats := 0
			for began := time.Now(); time.Since(began) < 2*timeout; beats++ {
				m := p.next()
				if m.Opcode != wsframe.Ping {
					t.Fatalf("got %v %q", m.Opcode, m.Payload)
				}
				p.send(wsframe.Pong, string(m.Payload))
				other.send(wsframe.Text, "echo")
				other.expect(wsframe.Text, "echo")
			}
			if beats < 5 {
				t.Errorf("%d heartbeats in %v", beats, 2*timeout)
			}
			if err := c.Send(Text, []byte("from outside")); err != nil {
				t.Errorf("Send: %v", err)
			}
			p.expect(wsframe.Text, "from outside")
			if len(got) != 0 {
				t.Errorf("%d messages were delivered beside the stuck one", len(got))
			}
			close(release)
			for i := range 10 {
				if m := receive(t, "a message", got); m != fmt.Sprint(i) {
					t.Errorf("got %q, want %d", m, i)
				}
			}
		})
	}
}

// TestAllWorkersStuck: with every worker of the handler pool stuck, decoding goes on: pings of who has no message under way
// are answered, heartbeats go out, the dead are expired.
func TestAllWorkersStuck(t *testing.T) {
	t.Parallel()
	for _, v := range variants()[2:] {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			stuck, release := make(chan struct{}, 3), make(chan struct{})
			opened := make(chan struct{}, 3)
			s := v.start(t, Config{Workers: 1, HeartbeatInterval: 100 * time.Millisecond, HeartbeatTimeout: time.Second}, hooks{
				open:    func(Conn, *Request) { opened <- struct{}{} },
				message: func(Conn, Op, []byte) { stuck <- struct{}{}; <-release },
			})
			p, lively, dead := s.dial(t, "/ws"), s.dial(t, "/ws"), s.dial(t, "/ws?heartbeat=none")
			for range 3 {
				receive(t, "Open", opened)
			}
			p.send(wsframe.Text, "x")
			receive(t, "the handler", stuck)
			go p.answer()
			began := time.Now()
			for s.Stats().Expired == 0 && time.Since(began) < patience {
				lively.send(wsframe.Ping, "decoded")
				lively.expect(wsframe.Pong, "decoded")
				during(100*time.Millisecond, func() {})
			}
			if m, err := dead.read(time.Now().Add(patience)); err != nil || m.Opcode != wsframe.Close {
				t.Errorf("the dead one got %v, %v", m.Opcode, err)
			}
			if n := s.Stats().Active; n != 2 {
				t.Errorf("%d connections left, want 2", n)
			}
			close(release)
		})
	}
}

// TestSaturatedHandlersLoseNothing: more deliveries than the pool holds wait with their connections, and each arrives once.
func TestSaturatedHandlersLoseNothing(t *testing.T) {
	const peers = handlerQueue + 200
	for _, v := range variants()[2:] {
		t.Run(v.name, func(t *testing.T) {
			release := make(chan struct{})
			var opens, messages, closes atomic.Int64
			s := v.start(t, Config{Workers: 1, HeartbeatMode: HeartbeatNone}, hooks{
				open:    func(Conn, *Request) { <-release; opens.Add(1) },
				message: func(c Conn, op Op, data []byte) { messages.Add(1); _ = c.Send(op, data) },
				close:   func(Conn, uint16, string) { closes.Add(1) },
			})
			var all []*peer
			request := append([]byte(upgradeRequest("/ws")), masked(wsframe.Text, true, "one")...)
			request = append(request, masked(wsframe.Text, true, "two")...)
			for range peers {
				p := newPeer(t, connect(t, s.addr))
				p.write(request)
				all = append(all, p)
			}
			await(t, "all are upgraded", func() bool { return s.Stats().Active == peers })
			if st := s.handlers.(*pool.Serial[poller.Token, delivery]).Stats(); st.Saturated == 0 {
				t.Errorf("the pool was never saturated: %+v", st)
			}
			if opens.Load() != 0 || messages.Load() != 0 {
				t.Errorf("%d opens and %d messages through a stuck worker", opens.Load(), messages.Load())
			}
			close(release)
			for _, p := range all {
				p.readUpgrade()
				p.expect(wsframe.Text, "one")
				p.expect(wsframe.Text, "two")
			}
			if opens.Load() != peers || messages.Load() != 2*peers {
				t.Errorf("%d opens and %d messages, want %d and %d", opens.Load(), messages.Load(), peers, 2*peers)
			}
			for _, p := range all {
				_ = p.Close()
			}
			await(t, "all are told of the end", func() bool { return closes.Load() == peers })
			await(t, "all slots are free", func() bool {
				used := 0
				s.on(t, func(l *loop) { used += l.table.used })
				return used == 0
			})
		})
	}
}

// TestDataIsValidDuringTheCall: nobody writes into the message while the handler has it, however busy the others are.
func TestDataIsValidDuringTheCall(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, hooks{message: func(c Conn, op Op, data []byte) {
			before := bytes.Clone(data)
			_ = c.Send(op, data)
			_ = c.Send(op, data[:0])
			if !bytes.Equal(before, data) {
				t.Error("the message changed under the handler")
			}
		}})
		var wg sync.WaitGroup
		for range 4 {
			p := s.dial(t, "/ws")
			wg.Go(func() {
				for i := range 100 {
					payload := randomText(1 + i*37)
					half := len(payload) / 2
					p.write(masked(wsframe.Text, false, payload[:half]))
					p.write(masked(wsframe.Continuation, true, payload[half:]))
					for _, want := range []string{payload, ""} {
						if m, err := p.read(time.Now().Add(patience)); err != nil || string(m.Payload) != want {
							t.Errorf("got %d bytes and %v, want %d", len(m.Payload), err, len(want))
							return
						}
					}
				}
			})
		}
		wg.Wait()
	})
}
