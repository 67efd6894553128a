package monitor

import (
	"math"

	"github.com/pulsewheel/pulsewheel/server"
)

// since is what was observed between two readings of one histogram.
func since(now, before server.Histogram) server.Histogram {
	if len(before.Counts) != len(now.Counts) {
		return now // the first reading
	}
	d := server.Histogram{Bounds: now.Bounds, Counts: make([]uint64, len(now.Counts)), Sum: now.Sum - before.Sum}
	for i := range now.Counts {
		d.Counts[i] = now.Counts[i] - min(before.Counts[i], now.Counts[i])
	}
	return d
}

// observations counts what a histogram holds.
func observations(h server.Histogram) (n uint64) {
	for _, count := range h.Counts {
		n += count
	}
	return n
}

// quantile estimates a quantile as Prometheus does: linear within its bucket; beyond the last bound, that bound.
func quantile(h server.Histogram, q float64) (value float64, known bool) {
	total := observations(h)
	if total == 0 || len(h.Bounds) == 0 {
		return 0, false
	}
	rank := q * float64(total)
	seen := 0.0
	for i, count := range h.Counts {
		if i == len(h.Bounds) {
			break
		}
		if seen+float64(count) >= rank && count > 0 {
			low := 0.0
			if i > 0 {
				low = h.Bounds[i-1]
			}
			return low + (h.Bounds[i]-low)*(rank-seen)/float64(count), true
		}
		seen += float64(count)
	}
	return h.Bounds[len(h.Bounds)-1], true
}

// classic shows native buckets as a histogram with bounds, whose quantiles are much finer than those of classic buckets.
func classic(n server.Native) server.Histogram {
	h := server.Histogram{Bounds: []float64{n.ZeroBound}, Counts: append([]uint64{n.Zero}, n.Counts...)}
	for i := range n.Counts {
		h.Bounds = append(h.Bounds, math.Exp2(float64(n.Least+i)/4))
	}
	h.Counts = append(h.Counts, 0)
	return h
}
