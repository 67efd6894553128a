package pool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/panjf2000/ants/v2"
)

var (
	// ErrSaturated is returned by Submit when every worker is busy and the
	// queue is full. The caller keeps the task and offers it again later.
	ErrSaturated = errors.New("pool: saturated")

	// ErrClosed is returned by Submit after Close was called.
	ErrClosed = errors.New("pool: closed")

	// ErrGoexit is the value that panicked receives for a task that ended its
	// goroutine with runtime.Goexit instead of returning.
	ErrGoexit = errors.New("pool: task called runtime.Goexit")
)

// workerIdleTime is how long a goroutine without work is kept for the next
// burst. Ten seconds outlast the pauses between heartbeats of a busy server,
// and a quiet one gives the stacks back soon.
const workerIdleTime = 10 * time.Second

// tasksMax is the largest queue, set by the width of a slot's index.
const tasksMax = math.MaxInt32 - 1

// A Pool runs tasks of type T on a bounded number of goroutines. All methods
// are safe for concurrent use.
type Pool[T any] struct {
	// Immutable after newPool.
	run      func(worker int, task T)
	panicked func(task T, value any, stack []byte)
	ants     *ants.Pool
	starts   []func()      // starts[w] drains as worker w; made once so that a start allocates nothing
	drained  chan struct{} // closed when the pool is closed and no worker runs

	// Owned by the goroutine that holds worker index w, for element w; the
	// hand-over through ants orders the accesses.
	first []T // the task that worker w begins with

	// Shared; mu guards.
	mu      sync.Mutex
	closed  bool
	idle    []int        // indexes of workers without a goroutine; last in, first out, so that few buffers stay warm
	waiting store[T]     // tasks in ready and in the lists that Serial keeps
	ready   list         // tasks that any worker may take, oldest first; not empty only while a worker runs
	after   func(done T) // nil, or makes ready what had to wait for done: the place where Serial hangs itself in
	stats   Stats        // without Running and Queued, which the fields above tell
}

// Stats is a consistent picture of a pool. At any time
// Submitted == Completed + Discarded + Running + Queued.
type Stats struct {
	Workers int // upper bound of Running, as given to New
	Running int // tasks being run, or on their way to an idle worker
	Queued  int // tasks that wait, those behind their own key included

	Submitted uint64 // tasks that Submit accepted
	Completed uint64 // tasks that ended, by panic or Goexit too
	Saturated uint64 // calls of Submit that were refused with ErrSaturated
	Panics    uint64 // tasks that ended by panic or Goexit
	Discarded uint64 // tasks that a Close dropped when its context ended
}

// New opens a pool that runs at most workers tasks at once and lets at most
// queue more wait. Both must be at least 1.
//
// run is called for each task, with an index of 0 to workers-1 that no other
// running task has, so that it may select a buffer. If run panics, or calls
// runtime.Goexit, panicked is called on the same worker with the task, the
// value (ErrGoexit) and the stack; then the worker goes on with the next task.
// A panic of panicked itself isn't contained: it ends the process.
func New[T any](workers, queue int, run func(worker int, task T), panicked func(task T, value any, stack []byte)) (*Pool[T], error) {
	if run == nil || panicked == nil {
		return nil, errors.New("pool: run and panicked must not be nil")
	}
	return newPool(workers, queue, run, panicked)
}

func newPool[T any](workers, queue int, run func(int, T), panicked func(T, any, []byte)) (*Pool[T], error) {
	if workers < 1 || workers > tasksMax {
		return nil, fmt.Errorf("pool: %d workers, want 1 to %d", workers, tasksMax)
	}
	if queue < 1 || queue > tasksMax {
		return nil, fmt.Errorf("pool: queue of %d tasks, want 1 to %d", queue, tasksMax)
	}
	p := &Pool[T]{
		run:      run,
		panicked: panicked,
		starts:   make([]func(), workers),
		drained:  make(chan struct{}),
		first:    make([]T, workers),
		idle:     make([]int, workers),
		waiting:  newStore[T](queue),
		stats:    Stats{Workers: workers},
	}
	for w := range workers {
		p.starts[w] = func() { p.drain(w) }
		p.idle[workers-1-w] = w
	}
	var err error
	// The bound of ants is left open and ours is the one that holds: ants counts
	// a goroutine until it stands in its idle stack again, so with the same
	// bound it would refuse a start just after a worker became free, and a
	// task in the queue would have nobody to run it.
	p.ants, err = ants.NewPool(-1, ants.WithOptions(ants.Options{
		Nonblocking:    true,
		ExpiryDuration: workerIdleTime,
		// ants recovers and logs. What arrives here is a panic of panicked,
		// which is a bug in the program: it must not pass as a log line.
		PanicHandler: func(value any) { panic(value) },
	}))
	if err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	return p, nil
}

// Submit hands task to an idle worker, or queues it. It never blocks and never
// allocates, except for a goroutine when ants has no idle one left. If the
// pool is full it returns ErrSaturated, after Close ErrClosed; then the pool
// has not kept the task.
func (p *Pool[T]) Submit(task T) error {
	p.mu.Lock()
	worker, err := p.admitLocked(task)
	p.mu.Unlock()
	if worker >= 0 {
		p.start(worker)
	}
	return err
}

