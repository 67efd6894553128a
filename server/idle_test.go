package server

import (
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestFirstConnectionAfterIdle: a server that had nothing to do for long has a wheel that nobody moved. The next client must find timers
// armed from now: not all the heartbeats in between at once, and no handshake that is over before it began.
func TestFirstConnectionAfterIdle(t *testing.T) {
	for _, idle := range []time.Duration{time.Minute, 10 * time.Minute, 20 * time.Minute} {
		t.Run(idle.String(), func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{HandlerInline: true, HeartbeatInterval: time.Second, HeartbeatTimeout: 3 * time.Second}, Echo{})
			s.on(t, func(l *loop) {
				system := l.sys.(*osSys)
				system.began = system.began.Add(-idle)
				l.clock.read += idle
			})

			p := s.dial(t, "/ws")
			pings := 0
			for end := time.Now().Add(1500 * time.Millisecond); ; pings++ {
				m, err := p.read(end)
				if err != nil {
					break
				}
				if m.Opcode != wsframe.Ping {
					t.Fatalf("%v %q instead of a ping", m.Opcode, m.Payload)
				}
				p.send(wsframe.Pong, string(m.Payload))
			}
			if pings < 1 || pings > 2 {
				t.Errorf("%d pings within an interval and a half, want 1 or 2", pings)
			}
		})
	}
}
