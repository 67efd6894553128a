package timingwheel

import (
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkScale is a wheel of the server's size by itself: what a timer takes, what a tick costs that fires its share of an interval
// and re-arms it, and how long a collection takes and stops the program with so many timers alive.
func BenchmarkScale(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("timers=%d", n), func(b *testing.B) {
			before := heapInUse()
			w := New(32_768)
			w.Grow(n)
			bytes := float64(heapInUse()-before) / float64(n)
			s := newTimerSet(wheelTimers{Wheel: w}, n)
			for at, id := range s.order {
				w.Schedule(id, 1+int64(at)%benchInterval)
			}
			fired := 0
			fire := func(id uint32) {
				fired++
				w.Schedule(id, w.Now()+benchInterval)
			}
			b.Run("tick", func(b *testing.B) {
				b.ReportAllocs()
				from := fired
				for b.Loop() {
					w.Advance(w.Now()+1, n, fire)
				}
				b.ReportMetric(bytes, "bytes/timer")
				b.ReportMetric(float64(fired-from)/float64(b.N), "fires/op")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(max(fired-from, 1)), "ns/fire")
			})
			b.Run("collection", func(b *testing.B) {
				var from, to runtime.MemStats
				runtime.ReadMemStats(&from)
				for b.Loop() {
					runtime.GC()
				}
				runtime.ReadMemStats(&to)
				b.ReportMetric(float64(to.PauseTotalNs-from.PauseTotalNs)/float64(to.NumGC-from.NumGC), "pause-ns/op")
			})
			runtime.KeepAlive(w)
		})
	}
}

// heapInUse is what is in use after a collection.
func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
