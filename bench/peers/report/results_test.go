package main

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// before is a results file as it was written when there was one machine for all scenarios.
const before = `{
  "machine": {"date": "2026-11-23", "system": "linux", "cpu": "CPU", "cores": 2, "go": "go1.26"},
  "versions": {"gws": "github.com/lxzan/gws v1.8.9"},
  "scenarios": {
    "no longer measured": {"rounds": 3, "args": ["storm"], "servers": {}},
    "storm": {
      "rounds": 3, "args": ["storm", "--settle", "500ms"], "problems": ["one"], "withheld": {"gws": ["latency_us_p99"]}, "at_floor": [],
      "servers": {"gws": {"opens_per_second": {"median": 2, "min": 1, "max": 3, "values": [2, 1, 3]}}}
    }
  }
}`

// TestResultsOfBefore: figures that took long are not lost to a new form, and the new form gives back what was put in.
func TestResultsOfBefore(t *testing.T) {
	name := filepath.Join(t.TempDir(), resultsFile)
	if err := os.WriteFile(name, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := loadResults(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Scenarios) != 1 {
		t.Errorf("scenarios %v, want storm alone", slices.Sorted(maps.Keys(r.Scenarios)))
	}
	want := outcome{
		Rounds:     3,
		Commands:   []string{"bench compare … storm --settle 500ms"},
		Provenance: provenance{Date: "2026-11-23", System: "linux", CPU: "CPU", Cores: 2, Go: "go1.26", Versions: map[string]string{"gws": "github.com/lxzan/gws v1.8.9"}},
		Servers:    map[string]map[string]spread{"gws": {"opens_per_second": {Median: 2, Min: 1, Max: 3, Values: []float64{2, 1, 3}}}},
		Withheld:   map[string][]string{"gws": {"latency_us_p99"}},
		AtFloor:    []string{},
		Problems:   []string{"one"},
	}
	if got := r.Scenarios["storm"]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	newer := want
	newer.Commands = []string{"bench compare --servers 'a=b <c>' storm"}
	newer.Provenance.Date = "2026-12-24"
	newer.Repeats = map[string]int{"gws": 2}
	r.Scenarios["echo-100"] = newer
	if err := r.save(name); err != nil {
		t.Fatal(err)
	}
	kept, err := loadResults(name)
	if err != nil {
		t.Fatal(err)
	}
	for scenario, want := range r.Scenarios {
		if got := kept.Scenarios[scenario]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v\nwant %+v", scenario, got, want)
		}
	}
}
