package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// countersSettle bounds the wait for a server to have noticed the end of every connection: the 5 s that Pulsewheel gives
	// one that it closes, and as long again for a machine that is busy.
	countersSettle = 10 * time.Second
	// countersQuiet bounds that before a run: what has ended just now is gone by then, and what stays is somebody else's.
	countersQuiet = 2 * time.Second
	// countersEvery is how often it is asked meanwhile.
	countersEvery = 50 * time.Millisecond
	// underWayBytes bounds what one abandoned connection had under way in either direction: a heartbeat or its answer, a control
	// frame or a JSON text of less than its size (RFC 6455, section 5.5).
	underWayBytes = 131
	// answerBytes bounds the answer to an upgrade that was given up.
	answerBytes = 1024
)

// counters are whole numbers that the server tells, by series: the name of the metric without a prefix, and its label.
type counters map[string]int

// countersPrefix begins the names of the metrics that are the server's own.
const countersPrefix = "pulsewheel_"

// parseMetrics reads what /metrics says of names that begin so, in Prometheus' text format. Only whole numbers with one label at most
// are taken: counters and gauges of things, no histograms and no ratios.
func parseMetrics(body []byte, prefix string) counters {
	all := counters{}
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		line, found := strings.CutPrefix(lines.Text(), prefix)
		series, value, ok := cutLast(line, " ")
		if !found || !ok || strings.Contains(series, ",") {
			continue
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil && n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			all[series] = int(n)
		}
	}
	return all
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// counters asks for all of them.
func (a *admin) counters() (counters, error) {
	body, err := a.get("/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(body, countersPrefix), nil
}

// held is how many connections the server has, those included that wait to be accepted or are in their handshake.
func (c counters) held() int { return c["connections"] + c["handshakes"] + c["accept_queue"] }

// isPulsewheel says whether it counts its connections at all, under the names that are compared.
func (c counters) isPulsewheel() bool {
	_, ok := c["connections_opened_total"]
	return ok
}

// byReason are the counters of one metric by the value of its label, the reason.
func (c counters) byReason(name string) map[string]int {
	values := map[string]int{}
	for series, n := range c {
		if value, ok := strings.CutPrefix(series, name+`{reason="`); ok {
			values[strings.TrimSuffix(value, `"}`)] = n
		}
	}
	return values
}

// settled asks until the server holds no connection and two answers in turn are the same but for what goes on by itself, for so
// long at most, and returns the last answer.
func (a *admin) settled(patience time.Duration) (counters, error) {
	ticker := time.NewTicker(countersEvery)
	defer ticker.Stop()
	ended := func(c counters) int {
		return c["connections_opened_total"] + total(c.byReason("connections_closed_total")) + total(c.byReason("handshakes_rejected_total"))
	}
	var last counters
	for until := time.Now().Add(patience); ; <-ticker.C {
		c, err := a.counters()
		if err != nil || time.Now().After(until) || last != nil && c.held() == 0 && ended(c) == ended(last) {
			return c, err
		}
		last = c
	}
}

// audit compares the server's counters with what the harness did.
type audit struct {
	admin    *admin
	before   counters
	compared int
	problems []string
}

// newAudit reads the counters before anything is done. nil if there is nothing to compare with; note says why.
func newAudit(base string) (a *audit, note string, err error) {
	a = &audit{admin: newAdmin(base)}
	if a.before, err = a.admin.settled(countersQuiet); err != nil {
		return nil, "", err
	}
	if !a.before.isPulsewheel() {
		return nil, fmt.Sprintf("%s/metrics has no counters of connections: nothing is compared with them", base), nil
	}
	if n := a.before.held(); n > 0 {
		return nil, fmt.Sprintf("the server has %d connections of others: its counters are not compared", n), nil
	}
	return a, "", nil
}

// anything is the upper bound of what can't be known.
const anything = math.MaxInt

// compare reads the counters again and finds what does not agree with the traffic of all processes.
func (a *audit) compare(t *traffic) error {
	after, err := a.admin.settled(countersSettle)
	if err != nil {
		return err
	}
	if n := after.held(); n > 0 {
		a.problems = append(a.problems, fmt.Sprintf("the server still holds %d connections %v after the last one ended", n, countersSettle))
		return nil
	}
	one := func(series string, least, most int) { a.between(series, after[series]-a.before[series], least, most) }
	one("connections_opened_total", t.Opened, t.Opened+t.Undone)
	a.closed(after, t)
	a.rejected(after, t)
	unread, unheard := 0, 0 // what one direction may have beyond, or lack
	if t.Hostile > 0 {
		unread, unheard = anything, anything
	}
	one(`heartbeats_sent_total{mode="ping"}`, t.Pings, sum(t.Pings, t.Abandoned, unread))
	one(`heartbeats_sent_total{mode="text"}`, t.TextBeats, sum(t.TextBeats, t.Abandoned, unread))
	one(`heartbeats_received_total{mode="pong"}`, t.Pongs-t.Abandoned, t.Pongs)
	one(`heartbeats_received_total{mode="ack"}`, t.Acks-t.Abandoned, t.Acks)
	one(`heartbeats_received_total{mode="text"}`, t.Beats-t.Abandoned, t.Beats)
	one(`heartbeats_received_total{mode="ping"}`, 0, unheard)
	one(`messages_total{direction="in"}`, t.Sent-t.Abandoned, sum(t.Sent, 0, unheard))
	one(`messages_total{direction="out"}`, t.Received, sum(t.Received, t.Abandoned, unread))
	lost := t.Abandoned * underWayBytes
	if t.Hostile > 0 {
		lost = t.BytesSent
	}
	one(`traffic_bytes_total{direction="in"}`, t.BytesSent-lost, t.BytesSent)
	one(`traffic_bytes_total{direction="out"}`, t.BytesReceived, sum(t.BytesReceived, t.Abandoned*underWayBytes+t.Undone*answerBytes, unread))
	return nil
}

// sum adds up a count, its slack, and what may be anything.
func sum(n, slack, beyond int) int {
	if beyond == anything {
		return anything
	}
	return n + slack + beyond
}

// between records a counter that is out of its bounds.
func (a *audit) between(name string, server, least, most int) {
	a.compared++
	least = max(least, 0)
	if server >= least && server <= most {
		return
	}
	harness := strconv.Itoa(least)
	switch {
	case most == anything:
		harness += " or more"
	case most != least:
		harness = fmt.Sprintf("%d to %d", least, most)
	}
	a.problems = append(a.problems, fmt.Sprintf("counter %s%s: the harness counts %s, the server %d", countersPrefix, name, harness, server))
}

// ends are the reasons that each end seen from here may have.
func ends() map[string][]string {
	return map[string][]string{
		endGoodbye: {"client"},
		endLeft:    {"end", "reset"},
		endSilent:  silentReasons(),
		endSlow:    {"slow_consumer"},
		endPolicy:  {"policy"},
		endSize:    {"too_big"},
		endBroken:  {"protocol", "encoding"},
		endKicked:  {"kicked"},
		endRestart: {"drain", "shutdown"},
		endOther:   {"application", "panic"},
	}
}

// closed compares the ends by reason. A connection that ended without a word may be among any of them.
func (a *audit) closed(after counters, t *traffic) {
	const name = "connections_closed_total"
	counts := difference(a.before.byReason(name), after.byReason(name))
	all := ends()
	for _, end := range slices.Sorted(maps.Keys(all)) {
		n := 0
		for _, reason := range all[end] {
			n += counts[reason]
			delete(counts, reason)
		}
		a.between(fmt.Sprintf("%s{reason=%q}", name, strings.Join(all[end], "|")), n, t.Closed[end], t.Closed[end]+t.Unclear+t.Undone)
	}
	for reason, n := range counts {
		a.between(fmt.Sprintf("%s{reason=%q}", name, reason), n, 0, t.Unclear+t.Undone)
	}
}

// rejected compares the refusals, by the statuses that they were answered with. One that was given up may be among any of them.
func (a *audit) rejected(after counters, t *traffic) {
	const name = "handshakes_rejected_total"
	counts := difference(a.before.byReason(name), after.byReason(name))
	seen := 0
	for status, n := range t.Rejected {
		seen += n
		reasons := statusReasons(status)
		have := 0
		for _, reason := range reasons {
			have += counts[reason]
		}
		a.between(fmt.Sprintf("%s{reason=%q}", name, strings.Join(reasons, "|")), have, n, seenWith(t, reasons)+t.Undone)
	}
	a.between(name, total(counts), seen, seen+t.Undone)
}

// seenWith is how many refusals had a status that may stand for one of the reasons.
func seenWith(t *traffic, reasons []string) int {
	n := 0
	for status, seen := range t.Rejected {
		if slices.ContainsFunc(statusReasons(status), func(r string) bool { return slices.Contains(reasons, r) }) {
			n += seen
		}
	}
	return n
}

// fill puts the outcome into the report.
func (a *audit) fill(r *report, t *traffic) {
	r.add("counters_compared", float64(a.compared))
	r.add("opened_in_all", float64(t.Opened))
	r.add("sent_bytes", float64(t.BytesSent))
	r.add("received_bytes", float64(t.BytesReceived))
	for _, p := range a.problems {
		r.require(false, "%s", p)
	}
	if t.Hostile > 0 {
		r.note("what hostile peers sent and left unread can't be compared: of messages, bytes, and the server's beats the counters are only bounded from one side")
	}
}
