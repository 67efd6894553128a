package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/pool"
)

// loans is a batch on its way through the decoder pool. It is reused: a hand-off allocates nothing.
type loans struct {
	loop  *loop
	now   moment
	began time.Duration // real time of now
	slots []uint32
}

// decoders and handlers are the two pools as the server sees them: pool.Pool and pool.Serial, or those of the simulation, which
// runs their work when and in what pieces it likes.
type decoders interface {
	Submit(b *loans) error
	Close(ctx context.Context) error
}

type handlers interface {
	Submit(tok poller.Token, d delivery) error
	Close(ctx context.Context) error
}

var (
	_ decoders = (*pool.Pool[*loans])(nil)
	_ handlers = (*pool.Serial[poller.Token, delivery])(nil)
)

// batchPool recycles loans between loops and workers.
type batchPool struct {
	// mu guards free.
	mu   sync.Mutex
	free []*loans
}

func (p *batchPool) get() *loans {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.free) - 1; last >= 0 {
		b := p.free[last]
		p.free = p.free[:last]
		return b
	}
	return &loans{slots: make([]uint32, 0, batchLoans)}
}

func (p *batchPool) put(b *loans) {
	b.loop, b.slots = nil, b.slots[:0]
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < decoderQueue {
		p.free = append(p.free, b)
	}
}

// serveByPool spreads the ready loans over the decoder pool in batches. If it is saturated they wait in the ring, in their order:
// the loop is neither blocked, nor is anything dropped.
func (l *loop) serveByPool() {
	slots := l.ready
	size := max(1, min(batchLoans, (len(slots)+l.server.decoderCount-1)/l.server.decoderCount))
	for len(slots) > 0 {
		n := min(size, len(slots))
		b := l.server.batches.get()
		b.loop, b.now, b.began = l, l.now, l.clock.read
		b.slots = append(b.slots, slots[:n]...)
		if !l.handOver(b) {
			l.server.batches.put(b)
			l.ring = append(l.ring, slots...)
			return
		}
		slots = slots[n:]
	}
}

// handOver gives a batch to the pool; false: it is saturated, and the end of a batch will wake the loop. That is announced before the
// pool is asked once more, since the last batch may end in between.
func (l *loop) handOver(b *loans) bool {
	if !errors.Is(l.server.decoders.Submit(b), pool.ErrSaturated) {
		return true
	}
	l.starved.Store(true)
	if errors.Is(l.server.decoders.Submit(b), pool.ErrSaturated) {
		return false
	}
	l.starved.Store(false)
	return true
}

// runBatch is what a worker of the decoder pool does.
func (s *Server) runBatch(worker int, b *loans) {
	x, l := s.workers[worker], b.loop
	x.batch(l, b.now, b.slots)
	if took := l.sys.now() - b.began; isLong(took) {
		heard(&l.table, b.slots, b.now.ms, took)
	}
	x.publish()
	s.batches.put(b)
	if l.starved.Load() && l.starved.CompareAndSwap(true, false) {
		l.sys.wake()
	}
}
