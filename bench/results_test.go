package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestWithheldFiguresHaveNoMedian: where a round gave no figure since the client was the limit, the other rounds' would be a choice.
func TestWithheldFiguresHaveNoMedian(t *testing.T) {
	r := newResults("echo", []contestant{{name: "a"}, {name: "b"}})
	for i, text := range []string{
		`{"messages_per_second":100,"cpu_us_per_echo":3,"latency_us":{"p50":10,"p99":20}}`,
		`{"messages_per_second":300,"cpu_us_per_echo":4,"latency_us":{"p50":11,"p99":21}}`,
		`{"messages_per_second":110,"cpu_us_per_echo":3,"latency_us":null,"withheld":["latency_us"]}`,
		`{"cpu_us_per_echo":5,"latency_us":{"p50":12,"p99":22},"withheld":["messages_per_second"]}`,
	} {
		if err := r.take(i%2, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := r.table(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cpu us per echo      3", "messages per second  105 [100 … 110]  client", "latency us p99       client"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := r.save("-", &out); err != nil {
		t.Fatal(err)
	}
	var saved struct {
		Servers  map[string]map[string]spread
		Withheld map[string][]string
	}
	if err := json.Unmarshal([]byte(out.String()), &saved); err != nil {
		t.Fatal(err)
	}
	if _, ok := saved.Servers["b"]["messages_per_second"]; ok || !slices.Equal(saved.Withheld["b"], []string{"messages_per_second"}) {
		t.Errorf("%+v", saved)
	}
}

// TestBase: what an unchanged server differs by from itself is no difference when another server does; where one of its turns has no
// figure, the others stand beside the other turn.
func TestBase(t *testing.T) {
	tests := []struct {
		name     string
		control  bool
		withheld []int  // of the servers
		want     string // of the server in between
	}{
		{"without control", false, nil, "15 [14 … 16] ×1.50"},
		{"with control", true, nil, "15 [14 … 16] ≈"},
		{"its own is the client's", true, []int{0}, "15 [14 … 16] ≈"},
		{"its other turn is the client's", true, []int{2}, "15 [14 … 16] ×1.50"},
		{"both are the client's", true, []int{0, 2}, "15 [14 … 16]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newResults("echo", []contestant{{name: "a"}, {name: "b"}, {name: "a-again"}})
			r.control = tt.control
			for i, values := range [][]float64{{9, 10, 11}, {14, 15, 16}, {10, 12, 15}} {
				for _, v := range values {
					r.add("cpu", i, v)
				}
			}
			for _, i := range tt.withheld {
				r.withhold("cpu", i)
			}
			if got := cell(spreadOf(r.values["cpu"][1]), r.base("cpu"), false); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestWants: a turn is taken again for the figures that are wanted, a latency's percentiles among them.
func TestWants(t *testing.T) {
	tests := []struct {
		name    string
		figures []string
		key     string
		want    bool
	}{
		{"any", nil, "latency_us", true},
		{"the very one", []string{"cpu_us_per_echo", "messages_per_second"}, "messages_per_second", true},
		{"a percentile of it", []string{"latency_us_p99"}, "latency_us", true},
		{"another", []string{"cpu_us_per_echo"}, "latency_us", false},
		{"one that begins alike", []string{"latency_usual"}, "latency_us", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := (&comparison{figures: tt.figures}).wants(tt.key); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// TestTurns: in every round each has one turn; nobody is always first, last, or behind the same one.
func TestTurns(t *testing.T) {
	const servers, rounds = 5, 10
	first, behind := map[int]int{}, map[[2]int]int{}
	for round := range rounds {
		order := turnsOf(round, servers)
		seen := map[int]bool{}
		for at, i := range order {
			seen[i] = true
			if at > 0 {
				behind[[2]int{order[at-1], i}]++
			}
		}
		if len(seen) != servers {
			t.Fatalf("round %d: %v", round, order)
		}
		first[order[0]]++
	}
	if len(first) != servers {
		t.Errorf("first were %v", first)
	}
	for pair, n := range behind {
		if n > rounds/2 {
			t.Errorf("%d was behind %d in %d of %d rounds", pair[1], pair[0], n, rounds)
		}
	}
}

// TestRatesAtTheFloor: a server that is no slower than what only moves bytes is not what limits the rate.
func TestRatesAtTheFloor(t *testing.T) {
	r := newResults("echo", []contestant{{name: "floor-c"}, {name: "fast"}, {name: "slow"}})
	for i, values := range [][]float64{{100, 110}, {95, 101}, {60, 70}} {
		for _, v := range values {
			r.add("messages_per_second", i, v)
			r.add("cpu_us_per_echo", i, v)
		}
	}
	r.paced = true
	if got := r.atFloor(); got != nil {
		t.Errorf("%q of a rate that was asked for", got)
	}
	r.paced = false
	got := r.atFloor()
	if len(got) != 1 || !strings.Contains(got[0], "messages per second of fast is not told from that of floor-c") {
		t.Errorf("%q", got)
	}
}

// TestProgress: a bar on a terminal, cleared in the end; elsewhere a line now and then.
func TestProgress(t *testing.T) {
	tests := []struct {
		name     string
		terminal bool
		want     string
	}{
		{"terminal", true, "\r\x1b[K" + "opening                [" + strings.Repeat("#", 15) + strings.Repeat(".", 15) + "]  50 %\r\x1b[K"},
		{"elsewhere", false, "opening: 50 %\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			p := newProgress(&out)
			if p.terminal {
				t.Error("a strings.Builder was taken for a terminal")
			}
			p.terminal = tt.terminal
			if !tt.terminal {
				p.show(0, "opening", 1, 2) // the first of a stage is silent: most stages are over at once
			}
			p.show(plainEvery, "opening", 1, 2)
			p.show(plainEvery, "nothing to do", 0, 0)
			p.done()
			if out.String() != tt.want {
				t.Errorf("%q, want %q", out.String(), tt.want)
			}
		})
	}
}
