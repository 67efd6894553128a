package pool

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

func closeAfter(b *testing.B, c interface{ Close(context.Context) error }) {
	b.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
}

func discard[T any](T, any, []byte) {}

// BenchmarkHop is a task's way to another goroutine and the news of its end
// back, one at a time: what a batch of one costs.
func BenchmarkHop(b *testing.B) {
	done := make(chan struct{}, 1)
	b.Run("pool", func(b *testing.B) {
		p, err := New(runtime.GOMAXPROCS(0), 64, func(int, int) { done <- struct{}{} }, discard[int])
		if err != nil {
			b.Fatal(err)
		}
		closeAfter(b, p)
		b.ReportAllocs()
		for b.Loop() {
			if err := p.Submit(1); err != nil {
				b.Fatal(err)
			}
			<-done
		}
	})
	b.Run("serial", func(b *testing.B) {
		s, err := NewSerial(runtime.GOMAXPROCS(0), 64, func(int, uint64, int) { done <- struct{}{} }, func(uint64, int, any, []byte) {})
		if err != nil {
			b.Fatal(err)
		}
		closeAfter(b, s)
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Submit(1, 1); err != nil {
				b.Fatal(err)
			}
			<-done
		}
	})
	b.Run("goroutine", func(b *testing.B) { // the floor: what the language does alone
		b.ReportAllocs()
		for b.Loop() {
			go func() { done <- struct{}{} }()
			<-done
		}
	})
}

// BenchmarkBurst submits n tasks in a row and waits for all; ns/task is what
// one of them costs.
func BenchmarkBurst(b *testing.B) {
	for _, n := range []int{8, 64, 1024} {
		var group sync.WaitGroup
		perTask := func(b *testing.B) {
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/task")
		}
		b.Run(fmt.Sprintf("pool/%d", n), func(b *testing.B) {
			p, err := New(runtime.GOMAXPROCS(0), n, func(int, int) { group.Done() }, discard[int])
			if err != nil {
				b.Fatal(err)
			}
			closeAfter(b, p)
			b.ReportAllocs()
			for b.Loop() {
				group.Add(n)
				for i := range n {
					if err := p.Submit(i); err != nil {
						b.Fatal(err)
					}
				}
				group.Wait()
			}
			perTask(b)
		})
		b.Run(fmt.Sprintf("serial/%d", n), func(b *testing.B) {
			s, err := NewSerial(runtime.GOMAXPROCS(0), n, func(int, int, int) { group.Done() }, func(int, int, any, []byte) {})
			if err != nil {
				b.Fatal(err)
			}
			closeAfter(b, s)
			b.ReportAllocs()
			for b.Loop() {
				group.Add(n)
				for i := range n {
					if err := s.Submit(i%32, i); err != nil {
						b.Fatal(err)
					}
				}
				group.Wait()
			}
			perTask(b)
		})
	}
}

// BenchmarkBatch passes a slice of 64 ready connections as one task, as an
// event loop does: one hand-off for all of them.
func BenchmarkBatch(b *testing.B) {
	const batch = 64
	done := make(chan []uint64, 1)
	p, err := New(runtime.GOMAXPROCS(0), 64, func(_ int, tokens []uint64) { done <- tokens }, discard[[]uint64])
	if err != nil {
		b.Fatal(err)
	}
	closeAfter(b, p)
	tokens := make([]uint64, batch)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Submit(tokens); err != nil {
			b.Fatal(err)
		}
		tokens = <-done
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/conn")
}

// BenchmarkSaturated is the price of being pushed back.
func BenchmarkSaturated(b *testing.B) {
	gate := make(chan struct{})
	p, err := New(1, 1, func(int, int) { <-gate }, discard[int])
	if err != nil {
		b.Fatal(err)
	}
	closeAfter(b, p)
	for range 2 {
		if err := p.Submit(1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if p.Submit(1) == nil {
			b.Fatal("accepted")
		}
	}
	close(gate)
}
