package server

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// The tests of times are not parallel at the top, so that no busy test runs beside them; their variants may, they mostly wait.

// TestHeartbeatInterval: heartbeats keep their interval to the tick, without drift, whether answered or not.
func TestHeartbeatInterval(t *testing.T) {
	const interval, beats = 160 * time.Millisecond, 9
	for _, mode := range []HeartbeatMode{HeartbeatPing, HeartbeatText} {
		for _, answered := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v, answered %v", mode, answered), func(t *testing.T) {
				each(t, runners(), func(t *testing.T, v variant) {
					s := v.start(t, Config{HeartbeatMode: mode, HeartbeatInterval: interval, HeartbeatTimeout: time.Minute}, Echo{})
					p := s.dial(t, "/ws")
					var at []time.Time
					for range beats {
						m := p.next()
						at = append(at, time.Now())
						switch {
						case mode == HeartbeatPing && (m.Opcode != wsframe.Ping || len(m.Payload) != pingBytes),
							mode == HeartbeatText && (m.Opcode != wsframe.Text || string(m.Payload) != `{"type":"heartbeat"}`):
							t.Fatalf("a heartbeat is %v %q", m.Opcode, m.Payload)
						case !answered:
						case mode == HeartbeatPing:
							p.send(wsframe.Pong, string(m.Payload))
						default:
							p.send(wsframe.Text, `{"type":"heartbeat_ack"}`)
						}
					}
					var gaps []time.Duration
					for i := range at[1:] {
						gaps = append(gaps, at[i+1].Sub(at[i]))
					}
					slices.Sort(gaps)
					if median := gaps[len(gaps)/2]; median < interval-2*tick || median > interval+2*tick {
						t.Errorf("the median of the gaps is %v, want %v: %v", median, interval, gaps)
					}
					whole, want := at[beats-1].Sub(at[0]), (beats-1)*interval
					if whole < want-slack/2 || whole > want+slack/2 {
						t.Errorf("%d gaps make %v, want %v", beats-1, whole, want)
					}
					await(t, "they are counted", func() bool { return s.Stats().HeartbeatsSent[mode.String()] >= beats })
				})
			})
		}
	}
}

// TestNoHeartbeatWhereTrafficIsHeard: who talks more often than the interval is never beaten; who falls silent is, within an
// interval.
func TestNoHeartbeatWhereTrafficIsHeard(t *testing.T) {
	const interval = time.Second
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HeartbeatInterval: interval, HeartbeatTimeout: time.Minute}, nil)
		p := s.dial(t, "/ws")
		var last time.Time
		during(5*interval/2, func() {
			if time.Since(last) > interval/10 {
				last = time.Now()
				p.send(wsframe.Binary, "x")
			}
		})
		if n := s.Stats().HeartbeatsSent["ping"]; n != 0 {
			t.Errorf("%d heartbeats to who is heard from", n)
		}
		if m := p.next(); m.Opcode != wsframe.Ping {
			t.Fatalf("got %v", m.Opcode)
		}
		if quiet := time.Since(last); quiet < interval/4-2*tick || quiet > interval+2*tick+slack {
			t.Errorf("the first heartbeat came %v after the last message, want a quarter to the whole of %v", quiet, interval)
		}
	})
}

