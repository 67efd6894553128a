package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestVerdict: who was the limit follows from what clients and server used of the machine's cores.
func TestVerdict(t *testing.T) {
	spent := func(client, waited, server time.Duration) span {
		return span{to: int64(time.Second), serverCPU: server, client: clientUse{CPU: client, Busiest: client.Seconds(), Waited: waited.Seconds()}}
	}
	const ms = time.Millisecond
	tests := []struct {
		name  string
		sp    span
		cores int
		want  verdict
		note  string
	}{
		{"too short to tell", span{to: int64(20 * ms), client: clientUse{CPU: 40 * ms, Busiest: 2}}, 2, verdict{}, "span took 20ms: too short to tell"},
		{"both at rest", spent(100*ms, 0, 200*ms), 2, verdict{}, ""},
		{"client at its end", spent(950*ms, 0, 300*ms), 2, verdict{client: true}, "the client was the limit (0.95 of a core)"},
		{"server unknown", spent(950*ms, 0, 0), 2, verdict{client: true}, "the client was the limit"},
		{"machine full", spent(980*ms, 0, 950*ms), 2, verdict{machine: true}, "filled the machine"},
		{"two full cores of eight", spent(980*ms, 0, 950*ms), 8, verdict{client: true}, "the client was the limit"},
		{"in turns on one core", spent(480*ms, 490*ms, 510*ms), 2, verdict{machine: true}, "took turns on the same core"},
		{"somebody else", spent(300*ms, 400*ms, 100*ms), 2, verdict{}, "the machine was busy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &report{}
			if got := r.judge(tt.sp, "span", tt.cores); got != tt.want || r.ClientLimited != tt.want.client || r.MachineLimited != tt.want.machine {
				t.Errorf("%+v, want %+v; report %+v", got, tt.want, r)
			}
			if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, tt.note) || tt.note == "" && notes != "" {
				t.Errorf("notes %q, want %q", notes, tt.note)
			}
		})
	}
}

// TestClientsOwnIsWithheld: what a client was the limit of is named and has no number, whenever it was added.
func TestClientsOwnIsWithheld(t *testing.T) {
	tests := []struct {
		name     string
		busiest  float64
		lateness time.Duration // of the client's loop
		withheld []string
	}{
		{"time to spare", 0.3, 100 * time.Microsecond, nil},
		{"busy client", 0.97, 100 * time.Microsecond, []string{"messages_per_second", "latency_us"}},
		{"late client", 0.3, 700 * time.Microsecond, []string{"latency_us"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &report{LatencyUs: &latencies{P99: 1000}}
			s := &session{report: r}
			late := newHistogram()
			late.record(int64(tt.lateness))
			sp := span{to: int64(time.Second), client: clientUse{CPU: 1, Busiest: tt.busiest, Late: late}}
			r.add("messages", 7)
			s.calibrate(sp, dependents{what: "echo", rates: []string{"messages_per_second"}, latencies: []timed{{1000, []string{latencyKey}}}})
			r.add("messages_per_second", 7)
			if !slices.Equal(r.Withheld, tt.withheld) || r.ClientLimited != (tt.withheld != nil) {
				t.Errorf("withheld %q, want %q; client limited: %v", r.Withheld, tt.withheld, r.ClientLimited)
			}
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if has := strings.Contains(string(text), `"messages_per_second":7`); has == slices.Contains(tt.withheld, "messages_per_second") {
				t.Errorf("the rate is there: %v", has)
			}
			if has := r.LatencyUs != nil; has == slices.Contains(tt.withheld, "latency_us") {
				t.Errorf("the latency is there: %v", has)
			}
		})
	}
}

// TestProbesCountWhatIsSleptThrough: a loop that stood still for a second was late for every probe of it.
func TestProbesCountWhatIsSleptThrough(t *testing.T) {
	c := &client{}
	c.startProbes(0)
	c.probe(probeEvery + int64(time.Millisecond))
	c.probe(int64(time.Second) - 1)
	late := c.stopProbes()
	if n, want := late.count(), int64(time.Second)/probeEvery; n != want {
		t.Errorf("%d probes, want %d", n, want)
	}
	if p50 := late.latencies().P50; p50 < 450_000 || p50 > 550_000 {
		t.Errorf("p50 %v µs, want about half a second", p50)
	}
}

// TestHistogramsCrossProcesses: a histogram is the same behind a pipe, and merging loses nothing.
func TestHistogramsCrossProcesses(t *testing.T) {
	a, b, both := newHistogram(), newHistogram(), newHistogram()
	for i := range int64(1000) {
		a.record(i * 1000)
		b.record(i * i * 1000)
		both.record(i * 1000)
		both.record(i * i * 1000)
	}
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var other histogram
	if err := json.Unmarshal(text, &other); err != nil {
		t.Fatal(err)
	}
	a.merge(&other)
	a.merge(nil)
	if a.latencies() != both.latencies() || a.count() != both.count() {
		t.Errorf("%+v of %d, want %+v of %d", a.latencies(), a.count(), both.latencies(), both.count())
	}
	for _, bad := range []string{`"AAAA"`, `7`, `"!"`} {
		if err := json.Unmarshal([]byte(bad), &other); err == nil {
			t.Errorf("%s was taken for a histogram", bad)
		}
	}
}

// TestExcuse: a client that was late itself says so before it blames the server.
func TestExcuse(t *testing.T) {
	late := newHistogram()
	u := clientUse{Late: late}
	if got := u.excuse(time.Second); got != "" {
		t.Errorf("%q without a probe", got)
	}
	late.record(int64(300 * time.Millisecond))
	if got := u.excuse(time.Second); !strings.Contains(got, "300.") {
		t.Errorf("%q, want how late it was", got)
	}
	if got := u.excuse(10 * time.Second); got != "" {
		t.Errorf("%q, want nothing: it was not late for such an interval", got)
	}
}
