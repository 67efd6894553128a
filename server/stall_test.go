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
	const interval, timeout = 500 * time.Millisecond, 2500 * time.Millisecond // far more than a busy machine withholds
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
			during(3*timeout/2, func() {})
			c.signal(t, syscall.SIGCONT)

			// Right after it, more than the socket takes, sent by another goroutine.
			late := c.shallow(t, "/ws?heartbeat=none")
			payload := strings.Repeat("x", 60_000)
			late.send(wsframe.Binary, payload)
			during(3*interval, func() {})
			late.expect(wsframe.Binary, payload)
			_ = late.Close()

			during(timeout, func() {})
			await(t, "the silent one is found", func() bool { return c.report(t).Stats.Expired > 0 })
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

// TestStallInTheTurnThatHeard: connections heard from in the very turn that stood still were silent since the stall, wherever in a
// millisecond the turn began.
func TestStallInTheTurnThatHeard(t *testing.T) {
	t.Parallel()
	for began := uint64(100_000); began < 102_000; began += 50 {
		for ended := began + 800_000; ended < began+802_000; ended += 50 {
			l := &loop{stalled: began, now: moment{micros: ended, ms: uint32(ended / 1000)}}
			silence := l.now.ms - uint32(began/1000)
			if !l.stoodStillIn(silence) {
				t.Errorf("heard and stood still at %d us: not within the silence of %d ms at %d us", began, silence, ended)
			}
			if l.stoodStillIn(silence - 2) {
				t.Errorf("stood still at %d us: within the silence of %d ms at %d us, which began later", began, silence-2, ended)
			}
		}
	}
	if (&loop{now: moment{micros: 5_000, ms: 5}}).stoodStillIn(5) {
		t.Error("a loop that never stood still did so in a silence")
	}
}
