// Package pool runs tasks on a bounded number of goroutines, with a bounded
// queue that pushes back instead of growing.
//
// A Pool has W workers and room for Q waiting tasks. Submit gives its task to
// an idle worker or appends it to the queue; a worker, once started, takes
// tasks from the queue until that is empty. So a burst costs as many hand-offs
// between threads as workers start, not as many as it has tasks. When W tasks
// run and Q wait, Submit returns ErrSaturated and the caller keeps its task.
//
// A Serial is a Pool whose tasks have keys: those of one key run one at a
// time, in the order of Submit, and the keys take turns.
//
// # Concurrency
//
// Every method may be called from any goroutine, Submit from a running task
// too. One mutex guards the queue; it is held for a few steps, never while a
// task runs, and Submit waits for nothing else. Tasks that submit to their own
// pool can saturate it: none may loop until such a Submit succeeds.
//
// A task that panics is reported and counted, and its worker goes on; a task
// that calls runtime.Goexit likewise, at the price of a new goroutine. What a
// task had locked stays locked: containing its effects is up to the callback.
//
// # Ownership of memory
//
// A task is passed by value. From an accepted Submit until run returns, what it
// points to belongs to the pool and then to run; after a refused Submit it is
// still the caller's. The pool clears its copy before run begins. The index
// that run receives is held by one task at a time, so it may select a buffer.
//
// # Limits
//
// Q slots of one task and four bytes each are reserved by New, and touched only
// as far as the queue has ever been full. A Serial has a map entry for each key
// that has a task running or ready, at most W+Q; the map keeps its largest
// size. Goroutines: W, and for a moment a few more that have finished and are
// on their way back; none of them twenty seconds after the last task; and two
// for ants' housekeeping until Close.
//
// # Portability
//
// Nothing here depends on the system. The goroutines come from
// github.com/panjf2000/ants/v2 (v2.12.1), which keeps finished ones for reuse
// and ends those that stay idle. What it does that its name doesn't tell:
//
//   - Importing it opens a default pool and so starts two goroutines, which
//     live as long as the process; a leak test must subtract them.
//   - A size of 0 or less means unlimited. New refuses that for workers, and
//     uses it below: ants counts a goroutine that has finished but isn't back
//     in its stack, and with an equal bound would now and then refuse a start.
//   - Without a PanicHandler it recovers and logs, and the program goes on
//     unaware. Here each task recovers by itself, and the handler panics again.
//   - It keeps no order and, unless Nonblocking, makes Submit wait. The order,
//     the queue and both bounds are therefore this package's.
package pool
