package server

import (
	"sync"
	"time"
)

// Stats are a server's counts at one moment. Counters only grow, over the life of the server.
type Stats struct {
	Active     int64             // upgraded connections now
	Handshakes int64             // accepted and not yet upgraded
	Limit      int64             // connections that the server would hold
	Total      uint64            // upgraded connections ever
	Rejected   map[string]uint64 // refused or failed handshakes, by reason
	Closed     map[string]uint64 // ended connections, by reason
	Expired    uint64            // those ended for silence: expired, unreachable and stalled

	HeartbeatStretch   float64           // of intervals, by the loop that is most behind time: from 1 to 2
	HeartbeatsSent     map[string]uint64 // by mode: ping, text
	HeartbeatsReceived map[string]uint64 // by mode: ping (frames from the peer), pong, text, ack
	MessagesIn         uint64
	MessagesOut        uint64
	BytesIn            uint64 // payload and framing, after the upgrade
	BytesOut           uint64 // everything written, the responses to handshakes included
	BatchesLoop        uint64 // batches served by a loop itself
	BatchesPool        uint64 // batches served by the decoder pool
	Panics             uint64 // of handlers
	Slowed             uint64 // pauses in reading of peers beyond their message rate

	LoopConnections []int64   // by loop
	RTT             Histogram // heartbeat round trips
	WheelLateness   Histogram // how late timers fired

	Draining bool
	Node     string
	Uptime   time.Duration
}

// Histogram counts observations in buckets, as Prometheus' classic histograms do.
type Histogram struct {
	Bounds []float64 // upper bounds in seconds, without +Inf
	Counts []uint64  // one more than Bounds; not cumulative
	Sum    float64   // seconds
}

// Stats sums up what loops, workers and senders counted, each without getting in the way of another.
func (s *Server) Stats() Stats {
	st := Stats{
		Limit: s.policy.Load().connections, Node: s.cfg.NodeName, Uptime: s.since(), Draining: s.Draining(), HeartbeatStretch: 1,
		Rejected: make(map[string]uint64), Closed: make(map[string]uint64),
		HeartbeatsSent: make(map[string]uint64), HeartbeatsReceived: make(map[string]uint64),
	}
	var totals [counts]uint64
	select {
	case <-s.started:
		s.sum(&st, &totals)
	default:
	}
	for c := causeNone + 1; c < causes; c++ {
		st.Closed[c.String()] = totals[countClosed+count(c)]
	}
	for r := rejectNone + 1; r < rejectHealth; r++ {
		st.Rejected[r.String()] = totals[countRejected+count(r)]
	}
	st.Total = totals[countOpened]
	for c := range causes {
		if c.expiry() {
			st.Expired += totals[countClosed+count(c)]
		}
	}
	st.HeartbeatsSent["ping"], st.HeartbeatsSent["text"] = totals[countBeatsPing], totals[countBeatsText]
	st.HeartbeatsReceived["ping"], st.HeartbeatsReceived["pong"] = totals[countPingsIn], totals[countPongsIn]
	st.HeartbeatsReceived["text"], st.HeartbeatsReceived["ack"] = totals[countTextsIn], totals[countAcksIn]
	st.MessagesIn, st.BytesIn, st.BytesOut = totals[countMessagesIn], totals[countBytesIn], totals[countBytesOut]
	st.BatchesLoop, st.BatchesPool = totals[countBatchesLoop], totals[countBatchesPool]
	st.Slowed = totals[countSlowed]
	st.Panics = totals[countPanics] + s.handlerPanics.Load()
	return st
}

// sum adds up the parts of a running server.
func (s *Server) sum(st *Stats, totals *[counts]uint64) {
	add := func(p *published) {
		for i := range p.totals {
			totals[i] += p.totals[i].Load()
		}
		p.rtt.addTo(&st.RTT)
	}
	for _, l := range s.loops {
		add(l.runner.public)
		l.lateness.addTo(&st.WheelLateness)
		active := l.active.Load()
		st.Active += active
		st.Handshakes += l.handshakes.Load()
		st.HeartbeatStretch = max(st.HeartbeatStretch, float64(max(l.budget.stretch.Load(), stretchOne))/stretchOne)
		st.LoopConnections = append(st.LoopConnections, active)
		for i := range l.sides.shards {
			shard := &l.sides.shards[i]
			shard.mu.Lock()
			st.MessagesOut += shard.messagesOut
			shard.mu.Unlock()
		}
	}
	for _, x := range s.workers {
		add(x.public)
	}
	add(&s.elsewhere)
}

// active is the number of open connections.
func (s *Server) active() (n int64) {
	for _, l := range s.loops {
		n += l.active.Load()
	}
	return n
}

// held is the number of connections, those in their handshake included.
func (s *Server) held() (n int64) {
	for _, l := range s.loops {
		n += l.active.Load() + l.handshakes.Load()
	}
	return n
}

// lighter is the loop that a new connection of l should live on: l itself, unless another has a tenth less. Moving a connection
// wakes the other loop's thread, so it must be worth it.
func (s *Server) lighter(l *loop) *loop {
	best, least := l, int64(float64(l.active.Load()+l.handshakes.Load())*0.9)-balanceSlack
	for _, other := range s.loops {
		if n := other.active.Load() + other.handshakes.Load(); n < least {
			best, least = other, n
		}
	}
	return best
}

// logLimit lets a few lines a second through, where a peer can cause them.
type logLimit struct {
	mu    sync.Mutex
	meter meter
}

func (l *logLimit) allow(now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.meter.step == 0 {
		l.meter = perSecond(logLinesPerSecond)
	}
	return l.meter.take(now)
}
