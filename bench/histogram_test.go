package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestHistogramAgainstSortedList: percentiles lie within the promised 0.1 % (and the grain of a microsecond) of those of
// the sorted values.
func TestHistogramAgainstSortedList(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	h := newHistogram()
	values := make([]int64, 20000)
	for i := range values {
		values[i] = int64(math.Exp(random.Float64()*12+8)) + 1 // 3 µs to half a second
		h.record(values[i])
	}
	slices.Sort(values)
	at := func(share float64) float64 {
		return float64(values[int(math.Ceil(share*float64(len(values))))-1]) / 1e3
	}
	l := h.latencies()
	tests := []struct {
		name      string
		got, want float64
	}{
		{"p50", l.P50, at(0.5)},
		{"p90", l.P90, at(0.9)},
		{"p99", l.P99, at(0.99)},
		{"p999", l.P999, at(0.999)},
		{"max", l.Max, at(1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if math.Abs(tt.got-tt.want) > tt.want/1000+2 {
				t.Errorf("seed %d: %v µs, want %v", seed, tt.got, tt.want)
			}
		})
	}
}

func TestHistogramCountsWhatIsOutOfRange(t *testing.T) {
	h := newHistogram()
	h.record(-5)
	h.record(math.MaxInt64)
	if h.count() != 2 {
		t.Errorf("%d counted, want 2", h.count())
	}
	if top := h.latencies().Max; top < float64(latencyHighest)/1e3*0.99 {
		t.Errorf("maximum %v µs, want the end of the range", top)
	}
}
