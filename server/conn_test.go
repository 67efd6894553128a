package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestConn: a Conn tells what is known of its connection, and once that is gone it answers without harm, even when its slot has
// a newer connection.
func TestConn(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		opens := make(chan Conn, 10)
		closed := make(chan [2]any, 10)
		s := v.start(t, Config{Loops: 1, Upgrade: func(r *Request) (Accept, error) {
			return Accept{User: r.RawQuery, Value: len(r.RawQuery)}, nil
		}}, hooks{
			open:  func(c Conn, _ *Request) { opens <- c },
			close: func(c Conn, _ uint16, _ string) { closed <- [2]any{c.User(), c.Value()} },
		})
		p := s.dial(t, "/ws?ann")
		c := receive(t, "Open", opens)
		if c.User() != "ann" || c.Value() != 3 {
			t.Errorf("user %q, value %v", c.User(), c.Value())
		}
		c.SetValue([]string{"anything"})
		if got := fmt.Sprint(c.Value()); got != "[anything]" {
			t.Errorf("value %v", got)
		}
		if got, want := c.RemoteAddr().String(), p.LocalAddr().String(); got != want {
			t.Errorf("address %s, want %s", got, want)
		}
		info, ok := c.Info()
		if !ok || info.ID != c.ID() || info.User != "ann" || info.RemoteAddr != c.RemoteAddr() || info.Mode != HeartbeatPing ||
			info.Interval != 25*time.Second || info.Timeout != 75*time.Second || info.Unsent != 0 || info.Age < 0 || info.Age > patience {
			t.Errorf("info %+v, %v", info, ok)
		}
		if byID := map[Conn]int{c: 7}; byID[c] != 7 || (c == Conn{}) {
			t.Error("a Conn is no map key")
		}
		if got := slices.Collect(s.Conns()); len(got) != 1 || got[0] != c {
			t.Errorf("Conns: %v, want %v", got, c)
		}

		_ = p.Close()
		if got := receive(t, "Close", closed); got[0] != "ann" || fmt.Sprint(got[1]) != "[anything]" {
			t.Errorf("in Close the user is %q and the value %v", got[0], got[1])
		}
		await(t, "the slot is free", func() bool { _, r := c.find(); return r == nil })
		next := s.dial(t, "/ws?bob")
		other := receive(t, "Open", opens)
		if tokenSlot(other.token) != tokenSlot(c.token) {
			t.Fatalf("slot %d, want the %d of before", tokenSlot(other.token), tokenSlot(c.token))
		}
		stale := func(c Conn) {
			t.Helper()
			if c.ID() != "" || c.User() != "" || c.Value() != nil || c.RemoteAddr().IsValid() {
				t.Errorf("id %q, user %q, value %v, address %v of a connection that is gone", c.ID(), c.User(), c.Value(), c.RemoteAddr())
			}
			if _, ok := c.Info(); ok {
				t.Error("Info of a connection that is gone")
			}
			if err := c.Send(Text, []byte("x")); !errors.Is(err, ErrClosed) {
				t.Errorf("Send: %v, want ErrClosed", err)
			}
			prepared, _ := Prepare(Text, nil)
			if err := c.SendPrepared(prepared); !errors.Is(err, ErrClosed) {
				t.Errorf("SendPrepared: %v, want ErrClosed", err)
			}
			c.SetValue("evil")
			c.Close(4000, "")
		}
		stale(c)
		stale(Conn{})
		if other.Value() != 3 || other.User() != "bob" {
			t.Errorf("the newer connection has user %q and value %v", other.User(), other.Value())
		}
		next.send(wsframe.Ping, "untouched")
		next.expect(wsframe.Pong, "untouched")
	})
}

// TestSetValueWhileItEnds: a value that is set while the connection ends is never found by the next one in its slot.
func TestSetValueWhileItEnds(t *testing.T) {
	t.Parallel()
	each(t, variants(), func(t *testing.T, v variant) {
		opens := make(chan Conn, 10)
		s := v.start(t, Config{Loops: 1}, hooks{open: func(c Conn, _ *Request) { opens <- c }})
		for i := range 10 {
			p := s.dial(t, "/ws")
			c := receive(t, "Open", opens)
			if value := c.Value(); value != nil {
				t.Fatalf("connection %d begins with the value %v", i, value)
			}
			var setters sync.WaitGroup
			stop := make(chan struct{})
			for range 2 {
				setters.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							c.SetValue(i)
						}
					}
				})
			}
			_ = p.Close()
			await(t, "the slot is free", func() bool { _, r := c.find(); return r == nil })
			close(stop)
			setters.Wait()
		}
	})
}

