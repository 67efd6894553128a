package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func TestAdminAddress(t *testing.T) {
	tests := []struct {
		name, raw string
		ok        bool
	}{
		{"plain", "http://127.0.0.1:8081", true},
		{"slash", "http://localhost:8081/", true},
		{"path", "http://127.0.0.1:8081/metrics", false},
		{"https", "https://127.0.0.1:8081", false},
		{"no scheme", "127.0.0.1:8081", false},
		{"no host", "http://", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if base, ok := adminBase(tt.raw); ok != tt.ok || ok && strings.TrimRight(tt.raw, "/") != base {
				t.Errorf("%q, %v; want taken: %v", base, ok, tt.ok)
			}
		})
	}
}

// TestAdminAnswers: what the listener says is read; what it should not say is an error of one line.
func TestAdminAnswers(t *testing.T) {
	tests := []struct {
		name           string
		status         int
		stats, metrics string
		statsErr       string
		metricsErr     string
	}{
		{"as documented", 200, `{"active":3,"closed_by_reason":{"end":2}}`, "# HELP go_goroutines x\ngo_goroutines 12\ngo_memstats_heap_objects 1.5e+06\n", "", ""},
		{"not JSON", 200, "<html>", "", "invalid character", "has no whole number go_"},
		{"forbidden", 403, "", "", "403 Forbidden", "403 Forbidden"},
		{"not a number", 200, "{}", "go_goroutines many\ngo_memstats_heap_objects 7\n", "", "has no whole number go_goroutines"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(tt.status)
				if r.URL.Path == "/metrics" {
					_, _ = io.WriteString(w, tt.metrics)
					return
				}
				_, _ = io.WriteString(w, tt.stats)
			}))
			defer s.Close()
			a := newAdmin(s.URL)
			stats, err := a.stats()
			wantError(t, "stats", err, tt.statsErr)
			if tt.name == "as documented" && (stats.Active != 3 || stats.Closed["end"] != 2) {
				t.Errorf("stats %+v", stats)
			}
			r, err := a.runtime()
			wantError(t, "runtime", err, tt.metricsErr)
			if err == nil && (r.goroutines != 12 || r.heapObjects != 1500000) {
				t.Errorf("%+v, want 12 goroutines and 1500000 objects", r)
			}
		})
	}
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err == nil {
		return
	}
	if want == "" || err == nil || !errors.Is(err, errAdmin) || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// TestLookoutKeepsTheMost: a peak between two samples is seen, and a look that failed is counted and not taken for zero.
func TestLookoutKeepsTheMost(t *testing.T) {
	l := &lookout{}
	l.take(look{rss: 10, descriptors: 5, active: 2})
	l.take(look{rss: 30, descriptors: 4, active: 7})
	l.take(look{err: errAdmin})
	l.take(look{rss: 20, descriptors: 3, active: 1})
	if m := l.most; m.rss != 30 || m.descriptors != 5 || m.active != 7 {
		t.Errorf("most %+v", m)
	}
	if l.latest.rss != 20 || l.errs != 1 || !errors.Is(l.err, errAdmin) {
		t.Errorf("latest %+v, %d failed, %v", l.latest, l.errs, l.err)
	}
}

// TestLookoutWatches: looks come by themselves, and none after stop.
func TestLookoutWatches(t *testing.T) {
	l, err := startLookout(&process{pid: os.Getpid()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if k := l.latest; k.rss <= 0 || k.descriptors < 3 || k.active != -1 || k.goroutines != -1 {
		t.Errorf("first look %+v", k)
	}
	select {
	case k := <-l.looks:
		if k.err != nil {
			t.Error(k.err)
		}
	case <-time.After(10 * time.Second):
		t.Error("no look in 10 s")
	}
	l.stop()
	if _, err := startLookout(&process{pid: 1<<31 - 1}, nil); !errors.Is(err, errProcessGone) {
		t.Errorf("nobody there: %v, want %v", err, errProcessGone)
	}
}

func TestDescriptorsAreCounted(t *testing.T) {
	p := process{pid: os.Getpid()}
	before, err := p.descriptors()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if after, err := p.descriptors(); err != nil || after < before+18 || after > before+22 {
		t.Errorf("%d descriptors after 20 more than %d, %v", after, before, err)
	}
}
