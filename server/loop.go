package server

import (
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/timingwheel"
)

// loop is one event loop: its poller, its connections, their timers. One goroutine runs it, parked in Go's own poller while
// there is nothing to do. See the table in doc.go for who may touch what.
type loop struct {
	// Immutable after newLoop.
	server *Server
	index  int
	sys    sys

	// Any goroutine, by their own rules.
	table   table    // lookups; acquire and release are the loop's
	sides   sides    // each shard has its lock
	buffers *buffers // each class has its lock

	// Owned by the goroutine in run; check with owner.
	owner     owner
	runner    *runner
	wheel     *timingwheel.Wheel
	listeners []*listener
	clock     clock
	now       moment // of this turn
	events    []poller.Event
	accepted  []poller.Accepted
	ready     []uint32 // slots whose loan the loop has: to be served in this turn
	served    []uint32 // those that were served, or handed on, in this turn
	fresh     []uint32 // those that came in this turn
	ring      []uint32 // and those whose turn comes behind them: budget spent, or the decoder pool saturated
	lingering []uint32 // closing connections that an event came for
	gone      []uint32 // to be reaped at the end of the turn
	slowed    []slowed // peers beyond their rate, with their loans
	parked    []uint32 // with deliveries that the saturated handler pool didn't take; a closing one may stand here twice
	tasks     []task   // this turn's, swapped with posted
	budget    budget
	stalled   uint64 // connection time of the last stall, µs; 0: there was none
	drain     drain
	ids       *rand.ChaCha8
	stopping  bool
	over      bool            // nobody comes in any more
	fire      func(id uint32) // l.timer, made once
	shareOf   func(int64) int // l.share, made once

	// Shared; mu guards.
	mu     sync.Mutex
	posted []task
	ended  bool

	// Atomic.
	active     atomic.Int64
	handshakes atomic.Int64
	connMillis atomic.Uint32 // now.ms of this turn
	starved    atomic.Bool   // loans wait in the ring for a decoder
	turnBegan  atomic.Int64  // real time of this turn, ns; 0 in a wait
	lost       atomic.Int64  // clock.lost, ns
	lateness   histogram
	observed   *observations
}

// task is what other goroutines ask a loop to do.
type task struct {
	kind       taskKind
	slot       uint32
	generation uint32        // where no loan goes along
	interval   uint32        // of the heartbeats of who was upgraded, or for which a peer must wait, ms
	do         func(l *loop) // taskDo
}

type taskKind uint8

const (
	taskRunnable taskKind = iota // the loan goes along: serve it
	taskClosing                  // the loan goes along: close it
	taskOpened                   // upgraded: arm its heartbeat
	taskFree                     // the handler knows of the end
	taskSlowed                   // the loan goes along: serve it after interval, or when there is something to write
	taskParked                   // its delivery waits for the handler pool
	taskDo                       // anything rare
)

func newLoop(s *Server, index int, system sys) *loop {
	l := &loop{
		server: s, index: index, sys: system,
		buffers:  new(buffers),
		observed: newObservations(),
		runner:   newRunner(s, countBatchesLoop),
		wheel:    timingwheel.New(wheelSlots),
		events:   make([]poller.Event, eventsPerWait),
		accepted: make([]poller.Accepted, acceptsPerTurn),
	}
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails (crypto/rand)
	l.ids = rand.NewChaCha8(seed)
	l.sides.buffers, l.sides.assembly = l.buffers, &s.assembly
	l.fire, l.shareOf = l.timer, l.share
	return l
}

// run turns until the loop is told to stop.
func (l *loop) run() error {
	l.owner.take()
	defer l.end()
	l.clock.start(l.sys.now())
	for !l.stopping {
		if err := l.turn(); err != nil {
			return err
		}
	}
	return nil
}

// end refuses further tasks and does the last ones: a descriptor on its way to this loop must be closed.
func (l *loop) end() {
	l.over = true
	l.mu.Lock()
	l.ended = true
	last := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, t := range last {
		if t.kind == taskDo {
			t.do(l)
		}
	}
	l.runner.publish()
}

// borrowRunner readies the loop's runner for one connection whose loan the loop has.
func (l *loop) borrowRunner(slot uint32, r *record) *runner {
	x := l.runner
	x.loop, x.slot, x.r, x.now, x.out = l, slot, r, l.now, x.out[:0]
	return x
}

// turn is one round of the loop. Each step is bounded by a limit in limits.go; I/O comes before timers, so that bytes which are
// there count before anybody is expired.
func (l *loop) turn() error {
	n, err := l.wait()
	if err != nil {
		return err
	}
	l.dispatch(l.events[:n])
	l.resumeSlowed()
	l.serveReady()
	l.runTasks()
	l.fireTimers()
	l.adjust()
	l.drainSome()
	l.offerParked()
	l.reap()
	l.runner.publish()
	return nil
}

