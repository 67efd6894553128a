package timingwheel

import (
	"fmt"
	"math"
	"math/bits"
)

const (
	slotsMin = 8       // below it the clamp to one revolution would leave hardly a tick of choice
	slotsMax = 1 << 20 // 8 MiB of slots; fourteen hours in ticks of 50 ms

	// tickMax keeps tick arithmetic clear of overflow. In ticks of 1 ns it is 146 years.
	tickMax = 1 << 62

	pageShift  = 12
	pageTimers = 1 << pageShift // 48 KiB a page: a whole number of the allocator's 8 KiB units, so no byte is lost
	pageMask   = pageTimers - 1

	wordShift = 6 // 64 slots a word of the occupancy map, 64 words a word of its summary
	wordMask  = 1<<wordShift - 1

	// turnStep is 2^32 divided by the golden ratio, rounded to odd: its multiples modulo 2^32 fall, at every moment, nearly
	// evenly into the range (the three-distance theorem), so successive probes leave no part of a window out for long.
	turnStep = 0x9E3779B9

	// probeShift is the number of fractional bits in a position inside a window. slotsMax<<probeShift times a fraction of
	// probeShift bits stays below 2^63.
	probeShift = 20
)

// timer is one entry of a slot's doubly linked list. A link is the id plus one, and a slot its index plus one, so that zeroed
// memory is a page of unarmed timers: a fresh page needs no initialisation and costs no resident memory until it is used.
type timer struct {
	next uint32 // 0: last of its slot
	prev uint32 // 0: first of its slot
	slot uint32 // 0: not armed
}

type page [pageTimers]timer

type slot struct {
	head  uint32 // id plus one; 0: empty
	count uint32
}

// Wheel is a timing wheel; New makes one. It belongs to one goroutine at a time.
type Wheel struct {
	// Immutable after New.
	mask uint32 // slots - 1

	// Owned by the caller's goroutine.
	turn     uint32 // fraction of 2^32: where in its share of a window the next probe looks
	now      int64
	armed    int
	slots    []slot
	occupied []uint64 // bit i: slot i is not empty
	summary  []uint64 // bit i: occupied[i] is not zero
	pages    []*page  // the only pointers; 8 bytes for 4,096 timers
}

// New returns an empty wheel at tick 0 with the given number of slots, a power of two from 8 to 1<<20; it panics on any other.
// One revolution, and so the farthest deadline, is that many ticks less one.
func New(slots int) *Wheel {
	if slots < slotsMin || slots > slotsMax || slots&(slots-1) != 0 {
		panic(fmt.Sprintf("timingwheel: %d slots: want a power of two from %d to %d", slots, slotsMin, slotsMax))
	}
	words := (slots + wordMask) >> wordShift
	return &Wheel{
		mask:     uint32(slots - 1),
		slots:    make([]slot, slots),
		occupied: make([]uint64, words),
		summary:  make([]uint64, (words+wordMask)>>wordShift),
	}
}

// Now returns the tick up to which the wheel has advanced: every timer of an earlier tick has fired. While fire runs it is the
// tick of the timer that fires. After an Advance that reached its limit, timers of this very tick may be left.
func (w *Wheel) Now() int64 { return w.now }

// Len returns the number of armed timers.
func (w *Wheel) Len() int { return w.armed }

// Grow makes room for the ids 0 to ids-1, so that arming them allocates nothing. It never shrinks. It panics above 1<<32 - 1.
func (w *Wheel) Grow(ids int) {
	if int64(ids) > math.MaxUint32 {
		panic(fmt.Sprintf("timingwheel: room for %d ids: the limit is %d", ids, uint32(math.MaxUint32)))
	}
	for len(w.pages)*pageTimers < ids {
		w.pages = append(w.pages, new(page))
	}
}

// Schedule arms timer id for the tick deadline, or moves it there if it is armed, and returns the tick armed: deadline, but at
// least Now()+1 and at most Now()+slots-1. A later deadline is thus clamped, and the caller looks again when the timer fires.
// Moving a timer to the tick it has changes nothing. Constant time. It allocates only when id is the largest yet, and panics on id 1<<32 - 1.
func (w *Wheel) Schedule(id uint32, deadline int64) int64 {
	if int(id>>pageShift) >= len(w.pages) {
		w.Grow(int(id) + 1)
	}
	tick := w.clamp(deadline)
	index := uint32(tick) & w.mask
	t := w.at(id)
	if t.slot != 0 {
		if t.slot == index+1 {
			return tick
		}
		w.unlink(t)
	}
	w.link(id, t, index)
	return tick
}

// Cancel disarms timer id and reports whether it was armed. Constant time; any id is allowed.
func (w *Wheel) Cancel(id uint32) bool {
	if int(id>>pageShift) >= len(w.pages) {
		return false
	}
	t := w.at(id)
	if t.slot == 0 {
		return false
	}
	w.unlink(t)
	return true
}

