package pool

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func newTestSerial[K comparable, T any](t *testing.T, workers, queue int, run func(worker int, key K, task T)) *Serial[K, T] {
	t.Helper()
	s, err := NewSerial(workers, queue, run, func(key K, task T, value any, stack []byte) {
		t.Errorf("task %v of key %v panicked: %v\n%s", task, key, value, stack)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkEmpty looks at the state of a Serial without work: no key may be left.
func checkEmpty[K comparable, T any](t *testing.T, s *Serial[K, T]) {
	t.Helper()
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if len(s.behind) != 0 || s.pool.waiting.used != 0 {
		t.Errorf("%d keys and %d tasks left", len(s.behind), s.pool.waiting.used)
	}
}

func TestNewSerialRefuses(t *testing.T) {
	run := func(int, string, int) {}
	panicked := func(string, int, any, []byte) {}
	cases := []struct {
		name           string
		workers, queue int
		run            func(int, string, int)
		panicked       func(string, int, any, []byte)
	}{
		{"no workers", 0, 1, run, panicked},
		{"no queue", 1, 0, run, panicked},
		{"run nil", 1, 1, nil, panicked},
		{"panicked nil", 1, 1, run, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if s, err := NewSerial(c.workers, c.queue, c.run, c.panicked); err == nil {
				t.Error("NewSerial accepted it")
				mustClose(t, s)
			}
		})
	}
}

// Many keys, several submitters with keys of their own, a queue that is often
// full: the tasks of a key run one at a time and in order, none is lost.
func TestSerialOrder(t *testing.T) {
	const workers, queue, submitters, keysEach, tasksEach = 4, 32, 4, 25, 10000
	type state struct {
		busy atomic.Bool
		next int // guarded by the Serial itself; the race detector watches
	}
	var states [submitters * keysEach]state
	s := newTestSerial(t, workers, queue, func(_, key, task int) {
		at := &states[key]
		if at.busy.Swap(true) {
			t.Errorf("key %d runs twice at once", key)
		}
		if task != at.next {
			t.Errorf("key %d: task %d, want %d", key, task, at.next)
		}
		at.next = task + 1
		if task%16 == 0 {
			runtime.Gosched()
		}
		at.busy.Store(false)
	})
	var group sync.WaitGroup
	for g := range submitters {
		group.Go(func() {
			var sent [keysEach]int
			submitAll(t, func(task int) error {
				k := task * task % keysEach // uneven: some keys get much, some little
				err := s.Submit(g*keysEach+k, sent[k])
				if err == nil {
					sent[k]++
				}
				return err
			}, tasksEach)
		})
	}
	group.Wait()
	mustClose(t, s)
	total := 0
	for key := range states {
		total += states[key].next
	}
	if total != submitters*tasksEach {
		t.Errorf("%d tasks ran, want %d", total, submitters*tasksEach)
	}
	stats := s.Stats()
	if stats.Saturated == 0 {
		t.Error("the queue was never full, so the test showed little")
	}
	checkStats(t, stats, Stats{Workers: workers, Submitted: submitters * tasksEach, Completed: submitters * tasksEach, Saturated: stats.Saturated})
	checkEmpty(t, s)
}

// One stuck key leaves the other workers to the other keys, however many tasks
// wait behind it.
func TestSerialStuckKeyHoldsOneWorker(t *testing.T) {
	gate, done := make(chan struct{}), make(chan string)
	s := newTestSerial(t, 2, 100, func(_ int, key string, task int) {
		if key == "stuck" {
			<-gate
			return
		}
		done <- fmt.Sprint(key, task)
	})
	for task := range 50 {
		if err := s.Submit("stuck", task); err != nil {
			t.Fatal(err)
		}
	}
	for task := range 20 {
		if err := s.Submit("other", task); err != nil {
			t.Fatal(err)
		}
		if got, want := <-done, fmt.Sprint("other", task); got != want {
			t.Fatalf("ran %s, want %s", got, want)
		}
	}
	close(gate)
	mustClose(t, s)
	checkEmpty(t, s)
}

// The queue counts the waiting tasks of all keys, wherever they wait.
func TestSerialBoundIsShared(t *testing.T) {
	gate := make(chan struct{})
	s := newTestSerial(t, 2, 3, func(int, string, int) { <-gate })
	for i, key := range []string{"a", "b", "a", "c", "a"} { // a and b run, three wait
		if err := s.Submit(key, i); err != nil {
			t.Fatalf("Submit %d: %v", i, err)
		}
	}
	for _, key := range []string{"a", "c", "d"} {
		if err := s.Submit(key, 9); !errors.Is(err, ErrSaturated) {
			t.Errorf("Submit for %s when full: %v, want ErrSaturated", key, err)
		}
	}
	checkStats(t, s.Stats(), Stats{Workers: 2, Running: 2, Queued: 3, Submitted: 5, Saturated: 3})
	close(gate)
	mustClose(t, s)
	if err := s.Submit("a", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("Submit after Close: %v, want ErrClosed", err)
	}
	checkEmpty(t, s)
}

// While Close waits, neither a busy key nor a new one gets further tasks.
func TestSerialSubmitWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := newTestSerial(t, 2, 10, func(int, string, int) { <-gate })
		if err := s.Submit("busy", 0); err != nil {
			t.Fatal(err)
		}
		go mustClose(t, s)
		synctest.Wait()
		for _, key := range []string{"busy", "new"} {
			if err := s.Submit(key, 1); !errors.Is(err, ErrClosed) {
				t.Errorf("Submit for the %s key: %v, want ErrClosed", key, err)
			}
		}
		close(gate)
	})
}

