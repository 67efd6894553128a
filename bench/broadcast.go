package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

const (
	// broadcastMark begins the payload of a broadcast of ours; its number and its time of sending follow, 8 bytes each.
	broadcastMark = "bench broadcast "
	// broadcastBytesLeast is the smallest payload that holds them.
	broadcastBytesLeast = len(broadcastMark) + 16
	// broadcastsMax bounds --broadcasts.
	broadcastsMax = 1000
)

func broadcastDefaults(o *options) {
	heldDefaults(o)
	o.connections, o.broadcasts, o.every, o.duration, o.within = 10000, 5, time.Second, 5*time.Second, 10*time.Second
}

func broadcastFlags(fs *flag.FlagSet, o *options) {
	fs.IntVar(&o.broadcasts, "broadcasts", o.broadcasts, "how many")
	fs.DurationVar(&o.every, "every", o.every, "time from one to the next")
	fs.DurationVar(&o.within, "within", o.within, "what has not arrived so long after the last broadcast is missing")
	fs.IntVar(&o.size, "size", o.size, "payload `bytes` of a broadcast")
	beatFlags(fs, o)
}

// prepareBroadcast makes both spans as long as the broadcasts take.
func prepareBroadcast(o *options) []rule {
	rules := []rule{
		{o.adminURL == "", "--admin is missing, such as --admin http://127.0.0.1:8081: broadcasts are asked for there"},
		{o.broadcasts < 1 || o.broadcasts > broadcastsMax, fmt.Sprintf("--broadcasts %d is not between 1 and %d", o.broadcasts, broadcastsMax)},
		spanRule("--within", o.within, 1, spanMost),
		spanRule("--every", o.every, 1, spanMost/broadcastsMax),
		{o.size < broadcastBytesLeast, fmt.Sprintf("--size %d is less than the %d bytes of number and time", o.size, broadcastBytesLeast)},
		intervalRule(o.interval),
		{o.syscalls, "--syscalls belongs to echo and heartbeat"},
	}
	o.duration = max(o.duration, time.Duration(o.broadcasts)*o.every)
	return rules
}

// broadcastPayload is a message that says by itself which it is and when it was sent, so that processes which know nothing
// of each other can tell. The clock is the host's: its processes share it.
func broadcastPayload(size, number int, at time.Time) []byte {
	p := make([]byte, 0, size)
	p = append(p, broadcastMark...)
	p = binary.BigEndian.AppendUint64(p, uint64(number))
	p = binary.BigEndian.AppendUint64(p, uint64(at.UnixNano()))
	return append(p, payloadOf(size-len(p))...)
}

// parseBroadcast reads number and time of a payload; false for any other message.
func parseBroadcast(p []byte) (number int, at int64, ok bool) {
	rest, ok := bytes.CutPrefix(p, []byte(broadcastMark))
	if !ok || len(rest) < 16 {
		return 0, 0, false
	}
	return int(binary.BigEndian.Uint64(rest)), int64(binary.BigEndian.Uint64(rest[8:])), true
}

// delivery is what became of one broadcast.
type delivery struct {
	Got    int   // connections that have it
	Twice  int   // deliveries beyond the first
	LastNs int64 // until the last had it
}

// broadcastFound is what one process found.
type broadcastFound struct {
	Deliveries    []delivery // by number
	Changed       int        // broadcasts that were not what was sent
	Took          *histogram // from the sending to each connection
	Before, After beatCounts // the beats without broadcasts, and meanwhile
}

func (f *broadcastFound) add(other *broadcastFound) {
	for i, d := range other.Deliveries {
		f.Deliveries[i].Got += d.Got
		f.Deliveries[i].Twice += d.Twice
		f.Deliveries[i].LastNs = max(f.Deliveries[i].LastNs, d.LastNs)
	}
	f.Changed += other.Changed
	f.Took.merge(other.Took)
	f.Before.add(&other.Before)
	f.After.add(&other.After)
}

