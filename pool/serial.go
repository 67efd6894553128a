package pool

import (
	"context"
	"errors"
)

// A Serial is a Pool that runs the tasks of one key one at a time, in the
// order in which Submit accepted them. Tasks of different keys run beside each
// other. All methods are safe for concurrent use.
//
// After a task, its key goes behind all keys that are ready: a key with a
// thousand tasks delays a key with one by one task, not by a thousand.
//
// A key must equal itself; a floating-point NaN does not.
type Serial[K comparable, T any] struct {
	pool *Pool[keyed[K, T]]

	// Shared; pool.mu guards. A key is present while one of its tasks runs or
	// is ready; the list holds its tasks behind that one.
	behind map[K]list
}

type keyed[K comparable, T any] struct {
	key  K
	task T
}

// NewSerial opens a Serial over a pool of its own. The arguments are those of
// New; queue bounds the waiting tasks of all keys together. panicked ends
// before the next task of its key begins.
func NewSerial[K comparable, T any](workers, queue int, run func(worker int, key K, task T), panicked func(key K, task T, value any, stack []byte)) (*Serial[K, T], error) {
	if run == nil || panicked == nil {
		return nil, errors.New("pool: run and panicked must not be nil")
	}
	p, err := newPool(workers, queue,
		func(worker int, k keyed[K, T]) { run(worker, k.key, k.task) },
		func(k keyed[K, T], value any, stack []byte) { panicked(k.key, k.task, value, stack) })
	if err != nil {
		return nil, err
	}
	s := &Serial[K, T]{pool: p, behind: make(map[K]list)}
	p.after = s.afterLocked
	return s, nil
}

// Submit hands task to an idle worker if key has none running or waiting, and
// queues it otherwise. It never blocks. If the queue is full it returns
// ErrSaturated, after Close ErrClosed; then the Serial has not kept the task.
func (s *Serial[K, T]) Submit(key K, task T) error {
	worker, err := s.admit(key, keyed[K, T]{key, task})
	if worker >= 0 {
		s.pool.start(worker)
	}
	return err
}

// admit unlocks by defer, since looking up a key whose dynamic type can't be
// hashed panics.
func (s *Serial[K, T]) admit(key K, task keyed[K, T]) (worker int, err error) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	chain, busy := s.behind[key]
	if busy {
		worker, err = -1, p.queueLocked(&chain, task)
	} else {
		worker, err = p.admitLocked(task)
	}
	if err == nil {
		s.behind[key] = chain
	}
	return worker, err
}

// afterLocked makes the next task of a key ready, behind those of other keys.
func (s *Serial[K, T]) afterLocked(done keyed[K, T]) {
	chain := s.behind[done.key]
	if s.pool.waiting.move(&chain, &s.pool.ready) {
		s.behind[done.key] = chain
	} else {
		delete(s.behind, done.key)
	}
}

// Close is that of Pool.
func (s *Serial[K, T]) Close(ctx context.Context) error { return s.pool.Close(ctx) }

// Stats is that of Pool.
func (s *Serial[K, T]) Stats() Stats { return s.pool.Stats() }