// A panic ends neither its key nor the worker, and it is reported before the
// next task of the key.
func TestSerialPanic(t *testing.T) {
	for _, exit := range []bool{false, true} {
		t.Run(fmt.Sprintf("goexit=%v", exit), func(t *testing.T) {
			gate := make(chan struct{})
			var log []string // only one worker exists
			s, err := NewSerial(1, 10, func(_ int, key string, task int) {
				<-gate
				log = append(log, fmt.Sprint(key, task))
				if task == 1 && exit {
					runtime.Goexit()
				} else if task == 1 {
					panic("boom")
				}
			}, func(key string, task int, value any, _ []byte) {
				log = append(log, fmt.Sprint(key, task, " ", value))
			})
			if err != nil {
				t.Fatal(err)
			}
			for task := range 3 {
				for _, key := range []string{"a", "b"} {
					if err := s.Submit(key, task); err != nil {
						t.Fatal(err)
					}
				}
			}
			close(gate)
			mustClose(t, s)
			value := "boom"
			if exit {
				value = ErrGoexit.Error()
			}
			want := []string{"a0", "b0", "a1", "a1 " + value, "b1", "b1 " + value, "a2", "b2"}
			if !slices.Equal(log, want) {
				t.Errorf("log\n got %q\nwant %q", log, want)
			}
			checkStats(t, s.Stats(), Stats{Workers: 1, Submitted: 6, Completed: 6, Panics: 2})
			checkEmpty(t, s)
		})
	}
}

// Close that gives up drops the tasks behind busy keys too.
func TestSerialCloseGivesUp(t *testing.T) {
	gate := make(chan struct{})
	s := newTestSerial(t, 1, 10, func(_ int, key string, task int) {
		if key != "a" || task != 0 {
			t.Errorf("%s%d ran after Close gave up", key, task)
		}
		<-gate
	})
	for task := range 3 {
		for _, key := range []string{"a", "b"} {
			if err := s.Submit(key, task); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	close(gate)
	mustClose(t, s)
	checkStats(t, s.Stats(), Stats{Workers: 1, Submitted: 6, Completed: 1, Discarded: 5})
}

// A key that can't be hashed is the caller's bug; it must not leave the Serial
// locked for everybody else.
func TestSerialUnhashableKey(t *testing.T) {
	s := newTestSerial(t, 1, 1, func(int, any, int) {})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("Submit took a slice as key")
			}
		}()
		err := s.Submit([]int{1}, 1)
		t.Errorf("Submit returned %v", err)
	}()
	if err := s.Submit("a", 1); err != nil {
		t.Error(err)
	}
	mustClose(t, s)
}

// FuzzSerial compares one worker with a model. A byte below 128 submits a task
// for one of eight keys, another one lets the running task end, by panic if it
// is odd. The model is a slice of what runs, a slice of ready keys, and a
// slice of tasks for each key.
func FuzzSerial(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 128, 128, 129, 128})
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 129, 129, 0, 128, 128, 128, 128})
	f.Add([]byte{3, 128, 3, 129, 3, 3, 129, 129, 1, 3, 128})
	f.Fuzz(func(t *testing.T, ops []byte) {
		const queue = 6
		type job struct{ key, task int }
		began, finish := make(chan job), make(chan byte)
		s, err := NewSerial(1, queue, func(_, key, task int) {
			began <- job{key, task}
			if op := <-finish; op%2 == 1 {
				panic(op)
			}
		}, func(int, int, any, []byte) {})
		if err != nil {
			t.Fatal(err)
		}
		var model struct {
			running bool
			key     int // of the running task
			ready   []job
			behind  [8][]job
			waiting int
		}
		isReady := func(key int) bool {
			return slices.ContainsFunc(model.ready, func(j job) bool { return j.key == key })
		}
		end := func(op byte) {
			finish <- op
			if behind := model.behind[model.key]; len(behind) > 0 {
				model.ready, model.behind[model.key] = append(model.ready, behind[0]), behind[1:]
			}
			if model.running = len(model.ready) > 0; model.running {
				if got, want := <-began, model.ready[0]; got != want {
					t.Fatalf("ran %v, want %v", got, want)
				}
				model.key, model.ready = model.ready[0].key, model.ready[1:]
				model.waiting--
			}
		}
		for i, op := range ops {
			if op >= 128 {
				if model.running {
					end(op)
				}
				continue
			}
			j := job{int(op % 8), i}
			err := s.Submit(j.key, j.task)
			switch {
			case !model.running:
				// The worker of the task before may still be on its way to idle; then it takes this one from the queue.
				if got := <-began; err != nil || got != j {
					t.Fatalf("Submit %v: %v, then %v ran", j, err, got)
				}
				model.running, model.key = true, j.key
			case model.waiting == queue:
				if !errors.Is(err, ErrSaturated) {
					t.Fatalf("Submit %v when full: %v", j, err)
				}
			case err != nil:
				t.Fatalf("Submit %v: %v", j, err)
			case model.key == j.key || isReady(j.key):
				model.behind[j.key] = append(model.behind[j.key], j)
				model.waiting++
			default:
				model.ready = append(model.ready, j)
				model.waiting++
			}
		}
		for model.running {
			end(0)
		}
		mustClose(t, s)
		checkEmpty(t, s)
	})
}
