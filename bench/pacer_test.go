package main

import (
	"math/rand/v2"
	"testing"
)

// standingClient has connections that count as open and are never written to.
func standingClient(connections int) *client {
	c := &client{conns: make([]conn, connections), members: connections}
	for i := range c.conns {
		c.conns[i].phase = open
	}
	return c
}

func TestPacerSendsWhatIsDue(t *testing.T) {
	var fired []int
	p := newPacer(0, 1e9/100, 3, func(i int) { fired = append(fired, i) }) // every 100 ns
	c := standingClient(3)
	if next := p.serve(c, 350); next != 400 {
		t.Errorf("next at %d, want 400", next)
	}
	if want := []int{0, 1, 2, 0}; len(fired) != len(want) || fired[3] != 0 || fired[2] != 2 {
		t.Errorf("fired %v, want %v", fired, want)
	}
	if due := p.dueOf(1, 2); due != 700 {
		t.Errorf("third operation of connection 1 due at %d, want 700", due)
	}
}

// TestPacerScatters: each operation has its gap, and in the gaps together they meet every tenth of a server's tick about equally often.
func TestPacerScatters(t *testing.T) {
	const gap, tick, operations = 1e6, 20e6, 100_000
	p := newPacer(12345, 1e9/gap, 7, nil)
	p.scattered = true
	var met [10]int
	for k := range operations {
		at := p.due(k) - p.from
		if at < int64(k)*gap || at >= int64(k+1)*gap || p.dueOf(k%7, k/7) != p.due(k) {
			t.Fatalf("operation %d is due after %d ns, on its connection %d", k, at, p.dueOf(k%7, k/7)-p.from)
		}
		met[at%gap*10/gap]++
	}
	for i, n := range met {
		if n < operations/10*95/100 || n > operations/10*105/100 {
			t.Errorf("tenth %d of the gap was met %d times of %d", i, n, operations)
		}
	}
	if a, b := p.due(0), p.due(20); (b-a)%tick == 0 {
		t.Error("a tick later the plan is at the same part of it")
	}
}

func TestPacerTurnIsBounded(t *testing.T) {
	n := 0
	p := newPacer(0, 1e9, 1, func(int) { n++ })
	if next := p.serve(standingClient(1), 1e6); next != 1e6 || n != sendsPerTurn {
		t.Errorf("%d sent, next at %d; want %d and no parking", n, next, sendsPerTurn)
	}
}

func TestPacerStops(t *testing.T) {
	n := 0
	p := newPacer(0, 1e9/100, 1, func(int) { n++ })
	p.stop(250)
	if next := p.serve(standingClient(1), 1000); next != never || n != 3 {
		t.Errorf("%d sent, next at %d; want 3 and never", n, next)
	}
}

func TestPacerSkipsTheDead(t *testing.T) {
	c := standingClient(2)
	c.conns[0].phase = closed
	n := 0
	p := newPacer(0, 1e9/100, 2, func(int) { n++ })
	p.serve(c, 1000)
	if n != 5 {
		t.Errorf("%d sent, want the 5 of the connection that stands", n)
	}
	if missing := p.missing(c, func(int) int { return 3 }); missing != 2 {
		t.Errorf("%d missing, want 2: nothing is due from the dead", missing)
	}
}

// TestPlannedAddsUp: the shares of the connections add up to what was sent, whatever the numbers.
func TestPlannedAddsUp(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 1000 {
		sent, connections := random.IntN(1000), 1+random.IntN(50)
		sum := 0
		for i := range connections {
			sum += planned(sent, i, connections)
		}
		if sum != sent {
			t.Fatalf("seed %d: %d sent on %d connections, shares add up to %d", seed, sent, connections, sum)
		}
	}
}
