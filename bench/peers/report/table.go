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
		{title: "the same, beating every 1 s", scenario: "idle-beating-1s", figure: "bytes_per_connection"},
		{title: "the same, 20 s after one echo on each", scenario: "idle-echo-20s", figure: "bytes_per_connection_after_echo"},
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
		row{title: "ms from a silent peer's deadline to its end, p99", scenario: "churn", figure: "expired_behind_timeout_p99_us", divide: 1000},
		row{title: "CPU µs per connect and upgrade", scenario: "storm", figure: "cpu_us_per_open"},
		row{title: "upgrades per second", scenario: "storm", figure: "opens_per_second"},
		row{title: "s until all have reconnected at once", scenario: "storm", figure: "reconnect_seconds"},
	)
}

// marks are appended to cells and titles; the legend explains them.
const (
	markSame       = " ≈"
	markUncompared = " °"
	markDrift      = " ‡"
)

// withheld says that the load client was the limit of the server's figure.
func (r *results) withheld(line row, server string) bool {
	return slices.Contains(r.Scenarios[line.scenario].Withheld[server], line.figure)
}

// spreadOf is the row's value for a server, in the table's unit.
func (r *results) spreadOf(line row, server string) (spread, bool) {
	s, ok := r.Scenarios[line.scenario].Servers[server][line.figure]
	if !ok || r.withheld(line, server) {
		return spread{}, false
	}
	if line.divide != 0 {
		s.Median, s.Min, s.Max = s.Median/line.divide, s.Min/line.divide, s.Max/line.divide
	}
	return s, true
}

// base is what the others are compared with: the range of both turns of the product, or of the one that has a figure.
// drifted says that the turns don't overlap: the unchanged server differs from itself by more than rounds of one turn do.
func (r *results) base(line row) (base spread, drifted, ok bool) {
	first, hasFirst := r.spreadOf(line, product)
	second, hasSecond := r.spreadOf(line, again)
	switch {
	case !hasFirst:
		return second, false, hasSecond
	case !hasSecond:
		return first, false, true
	}
	drifted = r.Scenarios[line.scenario].Rounds > 1 && !first.overlaps(second) // one round has no range
	first.Min, first.Max = min(first.Min, second.Min), max(first.Max, second.Max)
	return first, drifted, true
}

// heading is the row's first cell.
func (r *results) heading(line row) string {
	if _, drifted, _ := r.base(line); drifted {
		return line.title + markDrift
	}
	return line.title
}

// cell is one server's value: the median, the range, and the marks explained below the table.
func (r *results) cell(line row, server string) string {
	if r.withheld(line, server) {
		return withheldCell
	}
	s, ok := r.spreadOf(line, server)
	if !ok {
		return "–"
	}
	text := number(s.Median)
	if s.Min != s.Max {
		text += " (" + number(s.Min) + "–" + number(s.Max) + ")"
	}
	base, _, ok := r.base(line)
	switch {
	case server == product || server == again:
	case !ok:
		text += markUncompared
	case s.overlaps(base):
		text += markSame
	}
	return text
}

