package main

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

const (
	// binWidth is the grain at which the evenness of beats is judged, in ns.
	binWidth = int64(100 * time.Millisecond)
	// textAck answers a heartbeat in mode text.
	textAck = `{"type":"heartbeat_ack"}`
)

func heartbeatDefaults(o *options) {
	o.connections, o.interval, o.lateAfter, o.settle = 10000, 2*time.Second, 100*time.Millisecond, time.Second
}

func heartbeatFlags(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.mode, "mode", "", "asks for `ping` or text beats in the URL; empty: whatever the server sends of its own")
	beatFlags(fs, o)
	fs.BoolVar(&o.askInterval, "ask-interval", false, "asks the server for --interval in the URL")
	fs.DurationVar(&o.clientInterval, "client-interval", 0, "each connection also sends a JSON heartbeat in this time and wants its acknowledgement; 0: none")
}

func prepareHeartbeat(o *options) []rule {
	return []rule{
		intervalRule(o.interval),
		{o.clientInterval > 0 && o.clientInterval < time.Millisecond, fmt.Sprintf("--client-interval %v is less than %v", o.clientInterval, time.Millisecond)},
	}
}

// beatFlags are those of every scenario that watches beats.
func beatFlags(fs *flag.FlagSet, o *options) {
	fs.DurationVar(&o.interval, "interval", o.interval, "the server's heartbeat interval: against it beats are late or missed")
	fs.DurationVar(&o.lateAfter, "late-after", o.lateAfter, "a beat this much behind the interval is late")
}

// beats watches the server's beats on every connection, and sends the client's.
type beats struct {
	client   *client
	interval int64 // ns
	late     int64 // ns behind the interval

	last      []int64 // per connection: when the last beat came, the client sent one, or the connection was opened
	total     int     // beats since the beginning
	recording bool
	from, to  int64 // of the span being recorded, or of the last one
	beatCounts

	// The client's own beats and their acknowledgements.
	pacer *pacer
	acked []int // per connection
	acks  int
	rtt   *histogram
	beat  []byte // frame of a client's beat
	ack   []byte // frame that acknowledges a server's
}

// beatCounts are the beats of a span, those of one process or of all.
type beatCounts struct {
	Beats, Late, Missed int
	Early               int   // after less than three quarters of the interval
	Bins                []int // beats per binWidth of the span
	Lateness            *histogram
}

func (f *beatCounts) add(other *beatCounts) {
	f.Beats += other.Beats
	f.Late += other.Late
	f.Missed += other.Missed
	f.Early += other.Early
	for i := range min(len(f.Bins), len(other.Bins)) { // the spans begin together
		f.Bins[i] += other.Bins[i]
	}
	f.Lateness.merge(other.Lateness)
}

func newBeats(c *client, o *options) *beats {
	b := &beats{
		client: c, interval: int64(o.interval), late: int64(o.lateAfter),
		last: make([]int64, o.connections), acked: make([]int, o.connections),
		beatCounts: beatCounts{Lateness: newHistogram()}, rtt: newHistogram(),
		beat: c.frame(wsframe.Text, []byte(`{"type":"heartbeat"}`)),
		ack:  c.frame(wsframe.Text, []byte(textAck)),
	}
	b.last[0] = c.clock() // the leader's was opened before the hook is there
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
		b.client.traffic.Acks++
		b.client.reply(b.ack)
		b.heard(i, at)
	case bytes.Contains(m.Payload, []byte(`"heartbeat_ack"`)):
		if b.pacer == nil {
			return
		}
		if due := b.pacer.dueOf(i, b.acked[i]); due >= b.from && (b.recording || due < b.to) {
			b.rtt.record(at - due) // those too that are answered after the span: they waited longest
		}
		b.acked[i]++
		b.acks++
	}
}

// speak sends a beat of the client. The server's next one is due an interval after it: who says something is not asked.
func (b *beats) speak(i int) {
	if !b.client.send(i, b.beat) {
		return
	}
	b.client.traffic.Beats++
	now := b.client.clock()
	if b.recording {
		b.Missed += skipped(now-b.last[i], b.interval)
	}
	b.last[i] = now
}

