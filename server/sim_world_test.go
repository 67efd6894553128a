package server

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/pool"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// simWorld is everything around one loop: time, other goroutines, the two pools. There is no real concurrency in it. The loop runs on
// the test's goroutine, everybody else in coroutines, and each system call is a point at which another may go on; a seeded
// source of random numbers decides who. So a seed is a schedule, and the same seed is the same schedule.
type simWorld struct {
	simConfig
	rand   *rand.Rand
	kernel *simKernel
	port   *simPort
	server *Server
	loop   *loop
	peers  []*simPeer
	byConn map[Conn]*simPeer
	known  []Conn // every connection that the application ever saw

	agenda  []simEvent // by time
	actors  []*simActor
	current *simActor // nil: the loop
	batches []*loans
	workers []bool // of the decoder pool: busy
	waiting []simDelivery
	running []poller.Token

	deflater wsframe.Deflater // of the peers
	inflater wsframe.Inflater

	late    time.Duration // all the time in which the loop could have run and didn't
	sent    uint64        // messages that Send accepted
	got     uint64        // calls of Handler.Message
	panics  uint64        // that the handler was made to have
	faults  []string
	journal []string // the last things that happened
	words   map[uint32]word
	cutting bool // the shutdown by force is due
	forced  bool // and came: nobody is promised anything any more
	over    bool // the loop doesn't run any more
}

// simEvent is something that happens at a time.
type simEvent struct {
	at   time.Duration
	what string
	do   func()
}

// simActor is another goroutine.
type simActor struct {
	name  string
	next  func() (struct{}, bool)
	yield func(struct{}) bool
	until time.Duration // it sleeps
}

// simDelivery waits for a worker of the handler pool.
type simDelivery struct {
	token poller.Token
	d     delivery
}

func (w *simWorld) chance(of1000 int) bool { return w.rand.IntN(1000) < of1000 }

func (w *simWorld) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rand.Int64N(int64(most-least)+1))
}

func (w *simWorld) fault(format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// note keeps a short history for the report of a failure.
func (w *simWorld) note(format string, args ...any) {
	if w.verbose {
		w.journal = append(w.journal, fmt.Sprintf("%12v ", w.kernel.clock)+fmt.Sprintf(format, args...))
	}
}

// after puts something on the agenda.
func (w *simWorld) after(d time.Duration, what string, do func()) {
	e := simEvent{at: w.kernel.clock + d, what: what, do: do}
	at, _ := slices.BinarySearchFunc(w.agenda, e, func(a, b simEvent) int {
		if a.at <= b.at {
			return -1
		}
		return 1
	})
	w.agenda = slices.Insert(w.agenda, at, e)
}

// due runs what is due by now on the agenda.
func (w *simWorld) due() {
	for len(w.agenda) > 0 && w.agenda[0].at <= w.kernel.clock {
		e := w.agenda[0]
		w.agenda = slices.Delete(w.agenda, 0, 1)
		if !strings.HasSuffix(e.what, " wakes") {
			w.note("%s", e.what)
		}
		e.do()
	}
}

// advance lets time pass up to at. With pause it stops when the loop has something to do.
func (w *simWorld) advance(at time.Duration, pause bool) {
	for len(w.agenda) > 0 && w.agenda[0].at <= at {
		w.kernel.clock = max(w.kernel.clock, w.agenda[0].at)
		w.due()
		if pause && w.kernel.ready() {
			return
		}
	}
	w.kernel.clock = max(w.kernel.clock, at)
}

// ready says whether a wait would return.
func (k *simKernel) ready() bool {
	if k.woken {
		return true
	}
	for _, s := range k.sockets {
		if s != nil && s.edge && s.added && s.readiness() != 0 {
			return true
		}
	}
	return slices.ContainsFunc(k.ports, func(p *simPort) bool { return p.added && !p.paused && !p.closed && len(p.backlog) > 0 })
}

// spawn starts another goroutine. It runs when it is resumed.
func (w *simWorld) spawn(name string, run func()) {
	a := &simActor{name: name}
	a.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		a.yield = yield
		run()
	})
	w.actors = append(w.actors, a)
}

// resume lets an actor run to its next pause.
func (w *simWorld) resume(a *simActor) {
	w.current = a
	_, more := a.next()
	w.current = nil
	if !more {
		w.actors = slices.DeleteFunc(w.actors, func(b *simActor) bool { return a == b })
	}
}

// pause gives way to others, if a goroutine that is not the loop calls.
func (w *simWorld) pause() {
	if w.current != nil {
		w.current.yield(struct{}{})
	}
}

// sleep is a handler that blocks.
func (w *simWorld) sleep(d time.Duration) {
	if a := w.current; a != nil {
		a.until = w.kernel.clock + d
		w.pause()
	}
}

// point is called around every system call and in every call of the handler.
func (w *simWorld) point() {
	if w.current != nil {
		if w.chance(300) {
			w.pause()
		}
		return
	}
	if w.over {
		return
	}
	w.kernel.clock += time.Duration(w.rand.IntN(3000))
	if w.cutting && (w.kernel.sawEnd || w.chance(5)) { // best of all while a connection is ending
		w.cutting, w.forced = false, true
		w.loop.post(task{kind: taskDo, do: (*loop).closeAll})
	}
	w.kernel.sawEnd = false
	for w.chance(w.bustle) && w.stepOther() {
	}
	if w.stalls > 0 && w.rand.IntN(100_000) < w.stalls {
		w.stall()
	}
}

