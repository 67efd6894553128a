package poller

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The second half of testPoller: wake-ups and deadlines.

// countingBackend counts how often a Wake reaches the kernel.
type countingBackend struct {
	backend
	kicks atomic.Int64
}

func (c *countingBackend) wake() error {
	c.kicks.Add(1)
	return c.backend.wake()
}

func openCounting(t *testing.T, open opener) (*Poller, *countingBackend) {
	t.Helper()
	p := openPoller(t, open)
	c := &countingBackend{backend: p.backend}
	p.backend = c
	return p, c
}

// waitReturns reports that Wait returned without events before its deadline.
func waitReturns(t *testing.T, p *Poller) {
	t.Helper()
	var batch [4]Event
	start := time.Now()
	n, err := p.Wait(batch[:], start.Add(patience))
	if n != 0 || err != nil {
		t.Fatalf("Wait = %v, %v; want nothing", batch[:n], err)
	}
	if time.Since(start) >= patience {
		t.Fatal("Wait slept on until its deadline")
	}
}

func testWake(t *testing.T, open opener) {
	p, c := openCounting(t, open)
	for range 3 {
		if err := p.Wake(); err != nil {
			t.Fatal(err)
		}
		waitReturns(t, p)
		wantCalm(t, p) // one Wake ends one Wait
	}
	if kicks := c.kicks.Load(); kicks != 0 {
		t.Errorf("%d system calls for wakes of an owner that wasn't waiting, want 0", kicks)
	}
}

func testWakeCoalesces(t *testing.T, open opener) {
	p, c := openCounting(t, open)
	for round := range int64(3) {
		parkAndWake(t, p, 1000)
		if kicks := c.kicks.Load(); kicks != round+1 {
			t.Fatalf("%d system calls after %d rounds of 1000 wakes, want one a round", kicks, round+1)
		}
	}
	wantCalm(t, p)
}

