package server

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"
)

// BenchmarkMillions is a loop at the sizes that sockets don't reach on a small machine: what a connection takes, what its heartbeats
// cost when each record and timer touched is a cache miss, and what the collector makes of it all. The loop is the real one; the
// kernel is none, so the system call of a heartbeat is not in it. A tick is 20 ms of a server's time: its cost as a share of that
// is the share of a core that the bookkeeping of heartbeats takes.
func BenchmarkMillions(b *testing.B) {
	for _, n := range []int{1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("connections=%d", n), func(b *testing.B) {
			c := newCrowdedLoop(n)
			b.Run("tick", func(b *testing.B) {
				b.ReportAllocs()
				from := c.beats()
				for b.Loop() {
					c.tick()
				}
				beats := float64(max(c.beats()-from, 1))
				b.ReportMetric(c.bytesEach, "B/conn")
				b.ReportMetric(beats/float64(b.N), "beats/op")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/beats, "ns/beat")
			})
			b.Run("collection", benchCollection)
			b.Run("garbage", c.benchGarbage)
			runtime.KeepAlive(c)
		})
	}
}

// crowdedLoop is a loop with connections that nobody is behind.
type crowdedLoop struct {
	loop      *loop
	kernel    *quietSys
	bytesEach float64 // on the heap
}

// newCrowdedLoop has n connections, that came in over one interval.
func newCrowdedLoop(n int) *crowdedLoop {
	ticks := int(defaultHeartbeatInterval / tick)
	before := heapBytes()
	c := &crowdedLoop{}
	c.loop, c.kernel = newQuietLoop(Config{HeartbeatTimeout: -1})
	for fd := range n {
		if fd%(n/ticks) == 0 {
			c.tick()
		}
		c.loop.upgraded(fd)
	}
	c.bytesEach = float64(heapBytes()-before) / float64(n)
	return c
}

// tick is as many turns of the loop as it takes to fire what is due a tick later.
func (c *crowdedLoop) tick() {
	l := c.loop
	c.kernel.at += tick
	l.now = newMoment(c.kernel.at)
	for {
		l.fireTimers()
		if next, ok := l.wheel.Next(); !ok || next > l.nowTick() {
			break
		}
	}
	l.runner.publish()
}

func (c *crowdedLoop) beats() uint64 { return c.loop.runner.public.totals[countBeatsPing].Load() }

// heapBytes is what is in use after a collection.
func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// benchCollection is one whole collection, with the pauses that it makes the program take.
func benchCollection(b *testing.B) {
	var from, to runtime.MemStats
	runtime.ReadMemStats(&from)
	for b.Loop() {
		runtime.GC()
	}
	runtime.ReadMemStats(&to)
	b.ReportMetric(float64(to.PauseTotalNs-from.PauseTotalNs)/float64(to.NumGC-from.NumGC), "pause-ns/op")
}

// garbage keeps what benchGarbage makes from being left out by the compiler.
var garbage []byte

// benchGarbage is ticks of a program that also makes four megabytes of garbage in each, 200 MB a second: the collector's share of the CPU
// time, and its longest pause.
func (c *crowdedLoop) benchGarbage(b *testing.B) {
	const pieces, pieceBytes = 4096, 1024
	cpu := func() (collector, all float64) {
		samples := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/user:cpu-seconds"}}
		runtime.GC() // which brings the account up to date
		metrics.Read(samples)
		return samples[0].Value.Float64(), samples[0].Value.Float64() + samples[1].Value.Float64()
	}
	var from, to runtime.MemStats
	collector, all := cpu()
	runtime.ReadMemStats(&from)
	for b.Loop() {
		c.tick()
		for range pieces {
			garbage = make([]byte, pieceBytes)
		}
	}
	runtime.ReadMemStats(&to)
	collections, kept := to.NumGC-from.NumGC, uint32(len(to.PauseNs))
	longest := uint64(0)
	for i := range min(collections, kept) {
		longest = max(longest, to.PauseNs[(to.NumGC-1-i)%kept])
	}
	collectorTo, allTo := cpu()
	b.ReportMetric((collectorTo-collector)/(allTo-all)*100, "gc-cpu-%")
	b.ReportMetric(float64(longest), "longest-pause-ns")
}

// TestConnectionTakesWhatIsClaimed: the record and the timer, and next to nothing else; a tick with heartbeats makes no garbage.
func TestConnectionTakesWhatIsClaimed(t *testing.T) {
	const n, timerBytes, fixedBytes = 1 << 17, 12, 1 << 21
	c := newCrowdedLoop(n)
	// Fixed are the heads of the wheel's slots, the directories of pages and the loop's own buffers.
	if most := float64(recordBytes + timerBytes + fixedBytes/n); c.bytesEach > most {
		t.Errorf("%.1f bytes a connection, want at most %.1f", c.bytesEach, most)
	}
	from := c.beats()
	for range defaultHeartbeatInterval / tick {
		c.tick()
	}
	if beats := c.beats() - from; beats < n*99/100 || beats > n*101/100 {
		t.Errorf("%d heartbeats in an interval, want about %d", beats, n)
	}
	if allocs := testing.AllocsPerRun(100, c.tick); allocs != 0 && !checkedBuild() { // which ask for the goroutine's name
		t.Errorf("%v allocations a tick", allocs)
	}
}
