package monitor

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// liveJSON is one event: the figures of /api/v1/stats, and what a page would otherwise have to compute from two of them.
type liveJSON struct {
	statsJSON
	HeartbeatsPerSecond float64             `json:"heartbeats_per_s"`
	OpenedPerSecond     float64             `json:"opened_per_s"`
	ClosedPerSecond     float64             `json:"closed_per_s"`
	MessagesInPerSecond float64             `json:"messages_in_per_s"`
	MessagesOutPerSec   float64             `json:"messages_out_per_s"`
	RTTMS               map[string]*float64 `json:"rtt_ms"`      // p50, p90, p99 of the last seconds; null: none
	LatenessMS          map[string]*float64 `json:"lateness_ms"` // likewise
	LoopConnections     []int64             `json:"loop_connections"`
	Recent              recentJSON          `json:"recent"`
	Notes               []string            `json:"notes"` // what stands out, in words
}

// recentJSON is what ended a short while ago: what happens now, where the counts since the start tell of days.
type recentJSON struct {
	Seconds  float64           `json:"seconds"` // about a minute; less after the start
	Closed   map[string]uint64 `json:"closed"`  // by reason
	Rejected map[string]uint64 `json:"rejected"`
}

// endsReading is the counts of a moment.
type endsReading struct {
	uptime           time.Duration
	closed, rejected map[string]uint64
}

// historyJSON is what a page finds when it opens.
type historyJSON struct {
	UptimeSeconds       float64 `json:"uptime_seconds"`
	Active              int64   `json:"active"`
	HeartbeatsPerSecond float64 `json:"heartbeats_per_s"`
}

// live feeds the pages that are open: one snapshot a second for all of them, and none while there are none.
type live struct {
	// Immutable after newLive.
	monitor *Monitor
	ended   chan struct{}
	end     func()

	// Shared; mu guards.
	mu        sync.Mutex
	listeners map[chan []byte]struct{}
	history   []historyJSON
	ends      []endsReading // oldest first
	running   bool          // run has somebody to make snapshots for
}

func newLive(m *Monitor) *live {
	l := &live{monitor: m, ended: make(chan struct{}), listeners: make(map[chan []byte]struct{})}
	l.end = sync.OnceFunc(func() { close(l.ended) })
	return l
}

// remember adds a point of history.
func (l *live) remember(s server.Stats, rate *beatRate) {
	point := historyJSON{UptimeSeconds: s.Uptime.Seconds(), Active: s.Active, HeartbeatsPerSecond: rate.next(s)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = appendBounded(l.history, historyPoints, point)
}

// rememberEnds keeps the counts of ends for the page's last minute.
func (l *live) rememberEnds(s server.Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = appendBounded(l.ends, endsReadings, endsReading{s.Uptime, s.Closed, s.Rejected})
}

// appendBounded adds an entry to a list that holds so many at most, and then forgets its oldest.
func appendBounded[E any](list []E, most int, entry E) []E {
	if len(list) >= most {
		list = list[:copy(list, list[1:])]
	}
	return append(list, entry)
}

// recent counts what ended since the last reading that is endsWindow old; since the start or the first reading where there is none.
func (l *live) recent(s server.Stats) recentJSON {
	l.mu.Lock()
	defer l.mu.Unlock()
	var from endsReading
	if len(l.ends) > 0 && s.Uptime > endsWindow {
		from = l.ends[0]
	}
	for _, reading := range l.ends {
		if reading.uptime > s.Uptime-endsWindow {
			break
		}
		from = reading
	}
	return recentJSON{
		Seconds:  (s.Uptime - from.uptime).Seconds(),
		Closed:   countsSince(s.Closed, from.closed),
		Rejected: countsSince(s.Rejected, from.rejected),
	}
}

// countsSince leaves out what there was none of.
func countsSince(now, before map[string]uint64) map[string]uint64 {
	recent := map[string]uint64{}
	for reason, count := range now {
		if count > before[reason] {
			recent[reason] = count - before[reason]
		}
	}
	return recent
}

// join adds a listener, with the history as its first event; false: there are enough.
func (l *live) join() (events chan []byte, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.listeners) >= listenersMax {
		return nil, false
	}
	events = make(chan []byte, 2) // the history and a snapshot
	events <- event("history", l.history)
	l.listeners[events] = struct{}{}
	if !l.running {
		l.running = true
		go l.run()
	}
	return events, true
}