// heard counts one beat of the server.
func (b *beats) heard(i int, at int64) {
	gap := at - b.last[i]
	b.last[i] = at
	b.total++
	if !b.recording {
		return
	}
	b.Beats++
	b.Lateness.record(gap - b.interval)
	switch {
	case gap > b.interval+b.late:
		b.Late++
	case gap < b.interval/4*3:
		b.Early++
	}
	b.Missed += skipped(gap, b.interval)
	if bin := int((at - b.from) / binWidth); bin < len(b.Bins) {
		b.Bins[bin]++
	}
}

// skipped is how many beats did not come within a gap between two that did, or before a beat of the client: a gap of one interval and
// a half or more holds at least one.
func skipped(gap, interval int64) int {
	return max(int(math.Round(float64(gap)/float64(interval)))-1, 0)
}

// begin starts recording a span of the given length, with empty counts.
func (b *beats) begin(length time.Duration) {
	b.from, b.recording = b.client.clock(), true
	b.beatCounts = beatCounts{Bins: make([]int, int64(length)/binWidth), Lateness: newHistogram()}
}

// stop ends the span. Beats that are overdue by now count as missed, though no later one shows the gap.
func (b *beats) stop() {
	b.recording = false
	now := b.client.clock()
	b.to = now
	for i, last := range b.last {
		if b.client.isOpen(i) && now-last > b.interval+b.interval/2 {
			b.Missed += max(skipped(now-last, b.interval), 1)
		}
	}
}