// TestSendFromEverywhere: from Open, from Message to itself and to others, from goroutines of the application, and from Close to
// others. Each sender's messages arrive in its order.
func TestSendFromEverywhere(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		const senders, messages = 8, 100
		opens := make(chan Conn, 10)
		var peer2 atomic.Value // a Conn; raw sockets are nothing that the race detector could order by
		s := v.start(t, Config{MaxBackpressure: -1}, hooks{
			open: func(c Conn, r *Request) {
				_ = c.Send(Text, []byte("from Open"))
				opens <- c
			},
			message: func(c Conn, _ Op, data []byte) {
				_ = c.Send(Text, append([]byte("to itself: "), data...))
				_ = peer2.Load().(Conn).Send(Binary, append([]byte("to another: "), data...))
			},
			close: func(c Conn, _ uint16, _ string) {
				if err := c.Send(Text, nil); !errors.Is(err, ErrClosed) {
					t.Errorf("Send to itself from Close: %v", err)
				}
				_ = peer2.Load().(Conn).Send(Text, []byte("from Close"))
			},
		})
		second := s.dial(t, "/ws")
		second.expect(wsframe.Text, "from Open")
		peer2.Store(receive(t, "Open", opens))
		first := s.dial(t, "/ws")
		first.expect(wsframe.Text, "from Open")
		peer1 := receive(t, "Open", opens)

		first.send(wsframe.Text, "hello")
		first.expect(wsframe.Text, "to itself: hello")
		second.expect(wsframe.Binary, "to another: hello")

		var wg sync.WaitGroup
		for i := range senders {
			wg.Go(func() {
				for j := range messages {
					if err := peer1.Send(Text, fmt.Appendf(nil, "%d %d", i, j)); err != nil {
						t.Errorf("Send: %v", err)
						return
					}
				}
			})
		}
		next := make([]int, senders)
		for range senders * messages {
			var i, j int
			m := first.nextBut()
			if _, err := fmt.Sscanf(string(m.Payload), "%d %d", &i, &j); err != nil {
				t.Fatalf("got %v %q", m.Opcode, m.Payload)
			}
			if next[i] != j {
				t.Fatalf("sender %d: message %d came, want %d", i, j, next[i])
			}
			next[i]++
		}
		wg.Wait()

		_ = first.Close()
		second.expect(wsframe.Text, "from Close")
		if err := peer2.Load().(Conn).Send(Text, []byte("not UTF-8: \xff")); !errors.Is(err, ErrEncoding) {
			t.Errorf("Send of text that is not UTF-8: %v", err)
		}
		if _, err := Prepare(Text, []byte{0xff}); !errors.Is(err, ErrEncoding) {
			t.Errorf("Prepare of text that is not UTF-8: %v", err)
		}
		second.quiet(50 * time.Millisecond)
	})
}

// TestSendCopies: what the caller does with its slice afterwards is its own affair.
func TestSendCopies(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		opens := make(chan Conn, 1)
		s := v.start(t, Config{MaxBackpressure: -1, SocketSendBuffer: 8 << 10}, hooks{open: func(c Conn, _ *Request) { opens <- c }})
		p := s.shallow(t, "/ws")
		c := receive(t, "Open", opens)
		data := make([]byte, 1000)
		for i := range 200 { // more than the socket takes
			for j := range data {
				data[j] = byte('a' + i%26)
			}
			if err := c.Send(Text, data); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 200 {
			p.expect(wsframe.Text, strings.Repeat(string(rune('a'+i%26)), 1000))
		}
	})
}

// TestBroadcast reaches everyone who is open, over all loops, and nobody else.
func TestBroadcast(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{Loops: 3}, Echo{})
		half := newPeer(t, connect(t, s.addr))
		half.write([]byte("GET /ws"))
		var peers []*peer
		for range 100 {
			peers = append(peers, s.dial(t, "/ws"))
		}
		gone := s.dial(t, "/ws")
		_ = gone.Close()
		await(t, "one is gone and the others are open", func() bool { return s.Stats().Active == 100 && s.open() == 100 })
		spread := 0
		for _, n := range s.Stats().LoopConnections {
			if n > 0 {
				spread++
			}
		}
		if spread != 3 {
			t.Errorf("the connections are on %d of 3 loops: %v", spread, s.Stats().LoopConnections)
		}
		for _, op := range []Op{Text, Binary} {
			n, err := s.Broadcast(op, []byte("to all"))
			if n != 100 || err != nil {
				t.Errorf("reached %d, %v", n, err)
			}
			for _, p := range peers {
				p.expect(wsframe.Opcode(op), "to all")
			}
		}
		if _, err := s.Broadcast(Text, []byte{0xff}); !errors.Is(err, ErrEncoding) {
			t.Errorf("Broadcast of text that is not UTF-8: %v", err)
		}
		n := 0
		for range s.Conns() {
			if n++; n == 10 {
				break
			}
		}
		if n != 10 {
			t.Errorf("the iteration ended after %d", n)
		}
	})
}

// TestStatsAgree: the counters say what the clients saw.
func TestStatsAgree(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{NodeName: "n"}, Echo{})
		var in, out, messages uint64
		for i := range 10 {
			p := s.dial(t, "/ws")
			out += uint64(len(p.response))
			for j := range 5 {
				payload := randomText(i * j * 10)
				frame := masked(wsframe.Binary, true, payload)
				p.write(frame)
				p.expect(wsframe.Binary, payload)
				in += uint64(len(frame))
				out += uint64(wsframe.HeaderBytes(len(payload)) + len(payload))
				messages++
			}
			ping := masked(wsframe.Ping, true, "p")
			p.write(ping)
			p.expect(wsframe.Pong, "p")
			in, out = in+uint64(len(ping)), out+3
			if i%2 == 0 {
				bye := masked(wsframe.Close, true, "\x03\xe8")
				p.write(bye)
				p.expectClose(1000)
				in, out = in+uint64(len(bye)), out+4
				_ = p.Close()
			}
		}
		await(t, "the counters agree", func() bool {
			st := s.Stats()
			return st.Active == 5 && st.Total == 10 && st.Closed["client"] == 5 && st.MessagesIn == messages && st.MessagesOut == messages &&
				st.BytesIn == in && st.HeartbeatsReceived["ping"] == 10
		})
		st := s.Stats()
		if st.BytesOut != out {
			t.Errorf("%d bytes out, want %d", st.BytesOut, out)
		}
		batches := st.BatchesLoop
		if v.inlineBatch < 0 {
			batches = st.BatchesPool
		}
		if batches == 0 || v.inlineBatch < 0 && st.BatchesLoop > 0 {
			t.Errorf("%d batches by the loop, %d by the pool", st.BatchesLoop, st.BatchesPool)
		}
		if st.Node != "n" || st.Uptime <= 0 || st.Limit != 15_000 || st.Draining {
			t.Errorf("stats %+v", st)
		}
	})
}
