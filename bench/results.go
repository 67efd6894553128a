package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// results collects the figures of many runs: per figure and server one value a round.
type results struct {
	scenario string
	servers  []contestant
	control  bool     // the last server is the first once more
	paced    bool     // the rate was asked for, so that it says nothing
	keys     []string // in the order in which a run reports them
	values   map[string][][]float64
	withheld map[string][]int // per figure and server: in how many rounds it would have been the client's own
	repeats  []int            // per server: turns taken again since the client was the limit
	problems []string
}

func newResults(scenario string, servers []contestant) *results {
	return &results{
		scenario: scenario, servers: servers, values: map[string][][]float64{}, withheld: map[string][]int{}, repeats: make([]int, len(servers)),
	}
}

// take adds one run's JSON object.
func (r *results) take(server int, text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if err := r.object(d, server, ""); err != nil {
		return err
	}
	var judged struct {
		Problems []string `json:"problems"`
		Withheld []string `json:"withheld"`
	}
	if err := json.Unmarshal(text, &judged); err != nil {
		return err
	}
	for _, key := range judged.Withheld {
		r.withhold(key, server)
	}
	for _, p := range judged.Problems {
		r.problems = append(r.problems, r.servers[server].name+": "+p)
	}
	return nil
}

// object reads one object token by token, since a map would lose the order of its figures.
func (r *results) object(d *json.Decoder, server int, prefix string) error {
	if _, err := d.Token(); err != nil { // its opening brace
		return err
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string) // keys are strings
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		var number float64
		switch {
		case name == "failures" || name == "losses" || name == "ends" || name == "run": // counts by reason, and where it ran: not figures
		case raw[0] == '{':
			if err := r.object(json.NewDecoder(bytes.NewReader(raw)), server, prefix+name+"_"); err != nil {
				return err
			}
		case json.Unmarshal(raw, &number) == nil && string(raw) != "null":
			r.add(prefix+name, server, number)
		}
	}
	return nil
}

func (r *results) add(key string, server int, value float64) {
	if r.values[key] == nil {
		r.keys = append(r.keys, key)
		r.values[key] = make([][]float64, len(r.servers))
	}
	r.values[key][server] = append(r.values[key][server], value)
}

// withhold notes that a run gave no such figure, because the client was the limit.
func (r *results) withhold(key string, server int) {
	if key == latencyKey {
		for _, part := range []string{"p50", "p90", "p99", "p999", "max"} {
			r.withhold(latencyKey+"_"+part, server)
		}
		return
	}
	if r.withheld[key] == nil {
		r.withheld[key] = make([]int, len(r.servers))
	}
	r.withheld[key][server]++
	if r.values[key] == nil {
		r.keys = append(r.keys, key)
		r.values[key] = make([][]float64, len(r.servers))
	}
}

// isWithheld says whether any round gave no such figure: the median of the others would be that of a choice.
func (r *results) isWithheld(key string, server int) bool {
	return r.withheld[key] != nil && r.withheld[key][server] > 0
}

// floors are the contestants that only move bytes. A server whose rate can't be told from theirs is not what limits it.
func (r *results) floors() (list []int) {
	for i, s := range r.servers {
		if strings.HasPrefix(s.name, floorName) {
			list = append(list, i)
		}
	}
	return list
}

// floorName begins the name of a contestant that is a floor.
const floorName = "floor"

// rateKeys are the figures of which more is better and which a client can be the limit of.
func rateKeys() []string { return []string{"messages_per_second", "opens_per_second"} }

// atFloor lists what is not told from a floor: for these rates the client or the machine is the limit, not the server.
func (r *results) atFloor() (lines []string) {
	if r.paced {
		return nil
	}
	for _, key := range rateKeys() {
		for i, s := range r.servers {
			if r.values[key] == nil || len(r.values[key][i]) == 0 || strings.HasPrefix(s.name, floorName) {
				continue
			}
			own := spreadOf(r.values[key][i])
			for _, floor := range r.floors() {
				if f := spreadOf(r.values[key][floor]); len(f.Values) > 0 && own.Max >= f.Min {
					lines = append(lines, fmt.Sprintf("%s of %s is not told from that of %s: the client or the machine is the limit there",
						strings.ReplaceAll(key, "_", " "), s.name, r.servers[floor].name))
					break
				}
			}
		}
	}
	return lines
}

