package server

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// The benchmarks run server and clients in one process over loopback, so their times hold both; the figures of a server alone
// are those of package bench. What they are for is the comparison from one change to the next.

// benchRunners are the two ways to serve a loan, for handlers that never block.
func benchRunners(b *testing.B, bench func(b *testing.B, v variant)) {
	for _, v := range runners() {
		b.Run("runner="+v.name, func(b *testing.B) { bench(b, v) })
	}
}

// BenchmarkEcho is one message of 128 bytes there and back.
func BenchmarkEcho(b *testing.B) {
	const payload = 128
	for _, connections := range []int{1, 100} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			benchRunners(b, func(b *testing.B, v variant) {
				s := v.start(b, Config{}, Echo{})
				peers := make([]*peer, connections)
				for i := range peers {
					peers[i] = s.dial(b, "/ws")
				}
				frame := masked(wsframe.Binary, true, string(make([]byte, payload)))
				var left atomic.Int64
				left.Store(int64(b.N))
				b.SetBytes(payload)
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for _, p := range peers {
					wg.Go(func() {
						echo := make([]byte, wsframe.HeaderBytes(payload)+payload)
						for left.Add(-1) >= 0 {
							if _, err := p.Write(frame); err != nil {
								b.Error(err)
								return
							}
							if _, err := io.ReadFull(p, echo); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				for _, p := range peers {
					_ = p.Close()
				}
			})
		})
	}
}

// BenchmarkHeartbeat is one ping of the server and its answer.
func BenchmarkHeartbeat(b *testing.B) {
	const connections, crowd = 800, 100
	benchRunners(b, func(b *testing.B, v variant) {
		s := v.start(b, Config{
			Loops: 1, HeartbeatMode: HeartbeatNone, // no heartbeats but those below
			ControlRateLimit: -1, // two of them in one ms would count as a flood
		}, Echo{})
		var answering sync.WaitGroup
		answered := make(chan struct{}, connections)
		peers := make([]*peer, connections)
		for i := range peers {
			p := s.dial(b, "/ws")
			peers[i] = p
			answering.Go(func() {
				ping := make([]byte, 2+pingBytes)
				pong := wsframe.AppendMasked(nil, wsframe.Pong, true, ping[2:], [4]byte{}) // a mask of zeros changes nothing
				for {
					if _, err := io.ReadFull(p, ping); err != nil {
						return
					}
					copy(pong[len(pong)-pingBytes:], ping[2:])
					if _, err := p.Write(pong); err != nil {
						return
					}
					answered <- struct{}{}
				}
			})
		}
		await(b, "all are open", func() bool { return s.open() == connections })
		var beat func(l *loop, slot uint32)
		beat = func(l *loop, slot uint32) {
			if r := l.table.at(slot); r.load()&bitHeld == 0 {
				l.beat(slot, r, true)
				return
			}
			l.post(task{kind: taskDo, do: func(l *loop) { beat(l, slot) }}) // its last answer is still being served
		}
		b.ReportAllocs()
		b.ResetTimer()
		for from, left := 0, b.N; left > 0; from = (from + crowd) % connections {
			share := min(left, crowd)
			left -= share
			s.loops[0].post(task{kind: taskDo, do: func(l *loop) { // as if their timers had fired
				for slot := range share {
					beat(l, uint32(from+slot))
				}
			}})
			for range share {
				<-answered
			}
		}
		b.StopTimer()
		for _, p := range peers {
			_ = p.Close()
		}
		answering.Wait()
	})
}

// BenchmarkUpgrade is connect, upgrade and close.
func BenchmarkUpgrade(b *testing.B) {
	benchRunners(b, func(b *testing.B, v variant) {
		s := v.start(b, Config{}, Echo{})
		clients := newBareClients(b, s.addr)
		b.ReportAllocs()
		for b.Loop() {
			clients.reset(clients.upgrade())
		}
	})
}

// bareClients are clients that cost this process a descriptor each and nothing else.
type bareClients struct {
	b       *testing.B
	addr    string
	poller  *poller.Poller
	events  []poller.Event
	request []byte
	head    []byte
}

func newBareClients(b *testing.B, addr string) *bareClients {
	p, err := poller.Open()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	return &bareClients{b: b, addr: addr, poller: p, events: make([]poller.Event, 8), request: []byte(upgradeRequest("/ws")), head: make([]byte, 4096)}
}

// upgrade opens one.
func (c *bareClients) upgrade() (fd int) {
	fd, err := poller.Connect(c.addr, poller.ConnectOptions{})
	if err != nil {
		c.b.Fatal(err)
	}
	if err := c.poller.Add(fd, poller.Token(fd), poller.Readable|poller.Writable|poller.EdgeTriggered); err != nil {
		c.b.Fatal(err)
	}
	c.await(fd, poller.CanWrite)
	if _, err := poller.Write(fd, c.request); err != nil {
		c.b.Fatal(err)
	}
	c.await(fd, poller.CanRead)
	if n, err := poller.Read(fd, c.head); err != nil || !bytes.HasPrefix(c.head[:n], []byte("HTTP/1.1 101")) {
		c.b.Fatalf("no upgrade: %q, %v", c.head[:n], err)
	}
	return fd
}

// await waits for one; those of others are dropped.
func (c *bareClients) await(fd int, ready poller.Readiness) {
	for deadline := time.Now().Add(patience); ; {
		n, err := c.poller.Wait(c.events, deadline)
		if err != nil || n == 0 {
			c.b.Fatalf("waited in vain: %v", err)
		}
		for _, e := range c.events[:n] {
			if e.Token == poller.Token(fd) && e.Ready&ready != 0 {
				return
			}
		}
	}
}

// reset closes one without a TIME_WAIT: the ports would run out.
func (c *bareClients) reset(fd int) {
	if err := poller.Reset(fd); err != nil {
		c.b.Fatal(err)
	}
}

// BenchmarkBroadcast is one message of 128 bytes to 500 connections, received by all.
func BenchmarkBroadcast(b *testing.B) {
	const connections, payload = 500, 128
	s := runners()[0].start(b, Config{}, Echo{})
	var reading, received sync.WaitGroup
	peers := make([]*peer, connections)
	for i := range peers {
		p := s.dial(b, "/ws")
		peers[i] = p
		reading.Go(func() {
			frame := make([]byte, wsframe.HeaderBytes(payload)+payload)
			for {
				if _, err := io.ReadFull(p, frame); err != nil {
					return
				}
				received.Done()
			}
		})
	}
	await(b, "all are open", func() bool { return s.open() == connections })
	data := make([]byte, payload)
	b.SetBytes(connections * payload)
	b.ReportAllocs()
	for b.Loop() {
		received.Add(connections)
		if n, err := s.Broadcast(Binary, data); n != connections || err != nil {
			b.Fatalf("reached %d, %v", n, err)
		}
		received.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*connections), "ns/message")
	for _, p := range peers {
		_ = p.Close()
	}
	reading.Wait()
}