// audience takes the broadcasts that arrive. Number 0 is the one that shows whether there are any.
type audience struct {
	broadcastFound
	client *client
	epoch  int64    // of the client's clock, ns since 1970
	size   int      // of a payload
	latest []uint16 // per connection: the number of its latest broadcast + 1
}

func newAudience(c *client, o *options) *audience {
	return &audience{
		client: c, epoch: c.base.UnixNano(), size: o.size, latest: make([]uint16, o.connections),
		broadcastFound: broadcastFound{Deliveries: make([]delivery, o.broadcasts+1), Took: newHistogram()},
	}
}

// message takes one message; false if it is no broadcast of ours.
func (a *audience) message(i int, m wsframe.Message, now int64) bool {
	number, at, ok := parseBroadcast(m.Payload)
	if !ok {
		return false
	}
	if number >= len(a.Deliveries) || len(m.Payload) != a.size || m.Opcode != wsframe.Binary {
		a.Changed++
		return true
	}
	d := &a.Deliveries[number]
	if int(a.latest[i]) > number { // they come in order, so this one or a later one is there
		d.Twice++
		return true
	}
	a.latest[i] = uint16(number + 1)
	took := a.epoch + now - at
	d.Got++
	d.LastNs = max(d.LastNs, took)
	if number > 0 {
		a.Took.record(took)
	}
	return true
}

// has says whether every open connection has a broadcast.
func (a *audience) has(number int) bool { return a.Deliveries[number].Got >= a.client.tally.Active }

func runBroadcast(s *session) error {
	o, c := s.opts, s.client
	b, a := newBeats(c, o), newAudience(c, o)
	c.hooks.message = func(i int, m wsframe.Message, at int64) {
		if !a.message(i, m, at) {
			b.message(i, m, at)
		}
	}
	var speaker *speaker
	if s.hand == nil {
		speaker = newSpeaker(s.whole.adminURL, o.size, s.wake)
		if err := s.tryBroadcast(speaker, a); err != nil {
			return err
		}
	}
	if err := s.open(o.connections); err != nil {
		return err
	}
	if err := s.rest("first beats", o.interval+o.settle); err != nil {
		return err
	}
	quiet, err := s.span("before", func() { b.begin(o.duration) })
	b.stop()
	if err != nil {
		return err
	}
	a.Before = b.beatCounts
	sp, err := s.measure(func() error {
		b.begin(o.duration)
		return s.broadcast(speaker, a)
	})
	b.stop()
	s.account(sp)
	if err != nil {
		return err
	}
	a.After = b.beatCounts
	all, err := collect(s, &sp, a.broadcastFound)
	if err != nil {
		return err
	}
	all.fill(s, speaker, quiet, sp)
	return nil
}

// trialPause is the least between two tries.
const trialPause = int64(50 * time.Millisecond)

// tryBroadcast sends number 0 to the one connection that there is: a server that can't is told before anything is measured. One that answered
// the upgrade just now may not count the connection yet, and is asked again.
func (s *session) tryBroadcast(sp *speaker, a *audience) error {
	said := s.client.clock()
	sp.say(0)
	err := s.await("trying a broadcast", s.opts.within, func() bool {
		heard := sp.heard()
		if now := s.client.clock(); heard && sp.nobody && now-said >= trialPause {
			said = now
			sp.say(0)
		}
		return heard && (sp.err != nil || a.has(0))
	})
	switch {
	case err != nil:
		return err
	case sp.err != nil:
		return fmt.Errorf("%w: %w", errUsage, sp.err)
	case !sp.heard() || !a.has(0):
		return fmt.Errorf("%w: a broadcast asked for at %s did not reach %s within %v: is it the same server?", errUsage, sp.admin.base, s.whole.target.url, s.opts.within)
	}
	return nil
}

