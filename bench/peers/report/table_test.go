package main

import (
	"strings"
	"testing"
)

// values makes a spread of the least, the median and the most.
func values(low, median, high float64) spread { return spread{Min: low, Median: median, Max: high} }

// TestCells: what a cell says of a difference, and what the row says of the machine.
func TestCells(t *testing.T) {
	const figure = "cpu_us_per_open"
	line := row{title: "title", scenario: "storm", figure: figure}
	for _, test := range []struct {
		name     string
		rounds   int
		first    spread // of the product; zero: withheld
		second   spread // of its other turn; likewise
		gorilla  spread
		heading  string
		cell     string
		ownFirst string
	}{
		{
			name: "different", rounds: 3, first: values(4, 5, 6), second: values(4, 5, 6), gorilla: values(7, 8, 9),
			heading: "title", cell: "8.00 (7.00–9.00)", ownFirst: "5.00 (4.00–6.00)",
		},
		{
			name: "not told from the first turn", rounds: 3, first: values(4, 5, 7), second: values(4, 5, 6), gorilla: values(7, 8, 9),
			heading: "title", cell: "8.00 (7.00–9.00) ≈", ownFirst: "5.00 (4.00–7.00)",
		},
		{
			name: "the first turn withheld, not told from the second", rounds: 3, second: values(4, 5, 7), gorilla: values(7, 8, 9),
			heading: "title", cell: "8.00 (7.00–9.00) ≈", ownFirst: "client",
		},
		{
			name: "the first turn withheld, different from the second", rounds: 3, second: values(4, 5, 6), gorilla: values(7, 8, 9),
			heading: "title", cell: "8.00 (7.00–9.00)", ownFirst: "client",
		},
		{
			name: "the second turn withheld, not told from the first", rounds: 3, first: values(4, 5, 7), gorilla: values(7, 8, 9),
			heading: "title", cell: "8.00 (7.00–9.00) ≈", ownFirst: "5.00 (4.00–7.00)",
		},
		{
			name: "both withheld", rounds: 3, gorilla: values(7, 8, 9),
			heading: "title", cell: "8.00 (7.00–9.00) °", ownFirst: "client",
		},
		{
			name: "the turns differ, beyond both", rounds: 3, first: values(4, 5, 6), second: values(7, 8, 9), gorilla: values(10, 11, 12),
			heading: "title ‡", cell: "11.0 (10.0–12.0)", ownFirst: "5.00 (4.00–6.00)",
		},
		{
			name: "the turns differ, between them", rounds: 3, first: values(4, 5, 6), second: values(9, 9.5, 10), gorilla: values(7, 7.5, 8),
			heading: "title ‡", cell: "7.50 (7.00–8.00) ≈", ownFirst: "5.00 (4.00–6.00)",
		},
		{
			name: "the turns of one round differ", rounds: 1, first: values(5, 5, 5), second: values(9, 9, 9), gorilla: values(7, 7, 7),
			heading: "title", cell: "7.00 ≈", ownFirst: "5.00",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOutcome(test.rounds, provenance{})
			o.Servers["gorilla"] = map[string]spread{figure: test.gorilla}
			for name, turn := range map[string]spread{product: test.first, again: test.second} {
				if turn.Max == 0 {
					o.Withheld[name] = []string{figure}
					continue
				}
				o.Servers[name] = map[string]spread{figure: turn}
			}
			r := &results{Scenarios: map[string]outcome{"storm": o}}
			if got := r.heading(line); got != test.heading {
				t.Errorf("the row is called %q, want %q", got, test.heading)
			}
			if got := r.cell(line, "gorilla"); got != test.cell {
				t.Errorf("gorilla: %q, want %q", got, test.cell)
			}
			if got := r.cell(line, product); got != test.ownFirst {
				t.Errorf("%s: %q, want %q", product, got, test.ownFirst)
			}
		})
	}
}

// TestLegendExplains: a mark that nobody explains is noise.
func TestLegendExplains(t *testing.T) {
	for _, mark := range []string{markSame, markUncompared, markDrift, " " + withheldCell, " –"} {
		if !strings.Contains(legend, "-"+mark+":") {
			t.Errorf("the legend lacks %q", mark)
		}
	}
}

// TestProvenanceOfEach: scenarios of different runs are not said to come from one machine or one release.
func TestProvenanceOfEach(t *testing.T) {
	run := func(date, release string) outcome {
		o := newOutcome(5, provenance{Date: date, CPU: "CPU", Cores: 2, System: "linux", Go: "go1", Versions: map[string]string{"gws": release, harness: "commit 1"}})
		o.Servers[product] = map[string]spread{"cpu_us_per_echo": values(1, 2, 3)}
		return o
	}
	r := &results{Scenarios: map[string]outcome{"echo-100": run("2026-01-01", "gws v1"), "echo-1000": run("2026-01-01", "gws v1"), "storm": run("2026-02-02", "gws v2")}}
	page := r.markdown()
	for _, want := range []string{
		"2026-01-01, CPU, 2 cores, linux, go1 (echo-100, echo-1000).",
		"2026-02-02, CPU, 2 cores, linux, go1 (storm).",
		"- gws: gws v1 (echo-100, echo-1000); gws v2 (storm)\n",
		"- bench: commit 1\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	delete(r.Scenarios, "storm")
	if page := r.markdown(); !strings.Contains(page, "\n2026-01-01, CPU, 2 cores, linux, go1.\n") || !strings.Contains(page, "- gws: gws v1\n") {
		t.Errorf("the page of one run:\n%s", page)
	}
}
