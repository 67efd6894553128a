package server

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// budget keeps the heartbeats of a loop even. It knows what each tick should hold, so that whoever may choose a tick finds one with
// room, and it stretches the intervals while the loop is behind time.
type budget struct {
	// Owned by the loop's goroutine.

	// shares[c] is what the connections with an interval of class c or above add to the heartbeats of a tick, with 32 bits of fraction.
	shares   [intervalClasses + 1]uint64
	crowds   [intervalClasses]crowding
	second   int64         // tick at which away began to count
	away     uint64        // heartbeats that found no room since
	crowdAt  int64         // tick at which they were a crowd
	gap      int64         // tick at which a crowded heartbeat last found room
	lag      uint32        // µs behind time, smoothed
	lost     time.Duration // clock.lost at the last look
	lookedAt time.Duration // real time of it

	// Atomic: written by the loop, read by anybody.
	stretch atomic.Uint32 // of every interval, in 256ths; 0 counts as 1
}

// Eight classes to each doubling of an interval: within one, ticks are taken to be alike.
const (
	classBits       = 3
	intervalClasses = (23 - classBits + 1) << classBits // up to the 24 h that Config allows, which are 2^22 ticks
)

// intervalClass is the class of an interval, or of a distance in time, in ticks.
func intervalClass(ticks int64) int {
	n := bits.Len64(uint64(ticks)) - classBits - 1
	if n <= 0 {
		return int(ticks)
	}
	return min(n<<classBits+int(ticks>>n), intervalClasses-1)
}

// beatShare is what a connection adds to the heartbeats of a tick, with 32 bits of fraction.
func beatShare(interval uint32) uint64 { return uint64(tickMillis) << 32 / uint64(interval) }

// join and leave tell of a connection's heartbeats; interval 0: it gets none.
func (b *budget) join(interval uint32) {
	if interval != 0 {
		share := beatShare(interval)
		for c := range intervalClass(intervalTicks(interval)) + 1 {
			b.shares[c] += share
		}
	}
}

func (b *budget) leave(interval uint32) {
	if interval != 0 {
		share := beatShare(interval)
		for c := range intervalClass(intervalTicks(interval)) + 1 {
			b.shares[c] -= share
		}
	}
}

// crowding is how the connections of one class come in.
type crowding struct {
	last int64  // tick at which the last one came
	rank uint32 // how many were laid out
}

// rush says whether connections of an interval come in faster than their heartbeats would be due, and are too many for single slots.
func (b *budget) rush(now, ticks int64) bool {
	class := intervalClass(ticks)
	load := b.shares[class] - b.shares[class+1]
	since := uint64(now - b.crowds[class].last)
	b.crowds[class].last = now
	return b.shares[0] >= 1<<32/sparseTicks && since*min(load, 1<<32) < 1<<32
}

// rank is the next place in the layout of an interval.
func (b *budget) rank(ticks int64) uint32 {
	class := intervalClass(ticks)
	b.crowds[class].rank++
	return b.crowds[class].rank
}

// turnedAway tells of a heartbeat that found no room. A quarter of what a second should hold, and some more, within a second is a crowd that was
// heard from at once. Where intervals differ, all heartbeats are then laid out anew, each once, when the crowd has beaten.
func (b *budget) turnedAway(now, ticks int64) {
	if now-b.second >= ticksPerSecond {
		b.second, b.away = now, 0
	}
	if b.away++; b.away > b.shares[0]*uint64(ticksPerSecond)>>(32+2)+crowdLeast && now >= b.crowdAt+2*ticks {
		b.crowdAt = now
	}
}

// lays says whether a heartbeat that follows one at tick before is laid out anew.
func (b *budget) lays(now, before, ticks int64) bool {
	from := b.crowdAt + ticks
	return b.crowdAt != 0 && from <= now && now < from+ticks && before < from && !b.alike(ticks)
}

// alike says whether all intervals are of the class of this one. Then every surplus can be moved for good; where they differ, ticks become
// uneven again and again, and moving heartbeats far for that would make more of them than it spreads.
func (b *budget) alike(ticks int64) bool {
	class := intervalClass(ticks)
	return b.shares[class] == b.shares[0] && b.shares[class+1] == 0
}

// load is how many heartbeats a tick should hold by now, with 32 bits of fraction: the share of those whose interval reaches so far. Of the
// others the next heartbeat comes sooner, and what comes after that isn't armed yet.
func (l *loop) load(at int64) uint64 {
	distance, stretch := at-l.wheel.Now(), int64(l.budget.stretch.Load())
	if stretch <= stretchOne {
		return l.budget.shares[intervalClass(distance)]
	}
	return l.budget.shares[intervalClass(distance*stretchOne/stretch)] * stretchOne / uint64(stretch)
}

// share is load in whole heartbeats, at least one. Fractions are dealt out over the ticks, so that the shares of many ticks sum up to what is due in them.
func (l *loop) share(at int64) int {
	return max(1, int((l.load(at)+uint64(uint32(at)*fractionStep))>>32))
}

// fractionStep is 2^32 divided by the golden ratio: its multiples modulo 2^32 lie evenly at every moment (the three-distance theorem).
const fractionStep = 0x9E3779B9

// stretchOne is the stretch of a loop that keeps up.
const stretchOne = 256

// stretched is an interval as long as the loop makes it at the moment: at most twice what was granted, and never so long that a heartbeat
// unanswered would leave less than half of the timeout.
func (l *loop) stretched(interval, timeout uint32) uint32 {
	stretch := l.budget.stretch.Load()
	if stretch <= stretchOne {
		return interval
	}
	longer := uint32(uint64(interval) * uint64(stretch) / stretchOne)
	if timeout != 0 {
		longer = min(longer, max(interval, timeout/2))
	}
	return longer
}

// late tells the budget how late timers fired.
func (b *budget) late(micros uint32) {
	b.lag = uint32((uint64(b.lag)*7 + uint64(micros)) / 8)
}

// adjust looks at the loop's lateness once a second, and at the time that the clock left out: what is beyond stretchAbove for so long is
// more work than the loop gets done. Heartbeats are the part of it that can be put off; so are they while the machine as a whole is overloaded.
func (l *loop) adjust() {
	b := &l.budget
	if l.clock.read-b.lookedAt < stretchPause {
		return
	}
	lag := max(time.Duration(b.lag)*time.Microsecond, l.clock.lost-b.lost)
	b.lookedAt, b.lost = l.clock.read, l.clock.lost
	stretch := max(b.stretch.Load(), stretchOne)
	switch {
	case lag > stretchAbove || l.server.shedding():
		stretch = min(stretch+stretchUp, stretchMost)
	case lag < stretchBelow:
		stretch = max(stretch-stretchDown, stretchOne)
	}
	b.stretch.Store(stretch)
}
