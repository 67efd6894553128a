package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// spread is one figure of one server: one value a round, and what is said of them.
type spread struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values"`
}

// overlaps says that the rounds show no difference.
func (s spread) overlaps(other spread) bool { return s.Min <= other.Max && other.Min <= s.Max }

// outcome is one scenario's result: per server and figure a spread.
type outcome struct {
	Rounds     int                          `json:"rounds"`
	Commands   []string                     `json:"commands"` // as a shell takes them; more than one ran at the same time
	Provenance provenance                   `json:"provenance"`
	Servers    map[string]map[string]spread `json:"servers"`
	Withheld   map[string][]string          `json:"withheld,omitempty"` // by server: figures that would be the client's own
	Repeats    map[string]int               `json:"repeats,omitempty"`  // by server: turns taken again because of those
	AtFloor    []string                     `json:"at_floor,omitempty"` // rates that are not told from a floor's
	Problems   []string                     `json:"problems,omitempty"` // checks that did not hold
}

// newOutcome is one to which nothing was joined yet.
func newOutcome(rounds int, p provenance) outcome {
	return outcome{
		Rounds: rounds, Provenance: p,
		Servers: map[string]map[string]spread{}, Withheld: map[string][]string{}, Repeats: map[string]int{},
	}
}

// join adds what one call of the harness has found about its servers.
func (o *outcome) join(part outcome) {
	maps.Copy(o.Servers, part.Servers)
	maps.Copy(o.Withheld, part.Withheld)
	maps.Copy(o.Repeats, part.Repeats)
	o.AtFloor = append(o.AtFloor, part.AtFloor...)
	o.Problems = append(o.Problems, part.Problems...)
}

// results is everything that is kept. A scenario's outcome is replaced as a whole: a ratio means something within one run
// only, so figures of another rotation are not put beside it.
type results struct {
	Scenarios map[string]outcome `json:"scenarios"`
}

// loadResults reads what earlier runs have found; nothing is no error. Files of before have one machine and one set of
// versions for all scenarios, and only a part of the commands. What is not measured any more is dropped: the table has no
// row for it, and a name stands for one way to measure.
func loadResults(name string) (*results, error) {
	r := &results{Scenarios: map[string]outcome{}}
	var file struct {
		Machine   provenance        `json:"machine"`
		Versions  map[string]string `json:"versions"`
		Scenarios map[string]struct {
			outcome
			Args       []string    `json:"args"`
			Provenance *provenance `json:"provenance"`
		} `json:"scenarios"`
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	file.Machine.Versions = file.Versions
	for scenario, found := range file.Scenarios {
		if !slices.Contains(scenarioNames(), scenario) {
			continue
		}
		o := found.outcome
		o.Provenance = file.Machine
		if found.Provenance != nil {
			o.Provenance = *found.Provenance
		}
		if len(o.Commands) == 0 {
			o.Commands = []string{"bench compare … " + strings.Join(found.Args, " ")}
		}
		r.Scenarios[scenario] = o
	}
	return r, nil
}

// save writes one line per server and figure, so that a change is seen where it is.
func (r *results) save(name string) error {
	var b bytes.Buffer
	b.WriteString("{\n  \"scenarios\": {")
	for i, scenario := range slices.Sorted(maps.Keys(r.Scenarios)) {
		o := r.Scenarios[scenario]
		fmt.Fprintf(&b, "%s\n    %q: {", comma(i), scenario)
		for _, field := range []struct {
			name  string
			value any
		}{
			{"rounds", o.Rounds},
			{"commands", o.Commands},
			{"provenance", o.Provenance},
			{"problems", o.Problems},
			{"withheld", o.Withheld},
			{"repeats", o.Repeats},
			{"at_floor", o.AtFloor},
		} {
			fmt.Fprintf(&b, "\n      %q: %s,", field.name, encoded(field.value))
		}
		b.WriteString("\n      \"servers\": {")
		for j, server := range slices.Sorted(maps.Keys(o.Servers)) {
			fmt.Fprintf(&b, "%s\n        %q: {", comma(j), server)
			for k, figure := range slices.Sorted(maps.Keys(o.Servers[server])) {
				fmt.Fprintf(&b, "%s\n          %q: %s", comma(k), figure, encoded(o.Servers[server][figure]))
			}
			b.WriteString("\n        }")
		}
		b.WriteString("\n      }\n    }")
	}
	b.WriteString("\n  }\n}\n")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

func encoded(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // commands are read by people too
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("report: %v of %T", err, v)) // strings and finite numbers only
	}
	return bytes.TrimSpace(b.Bytes())
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}
