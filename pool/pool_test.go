package pool

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// mustNotPanic is the panicked callback of tests in which no task may panic.
func mustNotPanic[T any](t *testing.T) func(T, any, []byte) {
	return func(task T, value any, stack []byte) {
		t.Errorf("task %v panicked: %v\n%s", task, value, stack)
	}
}

func newTestPool[T any](t *testing.T, workers, queue int, run func(int, T)) *Pool[T] {
	t.Helper()
	p, err := New(workers, queue, run, mustNotPanic[T](t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustClose(t *testing.T, c interface{ Close(context.Context) error }) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func mustSubmit[T any](t *testing.T, p *Pool[T], task T) {
	t.Helper()
	if err := p.Submit(task); err != nil {
		t.Fatalf("Submit(%v): %v", task, err)
	}
}

// submitAll offers every task until it is accepted, as an event loop does that
// keeps what was pushed back for its next turn.
func submitAll(t *testing.T, submit func(task int) error, tasks int) {
	for task := range tasks {
		for {
			err := submit(task)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrSaturated) {
				t.Errorf("Submit: %v", err)
				return
			}
			runtime.Gosched()
		}
	}
}

func checkStats(t *testing.T, got, want Stats) {
	t.Helper()
	if got != want {
		t.Errorf("stats:\n got %+v\nwant %+v", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	run := func(int, int) {}
	panicked := func(int, any, []byte) {}
	cases := []struct {
		name           string
		workers, queue int
		run            func(int, int)
		panicked       func(int, any, []byte)
	}{
		{"no workers, which ants takes for no limit", 0, 1, run, panicked},
		{"negative workers", -1, 1, run, panicked},
		{"no queue", 1, 0, run, panicked},
		{"negative queue", 1, -1, run, panicked},
		{"queue beyond the index", 1, tasksMax + 1, run, panicked},
		{"run nil", 1, 1, nil, panicked},
		{"panicked nil", 1, 1, run, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if p, err := New(c.workers, c.queue, c.run, c.panicked); err == nil {
				t.Error("New accepted it")
				mustClose(t, p)
			}
		})
	}
}

// Many goroutines submit into a queue that is much too small. Every task runs
// exactly once, and no two tasks ever hold the same worker index.
func TestEachTaskRunsOnce(t *testing.T) {
	const workers, queue, submitters, tasksEach = 4, 8, 6, 5000
	var ran [submitters * tasksEach]atomic.Int32
	var held [workers]atomic.Bool
	p := newTestPool(t, workers, queue, func(worker, task int) {
		if held[worker].Swap(true) {
			t.Errorf("worker %d used twice at once", worker)
		}
		ran[task].Add(1)
		if task%64 == 0 {
			runtime.Gosched() // so that workers overtake each other
		}
		held[worker].Store(false)
	})
	var group sync.WaitGroup
	for s := range submitters {
		group.Go(func() {
			submitAll(t, func(task int) error { return p.Submit(s*tasksEach + task) }, tasksEach)
		})
	}
	// A snapshot in the middle must add up as well as one at the end.
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s := p.Stats()
				if s.Submitted != s.Completed+s.Discarded+uint64(s.Running+s.Queued) || s.Running > workers || s.Queued > queue {
					t.Errorf("stats don't add up: %+v", s)
					return
				}
				runtime.Gosched() // on a single processor the others would wait for us
			}
		}
	})
	group.Wait()
	close(stop)
	watcher.Wait()
	mustClose(t, p)
	for task := range ran {
		if n := ran[task].Load(); n != 1 {
			t.Fatalf("task %d ran %d times", task, n)
		}
	}
	s := p.Stats()
	if s.Saturated == 0 {
		t.Error("the queue was never full, so the test showed little")
	}
	checkStats(t, s, Stats{Workers: workers, Submitted: submitters * tasksEach, Completed: submitters * tasksEach, Saturated: s.Saturated})
}

// Exactly workers+queue tasks are taken; the next is pushed back, and taken
// once there is room.
func TestSaturationPushesBack(t *testing.T) {
	cases := []struct {
		name           string
		workers, queue int
	}{
		{"one and one", 1, 1},
		{"more workers than queue", 3, 1},
		{"more queue than workers", 2, 5},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			gate := make(chan struct{})
			ran := make(chan int, 100)
			p := newTestPool(t, c.workers, c.queue, func(_, task int) {
				<-gate
				ran <- task
			})
			room := c.workers + c.queue
			for task := range room {
				mustSubmit(t, p, task)
			}
			for range 2 {
				if err := p.Submit(99); !errors.Is(err, ErrSaturated) {
					t.Fatalf("Submit when full: %v, want ErrSaturated", err)
				}
			}
			checkStats(t, p.Stats(), Stats{Workers: c.workers, Running: c.workers, Queued: c.queue, Submitted: uint64(room), Saturated: 2})
			gate <- struct{}{}
			<-ran
			submitAll(t, func(int) error { return p.Submit(room) }, 1)
			close(gate)
			mustClose(t, p)
			if got := len(ran) + 1; got != room+1 {
				t.Errorf("%d tasks ran, want %d", got, room+1)
			}
		})
	}
}

