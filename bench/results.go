package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// results collects the figures of many runs: per figure and server one value a round.
type results struct {
	scenario string
	servers  []contestant
	keys     []string // in the order in which a run reports them
	values   map[string][][]float64
	problems []string
}

func newResults(scenario string, servers []contestant) *results {
	return &results{scenario: scenario, servers: servers, values: map[string][][]float64{}}
}

// take adds one run's JSON object.
func (r *results) take(server int, text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if err := r.object(d, server, ""); err != nil {
		return err
	}
	var judged struct {
		Problems []string `json:"problems"`
	}
	if err := json.Unmarshal(text, &judged); err != nil {
		return err
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
		case name == "failures" || name == "losses" || name == "ends": // counts by reason, not figures
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
		base := spreadOf(r.values[key][0])
		for i := range r.servers {
			fmt.Fprintf(table, "\t%s", cell(spreadOf(r.values[key][i]), base, i == 0))
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "median [least … most]; ×: ratio of medians to %s; ≈: the ranges overlap, no difference shown\n", r.servers[0].name)
	return err
}

func (r *results) save(name string, stdout io.Writer) error {
	servers := map[string]map[string]spread{}
	for i, s := range r.servers {
		servers[s.name] = map[string]spread{}
		for _, key := range r.keys {
			if sp := spreadOf(r.values[key][i]); len(sp.Values) > 0 {
				servers[s.name][key] = sp
			}
		}
	}
	text, err := json.MarshalIndent(map[string]any{"scenario": r.scenario, "servers": servers, "problems": r.problems}, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if name == "-" {
		_, err = stdout.Write(text)
		return err
	}
	return os.WriteFile(name, text, 0o644)
}
