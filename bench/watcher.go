package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// observeEvery is how often a watched server is scraped and asked for its connections, as Prometheus at its quickest and an open
	// live page do.
	observeEvery = time.Second
	// The paths of Pulsewheel's admin listener that are watched.
	metricsPath = "/metrics"
	eventsPath  = "/events"
	listPath    = "/api/v1/connections"
)

// sightings are what a watcher got to see.
type sightings struct {
	scrapes, pages, events, bytes int
	err                           error
}

// watcher observes a server as a monitoring system and an operator with an open page do, on goroutines of its own.
type watcher struct {
	base   string
	client *http.Client // connections are kept, as Prometheus and browsers do
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex // guards seen
	seen sightings
}

// watch begins to observe; stop ends it.
func watch(base string) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{base: base, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}}, cancel: cancel}
	w.done.Go(func() { w.regularly(ctx, metricsPath, func(s *sightings) { s.scrapes++ }) })
	w.done.Go(func() { w.regularly(ctx, listPath, func(s *sightings) { s.pages++ }) })
	w.done.Go(func() { w.events(ctx) })
	return w
}

// stop ends it and returns what was seen.
func (w *watcher) stop() sightings {
	w.cancel()
	w.done.Wait()
	w.client.CloseIdleConnections()
	return w.seen
}

// note counts what was seen, or the first error that was not our own ending.
func (w *watcher) note(ctx context.Context, err error, count func(*sightings)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		count(&w.seen)
	case ctx.Err() == nil && w.seen.err == nil:
		w.seen.err = err
	}
}

// regularly fetches one page every so often.
func (w *watcher) regularly(ctx context.Context, path string, count func(*sightings)) {
	ticker := time.NewTicker(observeEvery)
	defer ticker.Stop()
	for {
		n, err := w.fetch(ctx, path)
		w.note(ctx, err, func(s *sightings) {
			count(s)
			s.bytes += int(n)
		})
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// fetch reads one page to its end.
func (w *watcher) fetch(ctx context.Context, path string) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminPatience)
	defer cancel()
	r, err := w.get(ctx, path)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close() //nolint:errcheck // it was read
	return io.Copy(io.Discard, r.Body)
}

// get asks for one path.
func (w *watcher) get(ctx context.Context, path string) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+path, nil)
	if err != nil {
		return nil, err
	}
	r, err := w.client.Do(q)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAdmin, err)
	}
	if r.StatusCode != http.StatusOK {
		_ = r.Body.Close() // its status is the error
		return nil, fmt.Errorf("%w: %s%s answers %s", errAdmin, w.base, path, r.Status)
	}
	return r, nil
}

// events reads the stream of events until the end.
func (w *watcher) events(ctx context.Context) {
	r, err := w.get(ctx, eventsPath)
	if err != nil {
		w.note(ctx, err, nil)
		return
	}
	defer r.Body.Close() //nolint:errcheck // it was read
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, adminBytesMax) // the history is one long line
	for lines.Scan() {
		isEvent := bytes.HasPrefix(lines.Bytes(), []byte("event: "))
		w.note(ctx, nil, func(s *sightings) {
			s.bytes += len(lines.Bytes()) + 1
			if isEvent {
				s.events++
			}
		})
	}
	err = lines.Err()
	if err == nil {
		err = fmt.Errorf("%w: %s%s ended", errAdmin, w.base, eventsPath)
	}
	w.note(ctx, err, func(*sightings) {})
}
