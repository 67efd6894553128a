package monitor

import (
	"testing"

	"github.com/pulsewheel/pulsewheel/doctor"
	"github.com/pulsewheel/pulsewheel/server"
)

// knownSeconds are the limits that cuts are compared with.
func knownSeconds() (seconds []float64) {
	for _, limit := range doctor.KnownLimits() {
		seconds = append(seconds, limit.After.Seconds())
	}
	return seconds
}

// Every limit that counts from the last byte or the opening has a bucket of its own in what the server observes; checked with the real bounds.
func TestServerBoundsFitTheLimits(t *testing.T) {
	s, address := serveWebSockets(t, server.Config{})
	source, ok := Source(s).(observed)
	if !ok {
		t.Fatal("the server observes nothing")
	}
	c := dialWebSocket(t, address, "/ws")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return s.Stats().Closed["end"]+s.Stats().Closed["reset"] == 1 })
	d := source.Distributions()
	for _, h := range []server.Histogram{d.Silence["end"], d.CutLifetime} {
		for _, limit := range knownSeconds() {
			for i := range h.Counts {
				h.Counts[i] = 1
			}
			if around(h, limit) != 1 {
				t.Errorf("no narrow bucket around %v s", limit)
			}
		}
	}
}
