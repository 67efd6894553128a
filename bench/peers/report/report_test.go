package main

import (
	"errors"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// harnessFake stands for the load harness: it writes what it was called with beside itself, answers like it, and says
// with its exit code that a check did not hold.
const harnessFake = `#!/bin/sh
echo "$@" >> "$0.calls"
cat <<'END'
{"scenario": "echo", "problems": ["gorilla: 3 messages were not answered"], "withheld": {"gorilla": ["syscalls_per_echo"]}, "repeats": {"gorilla": 2},
 "at_floor": ["messages per second of pulsewheel is not told from that of floor"], "servers": {
 "pulsewheel-again": {"cpu_us_per_echo": {"median": 4.6, "min": 4, "max": 5.2, "values": [4, 4.6, 5.2]}},
 "pulsewheel": {"cpu_us_per_echo": {"median": 4, "min": 3.5, "max": 4.5, "values": [4, 3.5, 4.5]},
                "messages_per_second": {"median": 120000, "min": 110000, "max": 130000, "values": [120000, 110000, 130000]}},
 "gorilla":    {"cpu_us_per_echo": {"median": 6, "min": 5, "max": 7, "values": [6, 5, 7]},
                "messages_per_second": {"median": 100000, "min": 90000, "max": 112000, "values": [100000, 90000, 112000]}}}}
END
exit 1
`

// twoServers is how two of them are to be started.
const twoServers = "pulsewheel=./pulsewheel serve --listen {addr} --admin-listen= --echo,gorilla=peers/gorilla --listen {addr}"

// TestDispatch runs one scenario against a fake harness, another one later, and looks at everything that is written.
func TestDispatch(t *testing.T) {
	bin, results := t.TempDir(), t.TempDir()
	t.Chdir(bin)
	if err := os.WriteFile("bench", []byte(harnessFake), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []string{"echo-100", "echo-1000"} {
		args := []string{"--bin", ".", "--results", results, "--rounds", "3", "--scenarios", scenario, "--servers", "gorilla,pulsewheel"}
		if err := dispatch(t.Context(), args, t.Output()); err != nil {
			t.Fatal(err)
		}
	}
	page := read(t, filepath.Join(results, tableFile))
	for _, want := range []string{
		"| | pulsewheel | pulsewheel-again | gorilla |",
		// The range of gorilla meets that of the second turn only: no difference is shown then either.
		"| CPU µs per echo, 100 | 4.00 (3.50–4.50) | 4.60 (4.00–5.20) | 6.00 (5.00–7.00) ≈ |",
		"| CPU µs per echo, 1,000 | 4.00 (3.50–4.50) | 4.60 (4.00–5.20) | 6.00 (5.00–7.00) ≈ |",
		"| thousand echoes per second, 100 connections | 120 (110–130) | – | 100 (90.0–112) ≈ |",
		"| system calls per echo, 100 | – | – | client |",
		"- echo-100: messages per second of pulsewheel is not told from that of floor",
		"- echo-100: gorilla: 3 messages were not answered",
		"echo-100, 3 rounds; turns taken again, since the client was the limit: gorilla 2:",
		"    ./bench compare --rounds 3 --json - --figures messages_per_second,cpu_us_per_echo,syscalls_per_echo --control --servers '" + twoServers + "' echo --connections 100 --settle 500ms --syscalls --duration 1s",
		"- gorilla: github.com/gorilla/websocket " + unknown,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if calls := read(t, "bench.calls"); !strings.Contains(calls, "--control --servers "+twoServers+" echo") {
		t.Errorf("the harness was called with %s", calls)
	}
	picture, err := os.Open(filepath.Join(results, chartsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer picture.Close()
	if _, err := png.Decode(picture); err != nil {
		t.Errorf("charts: %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
	}{
		{"unknown scenario", []string{"--scenarios", "echo-7"}},
		{"unknown server", []string{"--servers", "nobody"}},
		{"no round", []string{"--rounds", "0"}},
		{"argument", []string{"now"}},
		{"nothing to write", []string{"--run=false", "--results", t.TempDir()}},
		{"nobody can take part", []string{"--scenarios", "echo-100", "--servers", "centrifuge", "--results", t.TempDir()}},
		{"nobody expires", []string{"--scenarios", "churn", "--servers", "floor,gobwas-epoll", "--results", t.TempDir()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := dispatch(t.Context(), test.args, t.Output()); !errors.Is(err, errUsage) {
				t.Errorf("got %v, want a wrong call", err)
			}
		})
	}
}

// TestRowsAreMeasured: a row of the table or a bar of a chart whose scenario does not exist would stay empty for ever.
func TestRowsAreMeasured(t *testing.T) {
	known := map[string]bool{}
	for _, sc := range scenarios() {
		known[sc.name] = true
	}
	shown := map[string]bool{}
	for _, line := range rows() {
		if !known[line.scenario] {
			t.Errorf("%q: there is no scenario %q", line.title, line.scenario)
		}
		shown[line.scenario] = true
	}
	for name := range known {
		if !shown[name] {
			t.Errorf("no row of the table shows the scenario %q", name)
		}
	}
	for _, pn := range panels() {
		for _, s := range pn.series {
			if !known[s.line.scenario] {
				t.Errorf("%q: there is no scenario %q", pn.title, s.line.scenario)
			}
		}
	}
}

// TestQuickKeepsTheResults: the short form must not write over figures that took long.
func TestQuickKeepsTheResults(t *testing.T) {
	o, err := parseOptions([]string{"--quick"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if o.results == resultsFolder || o.rounds != 1 || len(o.scenarios) >= len(scenarios()) || len(o.scenarios) == 0 {
		t.Errorf("quick: %+v", o)
	}
	if o, err = parseOptions(nil, t.Output()); err != nil || o.results != resultsFolder || o.rounds < 5 {
		t.Errorf("whole: %+v, %v", o, err)
	}
}

func TestCommand(t *testing.T) {
	o := options{bin: "bin", node: "bench/peers/ws"}
	for _, test := range []struct {
		name              string
		interval, timeout time.Duration
		want              string
	}{
		{"floor", 0, 0, "./bin/floor --listen {addr}"},
		{"pulsewheel", 2 * time.Second, 0, "./bin/pulsewheel serve --listen {addr} --admin-listen= --echo --heartbeat-timeout 6s --heartbeat-interval 2s"},
		{"pulsewheel", 2 * time.Second, 4 * time.Second, "./bin/pulsewheel serve --listen {addr} --admin-listen= --echo --heartbeat-timeout 4s --heartbeat-interval 2s"},
		{"gws", time.Second, 0, "bin/peers/gws --listen {addr} --heartbeat-interval 1s"},
		{"ws", time.Second, 2 * time.Second, "node bench/peers/ws/server.mjs --listen {addr} --heartbeat-timeout 2s --heartbeat-interval 1s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := o.command(test.name, test.interval, test.timeout); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestNumber(t *testing.T) {
	for _, test := range []struct {
		name  string
		value float64
		want  string
	}{
		{"small", 0.456, "0.46"},
		{"tens", 12.34, "12.3"},
		{"hundreds", 123.4, "123"},
		{"thousands", 22313.4, "22,313"},
		{"millions", 1000001, "1,000,001"},
		{"below zero", -1234, "-1,234"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := number(test.value); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func read(t *testing.T, name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
