package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
)

// figure is one number of a scenario's own. Its key is its name in the JSON object, with the unit last.
type figure struct {
	key   string
	value float64
}

// serverFigures are the server's memory at the end and its CPU time over the measured span.
type serverFigures struct {
	RSSBytes    int64   `json:"rss_bytes"`
	CPUSeconds  float64 `json:"cpu_seconds"`
	UserSeconds float64 `json:"user_seconds"`
}

// report is the result of a scenario.
type report struct {
	Scenario        string                    `json:"scenario"`
	Target          string                    `json:"target"`
	Connections     int                       `json:"connections"`
	Failed          int                       `json:"failed"`
	Lost            int                       `json:"lost"`
	DurationSeconds float64                   `json:"duration_seconds,omitempty"` // of the measured span; 0: none was completed
	LatencyUs       *latencies                `json:"latency_us"`
	Server          *serverFigures            `json:"server"`
	ClientLimited   bool                      `json:"client_limited"`
	MachineLimited  bool                      `json:"machine_limited"`
	Withheld        []string                  `json:"withheld,omitempty"` // figures that would be the client's own
	Failures        map[string]int            `json:"failures,omitempty"` // why opens failed, how often
	Losses          map[string]int            `json:"losses,omitempty"`   // why connections were lost, how often
	Ends            map[string]map[string]int `json:"ends,omitempty"`     // how hostile peers ended, by kind, how often
	Notes           []string                  `json:"notes,omitempty"`    // what could not be measured, and why
	Problems        []string                  `json:"problems,omitempty"` // what the check found; none: it holds
	Run             *provenance               `json:"run,omitempty"`
	latencyOf       string                    // what LatencyUs is about, for people
	figures         []figure                  // in the order in which they are printed
	comments        map[string]string
}

// add appends one of the scenario's own figures; not-a-number (nothing happened) is left out, and so is what is withheld.
func (r *report) add(key string, value float64) {
	if !math.IsNaN(value) && !math.IsInf(value, 0) && !slices.Contains(r.Withheld, key) {
		r.figures = append(r.figures, figure{key, value})
	}
}

// comment puts words beside a figure in the summary.
func (r *report) comment(key, format string, args ...any) {
	if r.comments == nil {
		r.comments = map[string]string{}
	}
	r.comments[key] = fmt.Sprintf(format, args...)
}

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// latencyKey names LatencyUs among the figures.
const latencyKey = "latency_us"

// withhold takes figures out of the report, those too that are added later, and names them instead.
func (r *report) withhold(keys ...string) {
	for _, key := range keys {
		if !slices.Contains(r.Withheld, key) {
			r.Withheld = append(r.Withheld, key)
		}
		if key == latencyKey {
			r.LatencyUs = nil
		}
	}
	r.figures = slices.DeleteFunc(r.figures, func(f figure) bool { return slices.Contains(keys, f.key) })
}

// require records a broken check.
func (r *report) require(holds bool, format string, args ...any) {
	if !holds {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// MarshalJSON makes one flat object: the common fields first, then the scenario's own.
func (r *report) MarshalJSON() ([]byte, error) {
	type plain report // without this method
	common, err := json.Marshal((*plain)(r))
	if err != nil {
		return nil, err
	}
	text := common[:len(common)-1]
	for _, f := range r.figures {
		number, err := json.Marshal(rounded(f.value))
		if err != nil {
			return nil, err
		}
		text = fmt.Appendf(text, ",%q:%s", f.key, number)
	}
	return append(text, '}'), nil
}

// rounded keeps what a measurement can mean.
func rounded(v float64) float64 { return math.Round(v*1000) / 1000 }

// publish prints the summary, saves the object, and fails if the check did.
func (r *report) publish(jsonFile string, stdout io.Writer) error {
	r.Run = thisRun()
	if jsonFile != "-" { // with the object on standard output nothing else may be there
		if err := r.summary(stdout); err != nil {
			return err
		}
	}
	if jsonFile != "" {
		if err := save(r, jsonFile, stdout); err != nil {
			return err
		}
	}
	if len(r.Problems) > 0 {
		return fmt.Errorf("%w: %s", errCheck, strings.Join(r.Problems, "; "))
	}
	return nil
}

// save writes the result as one JSON object to a file, or to stdout for "-".
func save(result any, name string, stdout io.Writer) error {
	text, err := json.MarshalIndent(result, "", "  ")
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

// checkWritable tries whether a result can be saved, before minutes are spent on one. It leaves no file where there was none.
func checkWritable(name string) error {
	if name == "" || name == "-" {
		return nil
	}
	_, missing := os.Stat(name)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		err = f.Close()
	}
	if err == nil && missing != nil {
		err = os.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("%w: --json: %w", errUsage, err)
	}
	return nil
}

// summary prints the result for people.
func (r *report) summary(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\t%s\n", r.Scenario, r.Target)
	fmt.Fprintf(table, "connections\t%d opened, %d failed, %d lost\n", r.Connections, r.Failed, r.Lost)
	if r.DurationSeconds > 0 {
		fmt.Fprintf(table, "measured\t%.2f s\n", r.DurationSeconds)
	}
	if l := r.LatencyUs; l != nil {
		fmt.Fprintf(table, "%s\tp50 %s, p90 %s, p99 %s, p99.9 %s, max %s\n", r.latencyOf, us(l.P50), us(l.P90), us(l.P99), us(l.P999), us(l.Max))
	}
	for _, f := range r.figures {
		fmt.Fprintf(table, "%s\t%s\t%s\n", strings.ReplaceAll(f.key, "_", " "), number(f.value), r.comments[f.key])
	}
	if s := r.Server; s != nil {
		fmt.Fprintf(table, "server\t%.1f MiB resident, %.3f s CPU (%.2f in user mode)\n", float64(s.RSSBytes)/(1<<20), s.CPUSeconds, s.UserSeconds)
	}
	for _, line := range causes("failed", r.Failures) {
		fmt.Fprintln(table, line)
	}
	for _, line := range causes("lost", r.Losses) {
		fmt.Fprintln(table, line)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Ends)) {
		for _, line := range causes(kind, r.Ends[kind]) {
			fmt.Fprintln(table, line)
		}
	}
	if len(r.Withheld) > 0 {
		fmt.Fprintf(table, "withheld\tthe client was the limit of: %s\n", strings.ReplaceAll(strings.Join(r.Withheld, ", "), "_", " "))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(table, "note\t%s\n", n)
	}
	return table.Flush()
}

// causesShown bounds the lines about why connections failed.
const causesShown = 5

// causes lists why connections failed, the most frequent first.
func causes(what string, counts map[string]int) []string {
	var names []string
	for name := range counts {
		names = append(names, name)
	}
	sort.Slice(names, func(a, b int) bool {
		if counts[names[a]] != counts[names[b]] {
			return counts[names[a]] > counts[names[b]]
		}
		return names[a] < names[b]
	})
	var lines []string
	for _, name := range names[:min(len(names), causesShown)] {
		lines = append(lines, fmt.Sprintf("%s\t%d: %s", what, counts[name], name))
	}
	return lines
}

// us prints microseconds with the unit that suits them.
func us(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f s", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.2f ms", v/1e3)
	}
	return fmt.Sprintf("%.0f µs", v)
}

// number prints large ones whole and small ones with what matters of their fraction.
func number(v float64) string {
	switch {
	case v == math.Trunc(v) || math.Abs(v) >= 1000:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
