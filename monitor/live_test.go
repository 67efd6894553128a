package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// listen opens /events and returns what comes, event by event.
func listen(t *testing.T, addr net.Addr) (next func() (name string, data map[string]any), leave func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+"/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("status %s, type %s", res.Status, res.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(res.Body)
	next = func() (name string, data map[string]any) {
		t.Helper()
		for lines.Scan() {
			line := lines.Text()
			switch {
			case strings.HasPrefix(line, "event: "):
				name = line[len("event: "):]
			case strings.HasPrefix(line, "data: "):
				_ = json.Unmarshal([]byte(line[len("data: "):]), &data) // the history is a list
			case line == "":
				return name, data
			}
		}
		return "", nil
	}
	return next, func() { cancel(); _ = res.Body.Close() }
}

// A page gets the history, then a snapshot a second, for as long as it likes; the making of snapshots ends with the last one.
func TestLive(t *testing.T) {
	source := newFixedSource()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{Version: "v9", Logger: slog.New(slog.DiscardHandler)}, source)
	m.http.ReadTimeout = 500 * time.Millisecond // what bounds other requests must not end this one
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	m.live.remember(source.Stats(), &beatRate{})
	next, leave := listen(t, l.Addr())
	if name, _ := next(); name != "history" {
		t.Errorf("the first event is %q", name)
	}
	for range 3 {
		name, data := next()
		if name != "stats" || data["active"] != 7.0 || data["version"] != "v9" || data["overloaded"] != false {
			t.Errorf("%s %v", name, data)
		}
	}
	other, leaveToo := listen(t, l.Addr())
	if name, _ := other(); name != "history" {
		t.Errorf("the second page's first event is %q", name)
	}
	leave()
	leaveToo()
	eventually(t, "nobody listens", func() bool {
		m.live.mu.Lock()
		defer m.live.mu.Unlock()
		return len(m.live.listeners) == 0 && !m.live.running
	})
	again, leaveAgain := listen(t, l.Addr())
	again()
	if name, _ := again(); name != "stats" {
		t.Errorf("after a pause: %q", name)
	}
	// Shutdown doesn't wait for pages.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	leaveAgain()
}

func TestLiveIsBounded(t *testing.T) {
	m := quietMonitor(newFixedSource())
	for range listenersMax {
		if _, ok := m.live.join(); !ok {
			t.Fatal("refused within the bound")
		}
	}
	if _, ok := m.live.join(); ok {
		t.Error("one too many was let in")
	}
	r := httptest.NewRequest(http.MethodGet, "/events", http.NoBody)
	r.Host = "localhost"
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Connection") != "close" || w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d, header %v", w.Code, w.Header())
	}
	m.live.end()
}

func TestHistoryIsBounded(t *testing.T) {
	m := quietMonitor(newFixedSource())
	rate := beatRate{}
	for i := range 3 * historyPoints {
		m.live.remember(server.Stats{Uptime: time.Duration(i) * time.Second, Active: int64(i)}, &rate)
	}
	if n := len(m.live.history); n != historyPoints || m.live.history[n-1].Active != 3*historyPoints-1 {
		t.Errorf("%d points", n)
	}
}

// The page tells what ended within the last minute, whenever it was opened.
func TestRecentEnds(t *testing.T) {
	tests := []struct {
		name            string
		readings        []int // seconds of uptime; at each as many connections had ended
		at              int
		seconds         float64
		closed          uint64
		readingsAreLess bool // the oldest are forgotten
	}{
		{"nothing was read", nil, 30, 30, 30, false},
		{"since the start", []int{0, 5, 10}, 12, 12, 12, false},
		{"a minute", []int{0, 5, 10, 15, 20}, 78, 63, 63, false},
		{"exactly a minute", []int{0, 5, 10}, 70, 60, 60, false},
		{"reading began late", []int{1000, 1005}, 1010, 10, 10, false},
		{"many readings", []int{0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90}, 94, 64, 64, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := quietMonitor(newFixedSource()).live
			at := func(seconds int) server.Stats {
				return server.Stats{Uptime: time.Duration(seconds) * time.Second, Closed: map[string]uint64{"end": uint64(seconds), "kicked": 1}}
			}
			for _, seconds := range test.readings {
				l.rememberEnds(at(seconds))
			}
			got := l.recent(at(test.at))
			delete(got.Closed, "kicked") // there where the start is within the minute
			if got.Seconds != test.seconds || len(got.Closed) != 1 || got.Closed["end"] != test.closed {
				t.Errorf("%+v, want %d in %v s", got, test.closed, test.seconds)
			}
			if less := len(l.ends) < len(test.readings); less != test.readingsAreLess {
				t.Errorf("%d of %d readings are kept", len(l.ends), len(test.readings))
			}
		})
	}
}