// admitLocked accepts task for an idle worker, which the caller must start
// after unlocking, or for the queue; then the worker is -1.
func (p *Pool[T]) admitLocked(task T) (worker int, err error) {
	if p.closed {
		return -1, ErrClosed
	}
	if last := len(p.idle) - 1; last >= 0 {
		worker = p.idle[last]
		p.idle = p.idle[:last]
		p.first[worker] = task
		p.stats.Submitted++
		return worker, nil
	}
	return -1, p.queueLocked(&p.ready, task)
}

// queueLocked appends task to l, which is ready or the list of a busy key.
func (p *Pool[T]) queueLocked(l *list, task T) error {
	if p.closed {
		return ErrClosed
	}
	if p.waiting.full() {
		p.stats.Saturated++
		return ErrSaturated
	}
	p.waiting.push(l, task)
	p.stats.Submitted++
	return nil
}

// start gives worker, which the caller has taken from idle and whose first
// task is set, a goroutine of ants.
func (p *Pool[T]) start(worker int) {
	err := p.ants.Submit(p.starts[worker])
	if err == nil {
		return
	}
	if !errors.Is(err, ants.ErrPoolClosed) {
		panic(fmt.Sprintf("pool: an unbounded ants pool refused worker %d: %v", worker, err))
	}
	// A Close whose context had ended released ants between our admission and
	// here. The task shares the fate of those that were queued.
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Discarded++
	p.leaveLocked(worker)
}

// drain is the life of a worker: its first task, then whatever is ready.
func (p *Pool[T]) drain(worker int) {
	var none T
	task := p.first[worker]
	p.first[worker] = none
	for ok := true; ok; task, ok = p.next(worker, task) {
		p.runContained(worker, task)
	}
}

// runContained runs one task, and turns its panic into a call of panicked.
func (p *Pool[T]) runContained(worker int, task T) {
	returned := false
	defer func() {
		if returned {
			return
		}
		// recover is nil only under Goexit: the runtime turns panic(nil) into
		// a *runtime.PanicNilError.
		value := recover()
		exiting := value == nil
		if exiting {
			value = ErrGoexit
		}
		p.mu.Lock()
		p.stats.Panics++
		p.mu.Unlock()
		p.panicked(task, value, debug.Stack())
		if !exiting {
			return
		}
		// Goexit can't be stopped. This goroutine ends when we return, so
		// another one must go on as this worker.
		if following, ok := p.next(worker, task); ok {
			p.first[worker] = following
			p.start(worker)
		}
	}()
	p.run(worker, task)
	returned = true
}

// next ends done and returns the task that worker goes on with. If there is
// none, the worker is idle again and must not touch anything of its index.
func (p *Pool[T]) next(worker int, done T) (task T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Completed++
	if p.after != nil {
		p.after(done)
	}
	if task, ok = p.waiting.pop(&p.ready); !ok {
		p.leaveLocked(worker)
	}
	return task, ok
}

func (p *Pool[T]) leaveLocked(worker int) {
	p.idle = append(p.idle, worker) // within its capacity: each index stands there once
	if p.closed && p.runningLocked() == 0 {
		close(p.drained)
	}
}

func (p *Pool[T]) runningLocked() int { return p.stats.Workers - len(p.idle) }

// Close refuses new tasks, waits until those accepted have ended, and tells the
// idle goroutines to end, which they do at once but perhaps after Close has
// returned. If ctx ends first, it discards the tasks that still wait, leaves
// those that run to themselves, and returns an error that wraps the cause and
// tells both counts. Close may be called again, to wait longer. It must not be
// called from a task, since it would wait for that task.
func (p *Pool[T]) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		if p.runningLocked() == 0 {
			close(p.drained)
		}
	}
	p.mu.Unlock()

	select {
	case <-p.drained:
	default:
		select {
		case <-p.drained:
		case <-ctx.Done():
			if err := p.abandon(context.Cause(ctx)); err != nil {
				return err
			}
		}
	}
	// Not ReleaseContext: that spins until ants' housekeepers have noticed,
	// which on a single processor takes two time slices of 10 ms.
	p.ants.Release()
	return nil
}

// abandon gives up on the tasks of a pool whose Close took too long. It returns
// nil if the last of them has just ended.
func (p *Pool[T]) abandon(cause error) error {
	p.mu.Lock()
	running, dropped := p.runningLocked(), p.waiting.used
	p.stats.Discarded += uint64(dropped)
	p.waiting, p.ready = newStore[T](0), list{}
	p.after = nil // its lists point into the store that has gone
	p.mu.Unlock()
	if running == 0 {
		return nil
	}
	p.ants.Release()
	return fmt.Errorf("pool: closed with %d tasks running, %d discarded: %w", running, dropped, cause)
}

// Stats returns the counters of this moment.
func (p *Pool[T]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Running = p.runningLocked()
	s.Queued = p.waiting.used
	return s
}
