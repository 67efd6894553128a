package server

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// slowSys lets time pass in each read, as on a machine without a free core.
type slowSys struct {
	*quietSys
	took time.Duration
}

func (q *slowSys) wait([]poller.Event, time.Duration) (int, error) { return 0, nil }
func (q *slowSys) add(int, poller.Token) error                     { return nil }
func (q *slowSys) read(fd int, p []byte) (int, error) {
	q.at += q.took
	return q.quietSys.read(fd, p)
}

// TestHeardInALongTurn: what a read finds may have come at any time of the turn, and nothing else tells of it. The timeout begins at the end
// of the turn then; a turn so long that it counts as a stall doesn't count in the connections' time at all.
func TestHeardInALongTurn(t *testing.T) {
	lengths := []struct {
		name string
		took time.Duration
		want time.Duration // after the beginning of the turn, in connection time
	}{
		{"short", heardSlack, 0},
		{"long", 40 * time.Millisecond, 40 * time.Millisecond},
		{"stall", stallLeast + time.Millisecond, 0},
	}
	ways := []struct {
		name string
		read func(l *loop) (slot uint32)
	}{
		{"event", func(l *loop) uint32 {
			slot := l.upgraded(7)
			l.readable(slot)
			return slot
		}},
		{"first read", func(l *loop) uint32 {
			l.admit(7, netip.AddrPort{}, false, nil)
			return l.fresh[0]
		}},
		{"pool", func(l *loop) uint32 {
			slot := l.upgraded(7)
			r := l.table.at(slot)
			r.set(bitHeld | bitIn)
			l.server.runBatch(0, &loans{loop: l, now: l.now, began: l.clock.read, slots: []uint32{slot}})
			return slot
		}},
	}
	for _, way := range ways {
		for _, tt := range lengths {
			t.Run(way.name+"/"+tt.name, func(t *testing.T) {
				l, quiet := newQuietLoop(Config{})
				l.server.workers = []*runner{newRunner(l.server, countBatchesPool)}
				q := &slowSys{quietSys: quiet}
				l.sys = q
				turn := func() {
					t.Helper()
					if _, err := l.wait(); err != nil {
						t.Fatal(err)
					}
				}
				q.at = time.Minute
				l.clock.start(q.at)
				turn()
				idle := l.upgraded(9)
				q.at += 100 * time.Millisecond
				turn()

				began := l.now.ms
				q.took, q.input = tt.took, masked(wsframe.Text, true, "hello")
				r := l.table.at(way.read(l))
				turn()
				if got := time.Duration(r.heard.Load()-began) * time.Millisecond; got != tt.want {
					t.Errorf("heard %v after the turn began, want %v", got, tt.want)
				}
				if silence := l.silence(r); silence > uint32(tt.took/time.Millisecond) {
					t.Errorf("silent for %d ms", silence)
				}
				if silence := l.silence(l.table.at(idle)); silence < 100 {
					t.Errorf("who sent nothing is silent for %d ms, want 100 and more", silence)
				}
			})
		}
	}
}

// TestHandshakeInALongTurn: who is accepted at the end of a long turn has no less time for its handshake than others.
func TestHandshakeInALongTurn(t *testing.T) {
	const took = 90 * time.Millisecond
	l, quiet := newQuietLoop(Config{HandshakeTimeout: time.Second})
	q := &slowSys{quietSys: quiet}
	l.sys = q
	q.at = time.Minute
	l.clock.start(q.at)
	if _, err := l.wait(); err != nil {
		t.Fatal(err)
	}
	began := l.nowTick()
	q.took, q.input = took, []byte("GET / HT")
	l.admit(7, netip.AddrPort{}, false, nil)
	slot := l.fresh[0]
	q.took, q.input = 0, nil
	if _, err := l.wait(); err != nil {
		t.Fatal(err)
	}
	deadline, armed := l.wheel.Deadline(slot)
	if least := began + int64((time.Second+took)/tick); !armed || deadline < least || deadline > least+2 {
		t.Errorf("deadline at tick %d (armed %v), want %d or two more", deadline-began, armed, least-began)
	}
}
