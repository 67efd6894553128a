package timingwheel

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// The model is a list sorted by tick, within a tick the last armed first: the order in which a wheel must fire. The rig does each
// operation on a wheel and on the model and compares all that can be seen, and the wheel's inner invariants. Random seeds and the
// fuzzer drive the same rig.

type modelTimer struct {
	tick int64
	id   uint32
}

type rig struct {
	t      testing.TB
	wheel  *Wheel
	slots  int64
	now    int64
	timers []modelTimer
	choose func(n int) int // the source of decisions, in [0, n)
}

func newRig(t testing.TB, slots int, choose func(n int) int) *rig {
	return &rig{t: t, wheel: New(slots), slots: int64(slots), choose: choose}
}

// id returns one of 64 ids, spread over five pages of storage.
func (r *rig) id() uint32 { return uint32(r.choose(64)) * 269 }

func (r *rig) find(id uint32) int {
	return slices.IndexFunc(r.timers, func(m modelTimer) bool { return m.id == id })
}

func (r *rig) count(tick int64) int {
	count := 0
	for _, m := range r.timers {
		if m.tick == tick {
			count++
		}
	}
	return count
}

func (r *rig) clamp(tick int64) int64 { return max(r.now+1, min(tick, r.now+r.slots-1)) }

func (r *rig) schedule() {
	id, deadline := r.id(), r.now-3+int64(r.choose(int(2*r.slots)))
	want := r.clamp(deadline)
	if got := r.wheel.Schedule(id, deadline); got != want {
		r.t.Fatalf("at %d: Schedule(%d, %d) = %d, want %d", r.now, id, deadline, got, want)
	}
	if at := r.find(id); at >= 0 {
		if r.timers[at].tick == want {
			return
		}
		r.timers = slices.Delete(r.timers, at, at+1)
	}
	at, _ := slices.BinarySearchFunc(r.timers, want, func(m modelTimer, tick int64) int { return cmp.Compare(m.tick, tick) })
	r.timers = slices.Insert(r.timers, at, modelTimer{want, id})
}

func (r *rig) cancel() {
	id := r.id()
	at := r.find(id)
	if got := r.wheel.Cancel(id); got != (at >= 0) {
		r.t.Fatalf("at %d: Cancel(%d) = %v, want %v", r.now, id, got, at >= 0)
	}
	if at >= 0 {
		r.timers = slices.Delete(r.timers, at, at+1)
	}
}

func (r *rig) advance() {
	target := r.now + int64(r.choose(4))
	if r.choose(8) == 0 {
		target = r.now - 2 + int64(r.choose(int(3*r.slots)))
	}
	limit := 1 + r.choose(6)
	fired := 0
	got := r.wheel.Advance(target, limit, func(id uint32) {
		fired++
		if len(r.timers) == 0 || r.timers[0].tick > target || r.timers[0].id != id {
			r.t.Fatalf("Advance(%d) from %d fired %d, want the first of %v", target, r.now, id, r.timers)
		}
		r.now = r.timers[0].tick
		r.timers = r.timers[1:]
		if r.wheel.Now() != r.now {
			r.t.Fatalf("Now() = %d while a timer of tick %d fires", r.wheel.Now(), r.now)
		}
		for range r.choose(3) {
			if r.choose(4) == 0 {
				r.cancel()
			} else {
				r.schedule()
			}
		}
	})
	if got != fired || got > limit {
		r.t.Fatalf("Advance(%d, %d) = %d after %d fires", target, limit, got, fired)
	}
	if fired == limit || target < r.now {
		return
	}
	r.now = target
	if len(r.timers) > 0 && r.timers[0].tick <= target {
		r.t.Fatalf("Advance(%d, %d) = %d left %v", target, limit, got, r.timers[0])
	}
}

