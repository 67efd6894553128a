package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// row is one line of the table: a figure of a scenario, as people read it.
type row struct {
	title    string
	scenario string
	figure   string
	divide   float64 // the unit of the table in units of the figure
}

// rows lists the table's lines.
func rows() []row {
	list := []row{
		{title: "bytes resident per idle connection", scenario: "idle", figure: "bytes_per_connection"},
		{title: "the same, beating every 2 s", scenario: "idle-beating", figure: "bytes_per_connection"},
		{title: "the same, 6 s after one echo on each", scenario: "idle-echo", figure: "bytes_per_connection_after_echo"},
	}
	for _, at := range [][2]string{{"10000", "10,000 connections, every 2 s"}, {"3000", "3,000, every 1 s"}} {
		list = append(list,
			row{title: "CPU µs per ping and pong, " + at[1], scenario: "heartbeat-" + at[0], figure: "cpu_us_per_beat"},
			row{title: "system calls per ping and pong, " + at[1], scenario: "heartbeat-" + at[0], figure: "syscalls_per_beat"},
			row{title: "ms behind the interval, p99, " + at[1], scenario: "heartbeat-" + at[0], figure: "latency_us_p99", divide: 1000},
		)
	}
	for _, at := range [][2]string{{"100", "100"}, {"1000", "1,000"}, {"10000", "10,000"}} {
		list = append(list,
			row{title: "thousand echoes per second, " + at[1] + " connections", scenario: "echo-" + at[0], figure: "messages_per_second", divide: 1000},
			row{title: "CPU µs per echo, " + at[1], scenario: "echo-" + at[0], figure: "cpu_us_per_echo"},
			row{title: "system calls per echo, " + at[1], scenario: "echo-" + at[0], figure: "syscalls_per_echo"},
			row{title: "echo µs at 10,000 a second, p50, " + at[1], scenario: "paced-" + at[0], figure: "latency_us_p50"},
			row{title: "echo µs at 10,000 a second, p99, " + at[1], scenario: "paced-" + at[0], figure: "latency_us_p99"},
		)
	}
	return append(list,
		row{title: "CPU µs per connect and upgrade", scenario: "storm", figure: "cpu_us_per_open"},
		row{title: "upgrades per second", scenario: "storm", figure: "opens_per_second"},
		row{title: "s until all have reconnected at once", scenario: "storm", figure: "reconnect_seconds"},
	)
}

// spreadOf is the row's value for a server, in the table's unit.
func (r *results) spreadOf(line row, server string) (spread, bool) {
	s, ok := r.Scenarios[line.scenario].Servers[server][line.figure]
	if line.divide != 0 {
		s.Median, s.Min, s.Max = s.Median/line.divide, s.Min/line.divide, s.Max/line.divide
	}
	return s, ok
}

// base is what the others are compared with: the product's median in the range of both its turns.
func (r *results) base(line row) (spread, bool) {
	base, ok := r.spreadOf(line, product)
	if control, found := r.spreadOf(line, again); ok && found {
		base.Min, base.Max = min(base.Min, control.Min), max(base.Max, control.Max)
	}
	return base, ok
}

// cell is one server's value: the median, the range, and the marks explained below the table.
func (r *results) cell(line row, server string) string {
	if slices.Contains(r.Scenarios[line.scenario].Withheld[server], line.figure) {
		return "client"
	}
	s, ok := r.spreadOf(line, server)
	if !ok {
		return "–"
	}
	text := number(s.Median)
	if s.Min != s.Max {
		text += " (" + number(s.Min) + "–" + number(s.Max) + ")"
	}
	if base, ok := r.base(line); ok && server != product && server != again && s.overlaps(base) {
		text += " ≈"
	}
	return text
}

// shown lists the servers that have any figure, in the order of the table.
func (r *results) shown() []string {
	names := serverNames()
	names = slices.Insert(names, slices.Index(names, product)+1, again)
	return slices.DeleteFunc(names, func(name string) bool {
		for _, o := range r.Scenarios {
			if len(o.Servers[name]) > 0 {
				return false
			}
		}
		return true
	})
}

// markdown is the page: the table, its legend, what was run.
func (r *results) markdown() string {
	var b strings.Builder
	shown := r.shown()
	b.WriteString("# Pulsewheel beside its peers\n\nWritten by `make bench-peers`; every round's values are in [" + resultsFile + "](" + resultsFile + ").\n\n")
	fmt.Fprintf(&b, "%s, %s, %d cores, %s, %s. Server and load client share the machine, over loopback.\n\n",
		r.Machine.Date, r.Machine.CPU, r.Machine.Cores, r.Machine.System, r.Machine.Go)
	fmt.Fprintf(&b, "![charts](%s)\n\n| |", chartsFile)
	for _, server := range shown {
		fmt.Fprintf(&b, " %s |", server)
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(shown)) + "\n")
	for _, line := range rows() {
		if len(r.Scenarios[line.scenario].Servers) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s |", line.title)
		for _, server := range shown {
			fmt.Fprintf(&b, " %s |", r.cell(line, server))
		}
		b.WriteString("\n")
	}
	b.WriteString("\nMedian (least–most) of the rounds. " + again + " is the same server in a second turn of each round. ≈: the range overlaps that of " +
		"both turns of " + product + ", so the rounds show no difference. " +
		"client: the load client was the limit in at least one round, so there is no figure. –: not measured; " + centrifuge + " speaks a protocol of its own above WebSocket " +
		"and is measured below it, so it has no echo.\n")
	r.appendix(&b)
	return b.String()
}

// appendix says what took part, what was run, and which checks did not hold.
func (r *results) appendix(b *strings.Builder) {
	b.WriteString("\n## What took part\n\n")
	for _, server := range r.shown() {
		if version := r.Versions[server]; version != "" {
			fmt.Fprintf(b, "- %s: %s\n", server, version)
		}
	}
	b.WriteString("\n## What was run\n\n")
	var problems, floors []string
	for _, name := range slices.Sorted(maps.Keys(r.Scenarios)) {
		o := r.Scenarios[name]
		fmt.Fprintf(b, "- %s, %d rounds: `bench compare … %s`\n", name, o.Rounds, strings.Join(o.Args, " "))
		for _, p := range o.Problems {
			problems = append(problems, "- "+name+": "+p)
		}
		for _, line := range o.AtFloor {
			if inTable(name, line) {
				floors = append(floors, "- "+name+": "+line)
			}
		}
	}
	if len(floors) > 0 {
		b.WriteString("\n## Rates that are not told from a floor's\n\n" + strings.Join(floors, "\n") + "\n")
	}
	if len(problems) > 0 {
		slices.Sort(problems)
		b.WriteString("\n## Checks that did not hold\n\n" + strings.Join(slices.Compact(problems), "\n") + "\n")
	}
}

// inTable says whether the table has the figure that a sentence of the harness begins with.
func inTable(scenario, sentence string) bool {
	return slices.ContainsFunc(rows(), func(line row) bool {
		return line.scenario == scenario && strings.HasPrefix(sentence, strings.ReplaceAll(line.figure, "_", " ")+" ")
	})
}

// number keeps three digits or so.
func number(v float64) string {
	switch size := math.Abs(v); {
	case size >= 1000:
		return thousands(int64(math.Round(v)))
	case size >= 100:
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// thousands puts commas into a whole number.
func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
