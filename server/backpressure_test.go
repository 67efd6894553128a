package server

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// shallow is a peer with little room in its buffers, so that who doesn't read is noticed soon, on both sides. Its segments are as small
// as those of a real network: with the 64 KiB of loopback so small a window would open a few times a second.
func (s *running) shallow(t *testing.T, target string) *peer {
	t.Helper()
	dialer := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if controlErr := raw.Control(func(fd uintptr) {
			err = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<10),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 32<<10),
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400),
			)
		}); controlErr != nil {
			return controlErr
		}
		return err
	}}
	c, err := dialer.DialContext(t.Context(), "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	p := newPeer(t, c)
	p.write([]byte(upgradeRequest(target)))
	p.readUpgrade()
	return p
}

// TestSlowConsumer: what is unsent stays under the bound, Send says so, and the peer is closed as what it is. If it reads again
// within the time that closing takes, it sees whole messages in their order and then why it was closed.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		bound int // MaxBackpressure
		size  int // of a message
		most  int // bytes that may be unsent
	}{
		{"default bound", 0, 1000, defaultMaxBackpressure},
		{"small bound", 4096, 1000, 4096},
		{"messages larger than the bound", 4096, 64 << 10, 64<<10 + 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				h, opens, _, closes := reporter()
				s := v.start(t, Config{MaxBackpressure: tt.bound, SocketSendBuffer: 8 << 10}, h)
				p := s.shallow(t, "/ws")
				c := receive(t, "Open", opens)
				sent, most := 0, 0
				message := func(i int) string { return fmt.Sprintf("%08d", i) + strings.Repeat("x", tt.size-8) }
				var err error
				for ; err == nil; sent++ {
					err = c.Send(Text, []byte(message(sent)))
					info, _ := c.Info()
					most = max(most, info.Unsent)
				}
				sent-- // the last one was not taken
				if !errors.Is(err, ErrBackpressure) {
					t.Fatalf("Send: %v, want ErrBackpressure", err)
				}
				if most > tt.most {
					t.Errorf("%d bytes were unsent, at most %d may be", most, tt.most)
				}
				if err := c.Send(Text, []byte("after")); !errors.Is(err, ErrClosed) {
					t.Errorf("the next Send: %v, want ErrClosed", err)
				}
				received := 0
				m := p.nextBut()
				for ; m.Opcode == wsframe.Text; m = p.nextBut() {
					if string(m.Payload) != message(received) {
						t.Fatalf("message %d is %.20q…", received, m.Payload)
					}
					received++
				}
				if code, reason, _ := wsframe.ParseClose(m.Payload); m.Opcode != wsframe.Close || code != wsframe.CloseOverload || reason != "slow-consumer" {
					t.Errorf("closed with %v %d %q", m.Opcode, code, reason)
				}
				p.expectEnd()
				_ = p.Close()
				if received > sent {
					t.Errorf("%d messages arrived, only %d were taken", received, sent)
				}
				if got := receive(t, "Close", closes); got != (ended{1013, "slow-consumer"}) {
					t.Errorf("the handler was told %v", got)
				}
				await(t, "it is counted", func() bool { return s.Stats().Closed["slow_consumer"] == 1 })
			})
		})
	}
}

// TestReaderThatNeverReads holds nothing but its bound, is gone after the time that closing takes, and nobody else notices.
func TestReaderThatNeverReads(t *testing.T) {
	t.Parallel()
	each(t, variants()[:3], func(t *testing.T, v variant) {
		s := v.start(t, Config{SocketSendBuffer: 8 << 10, Loops: 1}, hooks{message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) }})
		for range 5 {
			s.shallow(t, "/ws?never")
		}
		good := s.dial(t, "/ws")
		conns := make(map[Conn]bool)
		await(t, "all are open", func() bool { // a connection is open a moment after its 101
			for c := range s.Conns() {
				conns[c] = true
			}
			return len(conns) == 6
		})
		good.send(wsframe.Text, "which am I?")
		good.expect(wsframe.Text, "which am I?")
		flood := bytes.Repeat([]byte("x"), 4000)
		began := time.Now()
		local := good.LocalAddr().String()
		for c := range conns {
			if c.RemoteAddr().String() == local {
				continue
			}
			for c.Send(Binary, flood) == nil {
			}
		}
		await(t, "they are gone", func() bool {
			good.send(wsframe.Text, "I am still served")
			before := time.Now()
			good.expect(wsframe.Text, "I am still served")
			if took := time.Since(before); took > 2*slack {
				t.Errorf("an echo took %v", took)
			}
			return s.Stats().Closed["slow_consumer"] == 5
		})
		if took := time.Since(began); took < closeTimeout || took > closeTimeout+2*slack {
			t.Errorf("it took %v, want %v", took, closeTimeout)
		}
		if n := s.Stats().Active; n != 1 {
			t.Errorf("%d connections left, want 1", n)
		}
	})
}

