package main

import (
	"io"
	"testing"
)

// BenchmarkParse is what the options cost at each start.
func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		in := parse(process{args: []string{"serve", "--echo", "--heartbeat-interval=10s"}, stdout: io.Discard, stderr: io.Discard})
		if len(in.problems) > 0 {
			b.Fatal(in.problems)
		}
	}
}
