package monitor

import (
	"strings"
	"sync"
	"testing"

	"github.com/pulsewheel/pulsewheel/server"
)

// observedSource is a fixedSource with distributions that the test sets.
type observedSource struct {
	*fixedSource

	omu sync.Mutex
	d   server.Distributions
}

func (o *observedSource) Distributions() server.Distributions {
	o.omu.Lock()
	defer o.omu.Unlock()
	return o.d
}

// bounds are those of the server around two limits.
func bounds() []float64 { return []float64{1, 10, 28.5, 31.5, 58.5, 61.5, 98.5, 101.5, 200} }

// spreadOf counts ends by the second.
func spreadOf(ends map[float64]uint64) server.Histogram {
	h := server.Histogram{Bounds: bounds(), Counts: make([]uint64, len(bounds())+1)}
	for seconds, n := range ends {
		i := 0
		for i < len(h.Bounds) && seconds > h.Bounds[i] {
			i++
		}
		h.Counts[i] += n
	}
	return h
}

func TestFindLimits(t *testing.T) {
	none := spreadOf(nil)
	tests := []struct {
		name          string
		silence, life server.Histogram
		want          []string // parts, one a note
	}{
		{"nothing ended", none, none, nil},
		{"nginx", spreadOf(map[float64]uint64{60: 62, 5: 38}), none, []string{"62% of the 100 connections"}},
		{"a little later", spreadOf(map[float64]uint64{61.2: 50}), none, []string{"nginx"}},
		{"Cloudflare", spreadOf(map[float64]uint64{100: 50}), none, []string{"Cloudflare"}},
		{"both", spreadOf(map[float64]uint64{60: 50, 100: 50}), none, []string{"nginx", "Cloudflare"}},
		{"too few", spreadOf(map[float64]uint64{60: 19}), none, nil},
		{"too small a share", spreadOf(map[float64]uint64{60: 29, 5: 71}), none, nil},
		{"between the limits", spreadOf(map[float64]uint64{45: 100, 80: 100}), none, nil},
		{"by lifetime", spreadOf(map[float64]uint64{5: 100}), spreadOf(map[float64]uint64{30: 100}), []string{"30 s after they opened: the limit of Google"}},
		{"silent for 30 s is no limit", spreadOf(map[float64]uint64{30: 100}), none, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			notes := findLimits(test.silence, test.life)
			if len(notes) != len(test.want) {
				t.Fatalf("notes %q, want %q", notes, test.want)
			}
			for i, part := range test.want {
				if !strings.Contains(notes[i], part) {
					t.Errorf("%q holds no %q", notes[i], part)
				}
			}
		})
	}
}

// What is found is told once in the log, stays on the page as long as it is so, and goes with the window.
func TestCutWatcher(t *testing.T) {
	out := &syncBuffer{}
	source := &observedSource{fixedSource: newFixedSource()}
	set := func(end, reset uint64) {
		source.omu.Lock()
		defer source.omu.Unlock()
		source.d = server.Distributions{CutLifetime: spreadOf(nil), Silence: map[string]server.Histogram{
			"end": spreadOf(map[float64]uint64{60: end}), "reset": spreadOf(map[float64]uint64{60: reset}), "client": spreadOf(map[float64]uint64{100: 1000}),
		}}
	}
	set(500, 500) // before the watcher looked for the first time
	m := New(Config{Logger: newJSONLogger(out)}, source)
	w := newCutWatcher(m)
	w.look()
	if notes := *m.notes.Load(); len(notes) != 0 {
		t.Errorf("what was before counts: %q", notes)
	}
	set(515, 515)
	w.look()
	w.look()
	if notes := *m.notes.Load(); len(notes) != 1 || !strings.Contains(notes[0], "100% of the 30 connections") {
		t.Errorf("notes %q", notes)
	}
	for range idleWindow {
		w.look()
	}
	if notes := *m.notes.Load(); len(notes) != 0 {
		t.Errorf("notes of the past: %q", notes)
	}
	if records := out.lines(t); len(records) != 1 || records[0]["msg"] != "connections are cut at a known limit" {
		t.Errorf("log %v", records)
	}
}
