package main

import (
	"flag"
	"fmt"
	"math"
	"time"
)

const (
	// churnRateMax bounds --churn-rate: more than any one client can open.
	churnRateMax = 6_000_000
	// spareGuests is the room for guests beyond those that the rate and the lives let expect.
	spareGuests = 64
	// guestsMax keeps absurd flags from overflowing; the descriptor limit is far below.
	guestsMax = 1 << 30
)

func churnDefaults(o *options) {
	heldDefaults(o)
	o.connections, o.duration, o.churnRate, o.life = 2000, time.Minute, 2000, 10*time.Second
}

func churnFlags(fs *flag.FlagSet, o *options) {
	heldFlags(fs, o)
	fs.Float64Var(&o.churnRate, "churn-rate", o.churnRate, "connections a minute that come and vanish")
	fs.DurationVar(&o.life, "life", o.life, "the longest time from a connection's upgrade to its vanishing; each has a random one")
}

// prepareChurn makes room for the guests that can be there at one time.
func prepareChurn(o *options) []rule {
	stay := o.life + o.patience(o.timeout) + time.Second
	o.guests = int(min(math.Ceil(o.churnRate/60*stay.Seconds()), guestsMax)) + spareGuests
	return append(heldRules(o),
		rule{!(o.churnRate > 0 && o.churnRate <= churnRateMax), fmt.Sprintf("--churn-rate %v is not between 0 and %d", o.churnRate, churnRateMax)},
		rule{o.life <= 0 || o.life > alarmHorizon, fmt.Sprintf("--life %v is not between 0 and %v", o.life, alarmHorizon)})
}

func runChurn(s *session) error {
	o, c, r := s.opts, s.client, s.report
	if err := s.lookOut(); err != nil {
		return err
	}
	l := s.looks
	defer l.stop()
	b := newBeats(c, o)
	b.last[0] = c.clock() // it was opened before the hook was there
	if err := s.open(o.connections); err != nil {
		return err
	}
	if err := s.rest("first beats", o.interval+o.settle); err != nil {
		return err
	}
	before, err := l.now()
	if err != nil {
		return err
	}
	c.opens.took = newHistogram()
	v := newVisitors(c, o)
	b.begin(o.duration)
	sp, err := s.span("churning")
	if err != nil {
		return err
	}
	v.stop()
	if err := s.await("last lives", o.openTimeout+o.life, func() bool { return v.living == 0 }); err != nil {
		return err
	}
	// Now nobody comes or goes any more, and the server has as long as for the last one to notice.
	gone := func() bool {
		return v.silent == 0 && l.latest.active == before.active && l.latest.descriptors <= before.descriptors
	}
	patience := time.Duration(v.lastAt-c.clock()) + o.patience(o.timeout)
	if err := s.await("last ones noticed", patience+time.Duration(housekeeping), gone); err != nil {
		return err
	}
	inTime, took := gone(), c.clock()-v.lastAt
	b.stop()
	if err := s.rest("settling", o.settle); err != nil {
		return err
	}
	most := l.most
	after, err := s.lookBack(before)
	if err != nil {
		return err
	}
	v.fill(s, sp)
	r.add("back_after_seconds", float64(took)/1e9)
	r.comment("back_after_seconds", "(since the last one vanished)")
	r.add("beats", float64(b.counts.beats))
	r.add("beats_late", float64(b.counts.late))
	r.add("beats_missed", float64(b.counts.missed))
	r.compareLooks(before, most, after)
	r.add("client_cores", sp.clientCores())
	r.require(b.counts.beats > 0, "no beat in %v: is --interval %v the server's?", o.duration, o.interval)
	r.require(b.counts.missed == 0, "%d beats were missed", b.counts.missed)
	r.require(inTime, "%v after the last one vanished the server is not back: %d connections (%d before), %d descriptors (%d before)",
		o.patience(o.timeout), l.latest.active, before.active, l.latest.descriptors, before.descriptors)
	r.requireBack(before, after)
	r.requireLooks(l)
	if before.closed != nil {
		v.requireCounts(r, difference(before.closed, after.closed))
	}
	return nil
}

// fill reports what became of the visitors.
func (v *visitors) fill(s *session, sp span) {
	o, r := s.opts, s.report
	if v.client.opens.took.count() > 0 {
		lat := v.client.opens.took.latencies()
		r.LatencyUs, r.latencyOf = &lat, "connect and upgrade"
	}
	r.add("visitors", float64(v.begun))
	r.add("visitors_per_minute", float64(v.begun)/sp.seconds()*60)
	for w, n := range v.vanished {
		r.add("vanished_by_"+way(w).String(), float64(n))
	}
	if v.expiry.count() > 0 {
		late := v.expiry.latencies()
		r.add("expired_behind_timeout_p50_us", late.P50)
		r.add("expired_behind_timeout_p99_us", late.P99)
		r.add("expired_behind_timeout_max_us", late.Max)
		r.add("expired_beyond_two_ticks", float64(v.late))
		r.comment("expired_behind_timeout_max_us", "(from the last byte to the end of the connection, less %v)", o.timeout)
	}
	r.Failures, r.Losses = v.failures, v.losses
	failed, lost := total(v.failures), total(v.losses)
	r.require(v.begun > 0, "nobody came in %v at %v a minute", o.duration, o.churnRate)
	r.require(failed == 0, "%d visitors could not be opened%s", failed, mostly(v.failures))
	r.require(lost == 0, "%d visitors were ended before they vanished%s", lost, mostly(v.losses))
	r.require(v.unplaced == 0, "%d visitors found no room: others took too long to open or to end", v.unplaced)
	r.require(v.early == 0, "%d silent ones were ended before %v", v.early, o.timeout)
	r.require(v.overdue == 0, "%d silent ones were not ended within %v", v.overdue, o.patience(o.timeout))
}

// requireCounts compares what the server counts with what was done: silent ones are expired, the others left or were
// reset. A FIN that overtakes a ping under way is answered by the kernel with a reset, so those two are one sum.
func (v *visitors) requireCounts(r *report, counts map[string]int) {
	silent, left := v.vanished[bySilence], v.vanished[byFIN]+v.vanished[byRST]
	r.require(counts["expired"] == silent, "the server counts %d as expired, %d fell silent", counts["expired"], silent)
	r.require(counts["end"]+counts["reset"] == left, "the server counts %d ends and %d resets, %d left so", counts["end"], counts["reset"], left)
	for reason, n := range counts {
		r.require(reason == "expired" || reason == "end" || reason == "reset", "the server counts %d as ended by %s", n, reason)
	}
}

// total adds up the counts of all causes.
func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