// All workers must run at once, even if the tasks arrive one after the other
// while a worker is already there: each waits for all others.
func TestWorkersRunBesideEachOther(t *testing.T) {
	const workers = 5
	var meeting sync.WaitGroup
	meeting.Add(workers)
	p := newTestPool(t, workers, 1, func(int, int) {
		meeting.Done()
		meeting.Wait()
	})
	for task := range workers {
		mustSubmit(t, p, task)
	}
	mustClose(t, p)
}

// A burst goes through one started goroutine, in order.
func TestBurstCostsOneHandOff(t *testing.T) {
	const tasks = 1000
	gate := make(chan struct{})
	var order []int // only worker 0 exists
	p := newTestPool(t, 1, tasks, func(_, task int) {
		<-gate
		order = append(order, task)
	})
	starts := 0
	start := p.starts[0]
	p.starts[0] = func() {
		starts++
		start()
	}
	for task := range tasks {
		mustSubmit(t, p, task)
	}
	close(gate)
	mustClose(t, p)
	if starts != 1 {
		t.Errorf("%d goroutines started, want 1", starts)
	}
	if len(order) != tasks || !slices.IsSorted(order) {
		t.Errorf("%d tasks ran, want %d in order", len(order), tasks)
	}
}

func TestPanicIsContained(t *testing.T) {
	errOwn := errors.New("own")
	cases := []struct {
		name string
		fail func()
		is   func(value any) bool
	}{
		{"string", func() { panic("boom") }, func(v any) bool { return v == "boom" }},
		{"error", func() { panic(errOwn) }, func(v any) bool { return v == any(errOwn) }},
		{"run-time error", func() { var none []int; none[len(none)] = 1 }, func(v any) bool { _, ok := v.(runtime.Error); return ok }},
		{"nil", func() { panic(nil) }, func(v any) bool { _, ok := v.(*runtime.PanicNilError); return ok }},
		{"Goexit", runtime.Goexit, func(v any) bool { err, ok := v.(error); return ok && errors.Is(err, ErrGoexit) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			gate := make(chan struct{})
			var log []string // only one worker exists
			p, err := New(1, 10, func(worker int, task string) {
				<-gate
				if worker != 0 {
					t.Errorf("worker %d, want 0", worker)
				}
				log = append(log, task)
				if strings.HasPrefix(task, "fail") {
					c.fail()
				}
			}, func(task string, value any, stack []byte) {
				if !c.is(value) {
					t.Errorf("value %v (%T)", value, value)
				}
				if !strings.Contains(string(stack), "TestPanicIsContained") {
					t.Errorf("the stack doesn't name the place:\n%s", stack)
				}
				log = append(log, "reported "+task)
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range []string{"a", "fail1", "b", "fail2", "fail3", "c", "fail4"} {
				mustSubmit(t, p, task)
			}
			close(gate)
			mustClose(t, p)
			want := []string{"a", "fail1", "reported fail1", "b", "fail2", "reported fail2", "fail3", "reported fail3", "c", "fail4", "reported fail4"}
			if !slices.Equal(log, want) {
				t.Errorf("log\n got %q\nwant %q", log, want)
			}
			checkStats(t, p.Stats(), Stats{Workers: 1, Submitted: 7, Completed: 7, Panics: 4})
		})
	}
}

// A panic of the callback is a bug of the program. It must end the process, not
// vanish in a log line of ants. The test runs itself in a process of its own.
func TestPanicOfPanickedEndsTheProcess(t *testing.T) {
	const variable = "PULSEWHEEL_POOL_TEST_CRASH"
	if os.Getenv(variable) != "" {
		p, err := New(1, 1, func(int, int) { panic("first") }, func(int, any, []byte) { panic("bug in the callback") })
		if err != nil {
			t.Fatal(err)
		}
		mustSubmit(t, p, 1)
		select {}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPanicOfPanickedEndsTheProcess$")
	cmd.Env = append(os.Environ(), variable+"=1")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "bug in the callback") {
		t.Errorf("%v, want exit status 2 and the panic:\n%s", err, out)
	}
}

// Close returns only after the queued and the running tasks have ended, and
// refuses new ones from its start.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		ran := 0
		p := newTestPool(t, 1, 10, func(int, int) {
			<-gate
			ran++
		})
		for task := range 5 {
			mustSubmit(t, p, task)
		}
		var returned atomic.Int32
		for range 2 {
			go func() {
				mustClose(t, p)
				returned.Add(1)
			}()
		}
		for i := range 5 {
			synctest.Wait()
			if returned.Load() > 0 {
				t.Fatalf("Close returned with %d of 5 tasks done", i)
			}
			if err := p.Submit(9); !errors.Is(err, ErrClosed) {
				t.Fatalf("Submit while closing: %v, want ErrClosed", err)
			}
			gate <- struct{}{}
		}
		synctest.Wait()
		if ran != 5 || returned.Load() != 2 {
			t.Errorf("%d tasks ran, %d calls of Close returned; want 5, 2", ran, returned.Load())
		}
		mustClose(t, p) // once more, at once
	})
}