// TestExpiry: silence expires at the timeout, whatever the mode and whatever state the peer fell silent in.
func TestExpiry(t *testing.T) {
	const interval, timeout = 300 * time.Millisecond, 900 * time.Millisecond
	frame := string(masked(wsframe.Text, true, "a message of which half arrives"))
	for _, tt := range []struct {
		name string
		mode HeartbeatMode
		last string // that the peer says, 400 ms after its upgrade
	}{
		{"ping", HeartbeatPing, ""},
		{"text", HeartbeatText, ""},
		{"none", HeartbeatNone, ""},
		{"after a message", HeartbeatPing, string(masked(wsframe.Binary, true, "x"))},
		{"in a header", HeartbeatPing, frame[:1]},
		{"in a frame", HeartbeatNone, frame[:10]},
		{"between the frames of a message", HeartbeatText, string(masked(wsframe.Text, false, "half"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, runners(), func(t *testing.T, v variant) {
				h, _, _, closes := reporter()
				s := v.start(t, Config{HeartbeatMode: tt.mode, HeartbeatInterval: interval, HeartbeatTimeout: timeout}, h)
				before := time.Now()
				p := s.dial(t, "/ws")
				after := time.Now()
				if tt.last != "" {
					during(400*time.Millisecond, func() {})
					before = time.Now()
					p.write([]byte(tt.last))
					after = time.Now()
				}
				beats := 0
				m := p.next()
				for ; m.Opcode != wsframe.Close; m = p.next() {
					beats++
				}
				if took := time.Since(before); took < timeout-2*time.Millisecond { // records keep whole milliseconds
					t.Errorf("expired %v after the last byte, before the timeout of %v", took, timeout)
				}
				if took := time.Since(after); took > timeout+2*tick+slack {
					t.Errorf("expired %v after the last byte, more than two ticks beyond %v", took, timeout)
				}
				if code, reason, _ := wsframe.ParseClose(m.Payload); code != wsframe.CloseHeartbeatLost || reason != "heartbeat-timeout" {
					t.Errorf("closed with %d %q", code, reason)
				}
				if got := receive(t, "Close", closes); got != (ended{4408, "heartbeat-timeout"}) {
					t.Errorf("the handler was told %v", got)
				}
				if want := tt.mode != HeartbeatNone; beats > 0 != want {
					t.Errorf("%d heartbeats in mode %v", beats, tt.mode)
				}
				await(t, "it is counted", func() bool { st := s.Stats(); return st.Expired == 1 && st.Closed["expired"] == 1 })
			})
		})
	}
}

// TestDrippingKeepsAlive: any byte counts as alive.
func TestDrippingKeepsAlive(t *testing.T) {
	const timeout = time.Second
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HeartbeatMode: HeartbeatNone, HeartbeatInterval: timeout / 2, HeartbeatTimeout: timeout}, Echo{})
		p := s.dial(t, "/ws")
		frame := masked(wsframe.Binary, true, string(make([]byte, 100)))
		sent := 0
		var last time.Time
		during(5*timeout/2, func() {
			if sent < len(frame)-1 && time.Since(last) > timeout/20 {
				p.write(frame[sent : sent+1])
				sent, last = sent+1, time.Now()
			}
		})
		if n := s.Stats().Expired; n != 0 {
			t.Fatal("a peer that drips was expired")
		}
		p.write(frame[sent:])
		p.expect(wsframe.Binary, string(make([]byte, 100)))
	})
}

// TestAnswersKeepAlive: a peer that does nothing but answer heartbeats lives on, and its round trips are measured.
func TestAnswersKeepAlive(t *testing.T) {
	const interval, timeout = 100 * time.Millisecond, 400 * time.Millisecond
	for _, mode := range []HeartbeatMode{HeartbeatPing, HeartbeatText} {
		t.Run(mode.String(), func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				h, opens, messages, _ := reporter()
				s := v.start(t, Config{HeartbeatMode: mode, HeartbeatInterval: interval, HeartbeatTimeout: timeout}, h)
				p := s.dial(t, "/ws")
				c := receive(t, "Open", opens)
				answers := uint64(0)
				for began := time.Now(); time.Since(began) < 3*timeout; answers++ {
					if m := p.next(); mode == HeartbeatPing {
						p.send(wsframe.Pong, string(m.Payload))
					} else {
						p.send(wsframe.Text, `{"type":"heartbeat_ack"}`)
					}
				}
				kind := map[HeartbeatMode]string{HeartbeatPing: "pong", HeartbeatText: "ack"}[mode]
				await(t, "the answers are counted", func() bool { return s.Stats().HeartbeatsReceived[kind] == answers })
				info, ok := c.Info()
				if !ok || info.RTT <= 0 || info.RTT > time.Second || info.Mode != mode || info.LastHeard > timeout {
					t.Errorf("info %+v, %v", info, ok)
				}
				observed := uint64(0)
				for _, n := range s.Stats().RTT.Counts {
					observed += n
				}
				if observed == 0 || observed > answers {
					t.Errorf("%d round trips of %d answers", observed, answers)
				}
				if n := s.Stats().Expired; n != 0 || len(messages) != 0 {
					t.Errorf("%d expired, %d messages delivered", n, len(messages))
				}
			})
		})
	}
}