// broadcast has the leader speak at its times, and everybody listen for as long as all of it takes.
func (s *session) broadcast(sp *speaker, a *audience) error {
	o, c := s.opts, s.client
	from := c.clock()
	if sp != nil {
		next := 1
		c.alarms = newAlarms(from, func(_ int, at int64) {
			if sp.heard() { // else the server has not answered the one before: this one is due when it has
				sp.say(next)
				next++
			}
			if next <= o.broadcasts {
				c.alarms.set(0, max(from+int64(next-1)*int64(o.every), at+1))
			}
		})
		c.alarms.set(0, from)
		defer func() { c.alarms = nil }()
	}
	if err := s.await("broadcasting", o.duration, func() bool { return c.tally.Active == 0 || (sp != nil && sp.err != nil) }); err != nil {
		return err
	}
	return s.await("last ones arriving", o.within, func() bool {
		return c.tally.Active == 0 || a.has(o.broadcasts) || sp != nil && sp.err != nil
	})
}

// fill writes the report.
func (f *broadcastFound) fill(s *session, sp *speaker, quiet, spoken span) {
	o, r := s.whole, s.report
	sp.heard()
	lat := f.Took.latencies()
	r.LatencyUs, r.latencyOf = &lat, "from the sending to a connection"
	var lasts, answers []float64
	reached, missing, twice := 0, 0, 0
	for number, d := range f.Deliveries {
		twice += d.Twice
		if number == 0 {
			continue
		}
		lasts = append(lasts, float64(d.LastNs)/1e3)
		missing += max(s.total.Active-d.Got, 0)
		reached += d.Got
	}
	for _, took := range sp.answered {
		answers = append(answers, float64(took.Microseconds()))
	}
	last := spreadOf(lasts)
	r.add("broadcasts", float64(o.broadcasts))
	r.add("size_bytes", float64(o.size))
	r.add("deliveries", float64(reached))
	r.add("last_has_it_us", last.Median)
	r.comment("last_has_it_us", "(median of the broadcasts; %s to %s)", us(last.Min), us(last.Max))
	r.add("last_has_it_us_max", last.Max)
	r.add("answered_us", spreadOf(answers).Median)
	r.comment("answered_us", "(the admin listener's answer)")
	if s.server != nil {
		more := spoken.serverCPU.Seconds() - quiet.serverCPU.Seconds()*spoken.seconds()/quiet.seconds()
		r.add("cpu_us_per_delivery", more*1e6/float64(max(reached, 1)))
		r.comment("cpu_us_per_delivery", "(what the server used beyond a span of beats alone)")
		r.add("server_cores", spoken.serverCores())
	}
	f.Before.fillFlatness(r, "_before")
	f.After.fillFlatness(r, "")
	r.add("beats", float64(f.After.Beats))
	r.add("beats_late", float64(f.After.Late))
	r.add("beats_missed", float64(f.After.Missed))
	s.calibrate(spoken, dependents{what: "broadcasting", latencies: []timed{
		{lat.P99, []string{latencyKey, "last_has_it_us", "last_has_it_us_max"}},
	}})
	r.require(sp.err == nil, "%v", sp.err)
	r.require(len(sp.answered) == o.broadcasts || sp.err != nil, "%d of %d broadcasts were answered", len(sp.answered), o.broadcasts)
	r.require(missing == 0, "%d deliveries were missing %v after the last broadcast", missing, o.within)
	r.require(twice == 0, "%d deliveries came twice", twice)
	r.require(f.Changed == 0, "%d messages came changed", f.Changed)
	if i := slices.IndexFunc(sp.reached, func(n int) bool { return n != s.total.Active }); i >= 0 {
		r.require(false, "the server counted %d as reached by a broadcast, %d were open", sp.reached[i], s.total.Active)
	}
	r.require(f.After.Beats > 0, "no beat in %v: is --interval %v the server's?", o.duration, o.interval)
	r.require(f.Before.Missed+f.After.Missed == 0, "%d beats were missed%s", f.Before.Missed+f.After.Missed, spoken.client.excuse(o.interval))
}