func (l *live) leave(events chan []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.listeners, events)
}

// run makes snapshots as long as somebody listens.
func (l *live) run() {
	ticker := time.NewTicker(liveInterval)
	defer ticker.Stop()
	s := newSnapshots(l.monitor)
	s.next() // the rates begin here
	for l.publish(s) {
		select {
		case <-ticker.C:
		case <-l.ended:
			return
		}
	}
}

// publish hands a snapshot to everybody; who hasn't taken the last one yet misses this one. false: nobody listens, and run ends.
func (l *live) publish(s *snapshots) bool {
	snapshot := event("stats", s.next())
	l.mu.Lock()
	defer l.mu.Unlock()
	for events := range l.listeners {
		select {
		case events <- snapshot:
		default:
		}
	}
	l.running = len(l.listeners) > 0
	return l.running
}

// event is a server-sent event (WHATWG HTML, section 9.2). JSON has no line breaks of its own.
func event(name string, value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic("monitor: an event that JSON can't hold: " + err.Error())
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, data)
}

// serve feeds one page until it goes.
func (l *live) serve(w http.ResponseWriter, r *http.Request) {
	events, ok := l.join()
	if !ok {
		refuseFull(w, r, "enough pages are open")
		return
	}
	defer l.leave(events)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the request is there; what ends this is the peer, or a write that isn't taken
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	for {
		select {
		case <-r.Context().Done():
			return
		case <-l.ended:
			return
		case data := <-events:
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) //nolint:forbidigo // a deadline of the kernel's, not a decision by the clock
			if _, err := w.Write(data); err != nil {
				return
			}
			if err := control.Flush(); err != nil {
				return
			}
		}
	}
}

// snapshots turns counts into rates and recent distributions; it belongs to the goroutine of run.
type snapshots struct {
	monitor  *Monitor
	beats    beatRate
	before   statsJSON
	rtt      []server.Histogram // the last ones, oldest first
	lateness []server.Histogram
}

func newSnapshots(m *Monitor) *snapshots { return &snapshots{monitor: m} }

func (s *snapshots) next() liveJSON {
	m := s.monitor
	stats := m.source.Stats()
	now, before := m.figures(&stats), s.before
	s.before = now
	elapsed := now.UptimeSeconds - before.UptimeSeconds
	rate := func(now, before uint64) float64 { return perSecond(now-before, elapsed) }
	rtt, lateness := stats.RTT, stats.WheelLateness
	if d, ok := m.source.(observed); ok {
		all := d.Distributions()
		rtt, lateness = classic(all.RTT), classic(all.WheelLateness)
	}
	return liveJSON{
		statsJSON:           now,
		HeartbeatsPerSecond: s.beats.next(stats),
		OpenedPerSecond:     rate(now.Total, before.Total),
		ClosedPerSecond:     rate(sum(now.ClosedByReason), sum(before.ClosedByReason)),
		MessagesInPerSecond: rate(now.MessagesIn, before.MessagesIn),
		MessagesOutPerSec:   rate(now.MessagesOut, before.MessagesOut),
		RTTMS:               recentQuantiles(&s.rtt, rtt),
		LatenessMS:          recentQuantiles(&s.lateness, lateness),
		LoopConnections:     stats.LoopConnections,
		Recent:              m.live.recent(stats),
		Notes:               *m.notes.Load(),
	}
}

// recentQuantiles adds a reading to those of the window and tells its quantiles, in milliseconds.
func recentQuantiles(window *[]server.Histogram, now server.Histogram) map[string]*float64 {
	*window = appendBounded(*window, liveWindow+1, now)
	recent := since(now, (*window)[0])
	if len(*window) == 1 {
		recent = server.Histogram{}
	}
	out := map[string]*float64{}
	for name, q := range map[string]float64{"p50": 0.5, "p90": 0.9, "p99": 0.99} {
		out[name] = nil
		if seconds, known := quantile(recent, q); known {
			ms := math.Round(seconds*1e6) / 1e3
			out[name] = &ms
		}
	}
	return out
}
