package server

import (
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestStoppedProcess: a server that stood still for longer than the timeout expires nobody for its own silence; it still finds out
// who is dead, and takes nobody for a slow reader because its clock has jumped.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	const interval, timeout = 200 * time.Millisecond, 800 * time.Millisecond
	each(t, runners(), func(t *testing.T, v variant) {
		c := startChild(t, childSettings{InlineBatch: v.inlineBatch, Interval: interval, Timeout: timeout})
		const healthy = 60
		var lost atomic.Int64
		var answering sync.WaitGroup
		var all []*peer
		for range healthy {
			p := c.dial(t, "/ws")
			all = append(all, p)
			answering.Go(func() {
				if p.answer() != wsframe.CloseAbnormal {
					lost.Add(1)
				}
			})
		}
		silent := c.dial(t, "/ws?heartbeat=none")
		for round := range 2 {
			c.signal(t, syscall.SIGSTOP)
			during(2*timeout, func() {})
			c.signal(t, syscall.SIGCONT)

			// Right after it, more than the socket takes, sent by another goroutine.
			late := c.shallow(t, "/ws?heartbeat=none")
			payload := strings.Repeat("x", 60_000)
			late.send(wsframe.Binary, payload)
			during(3*interval, func() {})
			late.expect(wsframe.Binary, payload)
			_ = late.Close()

			during(2*timeout-3*interval, func() {})
			r := c.report(t)
			if n := lost.Load(); n != 0 || r.Stats.Closed["slow_consumer"] != 0 || r.Stats.Active != healthy {
				t.Errorf("round %d: %d healthy peers lost, %d of %d active, closed %v", round, n, r.Stats.Active, healthy, r.Stats.Closed)
			}
			if r.Stats.Expired != 1 {
				t.Errorf("round %d: %d expired, want the silent one", round, r.Stats.Expired)
			}
			if r.Stats.Closed["stalled"] != 1 {
				t.Errorf("round %d: closed %v, want the silent one told apart, since the server stood still in its silence", round, r.Stats.Closed)
			}
		}
		if m, err := silent.read(time.Now().Add(patience)); err != nil || m.Opcode != wsframe.Close {
			t.Errorf("the silent one got %v, %v", m.Opcode, err)
		}
		for _, p := range all {
			_ = p.Close()
		}
		answering.Wait()
	})
}
