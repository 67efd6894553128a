package main

import "time"

const (
	// drainFor is how long answers that are still due are waited for after the last message was sent.
	drainFor = 5 * time.Second
	// drainLook is how often it is looked whether any is missing, in ns: a look walks over all connections.
	drainLook = int64(10 * time.Millisecond)
)

// sendsPerTurn bounds what the pacer sends between two waits, so that a client that fell behind still reads.
const sendsPerTurn = 256

// pacer sends on a plan made beforehand: operation k is due at from + k*gap, or with scattered at any time of the gap that begins there, on
// connection k mod connections.
// The plan does not wait for answers, so a server that stalls meets all that was due meanwhile, and a latency counted
// from the due time contains the wait (no coordinated omission). Nothing per connection is kept: the j-th answer on
// connection i belongs to operation i + j*connections, since a connection keeps its order.
type pacer struct {
	from        int64   // ns on the client's clock
	gap         float64 // ns between two operations
	connections int
	scattered   bool // set before the first call
	sent        int  // operations begun
	stopAt      int64
	fire        func(i int)
}

// newPacer plans rate operations a second from now on.
func newPacer(now int64, rate float64, connections int, fire func(i int)) *pacer {
	return &pacer{from: now, gap: 1e9 / rate, connections: connections, stopAt: never, fire: fire}
}

// due is when operation k is to be sent.
func (p *pacer) due(k int) int64 {
	at := float64(k)
	if p.scattered {
		at += scatter(p.from, k)
	}
	return p.from + int64(at*p.gap)
}

// scatter is the place of look or operation k within its gap, from 0 to below 1, the same at every call. Servers do much on ticks of
// their own: who comes at even distances meets always the same part of a tick, and the share of operations that meet its busy part is then
// a matter of chance, none or too many, for as long as both clocks run.
func scatter(seed int64, k int) float64 {
	h := (uint64(seed) ^ uint64(k)) * 0x9E3779B97F4A7C15 // 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4)
	h = (h ^ h>>32) * 0x9E3779B97F4A7C15
	return float64(h>>11) / (1 << 53)
}

// dueOf is when that operation was due which the j-th answer on connection i belongs to.
func (p *pacer) dueOf(i, j int) int64 { return p.due(i + j*p.connections) }

// serve sends what is due, within a bound, and returns when to be called again.
func (p *pacer) serve(c *client, now int64) int64 {
	for range sendsPerTurn {
		due := p.due(p.sent)
		if due >= p.stopAt {
			return never
		}
		if due > now {
			return due
		}
		i := p.sent % p.connections
		p.sent++
		if c.isOpen(i) {
			p.fire(i)
		}
	}
	return now
}

// unsent is how many operations were due when the plan was stopped and have not been sent.
func (p *pacer) unsent() int {
	if p.stopAt == never {
		return 0
	}
	return max(int(float64(p.stopAt-p.from)/p.gap)-p.sent, 0) // of the last gap it isn't known
}

// stop ends the plan.
func (p *pacer) stop(now int64) { p.stopAt = now }

// missing is how many answers have not come, of those operations that went out on connections which still stand.
func (p *pacer) missing(c *client, answered func(i int) int) int {
	n := 0
	for i := range p.connections {
		if c.isOpen(i) {
			n += planned(p.sent, i, p.connections) - answered(i)
		}
	}
	return n
}

// planned is how many of the first sent operations were connection i's.
func planned(sent, i, connections int) int {
	return (sent - i + connections - 1) / connections
}

// drain serves the client until nothing is missing, for drainFor at most, and returns what is missing then.
func (c *client) drain(missing func() int) (int, error) {
	looked, n := c.clock(), missing()
	err := c.run(looked+int64(drainFor), func() bool {
		if now := c.clock(); now-looked > drainLook {
			looked, n = now, missing()
		}
		return n <= 0
	})
	return missing(), err
}
