package server

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestChurn: many healthy connections beat, while others come and vanish: a third with FIN, a third with RST, a third in silence.
// No healthy one is lost, each vanished one is gone in time, and everything is back where it began.
func TestChurn(t *testing.T) {
	t.Parallel()
	const interval, timeout = 200 * time.Millisecond, 1200 * time.Millisecond
	each(t, variants(), func(t *testing.T, v variant) {
		const healthy, vanishing = 150, 90
		var opens, closes atomic.Int64
		s := v.start(t, Config{HeartbeatInterval: interval, HeartbeatTimeout: timeout}, hooks{
			open:    func(Conn, *Request) { opens.Add(1) },
			message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) },
			close:   func(Conn, uint16, string) { closes.Add(1) },
		})
		var lost atomic.Int64
		var answering sync.WaitGroup
		var all []*peer
		for range healthy {
			p := s.dial(t, "/ws")
			all = append(all, p)
			answering.Go(func() {
				if p.answer() != wsframe.CloseAbnormal {
					lost.Add(1)
				}
			})
		}
		var silent []*peer
		for i := range vanishing {
			p := s.dial(t, "/ws")
			half := masked(wsframe.Text, true, "half a frame")[:1+i%8]
			switch i % 3 {
			case 0:
				p.write(half)
				_ = p.Close()
			case 1:
				p.write(half)
				p.reset()
			default:
				silent = append(silent, p) // its socket stays, unread
			}
			during(10*time.Millisecond, func() {})
		}
		gone := time.Now()
		await(t, "the vanished are gone", func() bool { return s.Stats().Active == healthy })
		if took := time.Since(gone); took > timeout+2*tick+slack {
			t.Errorf("the last of them was gone after %v, the timeout is %v", took, timeout)
		}
		during(timeout, func() {})
		await(t, "all handlers are told", func() bool { return closes.Load() == vanishing })
		st := s.Stats()
		if lost.Load() != 0 || st.Active != healthy {
			t.Errorf("%d healthy connections were closed, %d of %d are left", lost.Load(), st.Active, healthy)
		}
		if st.Expired != vanishing/3 || st.Closed["end"]+st.Closed["reset"] != 2*vanishing/3 {
			t.Errorf("closed: %v, want %d expired and %d vanished", st.Closed, vanishing/3, 2*vanishing/3)
		}
		for _, p := range append(all, silent...) {
			_ = p.Close()
		}
		answering.Wait()
		await(t, "all is as it was", func() bool { return s.Stats().Active == 0 && closes.Load() == opens.Load() })
		if opens.Load() != healthy+vanishing {
			t.Errorf("%d opens, want %d", opens.Load(), healthy+vanishing)
		}
		s.on(t, func(l *loop) {
			if n := l.wheel.Len(); n != 0 {
				t.Errorf("%d timers left", n)
			}
		})
		await(t, "the side tables are empty", func() bool { return s.sidesKept() == 0 }) // a slot is freed after its Close was told
	})
}
