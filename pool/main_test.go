package pool

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the run if a goroutine of this package or of ants outlives
// the tests, beyond the two that ants starts when it is imported.
func TestMain(m *testing.M) {
	atStart, _ := poolGoroutines()
	code := m.Run()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	for {
		n, stacks := poolGoroutines()
		if n <= atStart {
			os.Exit(code)
		}
		select {
		case <-tick.C: // goroutines end in their own time after Close told them to
		case <-deadline:
			fmt.Fprintf(os.Stderr, "%d goroutines left, %d at the start:\n%s\n", n, atStart, stacks)
			os.Exit(1)
		}
	}
}

// poolGoroutines counts the goroutines, other than the caller's, that run or
// were created by this package or ants.
func poolGoroutines() (int, string) {
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	var found []string
	for i, stack := range strings.Split(string(all), "\n\n") {
		if i > 0 && (strings.Contains(stack, "panjf2000/ants") || strings.Contains(stack, "pulsewheel/pool.")) {
			found = append(found, stack)
		}
	}
	return len(found), strings.Join(found, "\n\n")
}