// wait sleeps until an event, a wake-up or the next timer.
func (l *loop) wait() (int, error) {
	l.owner.check()
	deadline := l.deadline()
	lost := l.clock.lost
	now := l.sys.now()
	l.hearLate(now)
	l.clock.sleep(now, deadline)
	l.turnBegan.Store(0)
	n, err := l.sys.wait(l.events, deadline)
	if err != nil {
		return 0, fmt.Errorf("event loop %d: %w", l.index, err)
	}
	l.now = newMoment(l.clock.woke(l.sys.now()))
	l.turnBegan.Store(int64(l.clock.read))
	if l.clock.lost != lost {
		l.stalled = l.now.micros
		l.lost.Store(int64(l.clock.lost))
	}
	l.connMillis.Store(l.now.ms)
	l.catchUp()
	return n, nil
}

// hearLate corrects, at the end of a long turn, when its connections were last heard from. A read takes what came after the turn began, and
// then there is no event to tell of it; the next timeout would be too short by the length of the turn. What clock.sleep takes out of the
// connections' time needs no correction.
func (l *loop) hearLate(now time.Duration) {
	took := now - l.clock.read
	if isLong(took) {
		heard(&l.table, l.fresh, l.now.ms, took)
		heard(&l.table, l.served, l.now.ms, took)
		l.putOffHandshakes(took)
	}
	l.fresh, l.served = l.fresh[:0], l.served[:0]
}

// heard moves the stamps of slots from the time at which reading began to that at which it ended. In between a slot may have been heard from
// again, or be another connection's: those keep theirs.
func heard(t *table, slots []uint32, at uint32, took time.Duration) {
	for _, slot := range slots {
		t.at(slot).heard.CompareAndSwap(at, at+uint32(took/time.Millisecond))
	}
}

// isLong says of a turn or a batch that stamps from its beginning are wrong for what came in it. One so long that it counts as a stall is no
// part of the connections' time.
func isLong(took time.Duration) bool { return took > heardSlack && took <= stallLeast }

// putOffHandshakes moves the deadlines of handshakes that began in a long turn likewise: a peer that was accepted at its end has its whole time.
func (l *loop) putOffHandshakes(took time.Duration) {
	for _, slot := range l.fresh {
		if _, armed := l.wheel.Deadline(slot); armed && l.table.at(slot).load()&(bitLive|bitClose|bitLinger) == 0 {
			l.wheel.Schedule(slot, l.tickAfter(l.server.cfg.HandshakeTimeout+took))
		}
	}
}

// silence is for how long a connection was not heard from, in ms. A worker may have stamped it ahead of the loop that had lost time.
func (l *loop) silence(r *record) uint32 { return uint32(max(0, int32(l.now.ms-r.heard.Load()))) }

// catchUp moves the wheel to now as far as nothing is due: what is armed in this turn is armed from where the time is. A loop that had
// nothing to do for long would else arm timers in the past, and a new client would get all the heartbeats in between.
func (l *loop) catchUp() {
	at := l.nowTick()
	if next, ok := l.wheel.Next(); ok {
		at = min(at, next-1)
	}
	if at > l.wheel.Now() {
		l.wheel.Advance(at, 1, l.fire)
	}
}

// deadline is when the loop has something to do even if nothing happens.
func (l *loop) deadline() time.Duration {
	if len(l.ring) > 0 && !l.starved.Load() || len(l.ready)+len(l.lingering)+len(l.tasks) > 0 {
		return 0
	}
	deadline := noDeadline
	if next, ok := l.wheel.Next(); ok {
		deadline = l.clock.real(time.Duration(next) * tick)
	}
	if len(l.ring)+len(l.parked)+len(l.slowed) > 0 || l.drain.active || l.resumeListeners() {
		soon := l.clock.read + tick
		if deadline == noDeadline || soon < deadline {
			deadline = soon
		}
	}
	return deadline
}

// dispatch turns events into loans.
func (l *loop) dispatch(events []poller.Event) {
	l.owner.check()
	for _, e := range events {
		generation := tokenGeneration(e.Token)
		if generation == 0 {
			l.acceptFrom(l.listeners[tokenSlot(e.Token)])
			continue
		}
		slot := tokenSlot(e.Token)
		r := l.table.at(slot)
		if r.load().generation() != generation {
			continue // a newer connection has the slot
		}
		var ready word
		if e.Ready&poller.CanRead != 0 {
			ready |= bitIn
			if e.Ready&poller.Hangup == 0 {
				// The end of a stream is no sign of life. How long it was silent before tells who cut it: a proxy's limit, for one.
				r.heard.Store(l.now.ms)
			}
		}
		if e.Ready&poller.CanWrite != 0 {
			ready |= bitOut
			if r.load()&bitBlocked != 0 {
				// Room where there was none: the peer reads. Heartbeats wait behind what is unsent, so it has no other way to be heard.
				r.heard.Store(l.now.ms)
			}
		}
		if e.Ready&poller.Hangup != 0 {
			ready |= bitHup
		}
		if r.step(func(w word) (word, bool) { return w.event(ready) }) {
			l.ready = append(l.ready, slot)
		} else if r.load()&bitLinger != 0 {
			l.lingering = append(l.lingering, slot)
		}
	}
}