// BenchmarkIdleMemory is what an idle connection costs the process, as the slope between 1,000 and 5,000 of them: in the heap, and
// resident. The clients are bare descriptors. The time of an operation is that of all the opening and closing, and says nothing.
func BenchmarkIdleMemory(b *testing.B) {
	const few, many = 1000, 5000
	for _, echoed := range []bool{false, true} {
		b.Run(fmt.Sprintf("after-echo=%v", echoed), func(b *testing.B) {
			frame := masked(wsframe.Binary, true, "one echo before it falls silent")
			fds := make([]int, 0, many)
			hold := func(s *running, clients *bareClients, n int) (heap, resident float64) {
				for len(fds) < n {
					fds = append(fds, clients.upgrade())
				}
				await(b, "all are open", func() bool { return s.active() == int64(n) })
				if echoed {
					messages := s.Stats().MessagesOut
					for _, fd := range fds {
						if _, err := poller.Write(fd, frame); err != nil {
							b.Fatal(err)
						}
					}
					await(b, "all echoes", func() bool { return s.Stats().MessagesOut == messages+uint64(n) })
				}
				debug.FreeOSMemory() // collects twice
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return float64(m.HeapAlloc), residentBytes(b)
			}
			var heapSlopes, residentSlopes float64
			for b.Loop() {
				s := runners()[0].start(b, Config{}, Echo{})
				clients := newBareClients(b, s.addr)
				heap, resident := hold(s, clients, few)
				heapMany, residentMany := hold(s, clients, many)
				heapSlopes += (heapMany - heap) / (many - few)
				residentSlopes += (residentMany - resident) / (many - few)
				for _, fd := range fds {
					clients.reset(fd)
				}
				fds = fds[:0]
				if err := s.Shutdown(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(heapSlopes/float64(b.N), "heap-B/conn")
			b.ReportMetric(residentSlopes/float64(b.N), "B/conn")
		})
	}
}

// residentBytes is the resident memory of the process.
func residentBytes(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages * os.Getpagesize())
}