// Round trips on the page are those of the last seconds.
func TestRecentQuantiles(t *testing.T) {
	var window []server.Histogram
	h := server.Histogram{Bounds: []float64{0.001, 0.01}, Counts: []uint64{1000, 0, 0}}
	if q := recentQuantiles(&window, h); q["p50"] != nil {
		t.Errorf("the first reading has a median: %v", *q["p50"])
	}
	h.Counts = []uint64{1000, 10, 0}
	if q := recentQuantiles(&window, h); q["p50"] == nil || *q["p50"] != 5.5 {
		t.Errorf("median %v, want 5.5 ms", q["p50"])
	}
	for range liveWindow + 1 {
		recentQuantiles(&window, h)
	}
	if q := recentQuantiles(&window, h); q["p50"] != nil || len(window) != liveWindow+1 {
		t.Errorf("old round trips are still there, window %d", len(window))
	}
}

func TestQuantile(t *testing.T) {
	h := server.Histogram{Bounds: []float64{1, 2, 4}, Counts: []uint64{10, 10, 0, 5}}
	tests := []struct {
		name    string
		h       server.Histogram
		q, want float64
		known   bool
	}{
		{"empty", server.Histogram{}, 0.5, 0, false},
		{"nothing observed", server.Histogram{Bounds: []float64{1}, Counts: []uint64{0, 0}}, 0.5, 0, false},
		{"within the first", h, 0.2, 0.5, true},
		{"within the second", h, 0.6, 1.5, true},
		{"beyond the last", h, 0.99, 4, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, known := quantile(test.h, test.q); got != test.want || known != test.known {
				t.Errorf("%v, %v; want %v, %v", got, known, test.want, test.known)
			}
		})
	}
}

// The runtime's charts come over a WebSocket that the library never closes: whoever leaves gives the place back, and so does Shutdown.
func TestRuntimeCharts(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := quietMonitor(newFixedSource())
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	open := func() int {
		m.charts.mu.Lock()
		defer m.charts.mu.Unlock()
		return len(m.charts.conns)
	}
	first := dialWebSocket(t, l.Addr().String(), "/debug/statsviz/ws")
	if op, payload := first.next(); op != wsframe.Text || !strings.HasPrefix(payload, `{"event":"config"`) {
		t.Errorf("first message %v %.80s", op, payload)
	}
	for range chartsMax - 1 {
		dialWebSocket(t, l.Addr().String(), "/debug/statsviz/ws")
	}
	eventually(t, "all open", func() bool { return open() == chartsMax })
	for range 2 * connectionsMax { // a crowd takes no chart's place
		dialRaw(t, l.Addr(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	promptly(t, l.Addr(), "charts")
	for range 2 {
		first.next()
	}
	if n := open(); n != chartsMax {
		t.Errorf("%d charts are left of %d", n, chartsMax)
	}
	got := ask(t, l.Addr(), "GET", "/debug/statsviz/ws")
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("one too many: status %d, header %v", got.status, got.header)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the place of who left", func() bool { return open() == chartsMax-1 })
	for range 2 * chartsMax {
		if got := ask(t, l.Addr(), "GET", "/debug/statsviz/ws"); got.status != http.StatusBadRequest {
			t.Fatalf("no request for a WebSocket: status %d, want 400: it took a place", got.status)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	eventually(t, "all closed", func() bool { return open() == 0 })
	http.DefaultClient.CloseIdleConnections()
}