// Deadline returns the tick for which timer id is armed, as Schedule returned it, and whether it is armed.
func (w *Wheel) Deadline(id uint32) (int64, bool) {
	if int(id>>pageShift) >= len(w.pages) {
		return 0, false
	}
	t := w.at(id)
	if t.slot == 0 {
		return 0, false
	}
	return w.tickOf(t.slot - 1), true
}

// Count returns the number of timers armed for tick: 0 for a tick that cannot be armed.
func (w *Wheel) Count(tick int64) int {
	if tick < w.now || tick > w.now+int64(w.mask) {
		return 0
	}
	return int(w.slots[uint32(tick)&w.mask].count)
}

// Next returns the earliest tick for which a timer is armed, and whether there is one. It is Now() when an Advance that reached
// its limit left timers over. It reads one bit map word for every 4,096 slots at worst.
func (w *Wheel) Next() (int64, bool) {
	if w.armed == 0 {
		return 0, false
	}
	from := uint32(w.now) & w.mask
	index, ok := w.occupiedFrom(from)
	if !ok {
		// The rest of the revolution lies below from, and is not empty since a timer is armed.
		index, _ = w.occupiedFrom(0)
	}
	return w.tickOf(index), true
}

// Advance moves the wheel to tick now and fires what is due, at most limit timers: tick by tick, within a tick the last armed
// first. It returns the number fired. When that is limit more may be due: call again. Less means that Now() is now.
//
// A timer is disarmed before fire is called with its id. fire may schedule and cancel any id, this one included. A timer it
// arms for a tick up to now fires in the same call, within the limit. An earlier now than Now() fires nothing and moves nothing.
// Empty slots cost next to nothing, so neither does a large jump. Advance panics when limit is below 1 or now above 1<<62.
func (w *Wheel) Advance(now int64, limit int, fire func(id uint32)) int {
	if limit < 1 || now > tickMax {
		panic(fmt.Sprintf("timingwheel: advance to %d with limit %d: want at most %d, at least 1", now, limit, int64(tickMax)))
	}
	if now < w.now {
		return 0
	}
	for fired := range limit {
		// All state is read afresh after each fire, since fire may have changed any of it.
		head := w.slots[uint32(w.now)&w.mask].head
		if head == 0 {
			next, ok := w.Next()
			if !ok || next > now {
				w.now = now
				return fired
			}
			w.now = next
			head = w.slots[uint32(next)&w.mask].head
		}
		w.unlink(w.at(head - 1))
		fire(head - 1)
	}
	return limit
}

// at returns the timer of id, whose page must exist.
func (w *Wheel) at(id uint32) *timer { return &w.pages[id>>pageShift][id&pageMask] }

// clamp returns the nearest tick to deadline that can be armed.
func (w *Wheel) clamp(deadline int64) int64 {
	return min(max(deadline, w.now+1), w.now+int64(w.mask))
}

// tickOf returns the one tick of the current revolution whose timers are in slot index.
func (w *Wheel) tickOf(index uint32) int64 {
	return w.now + int64((index-uint32(w.now))&w.mask)
}

// link puts the unarmed timer t of id at the head of slot index. The head is the one place that needs no second list
// entry besides the new one's neighbour: at millions of timers each entry touched is a cache miss.
func (w *Wheel) link(id uint32, t *timer, index uint32) {
	s := &w.slots[index]
	if s.head != 0 {
		w.at(s.head - 1).prev = id + 1
	} else {
		w.occupied[index>>wordShift] |= 1 << (index & wordMask)
		w.summary[index>>(2*wordShift)] |= 1 << (index >> wordShift & wordMask)
	}
	*t = timer{next: s.head, slot: index + 1}
	s.head = id + 1
	s.count++
	w.armed++
}

// unlink takes the armed timer t out of its slot.
func (w *Wheel) unlink(t *timer) {
	index := t.slot - 1
	s := &w.slots[index]
	if t.next != 0 {
		w.at(t.next - 1).prev = t.prev
	}
	if t.prev != 0 {
		w.at(t.prev - 1).next = t.next
	} else {
		s.head = t.next
	}
	t.slot = 0
	s.count--
	w.armed--
	if s.head != 0 {
		return
	}
	word := index >> wordShift
	w.occupied[word] &^= 1 << (index & wordMask)
	if w.occupied[word] == 0 {
		w.summary[word>>wordShift] &^= 1 << (word & wordMask)
	}
}

// occupiedFrom returns the first slot from index from upwards that is not empty, if there is one.
func (w *Wheel) occupiedFrom(from uint32) (uint32, bool) {
	word := from >> wordShift
	if rest := w.occupied[word] >> (from & wordMask); rest != 0 {
		return from + uint32(bits.TrailingZeros64(rest)), true
	}
	word++
	for i := word >> wordShift; int(i) < len(w.summary); i++ {
		rest := w.summary[i]
		if i == word>>wordShift {
			rest &= math.MaxUint64 << (word & wordMask)
		}
		if rest != 0 {
			word = i<<wordShift + uint32(bits.TrailingZeros64(rest))
			return word<<wordShift + uint32(bits.TrailingZeros64(w.occupied[word])), true
		}
	}
	return 0, false
}
