package main

import (
	"bytes"
	"flag"
	"math"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// binWidth is the grain at which the evenness of beats is judged, in ns.
const binWidth = int64(100 * time.Millisecond)

func heartbeatDefaults(o *options) {
	o.connections, o.interval, o.lateAfter, o.settle = 10000, 2*time.Second, 100*time.Millisecond, time.Second
}

func heartbeatFlags(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.mode, "mode", "", "asks for `ping` or text beats in the URL; empty: whatever the server sends of its own")
	fs.DurationVar(&o.interval, "interval", o.interval, "the server's interval: against it beats are late or missed")
	fs.BoolVar(&o.askInterval, "ask-interval", false, "asks the server for --interval in the URL")
	fs.DurationVar(&o.lateAfter, "late-after", o.lateAfter, "a beat this much behind the interval is late")
	fs.DurationVar(&o.clientInterval, "client-interval", 0, "each connection also sends a JSON heartbeat in this time and wants its acknowledgement; 0: none")
}

// beats watches the server's beats on every connection, and sends the client's.
type beats struct {
	client   *client
	interval int64 // ns
	late     int64 // ns behind the interval

	first     int     // connections below it are not watched: they say something, and are not beaten
	last      []int64 // per connection: when the last beat came (or the connection was opened)
	total     int     // beats since the beginning
	recording bool
	from      int64 // of the span being recorded
	counts    struct{ beats, late, missed int }
	bins      []int // beats per binWidth of the span
	lateness  *histogram

	// The client's own beats and their acknowledgements.
	pacer *pacer
	acked []int // per connection
	acks  int
	rtt   *histogram
	beat  []byte // frame of a client's beat
	ack   []byte // frame that acknowledges a server's
}

func newBeats(c *client, o *options) *beats {
	b := &beats{
		client: c, interval: int64(o.interval), late: int64(o.lateAfter),
		last: make([]int64, o.connections), acked: make([]int, o.connections),
		lateness: newHistogram(), rtt: newHistogram(),
		beat: c.frame(wsframe.Text, []byte(`{"type":"heartbeat"}`)),
		ack:  c.frame(wsframe.Text, []byte(`{"type":"heartbeat_ack"}`)),
	}
	c.hooks.opened = func(i int, at int64) { b.last[i] = at }
	c.hooks.ping = b.heard
	c.hooks.message = b.message
	return b
}

// message tells apart the server's beat in mode text, an acknowledgement of ours, and the rest (hello, for one).
func (b *beats) message(i int, m wsframe.Message, at int64) {
	switch {
	case m.Opcode != wsframe.Text:
	case bytes.Contains(m.Payload, []byte(`"heartbeat"`)):
		b.client.reply(b.ack)
		b.heard(i, at)
	case bytes.Contains(m.Payload, []byte(`"heartbeat_ack"`)):
		if b.pacer == nil {
			return
		}
		if b.recording {
			b.rtt.record(at - b.pacer.dueOf(i, b.acked[i]))
		}
		b.acked[i]++
		b.acks++
	}
}

// heard counts one beat of the server.
func (b *beats) heard(i int, at int64) {
	if i < b.first {
		return
	}
	gap := at - b.last[i]
	b.last[i] = at
	b.total++
	if !b.recording {
		return
	}
	b.counts.beats++
	b.lateness.record(gap - b.interval)
	if gap > b.interval+b.late {
		b.counts.late++
	}
	b.counts.missed += skipped(gap, b.interval)
	if bin := int((at - b.from) / binWidth); bin < len(b.bins) {
		b.bins[bin]++
	}
}

// skipped is how many beats did not come within a gap between two that did: a gap of one interval and a half or more
// holds at least one.
func skipped(gap, interval int64) int {
	return max(int(math.Round(float64(gap)/float64(interval)))-1, 0)
}

// begin starts recording a span of the given length.
func (b *beats) begin(length time.Duration) {
	b.from, b.recording = b.client.clock(), true
	b.bins = make([]int, int64(length)/binWidth)
}

