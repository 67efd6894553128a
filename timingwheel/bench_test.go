package timingwheel

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// The benchmarks do the same work with a wheel, with container/heap and, where it can, with time.AfterFunc. Ids and deadlines come
// in random order, as in a server, so that at a million timers each one touched is a cache miss. Per contender and size one set of
// timers is passed through all benchmarks.

const benchInterval = 1250 // ticks; 25 s at 20 ms

// contender is a set of timers for ids 0 ... n-1 and deadlines at most benchInterval ticks ahead.
type contender interface {
	now() int64
	schedule(id uint32, deadline int64)
	cancel(id uint32)
	// fireAndRearm fires count timers in order, touches a record for each, and re-arms each benchInterval ticks after its tick.
	fireAndRearm(count int)
}

// record is what a server would look up when a timer fires.
type record struct {
	heard uint64
	_     [56]byte
}

type wheelTimers struct {
	*Wheel
	records []record
}

func (w wheelTimers) now() int64                         { return w.Now() }
func (w wheelTimers) schedule(id uint32, deadline int64) { w.Schedule(id, deadline) }
func (w wheelTimers) cancel(id uint32)                   { w.Cancel(id) }

func (w wheelTimers) fireAndRearm(count int) {
	fire := func(id uint32) {
		w.records[id].heard++
		w.Schedule(id, w.Now()+benchInterval)
	}
	for count > 0 {
		next, _ := w.Next()
		count -= w.Advance(next, count, fire)
	}
}

// heapTimers is the usual binary heap with an index for cancelling and moving.
type heapTimers struct {
	tick    int64
	entries []heapEntry
	index   []int32 // by id: place in entries
	records []record
}

type heapEntry struct {
	deadline int64
	id       uint32
}

func (h *heapTimers) Len() int           { return len(h.entries) }
func (h *heapTimers) Less(i, j int) bool { return h.entries[i].deadline < h.entries[j].deadline }

func (h *heapTimers) Swap(i, j int) {
	h.entries[i], h.entries[j] = h.entries[j], h.entries[i]
	h.index[h.entries[i].id], h.index[h.entries[j].id] = int32(i), int32(j)
}

func (h *heapTimers) Push(x any) {
	entry := x.(heapEntry)
	h.index[entry.id] = int32(len(h.entries))
	h.entries = append(h.entries, entry)
}

func (h *heapTimers) Pop() any {
	last := len(h.entries) - 1
	id := h.entries[last].id
	h.index[id] = -1
	h.entries = h.entries[:last]
	return nil
}

func (h *heapTimers) now() int64 { return h.tick }

func (h *heapTimers) schedule(id uint32, deadline int64) {
	if at := h.index[id]; at >= 0 {
		h.entries[at].deadline = deadline
		heap.Fix(h, int(at))
		return
	}
	heap.Push(h, heapEntry{deadline, id})
}

func (h *heapTimers) cancel(id uint32) {
	if at := h.index[id]; at >= 0 {
		heap.Remove(h, int(at))
	}
}

func (h *heapTimers) fireAndRearm(count int) {
	for range count {
		h.tick = h.entries[0].deadline
		h.records[h.entries[0].id].heard++
		h.entries[0].deadline += benchInterval
		heap.Fix(h, 0)
	}
}

// runtimeTimers are the runtime's own, far enough ahead that none fires.
type runtimeTimers []*time.Timer

func (r runtimeTimers) now() int64 { return 0 }

func (r runtimeTimers) schedule(id uint32, deadline int64) {
	after := time.Hour + time.Duration(deadline)*20*time.Millisecond
	if r[id] == nil {
		r[id] = time.AfterFunc(after, func() { panic(id) })
		return
	}
	r[id].Reset(after)
}

func (r runtimeTimers) cancel(id uint32) {
	r[id].Stop()
	r[id] = nil // so that scheduling anew is a new timer
}

func (r runtimeTimers) fireAndRearm(int) { panic("the runtime's timers wait for the clock") }

func newRecords(n int) []record {
	records := make([]record, n)
	for i := range records {
		records[i].heard = 1 // faults the page in
	}
	return records
}

// timerSet is a contender for ids 0 ... n-1, of which those in the first gone places of the second order are disarmed.
type timerSet struct {
	contender
	n, gone int
	order   []uint32 // a random permutation of the ids
}

func newTimerSet(c contender, n int) *timerSet {
	s := &timerSet{contender: c, n: n, gone: n, order: make([]uint32, n)}
	for i := range s.order {
		s.order[i] = uint32(i)
	}
	random := rand.New(rand.NewPCG(1, uint64(n)))
	random.Shuffle(n, func(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] })
	return s
}

