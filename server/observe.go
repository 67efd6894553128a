package server

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// exponential counts observations in the buckets of [Native]; one goroutine observes, anybody reads.
type exponential struct {
	zero    atomic.Uint64
	buckets [nativeBuckets]atomic.Uint64
}

const (
	// From 2^-14 s = 61 µs, half of what loopback takes, up: that is bucket -56. 127 buckets end above the 71 minutes that 32 bits of µs
	// hold, and, beginning at one second, above the 136 years that 32 bits of seconds hold.
	nativeBuckets      = 130
	nativeLeastMicros  = -55
	nativeLeastSeconds = 1
)

// observe takes an observation that is value/unit seconds. least is the index of the first bucket.
func (e *exponential) observe(value uint32, unit float64, least int) {
	// Exact: powers of two have an exact logarithm, and no other bound is nearer to a whole number than rounding moves it.
	index := math.MinInt32
	if value > 0 {
		index = int(math.Ceil(4*math.Log2(float64(value)/unit))) - least
	}
	if index < 0 {
		e.zero.Add(1)
		return
	}
	e.buckets[index].Add(1)
}

// addTo adds what was observed to a sum over loops and runners.
func (e *exponential) addTo(sum *Native, least int) {
	if sum.Counts == nil {
		*sum = Native{Least: least, ZeroBound: math.Exp2(float64(least-1) / 4), Counts: make([]uint64, nativeBuckets)}
	}
	sum.Zero += e.zero.Load()
	for i := range e.buckets {
		sum.Counts[i] += e.buckets[i].Load()
	}
}

// silenceBounds are the upper bounds, in seconds, of the buckets for silence and lifetime: powers of about two, and narrow
// ones that hold a known limit with a second and a half to either side: 30, 60, 65, 100, 240, 300, 350 and 600 s, 1 and 2 hours.
func silenceBounds() [silenceBuckets - 1]float64 {
	return [...]float64{
		1, 2, 5, 10, 20, 28.5, 31.5, 45, 58.5, 61.5, 63.5, 66.5, 80, 98.5, 101.5, 150, 200, 238.5, 241.5, 298.5, 301.5,
		348.5, 351.5, 450, 598.5, 601.5, 1200, 1800, 3598.5, 3601.5, 7198.5, 7201.5, 14400, 43200, 86400, 604800,
	}
}

const silenceBuckets = 37

// spread counts observations in the buckets of silenceBounds; one goroutine observes, anybody reads.
type spread struct {
	buckets [silenceBuckets]atomic.Uint64
	millis  atomic.Uint64
}

func (p *spread) observe(bounds *[silenceBuckets - 1]float64, millis uint64) {
	i, _ := slices.BinarySearch(bounds[:], float64(millis)/1000)
	p.buckets[i].Add(1)
	p.millis.Add(millis)
}

func (p *spread) addTo(sum *Histogram) {
	if sum.Bounds == nil {
		bounds := silenceBounds()
		*sum = Histogram{Bounds: bounds[:], Counts: make([]uint64, silenceBuckets)}
	}
	for i := range p.buckets {
		sum.Counts[i] += p.buckets[i].Load()
	}
	sum.Sum += float64(p.millis.Load()) / 1000
}

// observations are what a loop measures beside round trips and its own lateness.
type observations struct {
	// Immutable after newObservations.
	bounds [silenceBuckets - 1]float64

	// Atomic; the loop writes.
	handshake       histogram
	lifetime        spread
	lifetimeSeconds exponential
	cut             spread // lifetime where there was no Close frame
	silence         [causes]spread
}

func newObservations() *observations { return &observations{bounds: silenceBounds()} }

// observeUpgrade notes how long the handshake of a connection took that was just opened: admit left its beginning in beatAt.
func (l *loop) observeUpgrade(r *record) {
	now := newMoment(l.sys.now() - l.clock.lost)
	l.observed.handshake.observe(min(now.ms-r.beatAt.Load(), math.MaxUint32/1000) * 1000)
}

// observeEnd notes the lifetime and the last silence of an upgraded connection that is gone.
func (l *loop) observeEnd(r *record, cause Cause) {
	o := l.observed
	age := uint32(l.clock.read/time.Second) - r.openedAt()
	o.lifetime.observe(&o.bounds, uint64(age)*1000)
	o.lifetimeSeconds.observe(age, 1, nativeLeastSeconds)
	if cause == CauseEnd || cause == CauseReset {
		o.cut.observe(&o.bounds, uint64(age)*1000)
	}
	last := r.heard.Load()
	if beat := r.beatAt.Load(); int32(beat-last) > 0 {
		last = beat
	}
	o.silence[cause].observe(&o.bounds, uint64(max(0, int32(l.now.ms-last))))
}

// Distributions sums up what the loops observed, without getting in their way.
func (s *Server) Distributions() Distributions {
	d := Distributions{Silence: make(map[string]Histogram)}
	if !s.isStarted() {
		return d
	}
	add := func(p *published) { p.rtt.exponential.addTo(&d.RTT, nativeLeastMicros) }
	var silence [causes]Histogram
	for _, l := range s.loops {
		add(l.runner.public)
		l.lateness.exponential.addTo(&d.WheelLateness, nativeLeastMicros)
		o := l.observed
		o.handshake.addTo(&d.Handshake.Histogram)
		o.handshake.exponential.addTo(&d.Handshake.Native, nativeLeastMicros)
		o.lifetime.addTo(&d.Lifetime.Histogram)
		o.lifetimeSeconds.addTo(&d.Lifetime.Native, nativeLeastSeconds)
		o.cut.addTo(&d.CutLifetime)
		for c := causeNone + 1; c < causes; c++ {
			o.silence[c].addTo(&silence[c])
		}
	}
	for _, x := range s.workers {
		add(x.public)
	}
	add(&s.elsewhere)
	for c := causeNone + 1; c < causes; c++ {
		d.Silence[c.String()] = silence[c]
	}
	return d
}
