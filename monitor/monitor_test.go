package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// fixedSource has known figures, which a real server at work doesn't.
type fixedSource struct {
	mu    sync.Mutex
	stats server.Stats
	ready error
}

func (f *fixedSource) Stats() server.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

func (f *fixedSource) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready
}

// noKernel knows nothing about the machine that the test runs on.
func noKernel() kernel {
	return kernel{read: func(string) ([]byte, error) { return nil, errors.ErrUnsupported }}
}

// change edits the figures.
func (f *fixedSource) change(edit func(*fixedSource)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(f)
}

func newFixedSource() *fixedSource {
	return &fixedSource{stats: server.Stats{
		Active: 7, Handshakes: 2, Limit: 1000, Total: 19, Expired: 3,
		Rejected:           map[string]uint64{"origin": 4, "limit": 1},
		Closed:             map[string]uint64{"expired": 3, "client": 9},
		HeartbeatsSent:     map[string]uint64{"ping": 40, "text": 2},
		HeartbeatsReceived: map[string]uint64{"ping": 5, "pong": 39, "text": 6, "ack": 1},
		MessagesIn:         11, MessagesOut: 12, BytesIn: 130, BytesOut: 140, BatchesLoop: 15, BatchesPool: 16, Panics: 1,
		LoopConnections: []int64{3, 4},
		RTT:             server.Histogram{Bounds: []float64{0.001, 0.01}, Counts: []uint64{5, 2, 1}, Sum: 0.5},
		WheelLateness:   server.Histogram{Bounds: []float64{0.001}, Counts: []uint64{8, 0}, Sum: 0.002},
		Node:            "n1", Uptime: 90 * time.Second,
	}}
}

// syncBuffer is a log that goroutines write and the test reads.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns the log's records, each as its members.
func (b *syncBuffer) lines(t *testing.T) (records []map[string]any) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		records = append(records, record)
	}
	return records
}

// pass lets the fake time of a synctest bubble go by, and what it wakes run.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func newJSONLogger(b *syncBuffer) *slog.Logger { return slog.New(slog.NewJSONHandler(b, nil)) }

// The line comes at its interval with the attributes that scripts rely on, and the rate is that of the interval before.
func TestRunWritesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, out := newFixedSource(), &syncBuffer{}
		m := New(Config{StatsInterval: 10 * time.Second, Logger: newJSONLogger(out)}, source)
		m.kernel = noKernel()
		m.load = func() (float64, int, error) { return 0.25, 2, nil }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { m.Run(ctx); close(done) }()

		synctest.Wait()
		source.change(func(f *fixedSource) {
			f.stats.HeartbeatsSent = map[string]uint64{"ping": 40 + 20, "text": 2}
			f.stats.HeartbeatsReceived = map[string]uint64{"ping": 5, "pong": 39 + 20, "text": 6 + 5, "ack": 1}
			f.stats.Uptime += 10 * time.Second
		})
		pass(10 * time.Second)
		cancel()
		<-done

		records := out.lines(t)
		if len(records) != 1 {
			t.Fatalf("%d lines, want 1: %v", len(records), records)
		}
		want := map[string]any{"msg": "connections", "level": "INFO", "active": 7.0, "total": 19.0, "expired": 3.0, "heartbeats_per_s": 2.5, "load1": 0.25}
		for name, value := range want {
			if records[0][name] != value {
				t.Errorf("%s = %v, want %v", name, records[0][name], value)
			}
		}
		if _, there := records[0]["overloaded"]; there {
			t.Error("overloaded is there while it isn't")
		}
	})
}

// An alarm is told once when it begins and once when it ends, however often the load is read in between.
func TestRunRingsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &syncBuffer{}
		m := New(Config{OverloadLoadFactor: 2, StatsInterval: 12 * time.Second, Logger: newJSONLogger(out)}, newFixedSource())
		loads := []float64{1, 4, 5, 3.9, 4.2, 3.7, 3.5, 0, 0} // with 2 cores it begins at 4 and ends below 3.6
		read := 0
		m.kernel = noKernel()
		m.load = func() (float64, int, error) {
			read++
			return loads[min(read, len(loads))-1], 2, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { m.Run(ctx); close(done) }()
		pass(loadInterval*time.Duration(len(loads)) + time.Second)
		cancel()
		<-done

		var told []string
		for _, record := range out.lines(t) {
			switch msg := record["msg"].(string); msg {
			case "connections":
				if record["overloaded"] == true {
					msg += " overloaded"
				}
				told = append(told, msg)
			default:
				if record["level"] != "WARN" {
					t.Errorf("%s has level %v", msg, record["level"])
				}
				told = append(told, msg)
			}
		}
		// Readings at 0, 5, 10 … s; lines at 12, 24, 36 s.
		want := []string{"system overloaded", "connections overloaded", "connections overloaded", "system recovered", "connections"}
		if strings.Join(told, ", ") != strings.Join(want, ", ") {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

func TestRunWithoutLoadAverage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &syncBuffer{}
		m := New(Config{OverloadLoadFactor: 2, StatsInterval: time.Second, Logger: newJSONLogger(out)}, newFixedSource())
		m.kernel = noKernel()
		m.load = func() (float64, int, error) { return 0, 0, errors.ErrUnsupported }
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		m.Run(ctx)
		records := out.lines(t)
		if len(records) != 1 || records[0]["msg"] != "connections" {
			t.Fatalf("log: %v", records)
		}
		if _, there := records[0]["load1"]; there {
			t.Error("load1 is there though nobody knows it")
		}
	})
}

func TestSign(t *testing.T) {
	tests := []struct {
		name   string
		sign   sign
		values []float64 // negative: not known
		want   []bool    // on after each
	}{
		{"reached exactly", sign{begin: 4, end: 3.6}, []float64{3.99, 4, 4.5}, []bool{false, true, true}},
		{"hysteresis", sign{begin: 4, end: 3.6}, []float64{4, 3.61, 3.6, 3.59, 3.9, 4}, []bool{true, true, true, false, false, true}},
		{"needs a row to begin", sign{begin: 1, end: 1, rise: 3}, []float64{1, 1, 0, 1, 1, 1}, []bool{false, false, false, false, false, true}},
		{"needs a row to end", sign{begin: 1, end: 1, fall: 2}, []float64{1, 0, 1, 0, 0}, []bool{true, true, true, true, false}},
		{"unknown ends it", sign{begin: 1, end: 1, fall: 2}, []float64{1, -1, -1}, []bool{true, true, false}},
		{"unknown doesn't begin it", sign{begin: 0, end: 0}, []float64{-1, -1}, []bool{false, false}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for i, value := range test.values {
				test.sign.observe(value, value >= 0, "text")
				if test.sign.on != test.want[i] {
					t.Errorf("after %v: %v", test.values[:i+1], test.sign.on)
				}
			}
		})
	}
}

func TestBeatRate(t *testing.T) {
	r := beatRate{}
	first := r.next(server.Stats{HeartbeatsSent: map[string]uint64{"ping": 10}, Uptime: 2 * time.Second})
	same := r.next(server.Stats{HeartbeatsSent: map[string]uint64{"ping": 10}, Uptime: 2 * time.Second})
	next := r.next(server.Stats{HeartbeatsSent: map[string]uint64{"ping": 20}, Uptime: 5 * time.Second})
	if first != 5 || same != 0 || next != 3.3 {
		t.Errorf("rates %v, %v, %v; want 5, 0, 3.3", first, same, next)
	}
}
