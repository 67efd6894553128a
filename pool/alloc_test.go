//go:build !race

// The race detector allocates on its own account, so these figures hold only
// without it.

package pool

import "testing"

// A task's whole way through an idle pool, through a queue, and through a busy
// key costs no allocation.
func TestNoAllocations(t *testing.T) {
	type task struct {
		data []byte
		done chan<- struct{}
	}
	done := make(chan struct{}, 64)
	one := task{make([]byte, 16), done}
	plain := newTestPool(t, 2, 64, func(_ int, t task) { t.done <- struct{}{} })
	serial := newTestSerial(t, 2, 64, func(_ int, _ uint64, t task) { t.done <- struct{}{} })
	cases := []struct {
		name   string
		tasks  int
		submit func(i int) error
	}{
		{"pool, one task", 1, func(int) error { return plain.Submit(one) }},
		{"pool, a burst", 32, func(int) error { return plain.Submit(one) }},
		{"serial, one task", 1, func(int) error { return serial.Submit(7, one) }},
		{"serial, a burst of one key", 32, func(int) error { return serial.Submit(7, one) }},
		{"serial, a burst of many keys", 32, func(i int) error { return serial.Submit(uint64(i), one) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			allocs := testing.AllocsPerRun(2000, func() {
				for i := range c.tasks {
					if err := c.submit(i); err != nil {
						t.Error(err)
						return
					}
				}
				for range c.tasks {
					<-done
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations, want 0", allocs)
			}
		})
	}
	mustClose(t, plain)
	mustClose(t, serial)
}

// Pushing back must be as cheap as accepting: it happens under overload.
func TestSaturationDoesNotAllocate(t *testing.T) {
	gate := make(chan struct{})
	p := newTestPool(t, 1, 1, func(int, int) { <-gate })
	mustSubmit(t, p, 1)
	mustSubmit(t, p, 2)
	if allocs := testing.AllocsPerRun(1000, func() {
		if p.Submit(3) == nil {
			t.Error("accepted")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
	close(gate)
	mustClose(t, p)
}