// withheldCell stands where the load client was the limit.
const withheldCell = "client"

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
	for _, g := range r.groups(func(o outcome) string { return o.Provenance.machine() }) {
		fmt.Fprintf(&b, "%s%s.\n", g.value, g.of())
	}
	fmt.Fprintf(&b, "Server and load client share the machine, over loopback.\n\n![charts](%s)\n\n| |", chartsFile)
	for _, server := range shown {
		fmt.Fprintf(&b, " %s |", server)
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(shown)) + "\n")
	for _, line := range rows() {
		if len(r.Scenarios[line.scenario].Servers) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s |", r.heading(line))
		for _, server := range shown {
			fmt.Fprintf(&b, " %s |", r.cell(line, server))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n" + legend)
	r.participants(&b)
	r.calls(&b)
	r.remarks(&b)
	return b.String()
}

// legend explains the table.
const legend = "Median (least–most) of the rounds. " + again + " is the same server in a second turn of each round. A difference is one beyond the ranges of both turns of " +
	product + ", taken together:\n\n" +
	"-" + markSame + ": the range overlaps those, so the rounds show no difference.\n" +
	"-" + markDrift + ": the two turns of the unchanged server have ranges that don't overlap. The machine moved by more than the rounds of one turn tell, so distrust small differences in this row.\n" +
	"-" + markUncompared + ": not compared, since neither turn of " + product + " has a figure there.\n" +
	"- " + withheldCell + ": the load client was the limit in at least one round, so there is no figure.\n" +
	"- –: not measured. " + centrifuge + " speaks a protocol of its own above WebSocket and is measured below it, so it has no echo. The floors and gobwas-epoll " +
	"keep who is silent: the floors understand nothing, and the demonstrations that gobwas-epoll follows have no deadline.\n\n" +
	"A silent peer's deadline is 2 s after its last byte, pings go out every second; a deadline is kept in the way that each library's authors show. coder and ws wait " +
	"for the answer to a ping: one that fell silent before its first ping ends before the 2 s, which counts as no lateness and is listed below. Elsewhere the peers bear silence, and only " +
	product + " pays for expiry.\n\n" +
	"Allocations can't be seen from outside. That a heartbeat, an echoed message and an operation of the timers allocate nothing is shown by\n" +
	"`go test -run '^$' -bench 'Echo|Heartbeat|Wheel|Decode|Encode' -benchmem ./server ./timingwheel ./wsframe`.\n"

// group is a text and the scenarios that have it.
type group struct {
	value     string
	scenarios []string // empty: all
}

// of names the scenarios, where not all have the same text.
func (g group) of() string {
	if len(g.scenarios) == 0 {
		return ""
	}
	return " (" + strings.Join(g.scenarios, ", ") + ")"
}

// groups sorts the scenarios by a text; those without one are left out.
func (r *results) groups(text func(outcome) string) (list []group) {
	for _, name := range slices.Sorted(maps.Keys(r.Scenarios)) {
		value := text(r.Scenarios[name])
		if value == "" {
			continue
		}
		i := slices.IndexFunc(list, func(g group) bool { return g.value == value })
		if i < 0 {
			i, list = len(list), append(list, group{value: value})
		}
		list[i].scenarios = append(list[i].scenarios, name)
	}
	if len(list) == 1 {
		list[0].scenarios = nil
	}
	return list
}

// participants says which version of whom took part.
func (r *results) participants(b *strings.Builder) {
	b.WriteString("\n## What took part\n\n")
	for _, name := range append(serverNames(), harness) {
		var versions []string
		for _, g := range r.groups(func(o outcome) string { return o.Provenance.Versions[name] }) {
			versions = append(versions, g.value+g.of())
		}
		if len(versions) > 0 {
			fmt.Fprintf(b, "- %s: %s\n", name, strings.Join(versions, "; "))
		}
	}
}

// calls says what was run.
func (r *results) calls(b *strings.Builder) {
	b.WriteString("\n## What was run\n")
	for _, name := range slices.Sorted(maps.Keys(r.Scenarios)) {
		o := r.Scenarios[name]
		fmt.Fprintf(b, "\n%s, %s", name, count(o.Rounds, "round"))
		if len(o.Commands) > 1 {
			b.WriteString(", all at the same time")
		}
		var repeats []string
		for _, server := range slices.Sorted(maps.Keys(o.Repeats)) {
			repeats = append(repeats, fmt.Sprintf("%s %d", server, o.Repeats[server]))
		}
		if len(repeats) > 0 {
			fmt.Fprintf(b, "; turns taken again, since the client was the limit: %s", strings.Join(repeats, ", "))
		}
		b.WriteString(":\n\n")
		for _, command := range o.Commands {
			b.WriteString("    " + command + "\n")
		}
	}
}

// remarks says which rates are the client's, and which checks did not hold.
func (r *results) remarks(b *strings.Builder) {
	var problems, floors []string
	for _, name := range slices.Sorted(maps.Keys(r.Scenarios)) {
		o := r.Scenarios[name]
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

// count says how many of a thing.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
