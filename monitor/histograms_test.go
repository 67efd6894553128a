package monitor

import (
	"math"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/pulsewheel/pulsewheel/server"
)

// nativeOf counts observations, in seconds, as the server's native buckets do.
func nativeOf(seconds ...float64) server.Native {
	n := server.Native{Least: -55, ZeroBound: math.Exp2(-14), Counts: make([]uint64, 130)}
	for _, s := range seconds {
		if i := int(math.Ceil(4*math.Log2(s))) - n.Least; i >= 0 {
			n.Counts[i]++
		} else {
			n.Zero++
		}
	}
	return n
}

// Goal: a native histogram means to Prometheus what was observed. Oracle: client_golang's own histogram with the same observations.
func TestNativeHistogramMatchesTheLibrary(t *testing.T) {
	values := []float64{0.00001, 0.0001, 0.00012, 0.001, 0.0025, 0.25, 0.5, 0.50001, 1, 1.9, 2, 60, 4000}
	oracle := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "x", NativeHistogramBucketFactor: 1.2, NativeHistogramZeroThreshold: math.Exp2(-14),
	})
	classic := server.Histogram{Bounds: []float64{1}, Counts: make([]uint64, 2)}
	for _, v := range values {
		oracle.Observe(v)
		classic.Sum += v
		if v <= 1 {
			classic.Counts[0]++
		} else {
			classic.Counts[1]++
		}
	}
	var want, got dto.Metric
	if err := oracle.Write(&want); err != nil {
		t.Fatal(err)
	}
	if err := nativeHistogram(prometheus.NewDesc("x", "x", nil, nil), classic, nativeOf(values...)).Write(&got); err != nil {
		t.Fatal(err)
	}
	w, g := want.GetHistogram(), got.GetHistogram()
	if g.GetSchema() != w.GetSchema() || g.GetZeroCount() != w.GetZeroCount() || g.GetZeroThreshold() != w.GetZeroThreshold() || g.GetSampleCount() != w.GetSampleCount() {
		t.Errorf("got %v\nwant %v", g, w)
	}
	expand := func(h *dto.Histogram) map[int32]int64 {
		out := map[int32]int64{}
		index, delta, count := int32(0), 0, int64(0)
		for _, span := range h.GetPositiveSpan() {
			index += span.GetOffset()
			for range span.GetLength() {
				count += h.GetPositiveDelta()[delta]
				delta++
				if count != 0 {
					out[index] = count
				}
				index++
			}
		}
		return out
	}
	gotBuckets, wantBuckets := expand(g), expand(w)
	if len(gotBuckets) != len(wantBuckets) {
		t.Errorf("buckets %v, want %v", gotBuckets, wantBuckets)
	}
	for index, n := range wantBuckets {
		if gotBuckets[index] != n {
			t.Errorf("bucket %d has %d, want %d", index, gotBuckets[index], n)
		}
	}
	if len(g.GetBucket()) != 1 || g.GetBucket()[0].GetCumulativeCount() != 9 {
		t.Errorf("classic buckets %v", g.GetBucket())
	}
}

// The two kinds of buckets are read one after the other; whichever is ahead, the histogram stays one that a scraper takes.
func TestHistogramsThatDisagree(t *testing.T) {
	for _, classicCount := range []uint64{1, 2, 3} {
		metric := nativeHistogram(prometheus.NewDesc("x", "x", nil, nil), server.Histogram{Bounds: []float64{1}, Counts: []uint64{classicCount, 0}}, nativeOf(0.5, 0.5))
		var out dto.Metric
		if err := metric.Write(&out); err != nil {
			t.Fatal(err)
		}
		h := out.GetHistogram()
		if h.GetSampleCount() != 2 || h.GetBucket()[0].GetCumulativeCount() > 2 {
			t.Errorf("%v", h)
		}
	}
}

// Everything that a real server shows is fit for Prometheus' linter, native histograms and all.
func TestRealServerMetrics(t *testing.T) {
	s, address := serveWebSockets(t, server.Config{})
	c := dialWebSocket(t, address, "/ws")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return s.Stats().Closed["end"]+s.Stats().Closed["reset"] == 1 })
	m := quietMonitor(s)
	families, err := m.registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "pulsewheel_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
	native := map[string]bool{}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			if metric.GetHistogram() != nil && metric.GetHistogram().Schema != nil {
				native[f.GetName()] = true
			}
		}
	}
	if _, ok := Source(s).(observed); ok != (len(native) == 4) {
		t.Errorf("native histograms: %v", native)
	}
}
