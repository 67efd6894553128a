package main

import (
	"fmt"
	"os"
)

// Every problem is told at once, wherever it comes from.
func Example_problems() {
	code := run(process{
		args:    []string{"serve", "--heartbeat-interval=1h", "--loops=two"},
		environ: []string{"PULSEWHEEL_MAX_BACKPRESSURE=64kb"},
		stdout:  os.Stdout,
		stderr:  os.Stdout,
	})
	fmt.Println("exit", code)
	// Output:
	// pulsewheel: --loops: "two" is not a whole number
	// pulsewheel: PULSEWHEEL_MAX_BACKPRESSURE: "64kb" is not a size such as 64KiB or 1MiB
	// pulsewheel: heartbeat-timeout 1m15s: at least twice the heartbeat-interval of 1h0m0s
	// exit 2
}
