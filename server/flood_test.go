package server

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestControlRateAtTheLimit: as many pings at once as a second permits are answered; one more is too many, in the same packet or behind it.
func TestControlRateAtTheLimit(t *testing.T) {
	const limit = 10
	ping := masked(wsframe.Ping, true, "x")
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{ControlRateLimit: limit}, Echo{})
		for _, beyond := range []int{0, 1} {
			p := s.dial(t, "/ws")
			p.write(bytes.Repeat(ping, limit+beyond))
			for range limit {
				p.expect(wsframe.Pong, "x")
			}
			if beyond > 0 {
				p.expectClose(wsframe.ClosePolicy)
			} else {
				p.send(wsframe.Text, "still here")
				p.expect(wsframe.Text, "still here")
			}
			_ = p.Close()
		}
		await(t, "both are counted", func() bool { st := s.Stats(); return st.Closed["policy"] == 1 && st.Active == 0 })
	})
}

// TestControlFloodWithoutReading: a peer that sends pings without end, where their rate has no bound, and never reads the answers makes the server hold
// no more than its backlog: it isn't read any more. When it reads at last it finds all answers.
func TestControlFloodWithoutReading(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{ControlRateLimit: -1, SocketSendBuffer: 8 << 10, SocketReceiveBuffer: 8 << 10}, Echo{})
		p := s.shallow(t, "/ws")
		flood := bytes.Repeat(masked(wsframe.Ping, true, strings.Repeat("p", wsframe.ControlBytesMax)), 100)
		sent, most := 0, 0
		for stuck := false; !stuck; {
			_ = p.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := p.Write(flood[sent%len(flood):])
			sent += n
			stuck = err != nil
			for c := range s.Conns() {
				info, _ := c.Info()
				most = max(most, info.Unsent)
			}
			if sent > 8<<20 {
				t.Fatalf("%d bytes of pings were taken from a peer that doesn't read", sent)
			}
		}
		if most > defaultMaxBackpressure {
			t.Errorf("%d bytes were unsent, at most %d may be", most, defaultMaxBackpressure)
		}
		frame := len(flood) / 100
		for range sent / frame {
			if m := p.next(); m.Opcode != wsframe.Pong || len(m.Payload) != wsframe.ControlBytesMax {
				t.Fatalf("got %v %q", m.Opcode, m.Payload)
			}
		}
		for reason, n := range s.Stats().Closed {
			if n != 0 {
				t.Errorf("%d were closed for %s", n, reason)
			}
		}
	})
}

// TestBombsCostNothing: compressed messages that would become a thousand times their size end at the bound and are counted, and while dozens of
// them are sent over and over the process holds no more than a few messages.
func TestBombsCostNothing(t *testing.T) {
	const limit, peers, most = 64 << 10, 40, 1 << 20
	bomb := compressed(wsframe.Binary, true, deflated(t, strings.Repeat("\x00", 40*limit)))
	s := start(t, Config{Compression: true, HandlerInline: true, MessageSizeLimit: limit}, Echo{})
	p := s.dialDeflate(t, "") // the first use makes what all share
	p.write(bomb)
	p.expectClose(wsframe.CloseTooBig)
	_ = p.Close()
	before, grown := int64(heapBytes()), int64(0)
	var lingering []net.Conn
	for range peers {
		p := s.dialDeflate(t, "")
		p.write(bomb)
		p.expectClose(wsframe.CloseTooBig)
		lingering = append(lingering, p.Conn)
		grown = max(grown, int64(heapBytes())-before)
	}
	t.Logf("the heap grew by %d bytes", grown)
	if grown > most {
		t.Errorf("the heap grew by %d bytes, at most %d are right", grown, most)
	}
	for _, c := range lingering {
		_ = c.Close()
	}
	await(t, "all are counted", func() bool { return s.Stats().Closed["too_big"] == peers+1 })
}

// TestAddressFarBeyond: of many connections of one address those beyond the bound are refused, each is counted, and others are served.
func TestAddressFarBeyond(t *testing.T) {
	const limit, far = 3, 100
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{ConnectionLimitPerIP: limit}, Echo{})
		for range limit {
			s.dial(t, "/ws")
		}
		for range far {
			if r := roundTrip(t, s.addr, upgradeRequest("/ws")); r.status != "429 Too Many Requests" {
				t.Fatalf("got %s", r.status)
			}
		}
		await(t, "they are counted", func() bool { st := s.Stats(); return st.Rejected["address"] == far && st.Active == limit })
	})
}

// TestBodiesOnTheWire: an upgrade has no body. What announces one, or could be read so, is refused before anything behind it is looked at; a length of 0
// announces none, and the frames behind the head are served.
func TestBodiesOnTheWire(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		refused := 0
		for _, tt := range []struct {
			name  string
			lines []string
			ok    bool
		}{
			{"length 0", []string{"Content-Length: 0"}, true},
			{"a length", []string{"Content-Length: 5"}, false},
			{"a length of 0 spelt otherwise", []string{"Content-Length: 00"}, false},
			{"length 0 twice", []string{"Content-Length: 0", "Content-Length: 0"}, false},
			{"chunks", []string{"Transfer-Encoding: chunked"}, false},
			{"length 0 and chunks", []string{"Content-Length: 0", "Transfer-Encoding: chunked"}, false},
			{"identity", []string{"Transfer-Encoding: identity"}, false},
		} {
			request := upgradeRequest("/ws", tt.lines...) + string(masked(wsframe.Text, true, "behind"))
			if tt.ok {
				p := newPeer(t, connect(t, s.addr))
				p.write([]byte(request))
				p.readUpgrade()
				p.expect(wsframe.Text, "behind")
				continue
			}
			refused++
			if r := roundTrip(t, s.addr, request); r.status != "400 Bad Request" || !strings.Contains(r.body, "body") {
				t.Errorf("%s: %s %q", tt.name, r.status, r.body)
			}
		}
		await(t, "they are counted", func() bool { return s.Stats().Rejected["malformed"] == uint64(refused) })
		if n := s.Stats().MessagesIn; n != 1 {
			t.Errorf("%d messages were taken", n)
		}
	})
}