// flatness is the smallest, mean and largest count of the bins, and the standard deviation as a share of the mean.
func (f *beatCounts) flatness() (least int, mean float64, most int, deviation float64) {
	if len(f.Bins) == 0 {
		return 0, 0, 0, math.NaN()
	}
	least, most = f.Bins[0], f.Bins[0]
	sum, squares := 0.0, 0.0
	for _, n := range f.Bins {
		least, most = min(least, n), max(most, n)
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	mean = sum / float64(len(f.Bins))
	return least, mean, most, math.Sqrt(max(squares/float64(len(f.Bins))-mean*mean, 0)) / mean
}

// heartbeatFound is what one process found.
type heartbeatFound struct {
	Counts  beatCounts
	Acks    int // of the client's own beats, in the span
	Unacked int
	RTT     *histogram
}

func (f *heartbeatFound) add(other *heartbeatFound) {
	f.Counts.add(&other.Counts)
	f.Acks += other.Acks
	f.Unacked += other.Unacked
	f.RTT.merge(other.RTT)
}

func runHeartbeat(s *session) error {
	o, c := s.opts, s.client
	b := newBeats(c, o)
	if err := s.open(o.connections); err != nil {
		return err
	}
	if o.clientInterval > 0 {
		rate := float64(o.connections) / o.clientInterval.Seconds()
		b.pacer = newPacer(c.clock(), rate, o.connections, b.speak)
		c.pacer = b.pacer
	}
	// Every connection has its first beat behind it before the span begins.
	if err := s.rest("first beats", o.interval+o.settle); err != nil {
		return err
	}
	own := heartbeatFound{RTT: b.rtt}
	var acks int
	sp, err := s.span("beating", func() { acks = b.acks; b.begin(o.duration) })
	b.stop()
	if err != nil {
		return err
	}
	own.Counts, own.Acks = b.beatCounts, b.acks-acks
	if err := s.countSyscalls(func() int { return b.total + b.acks }); err != nil {
		return err
	}
	if b.pacer != nil {
		b.pacer.stop(c.clock())
		own.Unacked, err = c.drain(func() int { return b.pacer.missing(c, func(i int) int { return b.acked[i] }) })
		if err != nil {
			return err
		}
	}
	all, err := collect(s, &sp, own)
	if err != nil {
		return err
	}
	all.fill(s, sp)
	return nil
}

// fill writes the report.
func (f *heartbeatFound) fill(s *session, sp span) {
	o, r := s.whole, s.report
	p99 := f.Counts.fill(r, o, float64(s.total.Active)*o.beatsDue(sp.seconds()), sp.seconds())
	s.perOperation(sp, "beat", f.Counts.Beats+f.Acks)
	limits := dependents{what: "beats", latencies: timedBeats(p99, o.lateAfter)}
	rtt := f.RTT.latencies()
	if o.clientInterval > 0 {
		limits.latencies = append(limits.latencies, timed{rtt.P99, []string{"ack_p99_us", "ack_p50_us", "ack_max_us"}})
		r.add("acks", float64(f.Acks))
		r.add("ack_p50_us", rtt.P50)
		r.add("ack_p99_us", rtt.P99)
		r.add("ack_max_us", rtt.Max)
		r.add("acks_missing", float64(f.Unacked))
	}
	s.calibrate(sp, limits)
	if o.isTalkative() {
		r.note("every connection says something each %v: the server has no reason to ask within its %v, and may send no beat at all", o.clientInterval, o.interval)
	} else {
		r.require(f.Counts.Beats > 0, "no beat in %v: is --interval %v the server's?", o.duration, o.interval)
	}
	r.require(f.Counts.Missed == 0, "%d beats were missed%s", f.Counts.Missed, sp.client.excuse(o.interval))
	r.require(f.Unacked <= 0, "%d heartbeats of the client were not acknowledged within %v", f.Unacked, drainFor)
}

// isTalkative says that the client speaks so often that a server which asks only who is silent never asks.
func (o *options) isTalkative() bool { return o.clientInterval > 0 && o.clientInterval <= o.interval }

// beatsDue is how many beats a connection is to get in a time: one each interval, counted anew from each beat of its own.
func (o *options) beatsDue(seconds float64) float64 {
	if o.clientInterval == 0 {
		return seconds / o.interval.Seconds()
	}
	return seconds / o.clientInterval.Seconds() * float64((o.clientInterval-1)/o.interval)
}

// timedBeats are the figures of beats that a late client spoils: how late they were, and how many were later than --late-after.
func timedBeats(p99 float64, lateAfter time.Duration) []timed {
	return []timed{{p99, []string{latencyKey}}, {float64(lateAfter.Microseconds()), []string{"beats_late"}}}
}

// fill reports the beats of a span of which so many were due, and returns the p99 of their lateness in µs.
func (f *beatCounts) fill(r *report, o *options, due, seconds float64) float64 {
	p99 := 0.0
	if f.Beats > 0 {
		lat := f.Lateness.latencies()
		r.LatencyUs, r.latencyOf, p99 = &lat, "behind the interval", lat.P99
	}
	r.add("beats", float64(f.Beats))
	r.comment("beats", "(%.0f were due)", due)
	r.add("beats_per_second", float64(f.Beats)/seconds)
	r.add("beats_late", float64(f.Late))
	r.comment("beats_late", "(more than %v behind %v)", o.lateAfter, o.interval)
	r.add("beats_missed", float64(f.Missed))
	r.require(o.clientInterval > 0 || 2*f.Early <= f.Beats, "%d of %d beats came after less than three quarters of %v, so that none could be missed: --interval is not the server's", f.Early, f.Beats, o.interval)
	f.fillFlatness(r, "")
	return p99
}

// fillFlatness reports how even the beats were.
func (f *beatCounts) fillFlatness(r *report, suffix string) {
	least, mean, most, deviation := f.flatness()
	r.add("beats_per_100ms_min"+suffix, float64(least))
	r.add("beats_per_100ms_mean"+suffix, mean)
	r.add("beats_per_100ms_max"+suffix, float64(most))
	r.add("beats_per_100ms_deviation"+suffix, deviation)
	r.comment("beats_per_100ms_deviation"+suffix, "(standard deviation ÷ mean)")
}

// excuse says that beats counted as missed may be the client's own fault: a loop that looked half an interval late found two
// at once.
func (u *clientUse) excuse(interval time.Duration) string {
	if u.Late == nil || u.Late.latencies().Max < float64(interval.Microseconds())/4 {
		return ""
	}
	return ", but the client's own loop looked up to " + us(u.Late.latencies().Max) + " late: it may have missed them"
}
