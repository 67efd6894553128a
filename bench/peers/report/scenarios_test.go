package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeHarness puts a script in the harness' place and returns the results folder and a call's arguments for it.
func fakeHarness(t *testing.T, script, scenarios string) (folder string, args []string) {
	folder = t.TempDir()
	t.Chdir(t.TempDir())
	if err := os.WriteFile(harness, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return folder, []string{"--bin", ".", "--results", folder, "--scenarios", scenarios, "--servers", "gorilla,pulsewheel"}
}

// TestAtOnce: each server has a call of its own, the product two, and what they find is put together.
func TestAtOnce(t *testing.T) {
	folder, args := fakeHarness(t, `#!/bin/sh
while [ "$1" != --servers ]; do [ "$1" != --control ] || exit 2; shift; done
name=${2%%=*}
echo "{\"servers\": {\"$name\": {\"bytes_per_connection_after_echo\": {\"median\": 3, \"min\": 2, \"max\": 4, \"values\": [2, 3, 4]}}}, \"problems\": [\"$name: one\"]}"
`, "idle-echo-20s")
	if err := dispatch(t.Context(), args, t.Output()); err != nil {
		t.Fatal(err)
	}
	r, err := loadResults(filepath.Join(folder, resultsFile))
	if err != nil {
		t.Fatal(err)
	}
	found := r.Scenarios["idle-echo-20s"]
	if got, want := slices.Sorted(maps.Keys(found.Servers)), []string{"gorilla", product, again}; !slices.Equal(got, want) {
		t.Errorf("figures of %v, want %v", got, want)
	}
	if found.Rounds != steadyRoundsMax || len(found.Commands) != 3 || len(found.Problems) != 3 {
		t.Errorf("%d rounds, commands %q, problems %q", found.Rounds, found.Commands, found.Problems)
	}
	if page := read(t, filepath.Join(folder, tableFile)); !strings.Contains(page, "idle-echo-20s, 3 rounds, all at the same time:") {
		t.Errorf("the page does not say that they ran together:\n%s", page)
	}
}

// TestAtOnceFails: one that can't run ends the others, and is the one that is named.
func TestAtOnceFails(t *testing.T) {
	_, args := fakeHarness(t, `#!/bin/sh
case "$*" in *gorilla=*) exit 3;; esac
exec sleep 60
`, "idle-echo-20s")
	begun := time.Now()
	err := dispatch(t.Context(), args, t.Output())
	if err == nil || err.Error() != "idle-echo-20s: exit status 3" {
		t.Errorf("got %v, want the exit status of one", err)
	}
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("the others were waited for: %v", took)
	}
}

// TestFailsMidway: table and charts have what was found before a run failed.
func TestFailsMidway(t *testing.T) {
	folder, args := fakeHarness(t, strings.Replace(harnessFake, "cat", "case \"$*\" in *'connections 1000 '*) exit 2;; esac\ncat", 1), "echo-100,echo-1000")
	if err := dispatch(t.Context(), args, t.Output()); err == nil {
		t.Fatal("the failure of the harness was not told")
	}
	if page := read(t, filepath.Join(folder, tableFile)); !strings.Contains(page, "| CPU µs per echo, 100 | 4.00") || strings.Contains(page, "CPU µs per echo, 1,000 |") {
		t.Errorf("the page has not just the scenario that was measured:\n%s", page)
	}
	if _, err := os.Stat(filepath.Join(folder, chartsFile)); err != nil {
		t.Error(err)
	}
}

// TestSpans: a span of heartbeats is an interval at least, or only some of the connections would beat in it.
func TestSpans(t *testing.T) {
	for _, sc := range scenarios() {
		args := sc.arguments(options{duration: 10 * time.Millisecond})
		i := slices.Index(args, "--duration")
		if i < 0 {
			continue // the harness has its own for a storm
		}
		span, err := time.ParseDuration(args[i+1])
		if err != nil || sc.timed && span < sc.interval {
			t.Errorf("%s: a span of %v, %v, the interval is %v", sc.name, span, err, sc.interval)
		}
	}
}

func TestShellLine(t *testing.T) {
	for _, test := range []struct {
		name  string
		words []string
		want  string
	}{
		{"plain", []string{"bench", "--rounds", "5"}, "bench --rounds 5"},
		{"blanks and braces", []string{"--servers", "a=b --listen {addr}"}, "--servers 'a=b --listen {addr}'"},
		{"a quote", []string{"it's"}, `'it'\''s'`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := shellLine(test.words); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
