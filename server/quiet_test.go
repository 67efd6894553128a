package server

import (
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// quietSys is an operating system in which nothing happens but what the test says: for what a loop itself costs, without
// sockets. Whatever it doesn't define, nobody calls.
type quietSys struct {
	sys
	at      time.Duration
	input   []byte // what the next read returns
	written int
}

func (q *quietSys) now() time.Duration                             { return q.at }
func (q *quietSys) wake()                                          {}
func (q *quietSys) unacknowledged(int) (int, time.Duration, error) { return 0, 0, nil }
func (q *quietSys) setUserTimeout(int, time.Duration) error        { return nil }
func (q *quietSys) read(_ int, p []byte) (int, error) {
	if len(q.input) == 0 {
		return 0, poller.ErrWouldBlock
	}
	n := copy(p, q.input)
	q.input = q.input[n:]
	return n, nil
}

func (q *quietSys) write(_ int, p []byte) (int, error) {
	q.written += len(p)
	return len(p), nil
}

func (q *quietSys) writev(_ int, bufs [][]byte) (int, error) {
	n := 0
	for _, buf := range bufs {
		n += len(buf)
	}
	q.written += n
	return n, nil
}

// newQuietLoop is a loop on a quietSys, which belongs to the calling goroutine.
func newQuietLoop(cfg Config) (*loop, *quietSys) {
	cfg.HandlerInline = true
	s, err := New(cfg, Echo{})
	if err != nil {
		panic(err)
	}
	q := new(quietSys)
	l := newLoop(s, 0, q)
	s.loops = []*loop{l}
	l.owner.take()
	return l, q
}

// upgraded is a connection as it is after its upgrade.
func (l *loop) upgraded(fd int) uint32 {
	slot, ok := l.table.acquire()
	if !ok {
		panic("no slot")
	}
	r := l.table.at(slot)
	r.fd = int32(fd)
	r.heard.Store(l.now.ms)
	mode, interval, timeout := l.server.grant(wish{}, Accept{})
	r.interval.Store(millis(interval))
	r.timeout.Store(millis(timeout))
	r.about.Store(uint32(phaseOpen))
	r.setMode(mode)
	r.setFlag(flagOpened)
	r.set(bitLive)
	l.active.Add(1)
	l.runTask(task{kind: taskOpened, slot: slot, generation: r.load().generation(), interval: r.interval.Load()})
	return slot
}

// readable has the loop serve a readable connection, as in a turn.
func (l *loop) readable(slot uint32) {
	l.events[0] = poller.Event{Token: makeToken(0, slot, l.table.at(slot).load().generation()), Ready: poller.CanRead}
	l.dispatch(l.events[:1])
	l.serveReady()
	l.runTasks()
	l.reap()
	l.runner.publish()
}