// stop ends the span. Beats that are overdue by now count as missed, though no later one shows the gap.
func (b *beats) stop() {
	b.recording = false
	now := b.client.clock()
	for i, last := range b.last {
		if i >= b.first && b.client.isOpen(i) && now-last > b.interval+b.interval/2 {
			b.counts.missed += max(skipped(now-last, b.interval), 1)
		}
	}
}

// flatness is the smallest, mean and largest count of the bins, and the standard deviation as a share of the mean.
func (b *beats) flatness() (least int, mean float64, most int, deviation float64) {
	if len(b.bins) == 0 {
		return 0, 0, 0, math.NaN()
	}
	least, most = b.bins[0], b.bins[0]
	sum, squares := 0.0, 0.0
	for _, n := range b.bins {
		least, most = min(least, n), max(most, n)
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	mean = sum / float64(len(b.bins))
	return least, mean, most, math.Sqrt(max(squares/float64(len(b.bins))-mean*mean, 0)) / mean
}

func runHeartbeat(s *session) error {
	o, c := s.opts, s.client
	b := newBeats(c, o)
	b.last[0] = c.clock() // it was opened before the hook was there
	if err := s.open(o.connections); err != nil {
		return err
	}
	if o.clientInterval > 0 {
		rate := float64(o.connections) / o.clientInterval.Seconds()
		b.pacer = newPacer(c.clock(), rate, o.connections, func(i int) { c.send(i, b.beat) })
		c.pacer = b.pacer
	}
	// Every connection has its first beat behind it before the span begins.
	if err := s.rest("first beats", o.interval+o.settle); err != nil {
		return err
	}
	acks := b.acks
	b.begin(o.duration)
	sp, err := s.span("beating")
	b.stop()
	if err != nil {
		return err
	}
	acks = b.acks - acks
	pairs := func() int { return b.total + b.acks }
	if err := s.countSyscalls(pairs); err != nil {
		return err
	}
	unacked := 0
	if b.pacer != nil {
		b.pacer.stop(c.clock())
		unacked, err = c.drain(func() int { return b.pacer.missing(c, func(i int) int { return b.acked[i] }) })
	}
	b.fill(s, sp, acks, unacked)
	return err
}

// fill writes the report.
func (b *beats) fill(s *session, sp span, acks, unacked int) {
	o, r := s.opts, s.report
	expected := float64(s.client.tally.active) * sp.seconds() / o.interval.Seconds()
	if b.counts.beats > 0 {
		lat := b.lateness.latencies()
		r.LatencyUs, r.latencyOf = &lat, "behind the interval"
	}
	r.add("beats", float64(b.counts.beats))
	r.comment("beats", "(%.0f were due)", expected)
	r.add("beats_per_second", float64(b.counts.beats)/sp.seconds())
	r.add("beats_late", float64(b.counts.late))
	r.comment("beats_late", "(more than %v behind %v)", o.lateAfter, o.interval)
	r.add("beats_missed", float64(b.counts.missed))
	least, mean, most, deviation := b.flatness()
	r.add("beats_per_100ms_min", float64(least))
	r.add("beats_per_100ms_mean", mean)
	r.add("beats_per_100ms_max", float64(most))
	r.add("beats_per_100ms_deviation", deviation)
	r.comment("beats_per_100ms_deviation", "(standard deviation ÷ mean)")
	s.perOperation(sp, "beat", b.counts.beats+acks)
	if sp.clientCores() >= limitedShare {
		r.ClientLimited = true
		r.note("the client was at %.2f of a core: lateness may be its own", sp.clientCores())
	}
	r.require(b.counts.beats > 0, "no beat in %v: is --interval %v the server's?", o.duration, o.interval)
	r.require(b.counts.missed == 0, "%d beats were missed", b.counts.missed)
	if b.pacer == nil {
		return
	}
	lat := b.rtt.latencies()
	r.add("acks", float64(acks))
	r.add("ack_p50_us", lat.P50)
	r.add("ack_p99_us", lat.P99)
	r.add("ack_max_us", lat.Max)
	r.add("acks_missing", float64(unacked))
	r.require(unacked <= 0, "%d heartbeats of the client were not acknowledged within %v", unacked, drainFor)
}
