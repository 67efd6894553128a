package server

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// Goal: the native buckets hold what Prometheus' definition says: above 2^((i-1)/4) s, at most 2^(i/4) s. Oracle: the definition itself
// in big steps, around every bound.
func TestNativeBuckets(t *testing.T) {
	check := func(micros uint32) {
		t.Helper()
		var e exponential
		e.observe(micros, 1e6, nativeLeastMicros)
		var sum Native
		e.addTo(&sum, nativeLeastMicros)
		seconds := float64(micros) / 1e6
		if seconds <= sum.ZeroBound {
			if sum.Zero != 1 {
				t.Errorf("%d µs is not in the zero bucket", micros)
			}
			return
		}
		for i, n := range sum.Counts {
			low, high := math.Exp2(float64(sum.Least+i-1)/4), math.Exp2(float64(sum.Least+i)/4)
			if within := seconds > low && seconds <= high; within != (n == 1) {
				t.Errorf("%d µs: bucket %d (%g, %g] has %d", micros, sum.Least+i, low, high, n)
			}
		}
	}
	for _, micros := range []uint32{0, 1, 61, 62, 15625, 62500, 125000, 250000, 500000, 1e6, 2e6, 4e6, 64e6, math.MaxUint32} {
		check(micros)
	}
	for i := nativeLeastMicros - 1; i < 48; i++ {
		bound := uint32(math.Exp2(float64(i)/4) * 1e6)
		for _, micros := range []uint32{bound - 1, bound, bound + 1} {
			check(micros)
		}
	}
}

func TestNativeSeconds(t *testing.T) {
	var e exponential
	for _, seconds := range []uint32{0, 1, 2, 3600, math.MaxUint32} {
		e.observe(seconds, 1, nativeLeastSeconds)
	}
	var sum Native
	e.addTo(&sum, nativeLeastSeconds)
	if sum.Zero != 2 || sum.ZeroBound != 1 || sum.Counts[4-nativeLeastSeconds] != 1 {
		t.Errorf("zero %d to %g, 2 s: %d", sum.Zero, sum.ZeroBound, sum.Counts[4-nativeLeastSeconds])
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	o := newObservations()
	if n := testing.AllocsPerRun(100, func() {
		o.handshake.observe(1234)
		o.lifetime.observe(&o.bounds, 60_000)
		o.lifetimeSeconds.observe(60, 1, nativeLeastSeconds)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What opened and ended is in the distributions, each under its reason.
func TestDistributions(t *testing.T) {
	s := start(t, Config{Loops: 2, HeartbeatInterval: 40 * time.Millisecond, HeartbeatTimeout: 10 * time.Second}, nil)
	leaving, kicked := s.dial(t, "/ws"), s.dial(t, "/ws")
	await(t, "open", func() bool { return s.open() == 2 })
	leaving.send(wsframe.Close, "\x03\xe8")
	leaving.expectClose(wsframe.CloseNormal)
	leaving.Close()
	await(t, "one gone", func() bool { return s.open() == 1 })
	for c := range s.Conns() {
		c.Kick()
	}
	kicked.expectClose(wsframe.CloseKicked)
	kicked.Close()
	await(t, "counted", func() bool { return s.Stats().Closed["kicked"] == 1 && s.Stats().Closed["client"] == 1 })

	d := s.Distributions()
	total := func(counts []uint64) (n uint64) {
		for _, c := range counts {
			n += c
		}
		return n
	}
	if n := total(d.Handshake.Counts); n != 2 {
		t.Errorf("%d handshakes", n)
	}
	if n := total(d.Handshake.Native.Counts) + d.Handshake.Native.Zero; n != 2 {
		t.Errorf("%d handshakes in native buckets", n)
	}
	if n, native := total(d.Lifetime.Counts), total(d.Lifetime.Native.Counts)+d.Lifetime.Native.Zero; n != 2 || native != 2 {
		t.Errorf("%d and %d lifetimes", n, native)
	}
	if n := total(d.CutLifetime.Counts); n != 0 {
		t.Errorf("%d ended without a Close frame", n)
	}
	for reason, h := range d.Silence {
		want := uint64(0)
		if reason == "kicked" || reason == "client" {
			want = 1
		}
		if n := total(h.Counts); n != want {
			t.Errorf("%s: %d, want %d", reason, n, want)
		}
	}
	if n := total(d.WheelLateness.Counts) + d.WheelLateness.Zero; n != total(s.Stats().WheelLateness.Counts) && n == 0 {
		t.Error("no lateness")
	}
}

// Overload refuses newcomers, keeps who is there, and ends.
func TestOverloadSheds(t *testing.T) {
	s := start(t, Config{}, Echo{})
	p := s.dial(t, "/ws")
	s.SetOverload(Overload{Reasons: []string{"load"}})
	s.dial(t, "/ws").Close() // only an alarm
	s.SetOverload(Overload{Shed: true, Reasons: []string{"memory"}})
	got := roundTrip(t, s.addr, upgradeRequest("/ws"))
	if !strings.Contains(got.status, "503") {
		t.Errorf("status %s", got.status)
	}
	if err := s.Ready(); err == nil || err.Error() != "overloaded" {
		t.Errorf("Ready: %v", err)
	}
	p.send(wsframe.Text, "still here")
	p.expect(wsframe.Text, "still here")
	s.SetOverload(Overload{})
	s.dial(t, "/ws").Close()
	await(t, "counted", func() bool { return s.Stats().Rejected["overload"] == 1 })
}

// Who is cut off after a silence was silent that long, however the end shows: that is what tells a proxy's idle limit from a peer that leaves.
func TestSilenceBeforeTheEnd(t *testing.T) {
	t.Parallel()
	const silence = 1200 * time.Millisecond
	s := start(t, Config{}, nil)
	finished, reset := s.dial(t, "/ws?heartbeat=none"), s.dial(t, "/ws?heartbeat=none")
	for _, p := range []*peer{finished, reset} {
		p.send(wsframe.Ping, "here")
		p.expect(wsframe.Pong, "here")
	}
	during(silence, func() {})
	_ = finished.Close()
	reset.reset()
	await(t, "both counted", func() bool { return s.Stats().Closed["end"] == 1 && s.Stats().Closed["reset"] == 1 })
	d := s.Distributions()
	for _, cause := range []Cause{CauseEnd, CauseReset} {
		h := d.Silence[cause.String()]
		least := 0.0
		for i, n := range h.Counts {
			if n > 0 && i > 0 {
				least = h.Bounds[i-1]
			}
		}
		if n := h.Sum; n < silence.Seconds() || least < 1 {
			t.Errorf("%v: %.3f s of silence, above %g s, want %v and more", cause, n, least, silence)
		}
	}
}