// TestAnswersAreNoFlood: the pongs that the server itself asks for don't count against the peer.
func TestAnswersAreNoFlood(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{HeartbeatInterval: 2 * tick, HeartbeatTimeout: time.Minute, ControlRateLimit: 2}, Echo{})
		p := s.dial(t, "/ws")
		for range 20 {
			m := p.next()
			if m.Opcode != wsframe.Ping {
				t.Fatalf("got %v %q", m.Opcode, m.Payload)
			}
			p.send(wsframe.Pong, string(m.Payload))
		}
	})
}

// TestOneTimerAConnection: an open connection has one timer, and none where there is nothing to wait for.
func TestOneTimerAConnection(t *testing.T) {
	for _, tt := range []struct {
		name    string
		query   string
		timeout time.Duration
		want    int
	}{
		{"heartbeats and a timeout", "", 0, 3},
		{"heartbeats alone", "", -1, 3},
		{"a timeout alone", "?heartbeat=none", 0, 3},
		{"neither", "?heartbeat=none", -1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, runners(), func(t *testing.T, v variant) {
				s := v.start(t, Config{Loops: 1, HeartbeatTimeout: tt.timeout, HandshakeTimeout: time.Hour}, Echo{})
				for range 3 {
					p := s.dial(t, "/ws"+tt.query)
					p.send(wsframe.Text, "x")
					p.expect(wsframe.Text, "x")
				}
				got := 0
				await(t, "the timers are armed", func() bool {
					s.on(t, func(l *loop) { got = l.wheel.Len() })
					return got == tt.want
				})
			})
		})
	}
}

// TestHeartbeatsSpread: connections that came in one crowd are not beaten in one crowd.
func TestHeartbeatsSpread(t *testing.T) {
	const interval, crowd = 2 * time.Second, 300
	s := start(t, Config{Loops: 1, HandlerInline: true, HeartbeatInterval: interval, HeartbeatTimeout: time.Minute}, Echo{})
	for range crowd {
		s.dial(t, "/ws")
	}
	slots := int64(interval / tick)
	most := 0
	s.on(t, func(l *loop) {
		for at := l.wheel.Now(); at <= l.wheel.Now()+2*slots; at++ {
			most = max(most, l.wheel.Count(at))
		}
	})
	if share := crowd / int(slots); most > 4*share {
		t.Errorf("a slot holds %d of %d timers, its share is %d", most, crowd, share)
	}
}

// TestHeartbeatsOfATickMakeRoom: a loop that is on time fires few timers a turn, so that I/O comes between them; one that is behind does all it can.
func TestHeartbeatsOfATickMakeRoom(t *testing.T) {
	const peers = 5 * firesOnTime
	for _, tt := range []struct {
		name string
		late time.Duration
		want []int // heartbeats after each turn
	}{
		{"on time", 0, []int{firesOnTime, 2 * firesOnTime, 3 * firesOnTime}},
		{"behind", firesBehindAfter + time.Millisecond, []int{peers, peers}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, q := newQuietLoop(Config{HeartbeatTimeout: -1})
			at := int64(defaultHeartbeatInterval/tick) + 1
			for fd := range peers {
				l.wheel.Schedule(l.upgraded(fd), at)
			}
			q.at = time.Duration(at)*tick + tt.late
			l.now = newMoment(q.at)
			for turn, want := range tt.want {
				l.fireTimers()
				l.runner.publish()
				if got := l.runner.public.totals[countBeatsPing].Load(); got != uint64(want) {
					t.Fatalf("%d heartbeats after turn %d, want %d", got, turn+1, want)
				}
			}
		})
	}
}
