package pool

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The store is compared with one slice per list, over random operations that
// keep it near empty and near full.
func TestStoreMatchesSlices(t *testing.T) {
	const tasks, lists = 17, 4
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := newStore[*int](tasks)
		var got [lists]list
		var want [lists][]*int
		total := 0
		for step := range 2000 {
			i, j := random.IntN(lists), random.IntN(lists)
			switch random.IntN(3) {
			case 0:
				if full := total == tasks; full != s.full() {
					t.Fatalf("seed %d step %d: full %v, want %v", seed, step, s.full(), full)
				}
				if !s.full() {
					v := &step
					s.push(&got[i], v)
					want[i] = append(want[i], v)
					total++
				}
			case 1:
				v, ok := s.pop(&got[i])
				if ok != (len(want[i]) > 0) {
					t.Fatalf("seed %d step %d: pop %v with %d tasks in the list", seed, step, ok, len(want[i]))
				}
				if ok {
					if v != want[i][0] {
						t.Fatalf("seed %d step %d: popped task of step %d, want %d", seed, step, *v, *want[i][0])
					}
					want[i] = want[i][1:]
					total--
				}
			case 2:
				ok := s.move(&got[i], &got[j])
				if ok != (len(want[i]) > 0) {
					t.Fatalf("seed %d step %d: move %v with %d tasks in the list", seed, step, ok, len(want[i]))
				}
				if ok {
					v := want[i][0]
					want[i] = want[i][1:]
					want[j] = append(want[j], v)
				}
			}
			if s.used != total {
				t.Fatalf("seed %d step %d: used %d, want %d", seed, step, s.used, total)
			}
		}
		for i := range lists {
			var rest []*int
			for v, ok := s.pop(&got[i]); ok; v, ok = s.pop(&got[i]) {
				rest = append(rest, v)
			}
			if !slices.Equal(rest, want[i]) {
				t.Fatalf("seed %d: list %d has %d tasks, want %d", seed, i, len(rest), len(want[i]))
			}
		}
		for i, n := range s.nodes {
			if n.task != nil {
				t.Fatalf("seed %d: slot %d still points to a task after everything was popped", seed, i)
			}
		}
	}
}

// A queue that never holds more than three tasks must not walk through its
// memory: untouched pages cost nothing.
func TestStoreTouchesFewSlots(t *testing.T) {
	s := newStore[int](1000)
	var l list
	for range 500 {
		for i := range 3 {
			s.push(&l, i)
		}
		for range 3 {
			s.pop(&l)
		}
	}
	if s.fresh != 3 {
		t.Errorf("slots touched: %d, want 3", s.fresh)
	}
}