func (r *rig) place() {
	earliest := r.now - 3 + int64(r.choose(int(r.slots)+6))
	latest := earliest - 3 + int64(r.choose(int(r.slots)+6))
	share, probes := r.choose(4), r.choose(int(r.slots))
	got, room := r.wheel.Place(earliest, latest, probes, func(int64) int { return share })
	high := r.clamp(latest)
	low := min(r.clamp(earliest), high)

	// What looking at the whole window would give.
	best := high
	for tick := high; tick >= low && r.count(high) >= share; tick-- {
		if r.count(tick) < r.count(best) {
			best = tick
		}
	}
	switch {
	case room != (r.count(got) < share):
		r.t.Fatalf("at %d: Place(%d, %d, %d) = %d, room %v with %d timers of %d", r.now, earliest, latest, probes, got, room, r.count(got), share)
	case got < low || got > high:
		r.t.Fatalf("at %d: Place(%d, %d, %d) = %d, outside %d ... %d", r.now, earliest, latest, probes, got, low, high)
	case r.count(high) < share && got != high,
		int64(probes) >= high-low && got != best,
		r.count(got) > r.count(high):
		r.t.Fatalf("at %d: Place(%d, %d, %d) of share %d = %d with %d timers, want %d with %d", r.now, earliest, latest, probes, share,
			got, r.count(got), best, r.count(best))
	}
}

func (r *rig) step() {
	switch r.choose(8) {
	case 0, 1, 2:
		r.schedule()
	case 3:
		r.cancel()
	case 4, 5, 6:
		r.advance()
	default:
		r.place()
	}
	r.compare()
	checkInvariants(r.t, r.wheel)
}

// compare checks everything that can be asked of the wheel against the model.
func (r *rig) compare() {
	if r.wheel.Now() != r.now || r.wheel.Len() != len(r.timers) {
		r.t.Fatalf("Now, Len = %d, %d, want %d, %d", r.wheel.Now(), r.wheel.Len(), r.now, len(r.timers))
	}
	tick, ok := r.wheel.Next()
	if ok != (len(r.timers) > 0) || ok && tick != r.timers[0].tick {
		r.t.Fatalf("at %d: Next() = %d, %v, want the first of %v", r.now, tick, ok, r.timers)
	}
	for tick := r.now - 2; tick < r.now+r.slots+2; tick++ {
		if got, want := r.wheel.Count(tick), r.count(tick); got != want {
			r.t.Fatalf("at %d: Count(%d) = %d, want %d", r.now, tick, got, want)
		}
	}
	for i := range uint32(66) { // two more than are ever armed
		id := i * 269
		tick, ok := r.wheel.Deadline(id)
		at := r.find(id)
		if ok != (at >= 0) || ok && tick != r.timers[at].tick {
			r.t.Fatalf("at %d: Deadline(%d) = %d, %v, want that in %v", r.now, id, tick, ok, r.timers)
		}
	}
}

// checkInvariants walks every list and compares it with the counts, the links backwards and both levels of the map.
func checkInvariants(t testing.TB, w *Wheel) {
	total := 0
	for i, s := range w.slots {
		count, prev := uint32(0), uint32(0)
		for link := s.head; link != 0; link = w.at(link - 1).next {
			if entry := w.at(link - 1); entry.prev != prev || entry.slot != uint32(i)+1 {
				t.Fatalf("slot %d: timer %d is %+v after link %d", i, link-1, *entry, prev)
			}
			prev = link
			count++
		}
		if bit := w.occupied[i/64]>>(i%64)&1 == 1; count != s.count || bit != (count > 0) {
			t.Fatalf("slot %d: %d timers listed, %d counted, occupied %v", i, count, s.count, bit)
		}
		total += int(count)
	}
	for i, word := range w.occupied {
		if bit := w.summary[i/64]>>(i%64)&1 == 1; bit != (bits.OnesCount64(word) > 0) {
			t.Fatalf("summary bit %d is %v over %b", i, bit, word)
		}
	}
	if total != w.armed {
		t.Fatalf("%d timers listed, %d counted", total, w.armed)
	}
}

func TestModel(t *testing.T) {
	for _, test := range []struct {
		name  string
		slots int
		seeds uint64
		steps int
	}{
		{"less than a word", 8, 100, 400},
		{"one word", 64, 50, 400},
		{"words", 256, 20, 400},
		{"two summary words", 8192, 2, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := range test.seeds {
				t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
					r := newRig(t, test.slots, rand.New(rand.NewPCG(seed, uint64(test.slots))).IntN)
					for range test.steps {
						r.step()
					}
				})
			}
		})
	}
}
