package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// adminPatience bounds one question to the admin listener.
	adminPatience = 5 * time.Second
	// adminBytesMax bounds its answer.
	adminBytesMax = 4 << 20
)

var errAdmin = errors.New("the admin listener does not answer as expected")

// admin asks Pulsewheel's admin listener how the server itself sees its connections.
type admin struct {
	base   string
	client *http.Client
}

// adminStats is what is read of /api/v1/stats.
type adminStats struct {
	Active   int            `json:"active"`
	Expired  int            `json:"expired"`
	Closed   map[string]int `json:"closed_by_reason"`
	Rejected map[string]int `json:"rejected_by_reason"`
}

// adminBase is the address of the listener without a path; false if raw is not http://HOST:PORT.
func adminBase(raw string) (string, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", false
	}
	return "http://" + u.Host, true
}

func newAdmin(base string) *admin {
	// A connection for each question: one that is kept would count among the server's descriptors and goroutines at one
	// sample and not at another.
	return &admin{
		base:   base,
		client: &http.Client{Timeout: adminPatience, Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

// get fetches one page.
func (a *admin) get(path string) ([]byte, error) {
	r, err := a.client.Get(a.base + path)
	if err != nil {
		return nil, a.refused(path, err)
	}
	defer r.Body.Close() //nolint:errcheck // it was read
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s%s answers %s", errAdmin, a.base, path, r.Status)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, adminBytesMax))
	if err != nil {
		return nil, fmt.Errorf("%w: %s%s: %w", errAdmin, a.base, path, err)
	}
	return body, nil
}

// refused is the error of a question that was not answered at all.
func (a *admin) refused(path string, err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // the URL is in our own sentence
	}
	return fmt.Errorf("%w: %s%s: %w", errAdmin, a.base, path, err)
}

// stats asks for the counts of connections.
func (a *admin) stats() (adminStats, error) {
	var s adminStats
	body, err := a.get("/api/v1/stats")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("%w: %s/api/v1/stats: %w", errAdmin, a.base, err)
	}
	return s, nil
}

// adminRuntime is what is read of /metrics.
type adminRuntime struct {
	goroutines  int
	heapObjects int // that are in use, right after a collection
}

// runtime has the server collect its garbage and then asks for its goroutines and the objects that are left: what is not
// in use any more but not yet collected would hide a leak, or look like one.
func (a *admin) runtime() (r adminRuntime, err error) {
	if _, err := a.get("/debug/pprof/heap?gc=1"); err != nil {
		return r, err
	}
	body, err := a.get("/metrics")
	if err != nil {
		return r, err
	}
	all := parseMetrics(body, "go_")
	for name, value := range map[string]*int{"goroutines": &r.goroutines, "memstats_heap_objects": &r.heapObjects} {
		n, ok := all[name]
		if !ok {
			return r, fmt.Errorf("%w: %s/metrics has no whole number go_%s", errAdmin, a.base, name)
		}
		*value = n
	}
	return r, nil
}