// stall stops the whole process for a while; the peers go on.
func (w *simWorld) stall() {
	d := w.between(300*time.Millisecond, 4*time.Second)
	w.note("the process stands still for %v", d)
	w.late += d
	w.advance(w.kernel.clock+d, false)
}

// candidates are the steps that others could take now.
func (w *simWorld) candidates() (steps []func()) {
	for _, a := range w.actors {
		if a.until <= w.kernel.clock {
			steps = append(steps, func() { w.resume(a) })
		}
	}
	if worker := slices.Index(w.workers, false); worker >= 0 && len(w.batches) > 0 {
		steps = append(steps, func() { w.startBatch(worker) })
	}
	if len(w.running) < w.handlerWorkers {
		for i, d := range w.waiting {
			if !slices.Contains(w.running, d.token) && !slices.ContainsFunc(w.waiting[:i], func(e simDelivery) bool { return e.token == d.token }) {
				steps = append(steps, func() { w.startDelivery(i) })
			}
		}
	}
	return steps
}

// stepOther lets somebody else take a step: an actor, a pool, or a peer whose time has come.
func (w *simWorld) stepOther() bool {
	steps := w.candidates()
	n := len(steps)
	if len(w.agenda) > 0 && w.agenda[0].at <= w.kernel.clock {
		n++
	}
	if n == 0 {
		return false
	}
	if i := w.rand.IntN(n); i < len(steps) {
		steps[i]()
	} else {
		w.due()
	}
	return true
}

// pass is called while the loop waits and nothing is ready.
func (w *simWorld) pass(deadline time.Duration) {
	began := w.kernel.clock
	steps := w.candidates()
	if len(steps) > 0 && !w.chance(w.lag) {
		steps[w.rand.IntN(len(steps))]()
		w.kernel.clock += time.Duration(w.rand.IntN(2000))
		w.late += w.kernel.clock - began
		return
	}
	until := noDeadline
	sooner := func(at time.Duration) {
		if at != noDeadline && (until == noDeadline || at < until) {
			until = at
		}
	}
	sooner(deadline)
	if len(w.agenda) > 0 {
		sooner(w.agenda[0].at)
	}
	for _, a := range w.actors {
		sooner(max(a.until, began+time.Millisecond))
	}
	if len(steps) > 0 {
		sooner(began + w.between(0, time.Duration(w.lag)*w.handshake/500))
	}
	if until == noDeadline {
		w.kernel.ended = true
		return
	}
	w.advance(max(until, w.kernel.clock), true)
	if len(steps) > 0 {
		w.late += w.kernel.clock - began // somebody could have run, and the loop may wait for it
	}
	if until != deadline {
		return
	}
	switch {
	case w.lateTicks > 0 && w.chance(w.lateTicks):
		d := w.between(0, stallLeast)
		w.late += d
		w.advance(w.kernel.clock+d, false)
	case w.stalls > 0 && w.chance(w.stalls):
		w.stall()
	}
}

// Submit is that of the decoder pool.
func (w *simDecoders) Submit(b *loans) error {
	if len(w.batches) >= w.decoderRoom || w.chance(w.saturation) {
		return pool.ErrSaturated
	}
	w.batches = append(w.batches, b)
	return nil
}

// simDecoders and simHandlers are the world in its roles as the two pools.
type (
	simDecoders struct{ *simWorld }
	simHandlers struct{ *simWorld }
)

var (
	_ decoders = (*simDecoders)(nil)
	_ handlers = (*simHandlers)(nil)
)

// Close has nothing to wait for.
func (w *simDecoders) Close(context.Context) error { return nil }

func (w *simWorld) startBatch(worker int) {
	i := w.rand.IntN(len(w.batches))
	b := w.batches[i]
	w.batches = slices.Delete(w.batches, i, i+1)
	w.workers[worker] = true
	w.spawn(fmt.Sprintf("decoder %d", worker), func() {
		w.server.runBatch(worker, b)
		w.workers[worker] = false
	})
}

// Submit is that of the handler pool.
func (w *simHandlers) Submit(tok poller.Token, d delivery) error {
	if len(w.waiting) >= w.handlerRoom || w.chance(w.saturation) {
		return pool.ErrSaturated
	}
	w.waiting = append(w.waiting, simDelivery{tok, d})
	return nil
}

// Close has nothing to wait for.
func (w *simHandlers) Close(context.Context) error { return nil }

func (w *simWorld) startDelivery(i int) {
	next := w.waiting[i]
	w.waiting = slices.Delete(w.waiting, i, i+1)
	w.running = append(w.running, next.token)
	w.spawn("handler", func() {
		w.server.runDelivery(0, next.token, next.d)
		w.running = slices.DeleteFunc(w.running, func(t poller.Token) bool { return t == next.token })
	})
}

// report is what a failed seed prints.
func (w *simWorld) report() string {
	var b strings.Builder
	for _, f := range w.faults {
		b.WriteString("  " + f + "\n")
	}
	fmt.Fprintf(&b, "  %+v\n", w.simConfig)
	if first := len(w.journal) - 400; first > 0 {
		w.journal = w.journal[first:]
	}
	for _, line := range w.journal {
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}