// spread is what is said of one figure of one server.
type spread struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values"`
}

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return spread{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	return spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], Values: values}
}

// base is what the others are compared with: the first server's median, in the range of all its turns, those of the control
// included. An unchanged server that differs from itself so much shows no difference when another does. Where one of the two
// has no figure the other stands alone.
func (r *results) base(key string) spread {
	turns := []int{0}
	if r.control {
		turns = append(turns, len(r.servers)-1)
	}
	var base spread
	for _, i := range turns {
		turn := spreadOf(r.values[key][i])
		switch {
		case len(turn.Values) == 0 || r.isWithheld(key, i):
		case len(base.Values) == 0:
			base = turn
		default:
			base.Min, base.Max = min(base.Min, turn.Min), max(base.Max, turn.Max)
		}
	}
	return base
}

// cell prints a spread, and how it stands to the first server's: a ratio of medians, or ≈ if the ranges overlap, because
// then the rounds do not show a difference.
func cell(s, base spread, isBase bool) string {
	if len(s.Values) == 0 {
		return "–"
	}
	text := number(s.Median)
	if s.Min != s.Max {
		text += fmt.Sprintf(" [%s … %s]", number(s.Min), number(s.Max))
	}
	switch {
	case isBase || len(base.Values) == 0 || base.Median == 0 || s.Median == base.Median:
	case s.Min <= base.Max && base.Min <= s.Max:
		text += " ≈"
	default:
		text += fmt.Sprintf(" ×%.2f", s.Median/base.Median)
	}
	return text
}

// publish prints the table, saves the object, and fails if a run's check did.
func (r *results) publish(jsonFile string, stdout io.Writer) error {
	if jsonFile != "-" {
		if err := r.table(stdout); err != nil {
			return err
		}
	}
	if jsonFile != "" {
		if err := r.save(jsonFile, stdout); err != nil {
			return err
		}
	}
	if len(r.problems) > 0 {
		return fmt.Errorf("%w: %s", errCheck, strings.Join(r.problems, "; "))
	}
	return nil
}

func (r *results) table(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rounds := 0
	for _, perServer := range r.values {
		rounds = max(rounds, len(perServer[0]))
	}
	fmt.Fprintf(table, "%s, rounds: %d", r.scenario, rounds)
	for _, s := range r.servers {
		fmt.Fprintf(table, "\t%s", s.name)
	}
	fmt.Fprintln(table)
	for _, key := range r.keys {
		fmt.Fprint(table, strings.ReplaceAll(key, "_", " "))
		base := r.base(key)
		for i := range r.servers {
			if r.isWithheld(key, i) {
				fmt.Fprint(table, "\tclient")
				continue
			}
			fmt.Fprintf(table, "\t%s", cell(spreadOf(r.values[key][i]), base, i == 0))
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, line := range r.atFloor() {
		fmt.Fprintln(w, line)
	}
	_, err := fmt.Fprintf(w, "median [least … most]; ×: ratio of medians to %s; ≈: the ranges overlap, no difference shown; client: it was the limit, so there is no figure\n", r.servers[0].name)
	return err
}

func (r *results) save(name string, stdout io.Writer) error {
	servers := map[string]map[string]spread{}
	for i, s := range r.servers {
		servers[s.name] = map[string]spread{}
		for _, key := range r.keys {
			if sp := spreadOf(r.values[key][i]); len(sp.Values) > 0 && !r.isWithheld(key, i) {
				servers[s.name][key] = sp
			}
		}
	}
	withheld := map[string][]string{}
	repeats := map[string]int{}
	for i, s := range r.servers {
		if r.repeats[i] > 0 {
			repeats[s.name] = r.repeats[i]
		}
		for _, key := range r.keys {
			if r.isWithheld(key, i) {
				withheld[s.name] = append(withheld[s.name], key)
			}
		}
	}
	return save(map[string]any{
		"scenario": r.scenario, "servers": servers, "withheld": withheld, "repeats": repeats, "at_floor": r.atFloor(), "problems": r.problems,
	}, name, stdout)
}
