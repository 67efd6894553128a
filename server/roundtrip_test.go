package server

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestRoundTripOfTextHeartbeats: to who asked for text heartbeats each says when it was sent, and only the ts that comes back is measured.
func TestRoundTripOfTextHeartbeats(t *testing.T) {
	const delay = 30 * time.Millisecond
	for _, tt := range []struct {
		name     string
		ack      func(beat string) string
		measured bool
	}{
		{"echoed", func(beat string) string { return strings.Replace(beat, "heartbeat", "heartbeat_ack", 1) }, true},
		{"without a ts", func(string) string { return `{"type":"heartbeat_ack"}` }, true},
		{"another ts", func(string) string { return `{"type":"heartbeat_ack","ts":1}` }, false},
		{"a ts of the future", func(string) string { return `{"type":"heartbeat_ack","ts":9007199254740991}` }, false},
		{"a ts that is no number", func(string) string { return `{"type":"heartbeat_ack","ts":"now"}` }, false},
		{"a negative ts", func(string) string { return `{"type":"heartbeat_ack","ts":-5}` }, false},
		{"a ts beyond 64 bits", func(string) string { return `{"type":"heartbeat_ack","ts":184467440737095516160000}` }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, runners(), func(t *testing.T, v variant) {
				s := v.start(t, Config{HeartbeatInterval: 200 * time.Millisecond, HeartbeatMin: 200 * time.Millisecond, HeartbeatTimeout: time.Minute}, nil)
				p := s.dial(t, "/ws?heartbeat=text")
				p.next() // hello
				m := p.next()
				if kind, ts := parseJSONBeat(m.Payload); kind != beat || ts == nil {
					t.Fatalf("the heartbeat is %q", m.Payload)
				}
				during(delay, func() {})
				p.send(wsframe.Text, tt.ack(string(m.Payload)))
				await(t, "it is counted", func() bool { return s.Stats().HeartbeatsReceived["ack"] == 1 })
				rtt := s.Stats().RTT
				observed := uint64(0)
				for _, n := range rtt.Counts {
					observed += n
				}
				if (observed == 1) != tt.measured || observed > 1 || tt.measured && rtt.Sum < (delay-2*time.Millisecond).Seconds() {
					t.Errorf("%d round trips, %v s", observed, rtt.Sum)
				}
			})
		})
	}
}

// TestRoundTripOfPings: a pong that answers nothing, an old one, or one that comes twice measures nothing, ends nothing, and is no sign of death.
func TestRoundTripOfPings(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HeartbeatInterval: 100 * time.Millisecond, HeartbeatTimeout: time.Minute}, nil)
		p := s.dial(t, "/ws")
		p.send(wsframe.Pong, "")
		p.send(wsframe.Pong, "unasked")
		first := string(p.next().Payload)
		p.send(wsframe.Pong, first)
		p.send(wsframe.Pong, first)
		second := p.next().Payload
		p.send(wsframe.Pong, first)
		changed := bytes.Clone(second)
		changed[0] ^= 1
		p.send(wsframe.Pong, string(changed))
		p.send(wsframe.Pong, string(second[:pingBytes-1]))
		p.send(wsframe.Pong, string(second))
		await(t, "all are counted", func() bool { return s.Stats().HeartbeatsReceived["pong"] == 8 })
		observed := uint64(0)
		for _, n := range s.Stats().RTT.Counts {
			observed += n
		}
		if observed != 2 {
			t.Errorf("%d round trips of two answers", observed)
		}
	})
}

// TestSmoothing is RFC 6298, section 2, in units of 100 µs: a smoothed round trip and its variation.
func TestSmoothing(t *testing.T) {
	l, _ := newQuietLoop(Config{})
	r := l.table.at(l.upgraded(7))
	x := l.borrowRunner(0, r)
	x.r = r
	for _, tt := range []struct {
		micros          uint32
		srtt, variation uint32
	}{
		{10_000, 100, 50}, // first: SRTT = R, RTTVAR = R/2
		{10_000, 100, 38}, // 3/4 · 50
		{18_000, 110, 49}, // 7/8 · 100 + 1/8 · 180; 3/4 · 38 + 1/4 · 80
		{110, 96, 64},
		{1 << 31, 8276, 16408}, // as much as 16 bits hold
	} {
		x.roundTrip(tt.micros)
		if rtt := r.rtt.Load(); rtt>>16 != tt.srtt || rtt&0xffff != tt.variation {
			t.Errorf("after %d µs: %d and %d, want %d and %d", tt.micros, rtt>>16, rtt&0xffff, tt.srtt, tt.variation)
		}
	}
}

// TestCloseLeavesNoTimer: a hundred thousand real connections open and close in turns, in every way that connections end; nothing of them is
// left in the wheel, the table or the budget (stopAndCheck looks at the last two).
func TestCloseLeavesNoTimer(t *testing.T) {
	const dialers = 8
	each := 12_500
	if checkedBuild() {
		each = 500
	}
	s := start(t, Config{HandlerInline: true}, Echo{})
	done := make(chan error, dialers)
	for i := range dialers {
		go func() { done <- s.comeAndGo(net.IPv4(127, 0, 1, byte(1+i)), each) }()
	}
	for range dialers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	await(t, "all are gone", func() bool { return s.Stats().Active == 0 && s.Stats().Handshakes == 0 })
	s.on(t, func(l *loop) {
		if n := l.wheel.Len(); n != 0 {
			t.Errorf("loop %d: %d timers are left", l.index, n)
		}
	})
	if n := s.Stats().Total; n != uint64(dialers*each) {
		t.Errorf("%d connections in all, want %d", n, dialers*each)
	}
}

// comeAndGo opens connections one after the other, each source address having ports for some ten thousand, and ends them in every way.
func (s *running) comeAndGo(from net.IP, times int) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: patience}
	buf := make([]byte, 1024)
	for i := range times {
		c, err := dialer.Dial("tcp", s.addr)
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte(upgradeRequest("/ws?heartbeat=" + []string{"ping", "text", "none"}[i%3]))); err != nil {
			return err
		}
		if n, err := c.Read(buf); err != nil || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 101")) {
			return fmt.Errorf("upgrade: %q, %w", buf[:n], err)
		}
		switch i % 4 {
		case 0:
			_, _ = c.Write(masked(wsframe.Close, true, "\x03\xe8"))
		case 1:
			_ = c.(*net.TCPConn).SetLinger(0) // a reset
		case 2:
			_, _ = c.Write(masked(wsframe.Text, true, "goodbye")[:5])
		}
		_ = c.Close()
	}
	return nil
}
