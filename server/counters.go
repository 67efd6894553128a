package server

import "sync/atomic"

// Cause is why a connection ended, the reason label of the metrics.
type Cause uint8

// The causes of an end. Each is documented in docs/metrics.md.
const (
	causeNone         Cause = iota
	CauseClient             // the peer sent a Close frame
	CauseEnd                // the peer's end of stream without a Close frame
	CauseReset              // the connection was reset, or failed otherwise
	CauseExpired            // silence for the heartbeat timeout, though its host acknowledged what was sent: the program doesn't answer
	CauseUnreachable        // silence, and its host acknowledged nothing either: the network or the host is gone
	CauseStalled            // silence, in which the server itself stood still for a while
	CauseSlowConsumer       // the bound of unsent bytes, or no progress in them
	CauseProtocol           // the peer broke the protocol (1002)
	CauseEncoding           // text that is not UTF-8 (1007)
	CauseTooBig             // a message over the limit (1009)
	CausePolicy             // fragments or control frames over their limits (1008)
	CauseApplication        // Conn.Close
	CauseKicked             // Conn.Kick: an operator (4403)
	CausePanic              // the handler panicked (1011)
	CauseDrain              // the server drains (1012)
	CauseShutdown           // the shutdown timeout passed
	causes
)

func (c Cause) String() string {
	return [causes]string{
		causeNone: "none", CauseClient: "client", CauseEnd: "end", CauseReset: "reset", CauseExpired: "expired", CauseUnreachable: "unreachable", CauseStalled: "stalled", CauseSlowConsumer: "slow_consumer",
		CauseProtocol: "protocol", CauseEncoding: "encoding", CauseTooBig: "too_big", CausePolicy: "policy", CauseApplication: "application", CauseKicked: "kicked",
		CausePanic: "panic", CauseDrain: "drain", CauseShutdown: "shutdown",
	}[c]
}

// expiry says whether a cause is silence, of whatever kind.
func (c Cause) expiry() bool { return c == CauseExpired || c == CauseUnreachable || c == CauseStalled }

// rejection is why a handshake did not become a connection, the reason label of the metrics.
type rejection uint8

const (
	rejectNone       rejection = iota
	rejectTimeout              // the head was not complete in time (408)
	rejectGone                 // the peer left before it was
	rejectMalformed            // not the request of an upgrade (400, 405, 426, 431)
	rejectPath                 // another path (404)
	rejectOrigin               // 403
	rejectHeartbeat            // heartbeat parameters that can't be parsed (400)
	rejectLimit                // the connection limit (503)
	rejectAddress              // the limit of one address (429)
	rejectRate                 // the rate limit (503)
	rejectDraining             // 503
	rejectOverload             // the machine is overloaded (503)
	rejectUpgrade              // refused by Config.Upgrade
	rejectPanic                // Config.Upgrade panicked (500)
	rejectDescriptor           // no descriptor was left
	rejectHealth               // no handshake at all: a health check
	rejections
)

func (r rejection) String() string {
	return [rejections]string{
		rejectNone: "none", rejectTimeout: "timeout", rejectGone: "gone", rejectMalformed: "malformed", rejectPath: "path", rejectOrigin: "origin",
		rejectHeartbeat: "heartbeat", rejectLimit: "limit", rejectAddress: "address", rejectRate: "rate", rejectDraining: "draining", rejectOverload: "overload",
		rejectUpgrade: "upgrade", rejectPanic: "panic", rejectDescriptor: "descriptors", rejectHealth: "health",
	}[r]
}

// count indexes what a runner counts.
type count uint8

const (
	countMessagesIn count = iota
	countBytesIn
	countBytesOut
	countBeatsPing // sent, by mode
	countBeatsText
	countPingsIn // received, by kind
	countPongsIn
	countTextsIn
	countAcksIn
	countBatchesLoop
	countBatchesPool
	countPanics
	countSlowed // pauses of peers beyond their rate
	countOpened
	countClosed                                 // one for each Cause
	countRejected = countClosed + count(causes) // one for each rejection
	counts        = countRejected + count(rejections)
)

// tally is what one runner counted since it last published: plain numbers, since only one goroutine touches them.
type tally [counts]uint64

// published is the sum of a runner's tallies, for anybody to read.
type published struct {
	totals [counts]atomic.Uint64
	rtt    histogram
	_      [64]byte // two runners never share a cache line
}

// publish adds the tally to what others read, once a batch and not once an event: an atomic addition costs as much as all the
// counting of a message.
func (t *tally) publish(p *published) {
	for i, n := range t {
		if n != 0 {
			p.totals[i].Add(n)
			t[i] = 0
		}
	}
}

// histogram has the buckets of all durations that the server measures; one goroutine observes, anybody reads. The upper bounds are
// 100 µs, 250, 500, 1 ms, … 10 s: from what loopback takes to what a satellite and a full queue take.
type histogram struct {
	buckets [histogramBounds + 1]atomic.Uint64
	micros  atomic.Uint64

	exponential exponential // the same observations once more
}

const (
	histogramBounds     = 16
	histogramBoundLeast = 100 // µs
)

// nextBound is the upper bound, in µs, of bucket i+1, given that of bucket i.
func nextBound(i int, bound uint32) uint32 {
	if i%3 == 0 {
		return bound * 5 / 2
	}
	return bound * 2
}

func (h *histogram) observe(micros uint32) {
	i, bound := 0, uint32(histogramBoundLeast)
	for i < histogramBounds && micros > bound {
		bound = nextBound(i, bound)
		i++
	}
	h.buckets[i].Add(1)
	h.micros.Add(uint64(micros))
	h.exponential.observe(micros, 1e6, nativeLeastMicros)
}

// addTo adds what was observed to a sum over runners.
func (h *histogram) addTo(sum *Histogram) {
	if sum.Bounds == nil {
		bound := uint32(histogramBoundLeast)
		for i := range histogramBounds {
			sum.Bounds = append(sum.Bounds, float64(bound)/1e6)
			bound = nextBound(i, bound)
		}
		sum.Counts = make([]uint64, len(h.buckets))
	}
	for i := range h.buckets {
		sum.Counts[i] += h.buckets[i].Load()
	}
	sum.Sum += float64(h.micros.Load()) / 1e6
}
