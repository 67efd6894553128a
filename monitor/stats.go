package monitor

import (
	"math"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// statsJSON is the answer of /api/v1/stats. Keys are part of the interface: they may be added, never renamed.
type statsJSON struct {
	Active             int64             `json:"active"`
	Total              uint64            `json:"total"`
	Limit              int64             `json:"limit"`
	Handshakes         int64             `json:"handshakes"`
	HeartbeatsSent     uint64            `json:"heartbeats_sent"`
	HeartbeatsReceived uint64            `json:"heartbeats_received"`
	Expired            uint64            `json:"expired"`
	Rejected           uint64            `json:"rejected"`
	HeartbeatStretch   float64           `json:"heartbeat_stretch"` // factor on intervals; 1: none
	RejectedByReason   map[string]uint64 `json:"rejected_by_reason"`
	ClosedByReason     map[string]uint64 `json:"closed_by_reason"`
	BytesIn            uint64            `json:"bytes_in"`
	BytesOut           uint64            `json:"bytes_out"`
	MessagesIn         uint64            `json:"messages_in"`
	MessagesOut        uint64            `json:"messages_out"`
	Panics             uint64            `json:"panics"`
	Load1              *float64          `json:"load1,omitempty"` // left out where it isn't known
	Overloaded         bool              `json:"overloaded"`
	OverloadReasons    []string          `json:"overload_reasons"` // in words; empty while it isn't
	Refusing           bool              `json:"refusing"`         // new connections are refused because of it
	Draining           bool              `json:"draining"`
	UptimeSeconds      float64           `json:"uptime_seconds"`
	Node               string            `json:"node"`
	Version            string            `json:"version"`
	Revision           string            `json:"revision"`
}

// statsNow gathers the figures of this moment.
func (m *Monitor) statsNow() statsJSON {
	s := m.source.Stats()
	return m.figures(&s)
}

// figures are those of one reading.
func (m *Monitor) figures(s *server.Stats) statsJSON {
	overload := m.verdict()
	out := statsJSON{
		Active:             s.Active,
		Total:              s.Total,
		Limit:              s.Limit,
		Handshakes:         s.Handshakes,
		HeartbeatsSent:     sum(s.HeartbeatsSent),
		HeartbeatsReceived: sum(s.HeartbeatsReceived),
		Expired:            s.Expired,
		Rejected:           sum(s.Rejected),
		HeartbeatStretch:   max(1, s.HeartbeatStretch),
		RejectedByReason:   s.Rejected,
		ClosedByReason:     s.Closed,
		BytesIn:            s.BytesIn,
		BytesOut:           s.BytesOut,
		MessagesIn:         s.MessagesIn,
		MessagesOut:        s.MessagesOut,
		Panics:             s.Panics,
		Overloaded:         overload.overloaded(),
		OverloadReasons:    overload.texts(),
		Refusing:           overload.shed,
		Draining:           s.Draining,
		UptimeSeconds:      s.Uptime.Seconds(),
		Node:               s.Node,
		Version:            m.cfg.Version,
		Revision:           m.cfg.Revision,
	}
	if load, known := m.loadNow(); known {
		out.Load1 = &load
	}
	return out
}

// logStats writes the line.
func (m *Monitor) logStats(rate *beatRate) {
	s := m.source.Stats()
	attrs := []any{"active", s.Active, "total", s.Total, "expired", s.Expired, "heartbeats_per_s", rate.next(s)}
	if load, known := m.loadNow(); known {
		attrs = append(attrs, "load1", load)
	}
	if m.verdict().overloaded() {
		attrs = append(attrs, "overloaded", true)
	}
	m.cfg.Logger.Info("connections", attrs...)
}

// beatRate turns counts into a rate. A heartbeat is counted where it begins, on our side or the peer's; its answer isn't one
// more.
type beatRate struct {
	beats  uint64
	uptime time.Duration
}

// next returns the heartbeats a second since the call before, to a tenth.
func (r *beatRate) next(s server.Stats) float64 {
	before := *r
	r.beats = s.HeartbeatsSent["ping"] + s.HeartbeatsSent["text"] + s.HeartbeatsReceived["ping"] + s.HeartbeatsReceived["text"]
	r.uptime = s.Uptime
	return perSecond(r.beats-before.beats, (r.uptime - before.uptime).Seconds())
}

// perSecond is a rate to a tenth; 0 where no time has passed.
func perSecond(count uint64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return math.Round(float64(count)/seconds*10) / 10
}

func sum(counts map[string]uint64) (total uint64) {
	for _, n := range counts {
		total += n
	}
	return total
}
