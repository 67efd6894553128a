package server

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestShutdown: everyone is told to go, with a time to come back at which not all come, and who goes is waited for.
func TestShutdown(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		const peers, rate = 40, 10
		var closes atomic.Int64
		s := v.start(t, Config{Loops: 2, ReconnectRate: rate}, hooks{close: func(_ Conn, code uint16, reason string) {
			if code != 1012 || !strings.HasPrefix(reason, "restart; retry-after=") {
				t.Errorf("the handler was told %d %q", code, reason)
			}
			closes.Add(1)
		}})
		var all []*peer
		for range peers {
			all = append(all, s.dial(t, "/ws"))
		}
		half := newPeer(t, connect(t, s.addr))
		half.write([]byte("GET /ws"))
		await(t, "all are there", func() bool { return s.Stats().Active == peers && s.Stats().Handshakes == 1 })
		shut := make(chan error, 1)
		go func() { shut <- s.Shutdown(t.Context()) }()
		slots := make(map[int]int)
		for _, p := range all {
			delay, ok := strings.CutPrefix(p.expectClose(wsframe.CloseRestart), "restart; retry-after=")
			n, err := strconv.Atoi(delay)
			if !ok || err != nil {
				t.Errorf("no retry-after in the reason")
			}
			slots[n]++
			_ = p.Close()
		}
		for second, n := range slots {
			if n > rate || second >= peers/rate {
				t.Errorf("%d are to come back after %d s, at %d a second", n, second, rate)
			}
		}
		await(t, "the listener is closed", func() bool {
			c, err := net.DialTimeout("tcp", s.addr, time.Second)
			if err == nil {
				_ = c.Close()
			}
			return err != nil
		})
		_ = half.Close()
		if err := receive(t, "Shutdown", shut); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if n := closes.Load(); n != peers {
			t.Errorf("%d calls of Close, want %d", n, peers)
		}
		st := s.Stats()
		if st.Closed["drain"] != peers || st.Active != 0 || !st.Draining {
			t.Errorf("closed %v, active %d, draining %v", st.Closed, st.Active, st.Draining)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("a second Shutdown: %v", err)
		}
		if err := s.Serve(); !errors.Is(err, ErrClosed) {
			t.Errorf("Serve after Shutdown: %v", err)
		}
		for range s.Conns() {
			t.Error("a connection after the end")
		}
		if n, err := s.Broadcast(Text, nil); n != 0 || err != nil {
			t.Errorf("Broadcast after the end: %d, %v", n, err)
		}
	})
}

// TestDrainRate: no more a second than that are told to go.
func TestDrainRate(t *testing.T) {
	t.Parallel()
	each(t, runners(), func(t *testing.T, v variant) {
		const peers, rate = 30, 30
		s := v.start(t, Config{Loops: 1, DrainRate: rate}, Echo{})
		told := make(chan time.Time, peers)
		for range peers {
			p := s.dial(t, "/ws")
			go func() {
				p.answer()
				told <- time.Now()
				_ = p.Close()
			}()
		}
		await(t, "all are there", func() bool { return s.Stats().Active == peers })
		began := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		early := 0
		for range peers {
			if at := receive(t, "a Close", told); at.Sub(began) < 400*time.Millisecond {
				early++
			}
		}
		if most := rate*4/10 + 2; early == 0 || early > most {
			t.Errorf("%d were told within 0.4 s, want 1 to %d", early, most)
		}
	})
}

// TestDrainDelay: for that long the server still takes connections, but says that it wants none.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	each(t, runners(), func(t *testing.T, v variant) {
		const delay = 2 * time.Second // in which all below must be served, on a busy machine too
		s := v.start(t, Config{DrainDelay: delay}, Echo{})
		p := s.dial(t, "/ws")
		began := time.Now()
		shut := make(chan error, 1)
		go func() { shut <- s.Shutdown(t.Context()) }()
		await(t, "the shutdown began", func() bool { return s.Stats().Draining })
		late := s.dial(t, "/ws")
		for _, open := range []*peer{p, late} {
			open.send(wsframe.Text, "still served")
			open.expect(wsframe.Text, "still served")
		}
		if r := roundTrip(t, s.addr, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"); r.status != "503 Service Unavailable" {
			t.Errorf("readyz: %q", r.status)
		}
		for _, open := range []*peer{p, late} {
			open.expectClose(wsframe.CloseRestart)
			_ = open.Close()
		}
		if took := time.Since(began); took < delay {
			t.Errorf("closed after %v, before the delay of %v", took, delay)
		}
		if err := receive(t, "Shutdown", shut); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// TestShutdownTimeout: who doesn't go is closed at once when the time is up.
