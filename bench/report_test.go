package main

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestReportIsOneFlatObject: the object has the documented members, and the scenario's own figures beside them.
func TestReportIsOneFlatObject(t *testing.T) {
	r := &report{Scenario: "echo", Target: "ws://x/", Connections: 3, DurationSeconds: 2, LatencyUs: &latencies{P50: 1}, Server: &serverFigures{RSSBytes: 9}}
	r.add("messages", 12)
	r.add("cpu_us_per_echo", math.Inf(1)) // nothing happened
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	for _, key := range []string{"scenario", "target", "connections", "failed", "lost", "duration_seconds", "latency_us", "server", "messages"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %q in %s", key, text)
		}
	}
	if _, ok := got["cpu_us_per_echo"]; ok {
		t.Errorf("a figure of nothing in %s", text)
	}
	for _, key := range []string{"p50", "p90", "p99", "p999", "max"} {
		if _, ok := got["latency_us"].(map[string]any)[key]; !ok {
			t.Errorf("no latency_us.%s in %s", key, text)
		}
	}
}

func TestCausesListsTheMostFrequentFirst(t *testing.T) {
	got := causes("lost", map[string]int{"b": 2, "a": 2, "c": 9})
	want := []string{"lost\t9: c", "lost\t2: a", "lost\t2: b"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestResultsKeepOrderAndFlatten(t *testing.T) {
	r := newResults("echo", []contestant{{name: "a"}, {name: "b"}})
	for i, text := range []string{
		`{"scenario":"echo","lost":0,"latency_us":{"p50":10},"failures":{"x":1},"notes":["n"],"messages":5}`,
		`{"scenario":"echo","lost":1,"latency_us":null,"messages":7,"problems":["1 lost"]}`,
	} {
		if err := r.take(i, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"lost", "latency_us_p50", "messages"}; !slices.Equal(r.keys, want) {
		t.Errorf("keys %q, want %q", r.keys, want)
	}
	if want := []string{"b: 1 lost"}; !slices.Equal(r.problems, want) {
		t.Errorf("problems %q, want %q", r.problems, want)
	}
	var out strings.Builder
	if err := r.table(&out); err != nil || !strings.Contains(out.String(), "–") {
		t.Errorf("%v; a figure that one server lacks is a dash: %s", err, out.String())
	}
	if err := r.take(0, []byte("not json")); err == nil {
		t.Error("taken: not json")
	}
}

func TestCell(t *testing.T) {
	base := spreadOf([]float64{10, 12, 11})
	tests := []struct {
		name   string
		values []float64
		want   string
	}{
		{"clearly more", []float64{22, 23, 21}, "22 [21 … 23] ×2.00"},
		{"overlapping", []float64{12, 13, 14}, "13 [12 … 14] ≈"},
		{"even count", []float64{20, 24}, "22 [20 … 24] ×2.00"},
		{"always the same", []float64{22, 22}, "22 ×2.00"},
		{"nothing", nil, "–"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := cell(spreadOf(tt.values), base, false); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseContestants(t *testing.T) {
	got, err := parseContestants("c=./floor-c --listen {addr}, go=./serve --listen {addr} --set a,b --rate=5")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].name != "c" || got[1].name != "go" {
		t.Fatalf("%v", got)
	}
	if want := []string{"./serve", "--listen", "{addr}", "--set", "a,b", "--rate=5"}; !slices.Equal(got[1].command, want) {
		t.Errorf("%q, want %q", got[1].command, want)
	}
	if _, err := parseContestants("a=x {addr},a=y {addr}"); err == nil {
		t.Error("a name twice was taken")
	}
}

func TestTarget(t *testing.T) {
	tests := []struct {
		name, raw, address, path string
		loopback                 bool
	}{
		{"plain", "ws://127.0.0.1:8080/ws", "127.0.0.1:8080", "/ws?heartbeat=text", true},
		{"default port and path", "ws://127.0.0.1", "127.0.0.1:80", "/?heartbeat=text", true},
		{"query kept", "ws://127.0.0.1:1/ws?a=1", "127.0.0.1:1", "/ws?a=1&heartbeat=text", true},
		{"IPv6", "ws://[::1]:9/ws", "[::1]:9", "/ws?heartbeat=text", false},
		{"elsewhere", "ws://192.0.2.1:9/ws", "192.0.2.1:9", "/ws?heartbeat=text", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options{mode: "text"}
			got, err := parseTarget(tt.raw, o.query())
			if err != nil || got.address != tt.address || got.path != tt.path || got.loopback != tt.loopback {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestGivenSources: the addresses that the caller gave take turns, and are the only ones.
func TestGivenSources(t *testing.T) {
	var l addressList
	if err := l.Set("192.0.2.1, 192.0.2.2"); err != nil || l.String() != "192.0.2.1,192.0.2.2" {
		t.Fatalf("%v, %v", l, err)
	}
	target := target{loopback: true, sources: l}
	for n, want := range map[int]string{0: "192.0.2.1", portsPerSource - 1: "192.0.2.1", portsPerSource: "192.0.2.2", 2 * portsPerSource: "192.0.2.1"} {
		if got := target.source(n).String(); got != want {
			t.Errorf("connection %d from %s, want %s", n, got, want)
		}
	}
	if err := l.Set("192.0.2.1,here"); err == nil {
		t.Error("taken: here")
	}
}

// TestSources: addresses stay in 127.0.0.0/8 outside 127.0.0.0/16, hold portsPerSource connections each, and processes
// with neighbouring ids don't share them.
func TestSources(t *testing.T) {
	owner := map[string]int{}
	for pid := 5000; pid < 5200; pid++ {
		for n := 0; n < 10*portsPerSource; n += portsPerSource {
			a := sourceOf(pid, n)
			b := a.As4()
			if b[0] != 127 || b[1] == 0 || b[2] == 0 || b[3] == 0 || b[3] == 255 {
				t.Fatalf("source %v", a)
			}
			if other, taken := owner[a.String()]; taken {
				t.Fatalf("%v belongs to %d and %d", a, other, pid)
			}
			owner[a.String()] = pid
			if last := sourceOf(pid, n+portsPerSource-1); last != a {
				t.Fatalf("%v and %v within one block", a, last)
			}
		}
	}
}
