package main

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
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
	Rounds   int                          `json:"rounds"`
	Args     []string                     `json:"args"` // of the harness' scenario
	Servers  map[string]map[string]spread `json:"servers"`
	Withheld map[string][]string          `json:"withheld,omitempty"` // by server: figures that would be the client's own
	AtFloor  []string                     `json:"at_floor,omitempty"` // rates that are not told from a floor's
	Problems []string                     `json:"problems,omitempty"` // checks that did not hold
}

// machine is where and when the latest scenario was measured.
type machine struct {
	Date   string `json:"date"`
	System string `json:"system"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Go     string `json:"go"`
}

// results is everything that is kept.
type results struct {
	Machine   machine            `json:"machine"`
	Versions  map[string]string  `json:"versions"`
	Scenarios map[string]outcome `json:"scenarios"`
}

// loadResults reads what earlier runs have found; nothing is no error.
func loadResults(name string) (*results, error) {
	r := &results{}
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if r.Scenarios == nil {
		r.Scenarios = map[string]outcome{}
	}
	if r.Versions == nil {
		r.Versions = map[string]string{}
	}
	return r, nil
}

// take keeps a scenario's outcome instead of an earlier one's. Figures of another rotation are not put beside it: a ratio
// means something within one run only.
func (r *results) take(name string, found outcome) { r.Scenarios[name] = found }

// save writes one line per server and figure, so that a change is seen where it is.
func (r *results) save(name string) error {
	var b bytes.Buffer
	enc := func(v any) []byte {
		text, err := json.Marshal(v)
		if err != nil {
			panic(fmt.Sprintf("report: %v of %T", err, v)) // strings and finite numbers only
		}
		return text
	}
	fmt.Fprintf(&b, "{\n  \"machine\": %s,\n  \"versions\": %s,\n  \"scenarios\": {", enc(r.Machine), enc(r.Versions))
	for i, sc := range slices.Sorted(maps.Keys(r.Scenarios)) {
		o := r.Scenarios[sc]
		fmt.Fprintf(&b, "%s\n    %q: {\n      \"rounds\": %d,\n      \"args\": %s,\n", comma(i), sc, o.Rounds, enc(o.Args))
		fmt.Fprintf(&b, "      \"problems\": %s,\n", enc(append([]string{}, o.Problems...)))
		fmt.Fprintf(&b, "      \"withheld\": %s,\n      \"at_floor\": %s,\n      \"servers\": {", enc(o.Withheld), enc(append([]string{}, o.AtFloor...)))
		for j, server := range slices.Sorted(maps.Keys(o.Servers)) {
			fmt.Fprintf(&b, "%s\n        %q: {", comma(j), server)
			for k, figure := range slices.Sorted(maps.Keys(o.Servers[server])) {
				fmt.Fprintf(&b, "%s\n          %q: %s", comma(k), figure, enc(o.Servers[server][figure]))
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

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// thisMachine describes where the figures come from. What can't be found out is left empty.
func thisMachine() machine {
	m := machine{Date: time.Now().Format(time.DateOnly), System: runtime.GOOS + " " + runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version()}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-") // without the builder's suffix
		m.System += " " + version
	}
	info, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return m
	}
	defer info.Close() //nolint:errcheck // it was only read
	for lines := bufio.NewScanner(info); lines.Scan(); {
		if name, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			return m
		}
	}
	return m
}

// takeVersions notes which release of its library each peer was built with.
func (r *results) takeVersions(o options) {
	for _, s := range servers() {
		if !slices.Contains(o.servers, s.name) || s.module == "" {
			continue
		}
		info, err := buildinfo.ReadFile(o.file(s.name))
		if err != nil {
			continue // it has just run, and a version is no reason to lose its figures
		}
		for _, dep := range info.Deps {
			if dep.Path == s.module {
				r.Versions[s.name] = s.module + " " + dep.Version
			}
		}
	}
	if slices.Contains(o.servers, "ws") {
		r.Versions["ws"] = "npm ws " + npmVersion(filepath.Join(o.node, "node_modules", "ws", "package.json")) + ", node " + nodeVersion()
	}
}

func npmVersion(file string) string {
	var about struct {
		Version string `json:"version"`
	}
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &about) != nil {
		return "of unknown version"
	}
	return about.Version
}

func nodeVersion() string {
	text, err := exec.Command("node", "--version").Output()
	if err != nil {
		return "of unknown version"
	}
	return strings.TrimSpace(string(text))
}
