package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// knockers are connections that send half a head, or nothing, and say no more.
func (s *running) knockers(t *testing.T, n int) (all []*peer) {
	t.Helper()
	for i := range n {
		p := newPeer(t, connect(t, s.addr))
		if i%2 == 0 {
			p.write([]byte("GET /ws HTTP/1.1\r\n"))
		}
		all = append(all, p)
	}
	return all
}

// TestHalfHandshakesOfOneAddress: handshakes that don't end count for the limit of an address as connections do, by themselves; they neither shut
// out who has come in before, nor stay counted when they are over.
func TestHalfHandshakesOfOneAddress(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		const limit = 5
		s := v.start(t, Config{ConnectionLimitPerIP: limit}, Echo{})
		inside := s.dial(t, "/ws")
		halves := s.knockers(t, limit)
		await(t, "they knock", func() bool { return s.Stats().Handshakes == limit })
		for range 3 * limit {
			p := newPeer(t, connect(t, s.addr))
			if r := readResponse(t, p); r.status != "429 Too Many Requests" || !strings.Contains(r.header, "\r\nRetry-After: ") {
				t.Errorf("one more: %s%s", r.status, r.header)
			}
			_ = p.Close()
		}
		await(t, "they are counted", func() bool { return s.Stats().Rejected["address"] == 3*limit })
		if n := s.Stats().Handshakes; n != limit {
			t.Errorf("%d handshakes, want %d", n, limit)
		}
		inside.send(wsframe.Text, "still here")
		inside.expect(wsframe.Text, "still here")
		for _, p := range halves {
			_ = p.Close()
		}
		await(t, "they are gone", func() bool { return s.Stats().Handshakes == 0 })
		s.dial(t, "/ws")
		s.admission.mu.Lock()
		defer s.admission.mu.Unlock()
		if len(s.admission.knocking) != 0 || s.handshaking.Load() != 0 {
			t.Errorf("%v addresses and %d handshakes are still counted", s.admission.knocking, s.handshaking.Load())
		}
	})
}

// TestHalfHandshakesBeyondTheLimit: accepted connections are bounded whatever they are, so that descriptors are left for everything else; who asks
// how the server is gets told all the same.
func TestHalfHandshakesBeyondTheLimit(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		const limit = 4
		s := v.start(t, Config{ConnectionLimit: limit}, Echo{})
		for range limit {
			s.dial(t, "/ws")
		}
		if r := roundTrip(t, s.addr, upgradeRequest("/ws")); r.status != "503 Service Unavailable" {
			t.Errorf("one beyond the limit: %s", r.status)
		}
		await(t, "it has gone", func() bool { return s.Stats().Handshakes == 0 })
		s.knockers(t, handshakesBeyond)
		await(t, "they knock", func() bool { return s.Stats().Handshakes == handshakesBeyond })
		before := s.Stats().Rejected["limit"]
		const more = 20
		for range more {
			p := newPeer(t, connect(t, s.addr))
			if r := readResponse(t, p); r.status != "503 Service Unavailable" || !strings.Contains(r.header, "\r\nRetry-After: ") {
				t.Errorf("one more: %s%s", r.status, r.header)
			}
			_ = p.Close()
		}
		await(t, "they are counted", func() bool { return s.Stats().Rejected["limit"] == before+more })
		if n := s.Stats().Handshakes; n != handshakesBeyond {
			t.Errorf("%d handshakes, want %d", n, handshakesBeyond)
		}
		// What was sent by the time at which the connection is accepted is looked at: mostly, but not always.
		await(t, "a health check is answered", func() bool {
			return roundTrip(t, s.addr, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status == "200 OK"
		})
		await(t, "a readiness check is answered", func() bool {
			r := roundTrip(t, s.addr, "HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
			return r.status == "503 Service Unavailable" && r.body == "" && !strings.Contains(r.header, "Retry-After")
		})
	})
}

// TestInflatingIsServedInTurns: a thousand bytes become a million, and yet a turn has a bound: one such message of a connection, some of all
// together; who sends plainly doesn't wait for them.
func TestInflatingIsServedInTurns(t *testing.T) {
	const message, packed, peers = 256 << 10, 30, 20
	served := map[Conn]int{}
	l, quiet := newQuietLoop(Config{Compression: true, MessageSizeLimit: message, MaxBackpressure: -1})
	l.server.handler = hooks{message: func(c Conn, _ Op, _ []byte) { served[c]++ }}
	packet := []byte(strings.Repeat(string(compressed(wsframe.Binary, true, deflated(t, strings.Repeat("a", message)))), packed))
	q := &streams{quietSys: quiet, input: map[int][]byte{}}
	l.sys = q
	var slots []uint32
	for fd := range peers {
		slot := l.upgraded(fd)
		if fd < peers-1 {
			l.table.at(slot).setDeflate(15)
			q.input[fd] = packet
		} else {
			q.input[fd] = masked(wsframe.Binary, true, "plain")
		}
		slots = append(slots, slot)
	}
	for _, slot := range slots {
		l.table.at(slot).set(bitHeld | bitIn)
	}
	l.ready = append(l.ready, slots...)
	total := 0
	for turn := 0; total < packed*(peers-1); turn++ {
		before := total
		l.serveReady()
		l.runTasks()
		total = -served[l.conn(slots[peers-1])]
		for _, n := range served {
			total += n
		}
		if n := total - before; n < 1 || n > batchExpandedMax/message {
			t.Fatalf("turn %d: %d messages of %d bytes, at most %d may be", turn, n, message, batchExpandedMax/message)
		}
		if turn == 0 && served[l.conn(slots[peers-1])] != 1 {
			t.Error("who sends plainly waits")
		}
	}
	for _, slot := range slots[:peers-1] {
		if n := served[l.conn(slot)]; n != packed {
			t.Errorf("slot %d: %d messages of %d", slot, n, packed)
		}
	}
}

// streams is a quietSys with input for each descriptor.
type streams struct {
	*quietSys
	input map[int][]byte
}

func (s *streams) read(fd int, p []byte) (int, error) {
	s.quietSys.input = s.input[fd]
	n, err := s.quietSys.read(fd, p)
	s.input[fd] = s.quietSys.input
	return n, err
}

// conn is the handle of a connection.
func (l *loop) conn(slot uint32) Conn {
	x := l.borrowRunner(slot, l.table.at(slot))
	return x.conn()
}

// TestPipeliningWithoutALimit: without --message-size-limit a message in fragments may become anything; who sends such ones and reads is slowed,
// and never closed.
func TestPipeliningWithoutALimit(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{MessageSizeLimit: -1}, Echo{})
		p := s.shallow(t, "/ws")
		const messages, bytes = 60, 45_000
		go func() {
			for i := range messages {
				text := fmt.Sprintf("%03d%s", i, strings.Repeat("x", bytes))
				if _, err := p.Write(append(masked(wsframe.Text, false, text[:1]), masked(wsframe.Continuation, true, text[1:])...)); err != nil {
					return
				}
			}
		}()
		for i := range messages {
			if m := p.nextBut(); m.Opcode != wsframe.Text || !strings.HasPrefix(string(m.Payload), fmt.Sprintf("%03d", i)) {
				t.Fatalf("message %d: %v %.40q", i, m.Opcode, m.Payload)
			}
		}
	})
}
