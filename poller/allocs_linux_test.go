//go:build !race

package poller

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests are apart from the race run, since the detector's own allocations
// would be counted, and for Linux, where nothing of the hot path may allocate.

func TestSocketsAllocateNothing(t *testing.T) {
	client, server := pair(t, "tcp")
	dead, deadServer := pair(t, "tcp")
	if err := Reset(dead.fd); err != nil {
		t.Fatal(err)
	}
	dead.gone()
	awaitReady(t, deadServer.fd, unix.POLLIN)
	ended, endedServer := pair(t, "tcp")
	if err := CloseWrite(ended.fd); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, endedServer.fd, unix.POLLIN)
	full, _ := pair(t, "tcp")
	fill(t, full.fd)
	const runs = 50
	l := listen(t, "127.0.0.1:0", ListenOptions{})
	for range runs + 1 { // AllocsPerRun runs once more, to warm up
		connect(t, dialable(l), ConnectOptions{})
	}
	empty := listen(t, "127.0.0.1:0", ListenOptions{})

	p := make([]byte, 64)
	bufs := [][]byte{p[:1], p[1:3], p[3:8]}
	batch := make([]Accepted, 1)
	taken := make([]int, 0, runs+1)
	var sink error
	tests := []struct {
		name string
		call func()
	}{
		{"Read of nothing", func() { _, sink = Read(server.fd, p) }},
		{"Read at the end", func() { _, sink = Read(endedServer.fd, p) }},
		{"Read and Write after a reset", func() { _, sink = Read(deadServer.fd, p); _, sink = Write(deadServer.fd, p) }},
		{"Peek", func() { _, sink = Peek(server.fd) }},
		{"Write and Read", func() { _, sink = Write(client.fd, p); _, sink = Read(server.fd, p) }},
		{"Writev and Read", func() { _, sink = Writev(client.fd, bufs); _, sink = Read(server.fd, p) }},
		{"Write to a full socket", func() { _, sink = Write(full.fd, p) }},
		{"Accept of nothing", func() { _, sink = empty.Accept(batch) }},
		{"Accept", func() {
			_, sink = l.Accept(batch)
			taken = append(taken, batch[0].FD)
		}},
	}
	for _, test := range tests {
		if n := testing.AllocsPerRun(runs, test.call); n != 0 {
			t.Errorf("%s: %v allocations, want 0", test.name, n)
		}
	}
	for _, fd := range taken {
		if err := Close(fd); err != nil {
			t.Error(err)
		}
	}
	_ = sink
}

// TestWaitAllocatesNothing: with an event, parked until a deadline that moves
// each time, and woken from another goroutine.
func TestWaitAllocatesNothing(t *testing.T) {
	p := openPoller(t, openBackend)
	client, server := pair(t, "tcp")
	if err := p.Add(server.fd, 1, readyAll); err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, 1, CanWrite)
	events := make([]Event, 16)
	buffer := make([]byte, 64)
	next := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	defer close(next)
	group.Go(func() {
		for range next {
			if err := p.Wake(); err != nil {
				t.Error(err)
			}
		}
	})
	tests := []struct {
		name string
		call func() (int, error)
		want int
	}{
		{"event", func() (int, error) {
			_, _ = Write(client.fd, buffer)
			n, err := p.Wait(events, time.Time{})
			_, _ = Read(server.fd, buffer)
			return n, err
		}, 1},
		{"deadline", func() (int, error) { return p.Wait(events, time.Now().Add(200*time.Microsecond)) }, 0},
		{"wake", func() (int, error) {
			next <- struct{}{}
			return p.Wait(events, time.Time{})
		}, 0},
	}
	for _, test := range tests {
		allocations := testing.AllocsPerRun(100, func() {
			if n, err := test.call(); n != test.want || err != nil {
				t.Fatalf("%s: %d, %v; want %d", test.name, n, err, test.want)
			}
		})
		if allocations != 0 {
			t.Errorf("%s: %v allocations, want 0", test.name, allocations)
		}
	}
}