// serveReady serves this turn's loans: few of them here, more in batches on the decoder pool, since a wake-up of another thread
// costs more than a few messages.
func (l *loop) serveReady() {
	l.owner.check()
	lingering := len(l.lingering)
	for i := range lingering { // those that have more to drain join behind
		l.continueClosing(l.lingering[i])
	}
	l.lingering = l.lingering[:copy(l.lingering, l.lingering[lingering:])]
	// Loans that waited come first; what they add to the ring now waits for the next turn.
	l.ready, l.ring = append(l.ring, l.ready...), l.ready[:0]
	if len(l.ready) == 0 {
		return
	}
	if len(l.ready) <= l.server.inlineBatch {
		l.runner.batch(l, l.now, l.ready)
	} else {
		l.serveByPool()
	}
	l.ready, l.served = l.served[:0], l.ready
}

// tell lets the loop know something of a loan: at once if its own goroutine serves it.
func (l *loop) tell(x *runner, t task) {
	if x == l.runner {
		l.tasks = append(l.tasks, t)
		return
	}
	l.post(t)
}

// post is the one way in from other goroutines. false: the loop has ended and takes no more tasks.
func (l *loop) post(t task) bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, t)
	l.mu.Unlock()
	l.sys.wake()
	return true
}

// runTasks does what the loop's own loans and other goroutines asked for.
func (l *loop) runTasks() {
	l.owner.check()
	l.mu.Lock()
	n := min(len(l.posted), tasksPerTurn)
	l.tasks = append(l.tasks, l.posted[:n]...)
	rest := copy(l.posted, l.posted[n:])
	clear(l.posted[rest:])
	l.posted = l.posted[:rest]
	l.mu.Unlock()
	if rest > 0 {
		l.sys.wake()
	}
	for i := 0; i < len(l.tasks); i++ { // a task may add tasks
		l.runTask(l.tasks[i])
	}
	clear(l.tasks)
	l.tasks = l.tasks[:0]
}

func (l *loop) runTask(t task) {
	switch t.kind {
	case taskRunnable:
		if r := l.table.at(t.slot); r.load()&bitsInput != 0 {
			// Input waited for a handler, and the peer for room: as long as the server doesn't read, silence is its own.
			r.heard.Store(l.now.ms)
		}
		l.ring = append(l.ring, t.slot)
	case taskClosing:
		l.beginClosing(t.slot)
	case taskOpened:
		l.budget.join(t.interval) // reap takes it back, even if it came first
		if l.table.at(t.slot).load().generation() == t.generation {
			l.observeUpgrade(l.table.at(t.slot))
			l.opened(t.slot)
		}
	case taskSlowed:
		l.runner.tally[countSlowed]++
		l.slowed = append(l.slowed, slowed{slot: t.slot, until: l.now.micros + uint64(t.interval)*1000})
	case taskFree:
		l.free(t.slot)
	case taskParked:
		l.parked = append(l.parked, t.slot)
	case taskDo:
		t.do(l)
	}
}

// slowed is a connection that isn't read for a while.
type slowed struct {
	slot  uint32
	until uint64 // connection time, µs
}

// resumeSlowed serves those whose wait is over, and those who have something to write or are to be closed: only reading waits.
func (l *loop) resumeSlowed() {
	left := l.slowed[:0]
	for _, s := range l.slowed {
		switch r := l.table.at(s.slot); {
		case s.until <= l.now.micros:
			r.heard.Store(l.now.ms) // it has sent more than it may, so it lives, though nobody looked
			l.ring = append(l.ring, s.slot)
		case r.load()&(bitOut|bitSend|bitClose) != 0:
			l.ring = append(l.ring, s.slot)
		default:
			left = append(left, s)
		}
	}
	l.slowed = left
}

// offerParked offers the deliveries of a saturated handler pool once more, oldest first, until it is saturated again.
func (l *loop) offerParked() {
	done := 0
	for done < len(l.parked) && l.offerAgain(l.parked[done]) {
		done++
	}
	l.parked = l.parked[:copy(l.parked, l.parked[done:])]
}

// clock is the time that connections live in: monotonic, less what the process itself lost. A wake-up far behind its deadline, or a turn far too
// long, shifts all timers at once without touching them: neither a false expiry nor a burst of heartbeats follows a stop.
type clock struct {
	read  time.Duration // real time, last read
	lost  time.Duration
	armed time.Duration // real deadline of the wait under way
}

func (c *clock) start(now time.Duration) { c.read = now }

// sleep tells that a turn ends and a wait begins.
func (c *clock) sleep(now, deadline time.Duration) {
	if over := now - c.read; over > stallLeast {
		c.lost += over
	}
	c.read, c.armed = now, deadline
}

// woke tells that the wait is over, and returns the connections' time.
func (c *clock) woke(now time.Duration) time.Duration {
	if c.armed != noDeadline {
		if late := now - max(c.armed, c.read); late > stallLeast {
			c.lost += late
		}
	}
	c.read = now
	return now - c.lost
}

// real is when the connections' time will be at.
func (c *clock) real(at time.Duration) time.Duration { return at + c.lost }
