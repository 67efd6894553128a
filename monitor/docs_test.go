package monitor

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/server"
)

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every metric of ours and every value of its labels is in docs/metrics.md, and the page tells of none that isn't there.
func TestMetricsAreDocumented(t *testing.T) {
	doc := readText(t, "../docs/metrics.md")
	names := map[string]bool{}
	for _, d := range newCollector(quietMonitor(newFixedSource())).all {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]
		names[name] = true
		if !regexp.MustCompile("`" + name + "[`{]").MatchString(doc) {
			t.Errorf("docs/metrics.md doesn't tell of %s", name)
		}
	}
	for _, found := range regexp.MustCompile("`(pulsewheel_[a-z0-9_]+)").FindAllStringSubmatch(doc, -1) {
		if !names[found[1]] {
			t.Errorf("docs/metrics.md tells of %s, which there isn't", found[1])
		}
	}
	s, err := server.New(server.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stats := s.Stats()
	for reason := range stats.Closed {
		wantRow(t, doc, "Why connections end", reason)
	}
	for reason := range stats.Rejected {
		wantRow(t, doc, "Why handshakes are rejected", reason)
	}
	for _, sign := range overloadSigns() {
		wantRow(t, doc, "Overload", sign)
	}
}

// wantRow looks for a value in the first column of a section's table.
func wantRow(t *testing.T, doc, section, value string) {
	t.Helper()
	_, text, found := strings.Cut(doc, "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	if !found || !strings.Contains(text, "\n| `"+value+"` |") {
		t.Errorf("docs/metrics.md, %s: no row for %s", section, value)
	}
}

// Every alert has its section in the runbook, and every section its alert.
func TestAlertsAreInTheRunbook(t *testing.T) {
	var alerts, sections []string
	for _, found := range regexp.MustCompile(`(?m)^\s+- alert: (\w+)$`).FindAllStringSubmatch(readText(t, "../deploy/prometheus/alerts.yml"), -1) {
		alerts = append(alerts, found[1])
	}
	for _, found := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(readText(t, "../docs/runbook.md"), -1) {
		sections = append(sections, found[1])
	}
	slices.Sort(alerts)
	slices.Sort(sections)
	if len(alerts) == 0 || !slices.Equal(alerts, sections) {
		t.Errorf("alerts %v\nrunbook %v", alerts, sections)
	}
}

// Rules and dashboard ask for metrics that there are.
func TestQueriesNameKnownMetrics(t *testing.T) {
	known := map[string]bool{}
	for _, d := range newCollector(quietMonitor(newFixedSource())).all {
		known[regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	for _, path := range []string{"../deploy/prometheus/rules.yml", "../deploy/prometheus/alerts.yml", "../deploy/grafana/dashboard.json"} {
		for _, name := range regexp.MustCompile(`[a-z_]*:?pulsewheel_[a-z0-9_]+:?`).FindAllString(readText(t, path), -1) {
			if strings.Contains(name, ":") {
				continue // a recorded one
			}
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if !known[name] && !known[base] {
				t.Errorf("%s asks for %s, which there isn't", path, name)
			}
		}
	}
}