// A Close whose context ends drops what waits, tells so, and leaves no
// goroutine behind once the stuck task has ended.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		p := newTestPool(t, 2, 10, func(int, int) { <-gate })
		for task := range 5 {
			mustSubmit(t, p, task)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
		defer cancel()
		err := p.Close(ctx)
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "2 tasks running, 3 discarded") {
			t.Fatalf("Close: %v", err)
		}
		checkStats(t, p.Stats(), Stats{Workers: 2, Running: 2, Submitted: 5, Discarded: 3})
		close(gate)
		mustClose(t, p)
		checkStats(t, p.Stats(), Stats{Workers: 2, Submitted: 5, Completed: 2, Discarded: 3})
	})
}

// An ended context doesn't matter when there is nothing to wait for.
func TestCloseOfIdlePoolIgnoresContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := newTestPool(t, 2, 2, func(int, int) {})
	if err := p.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := p.abandon(context.Canceled); err != nil {
		t.Errorf("abandon after the last task: %v", err)
	}
}

// A Close gives up just between the admission of a task and the start of its
// worker: the task is discarded and counted, and the pool ends.
func TestStartAfterRelease(t *testing.T) {
	p := newTestPool(t, 1, 1, func(int, int) { t.Error("the task ran") })
	p.mu.Lock()
	worker, err := p.admitLocked(1)
	p.mu.Unlock()
	if worker != 0 || err != nil {
		t.Fatalf("admitLocked: %d, %v", worker, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Close: %v", err)
	}
	p.start(worker)
	mustClose(t, p)
	checkStats(t, p.Stats(), Stats{Workers: 1, Submitted: 1, Discarded: 1})
}

// Submit races with Close that gives up at once; every accepted task is
// completed or discarded, never lost.
func TestSubmitRacesWithClose(t *testing.T) {
	for range 200 {
		var ran atomic.Uint64
		p := newTestPool(t, 2, 4, func(int, int) { ran.Add(1) })
		var accepted atomic.Uint64
		var group sync.WaitGroup
		begin := make(chan struct{})
		for range 3 {
			group.Go(func() {
				<-begin
				for {
					err := p.Submit(1)
					if errors.Is(err, ErrClosed) {
						return
					}
					if err == nil {
						accepted.Add(1)
					}
				}
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		group.Go(func() {
			close(begin)
			// Whether it is in time for a task depends on the schedule.
			if err := p.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("Close: %v", err)
			}
		})
		group.Wait()
		mustClose(t, p)
		s := p.Stats()
		if s.Submitted != accepted.Load() || s.Completed != ran.Load() || s.Submitted != s.Completed+s.Discarded || s.Running != 0 || s.Queued != 0 {
			t.Fatalf("accepted %d, ran %d: %+v", accepted.Load(), ran.Load(), s)
		}
	}
}

// After a burst the goroutines are kept for a while, then they end although
// the pool stays open.
func TestIdleGoroutinesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 8
		gate := make(chan struct{})
		p := newTestPool(t, workers, 1, func(int, int) { <-gate })
		for task := range workers {
			mustSubmit(t, p, task)
		}
		close(gate)
		synctest.Wait()
		if n := p.ants.Running(); n != workers {
			t.Errorf("%d goroutines after the burst, want %d", n, workers)
		}
		<-time.After(3 * workerIdleTime) // the bubble's clock, so at once
		synctest.Wait()
		if n := p.ants.Running(); n != 0 {
			t.Errorf("%d goroutines after a long pause, want 0", n)
		}
		mustSubmit(t, p, 1)
		mustClose(t, p)
	})
}

// A task may submit to its own pool.
func TestSubmitFromTask(t *testing.T) {
	var p *Pool[int]
	done := make(chan struct{})
	p = newTestPool(t, 1, 1, func(_, task int) {
		if task == 1000 {
			close(done)
			return
		}
		if err := p.Submit(task + 1); err != nil {
			t.Errorf("Submit from task %d: %v", task, err)
		}
	})
	mustSubmit(t, p, 0)
	<-done
	mustClose(t, p)
}