// TestNoProgress: a peer that doesn't read is closed after the heartbeat timeout though its bound is not reached, and though it
// talks: nothing of what it is sent gets through.
func TestNoProgress(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, opens, _, closes := reporter()
		h.message = nil
		const timeout = 600 * time.Millisecond
		s := v.start(t, Config{MaxBackpressure: 1 << 20, SocketSendBuffer: 8 << 10, HeartbeatInterval: timeout / 4, HeartbeatTimeout: timeout}, h)
		p := s.shallow(t, "/ws")
		c := receive(t, "Open", opens)
		if err := c.Send(Binary, make([]byte, 512<<10)); err != nil {
			t.Fatal(err)
		}
		// Even a socket whose peer doesn't read takes some bytes now and then: what counts is the last of them.
		info, _ := c.Info()
		_, r := c.find()
		progress, word := time.Now(), time.Now()
		for r.load()&bitLive != 0 && time.Since(progress) < patience {
			unsent := info.Unsent
			if info, _ = c.Info(); info.Unsent < unsent {
				progress = time.Now()
			}
			if time.Since(word) > timeout/20 {
				word = time.Now()
				p.write(masked(wsframe.Text, true, "I talk, but I don't read"))
			}
			during(tick/2, func() {})
		}
		if took := time.Since(progress); took < timeout-2*tick-slack/3 || took > timeout+timeout/4+2*tick+slack {
			t.Errorf("closed %v after the last byte was taken, want %v and at most an interval more", took, timeout)
		}
		_ = p.Close()
		if got := receive(t, "Close", closes); got.code != 1013 {
			t.Errorf("the handler was told %v", got)
		}
	})
}

// TestPipeliningEcho: a peer that sends megabytes before it reads is slowed by the echoes it owes to read, but never closed, and
// every byte comes back.
func TestPipeliningEcho(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bound int
		least int // bytes of a message
		most  int
		total int
	}{
		{"default bound", 0, 0, 64 << 10, 4 << 20},
		{"small messages", 0, 0, 200, 1 << 20},
		{"small bound", 4096, 0, 3000, 1 << 20},
		{"small bound, small messages", 4096, 0, 200, 1 << 19},
		{"messages larger than the bound", 4096, 60 << 10, 64 << 10, 4 << 20},
		{"messages of all sizes and a small bound", 4096, 0, 64 << 10, 4 << 20},
		{"no bound", -1, 0, 64 << 10, 4 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				s := v.start(t, Config{
					MaxBackpressure: tt.bound, SocketSendBuffer: 8 << 10, SocketReceiveBuffer: 8 << 10,
					HeartbeatInterval: 2 * tick, HeartbeatTimeout: 2 * patience, // heartbeats get between the echoes
				}, Echo{})
				p := s.shallow(t, "/ws")
				var messages []string
				for bytes := 0; bytes < tt.total; {
					messages = append(messages, randomText(tt.least+rand.IntN(tt.most-tt.least+1)))
					bytes += len(messages[len(messages)-1]) + 1
				}
				var written atomic.Int64
				wrote := make(chan error, 1)
				go func() {
					for _, m := range messages {
						if _, err := p.Write(masked(wsframe.Text, true, m)); err != nil {
							wrote <- err
							return
						}
						written.Add(1)
					}
					wrote <- nil
				}()
				stalled := func() bool {
					before := written.Load()
					during(100*time.Millisecond, func() {})
					return written.Load() == before
				}
				await(t, "the peer is slowed", stalled)
				if tt.bound >= 0 && written.Load() == int64(len(messages)) {
					t.Errorf("all %d bytes were taken from a peer that doesn't read", tt.total)
				}
				for c := range s.Conns() {
					bound := max(tt.bound, tt.most+10)
					if tt.bound == 0 {
						bound = defaultMaxBackpressure + 10 // one message of the largest size, if it came first
					}
					if info, _ := c.Info(); tt.bound >= 0 && info.Unsent > bound {
						t.Errorf("%d bytes unsent, at most %d may be", info.Unsent, bound)
					}
				}
				for i, want := range messages {
					m := p.next()
					for m.Opcode == wsframe.Ping {
						m = p.next()
					}
					if string(m.Payload) != want {
						code, reason, _ := wsframe.ParseClose(m.Payload)
						t.Fatalf("message %d of %d: got %v of %d bytes, want text of %d (%d %q)", i, len(messages), m.Opcode, len(m.Payload), len(want), code, reason)
					}
				}
				if err := receive(t, "the end of the writing", wrote); err != nil {
					t.Error(err)
				}
				p.send(wsframe.Close, "\x03\xe8")
				p.expectClose(1000)
			})
		})
	}
}

// TestFloodIsServedInTurns: a peer that floods has its turn of every round, and so has a peer that says one word.
func TestFloodIsServedInTurns(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{Loops: 1}, Echo{})
		flooders := make([]*peer, 2)
		for i := range flooders {
			p := s.dial(t, "/ws")
			flooders[i] = p
			packet := []byte(strings.Repeat(string(masked(wsframe.Binary, true, "flood")), 2000))
			go func() {
				for {
					if _, err := p.Write(packet); err != nil {
						return
					}
				}
			}()
			go func() {
				sink := make([]byte, 64<<10)
				for {
					if _, err := p.Read(sink); err != nil {
						return
					}
				}
			}()
		}
		word := s.dial(t, "/ws")
		var slowest time.Duration
		for range 20 {
			began := time.Now()
			word.send(wsframe.Text, "word")
			word.expect(wsframe.Text, "word")
			slowest = max(slowest, time.Since(began))
		}
		if slowest > 2*time.Second {
			t.Errorf("a word took %v beside two who flood", slowest)
		}
		for _, p := range flooders {
			_ = p.Close()
		}
	})
}