// parkAndWake sends wakes from other goroutines once Wait is parked, all of them
// before Wait can return: the lock holds up the one that goes to the kernel.
func parkAndWake(t *testing.T, p *Poller, wakes int) {
	t.Helper()
	result := make(chan error)
	go func() {
		for p.wakeup.state.Load() != parked {
			runtime.Gosched()
		}
		done := make(chan error)
		p.mu.Lock()
		for range wakes {
			go func() { done <- p.Wake() }()
		}
		var err error
		for range wakes - 1 {
			err = errors.Join(err, <-done)
		}
		p.mu.Unlock()
		result <- errors.Join(err, <-done)
	}()
	waitReturns(t, p)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// testWakeParked: every further Wait is ended by a Wake of its own.
func testWakeParked(t *testing.T, open opener) {
	p, c := openCounting(t, open)
	const rounds = 100
	for range rounds {
		parkAndWake(t, p, 1)
	}
	if kicks := c.kicks.Load(); kicks != rounds {
		t.Errorf("%d system calls, want %d", kicks, rounds)
	}
}

// testWakeHammer has goroutines post to a list and wake its owner, who looks at
// the list only after a Wait. A lost wake-up leaves items behind and the owner
// asleep until its deadline.
func testWakeHammer(t *testing.T, open opener) {
	const posters, posts = 8, 2000
	p := openPoller(t, open)
	var mu sync.Mutex
	var posted []int
	var group sync.WaitGroup
	for poster := range posters {
		group.Go(func() {
			for i := range posts {
				mu.Lock()
				posted = append(posted, poster*posts+i)
				mu.Unlock()
				if err := p.Wake(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := make(map[int]bool, posters*posts)
	var batch [4]Event
	for len(seen) < posters*posts {
		deadline := time.Now().Add(patience)
		if _, err := p.Wait(batch[:], deadline); err != nil {
			t.Fatal(err)
		}
		if !time.Now().Before(deadline) {
			t.Fatalf("a wake-up was lost after %d posts", len(seen))
		}
		mu.Lock()
		for _, item := range posted {
			seen[item] = true
		}
		posted = posted[:0]
		mu.Unlock()
	}
	group.Wait()
}

// testWakeAgainstClose lets Close come in between wakes; the race detector and
// the descriptors (no write to one that is closed) are the judges.
func testWakeAgainstClose(t *testing.T, open opener) {
	for range 20 {
		p := openPoller(t, open)
		var group sync.WaitGroup
		started := make(chan struct{})
		group.Go(func() {
			close(started)
			for {
				if err := p.Wake(); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("Wake: %v", err)
					}
					return
				}
			}
		})
		<-started
		waitReturns(t, p)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		group.Wait()
	}
}

// testWakeOvertaken lets Close overtake a Wake between its decision to kick and
// the kick, which must not happen any more: the descriptor is gone.
func testWakeOvertaken(t *testing.T, open opener) {
	p, c := openCounting(t, open)
	p.wakeup.state.Store(parked)
	p.mu.Lock()
	result := make(chan error)
	go func() { result <- p.Wake() }()
	for p.wakeup.state.Load() != woken {
		runtime.Gosched()
	}
	p.closed.Store(true) // what Close does under the lock
	if err := p.backend.close(); err != nil {
		t.Error(err)
	}
	p.mu.Unlock()
	if err := <-result; !errors.Is(err, ErrClosed) || c.kicks.Load() != 0 {
		t.Errorf("Wake: %v after %d kicks, want ErrClosed and none", err, c.kicks.Load())
	}
}

// waitUntil waits without events and returns how far from deadline it came back.
func waitUntil(t *testing.T, p *Poller, deadline time.Time) (after time.Duration) {
	t.Helper()
	var batch [4]Event
	n, err := p.Wait(batch[:], deadline)
	if n != 0 || err != nil {
		t.Fatalf("Wait = %v, %v; want nothing", batch[:n], err)
	}
	return time.Since(deadline)
}

func testDeadline(t *testing.T, open opener) {
	p := openPoller(t, open)
	start := time.Now()
	for name, deadline := range map[string]time.Time{
		"long past":          time.Unix(1, 0),
		"just past":          start.Add(-1),
		"past by wall clock": start.Round(0).Add(-time.Second),
	} {
		for range 2 {
			if waitUntil(t, p, deadline); time.Since(start) > patience/2 {
				t.Fatalf("%s: parked", name)
			}
		}
	}
	for _, d := range []time.Duration{1, 400 * time.Microsecond, 5 * time.Millisecond, calm} {
		deadline := time.Now().Add(d)
		for range 3 { // the second and third find it passed
			if after := waitUntil(t, p, deadline); after < 0 || after > patience/2 {
				t.Fatalf("deadline in %v: back %v after it", d, after)
			}
		}
	}
	wall := time.Now().Round(0).Add(calm)
	waitUntil(t, p, wall)
}

func testDeadlineMoves(t *testing.T, open opener) {
	p := openPoller(t, open)
	tests := []struct {
		name  string
		first time.Duration // set, then replaced before it fires
		then  time.Duration
	}{
		{"earlier", time.Hour, calm},
		{"later", calm, 2 * calm},
		{"much later and back", time.Hour, calm / 2},
		{"past", calm, -calm},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := p.Wake(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			waitUntil(t, p, start.Add(test.first)) // ended by the Wake
			if test.first == time.Hour && time.Since(start) > patience {
				t.Fatal("the Wake was lost")
			}
			if after := waitUntil(t, p, start.Add(test.then)); after < 0 || after > patience/2 {
				t.Fatalf("back %v after the deadline", after)
			}
		})
	}
}

// testDeadlineTakenBack waits without a deadline while an earlier one passes: it
// must not end the wait.
func testDeadlineTakenBack(t *testing.T, open opener) {
	p := openPoller(t, open)
	if err := p.Wake(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, p, time.Now().Add(calm))
	var wokenUp atomic.Bool
	result := make(chan error)
	time.AfterFunc(3*calm, func() {
		wokenUp.Store(true)
		result <- p.Wake()
	})
	waitUntil(t, p, time.Time{})
	if !wokenUp.Load() {
		t.Error("a deadline that was taken back ended the wait")
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// testTimerNeverSilent arms the timer many times, so that a timer whose edges
// stop without a read would be noticed; every other time it is moved before it
// fires, and every fifth time it fires unseen, while nobody waits.
func testTimerNeverSilent(t *testing.T, open opener) {
	p := openPoller(t, open)
	for i := range 200 {
		if i%5 == 4 {
			deadline := time.Now().Add(100 * time.Microsecond)
			if err := p.Wake(); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, p, deadline)
			for time.Now().Before(deadline.Add(100 * time.Microsecond)) {
				continue // spins past the deadline: no wait is to see it fire
			}
		}
		if i%2 == 0 {
			if err := p.Wake(); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, p, time.Now().Add(time.Hour))
		}
		if after := waitUntil(t, p, time.Now().Add(time.Millisecond)); after < 0 || after > patience/2 {
			t.Fatalf("round %d: back %v after the deadline", i, after)
		}
	}
}

// testTimerAmidEvents keeps a level-triggered socket ready: the deadline, which
// passes among events, must not be lost for the wait after them.
func testTimerAmidEvents(t *testing.T, open opener) {
	p := openPoller(t, open)
	_, server := pair(t, "tcp")
	if err := p.Add(server.fd, 1, Writable); err != nil {
		t.Fatal(err)
	}
	var batch [4]Event
	for range 5 {
		deadline := time.Now().Add(2 * time.Millisecond)
		for time.Now().Before(deadline.Add(time.Millisecond)) {
			if n, err := p.Wait(batch[:], deadline); n != 1 || err != nil {
				t.Fatalf("Wait = %d, %v; want the socket", n, err)
			}
		}
		if err := p.Modify(server.fd, 1, 0); err != nil {
			t.Fatal(err)
		}
		if after := waitUntil(t, p, deadline); after < 0 || after > patience/2 {
			t.Fatalf("back %v after the deadline", after)
		}
		if err := p.Modify(server.fd, 1, Writable); err != nil {
			t.Fatal(err)
		}
	}
}
