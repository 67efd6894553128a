package monitor

import (
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/pulsewheel/pulsewheel/server"
)

// histogram converts counts of each bucket into cumulative ones.
func histogram(d *prometheus.Desc, h server.Histogram, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var count uint64
	for i, n := range h.Counts {
		count += n
		if i < len(h.Bounds) {
			buckets[h.Bounds[i]] = count
		}
	}
	return prometheus.MustNewConstHistogram(d, count, h.Sum, buckets, labels...)
}

// bothHistograms is one metric with classic and native buckets: a scraper takes those that it asks for. The observations are the same, but
// the two kinds are read one after the other, so the native ones may be ahead by those of the moment.
type bothHistograms struct {
	prometheus.Metric // classic
	native            prometheus.Metric
}

// Write implements prometheus.Metric.
func (b bothHistograms) Write(out *dto.Metric) error {
	if err := b.Metric.Write(out); err != nil {
		return err
	}
	var native dto.Metric
	if err := b.native.Write(&native); err != nil {
		return err
	}
	from, to := native.GetHistogram(), out.GetHistogram()
	to.Schema, to.ZeroThreshold, to.ZeroCount = from.Schema, from.ZeroThreshold, from.ZeroCount
	to.PositiveSpan, to.PositiveDelta = from.GetPositiveSpan(), from.GetPositiveDelta()
	// A scraper compares the count with the native buckets, and would throw away a histogram in which they disagree; and no classic bucket
	// may hold more than all.
	to.SampleCount = from.SampleCount
	for _, bucket := range to.GetBucket() {
		if bucket.GetCumulativeCount() > from.GetSampleCount() {
			bucket.CumulativeCount = from.SampleCount
		}
	}
	return nil
}

// nativeHistogram has classic and native buckets.
func nativeHistogram(d *prometheus.Desc, h server.Histogram, n server.Native) prometheus.Metric {
	buckets := make(map[int]int64)
	count := n.Zero
	for i, k := range n.Counts {
		if k > 0 {
			buckets[n.Least+i] = int64(k)
			count += k
		}
	}
	return bothHistograms{
		Metric: histogram(d, h),
		native: prometheus.MustNewConstNativeHistogram(d, count, h.Sum, buckets, nil, n.Zero, server.NativeSchema, n.ZeroBound, time.Time{}),
	}
}

// collectDistributions sends what a source observed.
func (c *collector) collectDistributions(ch chan<- prometheus.Metric, s *server.Stats, d server.Distributions) {
	ch <- nativeHistogram(c.rtt, s.RTT, d.RTT)
	ch <- nativeHistogram(c.lateness, s.WheelLateness, d.WheelLateness)
	ch <- nativeHistogram(c.handshakeSeconds, d.Handshake.Histogram, d.Handshake.Native)
	ch <- nativeHistogram(c.lifetime, d.Lifetime.Histogram, d.Lifetime.Native)
	for reason, h := range d.Silence {
		if observations(h) > 0 { // 38 series each: those that never happen would be most of a scrape
			ch <- histogram(c.silence, h, reason)
		}
	}
}

// kernelDescs are the kernel's side of the connections.
type kernelDescs struct {
	acceptOverflows *prometheus.Desc
	listenDrops     *prometheus.Desc
	tcpMemory       *prometheus.Desc
	tcpMemoryLimit  *prometheus.Desc
	memoryShare     *prometheus.Desc
	waiting         *prometheus.Desc
}

func newKernelDescs(desc func(name, help string, labels ...string) *prometheus.Desc) kernelDescs {
	return kernelDescs{
		acceptOverflows: desc("kernel_accept_overflows_total", "Connections that the kernel dropped because an accept queue was full, in this network namespace."),
		listenDrops:     desc("kernel_listen_drops_total", "Connections that the kernel dropped at a listener for any reason, in this network namespace."),
		tcpMemory:       desc("kernel_tcp_memory_bytes", "Buffers of all TCP sockets of the machine."),
		tcpMemoryLimit:  desc("kernel_tcp_memory_limit_bytes", "The most that they may have (net.ipv4.tcp_mem)."),
		memoryShare:     desc("memory_used_ratio", "Share of the memory that this process may use: of the machine or of its control group, whichever is fuller."),
		waiting:         desc("kernel_pressure_seconds_total", "Time in which some task of the machine waited for a resource.", "resource"),
	}
}

// collect reads the files anew: they are small, and nobody else needs them at the time of a scrape.
func (d *kernelDescs) collect(ch chan<- prometheus.Metric, k kernel) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, known bool, labels ...string) {
		if known {
			ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
		}
	}
	overflows, known := k.acceptOverflows()
	send(d.acceptOverflows, prometheus.CounterValue, overflows, known)
	drops, known := k.listenDrops()
	send(d.listenDrops, prometheus.CounterValue, drops, known)
	used, limit, known := k.tcpMemory(os.Getpagesize())
	send(d.tcpMemory, prometheus.GaugeValue, used, known)
	send(d.tcpMemoryLimit, prometheus.GaugeValue, limit, known)
	memory, known := k.memory()
	send(d.memoryShare, prometheus.GaugeValue, memory.share, known)
	for _, resource := range []string{"cpu", "memory"} {
		seconds, known := k.pressureSeconds(resource)
		send(d.waiting, prometheus.CounterValue, seconds, known, resource)
	}
}
