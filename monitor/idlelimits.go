package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/doctor"
	"github.com/pulsewheel/pulsewheel/server"
)

// observed is a Source that knows more than counts.
type observed interface{ Distributions() server.Distributions }

// cutWatcher looks whether connections end at a known limit. It belongs to the goroutine of Run.
type cutWatcher struct {
	monitor *Monitor
	window  []cuts // readings, oldest first
}

// cuts are the connections that ended without a Close frame: what a proxy does to them.
type cuts struct{ silence, life server.Histogram }

func newCutWatcher(m *Monitor) *cutWatcher {
	w := &cutWatcher{monitor: m}
	w.read()
	return w
}

func (w *cutWatcher) read() (now cuts, ok bool) {
	source, ok := w.monitor.source.(observed)
	if !ok {
		return cuts{}, false
	}
	d := source.Distributions()
	end, reset := d.Silence["end"], d.Silence["reset"]
	now.life, now.silence = d.CutLifetime, server.Histogram{Bounds: end.Bounds, Counts: slices.Clone(end.Counts), Sum: end.Sum + reset.Sum}
	for i := range min(len(now.silence.Counts), len(reset.Counts)) {
		now.silence.Counts[i] += reset.Counts[i]
	}
	w.window = appendBounded(w.window, idleWindow+1, now)
	return now, true
}

// look takes a reading, and tells in the log what it finds when it wasn't there before.
func (w *cutWatcher) look() {
	now, ok := w.read()
	if !ok {
		return
	}
	first := w.window[0]
	notes := findLimits(since(now.silence, first.silence), since(now.life, first.life))
	before := *w.monitor.notes.Load()
	w.monitor.notes.Store(&notes)
	for _, note := range notes {
		if !slices.ContainsFunc(before, func(old string) bool { return whose(old) == whose(note) }) {
			w.monitor.cfg.Logger.Warn("connections are cut at a known limit", "note", note)
		}
	}
}

// whose is the part of a note that stays when its figures change.
func whose(note string) string {
	_, after, _ := strings.Cut(note, ": ")
	return after
}

// findLimits tells in words where connections cluster at a known limit: a good share of them within a second and a half of it.
func findLimits(silence, life server.Histogram) []string {
	notes := []string{}
	for _, limit := range doctor.KnownLimits() {
		h, since, advice := silence, "after the last byte", "keep --heartbeat-interval below it"
		if limit.FromOpening {
			h, since, advice = life, "after they opened", "raise it there, no heartbeat helps"
		}
		all := observations(h)
		at := around(h, limit.After.Seconds())
		if all < idleEndsLeast || float64(at) < idleShareLeast*float64(all) {
			continue
		}
		notes = append(notes, fmt.Sprintf("%.0f%% of the %d connections that ended without a Close frame in the last %.0f minutes ended %d s %s: the limit of %s; %s",
			100*float64(at)/float64(all), all, idleInterval.Minutes()*idleWindow, limit.After/time.Second, since, limit.Whose, advice))
	}
	return notes
}

// around counts the bucket that holds a limit. Both of its bounds must be near: elsewhere the buckets are too wide to tell anything.
func around(h server.Histogram, seconds float64) uint64 {
	for i := 1; i < len(h.Bounds); i++ {
		if low, high := h.Bounds[i-1], h.Bounds[i]; low < seconds && seconds <= high && high-low <= 5 {
			return h.Counts[i]
		}
	}
	return 0
}