// second is another permutation: the factor is prime to the sizes, which are powers of ten.
func (s *timerSet) second(i int) uint32 { return uint32(uint64(s.order[i]) * 7_320_507 % uint64(s.n)) }

// arm arms id for a tick that looks random, another for each salt.
func (s *timerSet) arm(id uint32, salt int) {
	mixed := (uint64(id) + uint64(salt)<<32 + 1) * 0x9E3779B97F4A7C15
	mixed = (mixed ^ mixed>>31) * 0xBF58476D1CE4E5B9
	s.schedule(id, s.now()+1+int64(mixed>>33%benchInterval))
}

// fill arms all ids, in another order than they are cancelled in, so that a timer's neighbours in a list are strangers to it.
func (s *timerSet) fill() {
	for _, id := range s.order {
		s.arm(id, 0)
	}
	s.gone = 0
}

func (s *timerSet) drain() {
	for ; s.gone < s.n; s.gone++ {
		s.cancel(s.second(s.gone))
	}
}

func (s *timerSet) benchSchedule(b *testing.B) {
	b.Run("schedule", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if s.gone == 0 {
				b.StopTimer()
				s.drain()
				b.StartTimer()
			}
			s.gone--
			s.arm(s.second(s.gone), 1)
		}
	})
}

func (s *timerSet) benchReschedule(b *testing.B) {
	s.fill()
	b.Run("reschedule", func(b *testing.B) {
		b.ReportAllocs()
		at, salt := 0, 2
		for b.Loop() {
			if at == s.n {
				at, salt = 0, salt+1
			}
			s.arm(s.order[at], salt)
			at++
		}
	})
}

func (s *timerSet) benchFireAndRearm(b *testing.B) {
	b.Run("fire-and-rearm", func(b *testing.B) {
		if s.gone > 0 {
			b.Fatal("run it after reschedule: it needs a full set")
		}
		b.ReportAllocs()
		s.fireAndRearm(b.N)
	})
}

func (s *timerSet) benchCancel(b *testing.B) {
	b.Run("cancel", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if s.gone == s.n {
				b.StopTimer()
				s.fill()
				b.StartTimer()
			}
			s.cancel(s.second(s.gone))
			s.gone++
		}
	})
}

func BenchmarkWheel(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("timers=%d", n), func(b *testing.B) {
			w := New(32_768)
			w.Grow(n)
			s := newTimerSet(wheelTimers{w, newRecords(n)}, n)
			s.benchSchedule(b)
			s.benchReschedule(b)
			s.benchFireAndRearm(b)
			s.benchCancel(b)
		})
	}
}

func BenchmarkHeap(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("timers=%d", n), func(b *testing.B) {
			h := &heapTimers{entries: make([]heapEntry, 0, n), index: make([]int32, n), records: newRecords(n)}
			for i := range h.index {
				h.index[i] = -1
			}
			s := newTimerSet(h, n)
			s.benchReschedule(b)
			s.benchFireAndRearm(b)
			if n <= 1_000_000 { // filling and emptying ten million again and again takes too long
				s.benchCancel(b)
				s.benchSchedule(b)
			}
		})
	}
}

// BenchmarkAfterFunc stops at a million: ten million of the runtime's timers take gigabytes and many seconds to set up.
func BenchmarkAfterFunc(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("timers=%d", n), func(b *testing.B) {
			s := newTimerSet(make(runtimeTimers, n), n)
			s.benchSchedule(b)
			s.benchReschedule(b)
			s.benchCancel(b)
			s.drain()
		})
	}
}

// BenchmarkChoose measures the choice of a tick in a wheel of the default size with a million timers in one interval.
func BenchmarkChoose(b *testing.B) {
	const timers = 1_000_000
	w := New(32_768)
	for id := range uint32(timers) {
		w.Schedule(id, 1+int64(id)%benchInterval)
	}
	all, one := func(int64) int { return timers }, func(int64) int { return 1 }
	for _, bench := range []struct {
		name string
		call func() int64
	}{
		{"place/latest has room", func() int64 { tick, _ := w.Place(300, benchInterval, 16, all); return tick }},
		{"place/16 probes in vain", func() int64 { tick, _ := w.Place(300, benchInterval, 16, one); return tick }},
		{"next", func() int64 { tick, _ := w.Next(); return tick }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bench.call()
			}
		})
	}
}

// BenchmarkJump measures Advance over a whole revolution with one timer in it.
func BenchmarkJump(b *testing.B) {
	const slots = 32_768
	w := New(slots)
	b.ReportAllocs()
	for b.Loop() {
		deadline := w.Schedule(0, w.Now()+slots)
		w.Advance(deadline, 1, func(uint32) {})
	}
}