func TestShutdownTimeout(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		const timeout = 300 * time.Millisecond
		var closes atomic.Int64
		s := v.start(t, Config{ShutdownTimeout: timeout}, hooks{close: func(Conn, uint16, string) { closes.Add(1) }})
		for range 5 {
			s.dial(t, "/ws") // and never closes
		}
		half := newPeer(t, connect(t, s.addr))
		half.write([]byte("GET /ws"))
		await(t, "all are there", func() bool { return s.Stats().Handshakes == 1 && s.Stats().Active == 5 })
		began := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(began); took < timeout || took > timeout+3*slack {
			t.Errorf("it took %v, want %v", took, timeout)
		}
		if n := closes.Load(); n != 5 {
			t.Errorf("%d calls of Close, want 5", n)
		}
	})
}

// TestShutdownContext: the end of the context ends the patience, of the first call and of a second one.
func TestShutdownContext(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{DrainDelay: time.Hour, ShutdownTimeout: time.Hour}, hooks{})
		p := s.dial(t, "/ws")
		ctx, cancel := context.WithCancel(t.Context())
		shut := make(chan error, 1)
		go func() { shut <- s.Shutdown(ctx) }()
		await(t, "the shutdown began", func() bool { return s.Stats().Draining })
		impatient, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer stop()
		if err := s.Shutdown(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second Shutdown: %v", err)
		}
		cancel()
		if err := receive(t, "Shutdown", shut); !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v", err)
		}
		if reason := p.expectClose(wsframe.CloseRestart); reason != "restart" {
			t.Errorf("reason %q", reason)
		}
	})
}

// TestShutdownBeforeServe ends what never began, and may be called again.
func TestShutdownBeforeServe(t *testing.T) {
	s, err := New(Config{}, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- s.Shutdown(t.Context()); done <- s.Shutdown(t.Context()) }()
	for range 2 {
		if err := receive(t, "Shutdown", done); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	if err := s.Serve(); !errors.Is(err, ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if st := s.Stats(); st.Active != 0 || !st.Draining {
		t.Errorf("stats %+v", st)
	}
}

// TestShutdownWithStuckHandlers doesn't wait for them for ever, and the connections go all the same.
func TestShutdownWithStuckHandlers(t *testing.T) {
	t.Parallel()
	for _, v := range variants()[2:] {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			stuck, release := make(chan struct{}), make(chan struct{})
			s := v.start(t, Config{Workers: 1}, hooks{message: func(Conn, Op, []byte) { close(stuck); <-release }})
			p := s.dial(t, "/ws")
			p.send(wsframe.Text, "x")
			receive(t, "the handler", stuck)
			began := time.Now()
			shut := make(chan error, 1)
			go func() { shut <- s.Shutdown(t.Context()) }()
			p.expectClose(wsframe.CloseRestart)
			_ = p.Close()
			if err := receive(t, "Shutdown", shut); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if took := time.Since(began); took > closeTimeout+3*slack {
				t.Errorf("it took %v", took)
			}
			close(release)
		})
	}
}

// TestShutdownTellsEveryHandler: even where more handlers are to be told of the end than the pool holds.
func TestShutdownTellsEveryHandler(t *testing.T) {
	const peers = handlerQueue + 100
	for _, v := range variants()[2:] {
		t.Run(v.name, func(t *testing.T) {
			release := make(chan struct{})
			var closes atomic.Int64
			s := v.start(t, Config{Workers: 1, HeartbeatMode: HeartbeatNone, DrainRate: 1 << 20}, hooks{close: func(Conn, uint16, string) {
				<-release
				closes.Add(1)
			}})
			for range peers {
				p := s.dial(t, "/ws")
				go func() {
					p.answer()
					_ = p.Close()
				}()
			}
			shut := make(chan error, 1)
			go func() { shut <- s.Shutdown(t.Context()) }()
			await(t, "all are closed", func() bool { return s.Stats().Active == 0 })
			during(5*tick, func() {}) // the loops end
			close(release)
			if err := receive(t, "Shutdown", shut); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if n := closes.Load(); n != peers {
				t.Errorf("%d calls of Close, want %d", n, peers)
			}
		})
	}
}

// TestShutdownUnderLoad: echoes fly, connections come and go, and it ends in time all the same.
func TestShutdownUnderLoad(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{ShutdownTimeout: 2 * time.Second}, Echo{})
		for range 20 {
			p := s.dial(t, "/ws")
			packet := []byte(strings.Repeat(string(masked(wsframe.Binary, true, "load")), 50))
			go func() {
				for {
					if _, err := p.Write(packet); err != nil {
						return
					}
				}
			}()
			go func() {
				p.answer()
				_ = p.Close()
			}()
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.DialTimeout("tcp", s.addr, time.Second)
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(upgradeRequest("/ws")))
				_ = c.Close()
			}
		}()
		await(t, "the load", func() bool { return s.Stats().MessagesIn > 1000 })
		began := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(began); took > 2*time.Second+2*slack {
			t.Errorf("it took %v", took)
		}
		close(stop)
		receive(t, "the end of the load", stopped)
	})
}
