package main

import (
	"flag"
	"fmt"
	"math"
	"slices"
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
		rule{!(o.churnRate >= rateLeast && o.churnRate <= churnRateMax), fmt.Sprintf("--churn-rate %v is not between %v and %d", o.churnRate, rateLeast, churnRateMax)},
		rule{o.life <= 0 || o.life > alarmHorizon, fmt.Sprintf("--life %v is not between 0 and %v", o.life, alarmHorizon)})
}

// churnFound is what one process found.
type churnFound struct {
	Visits visits
	Counts beatCounts
	Took   *histogram // of connect and upgrade
}

func (f *churnFound) add(other *churnFound) {
	f.Visits.add(&other.Visits)
	f.Counts.add(&other.Counts)
	f.Took.merge(other.Took)
}

func runChurn(s *session) error {
	o, c := s.opts, s.client
	if err := s.lookOut(); err != nil {
		return err
	}
	defer s.lookAway()
	s.lag = o.openTimeout + o.life + o.patience(o.timeout) // somebody else's last visitor
	b := newBeats(c, o)
	if err := s.open(o.connections); err != nil {
		return err
	}
	if err := s.rest("first beats", o.interval+o.settle); err != nil {
		return err
	}
	seen := &churnSeen{}
	if err := s.meet("look before", func() (err error) {
		seen.before, err = s.looks.now()
		return err
	}); err != nil {
		return err
	}
	own := churnFound{Took: newHistogram()}
	c.opens.took = own.Took
	var v *visitors
	sp, err := s.span("churning", func() { v = newVisitors(c, o); b.begin(o.duration) })
	if err != nil {
		return err
	}
	v.stop()
	if err := s.await("last lives", o.openTimeout+o.life, func() bool { return v.living == 0 }); err != nil {
		return err
	}
	if err := seen.wait(s, v); err != nil {
		return err
	}
	b.stop()
	if err := s.rest("settling", o.settle); err != nil {
		return err
	}
	if err := s.meet("look after", func() (err error) {
		seen.most = s.looks.most
		seen.after, err = s.lookBack(seen.before)
		return err
	}); err != nil {
		return err
	}
	own.Visits, own.Counts = v.visits, b.beatCounts
	all, err := collect(s, &sp, own)
	if err != nil {
		return err
	}
	all.fill(s, sp, seen)
	return nil
}

// churnSeen is what the leader saw of the server, and of its way back.
type churnSeen struct {
	sights
	latest look  // when the waiting was over
	inTime bool  // it was back by then
	took   int64 // since the last one vanished, ns
}

// wait serves the client while nobody comes or goes any more: the server has as long as for the last one to notice.
func (w *churnSeen) wait(s *session, v *visitors) error {
	o, c := s.opts, s.client
	back := func() bool {
		return s.looks == nil || s.looks.latest.active == w.before.active && s.looks.latest.descriptors <= w.before.descriptors
	}
	patience := time.Duration(v.lastAt-c.clock()) + o.patience(o.timeout)
	err := s.await("last ones noticed", patience+time.Duration(housekeeping), func() bool { return v.silent == 0 && back() })
	if err != nil {
		return err
	}
	return s.meet("last ones noticed", func() error {
		w.latest, w.inTime, w.took = s.looks.latest, v.silent == 0 && back(), c.clock()-v.lastAt
		return nil
	})
}

// fill writes the report.
func (f *churnFound) fill(s *session, sp span, seen *churnSeen) {
	o, r := s.whole, s.report
	limits := dependents{what: "visitors"}
	if f.Took.count() > 0 {
		lat := f.Took.latencies()
		r.LatencyUs, r.latencyOf = &lat, "connect and upgrade"
		limits.latencies = append(limits.latencies, timed{lat.P99, []string{latencyKey}})
	}
	f.Visits.fill(s, sp, limits)
	r.add("back_after_seconds", float64(seen.took)/1e9)
	r.comment("back_after_seconds", "(since the last one vanished)")
	r.add("beats", float64(f.Counts.Beats))
	r.add("beats_late", float64(f.Counts.Late))
	r.add("beats_missed", float64(f.Counts.Missed))
	r.compareLooks(seen.before, seen.most, seen.after)
	r.require(f.Counts.Beats > 0, "no beat in %v: is --interval %v the server's?", o.duration, o.interval)
	r.require(f.Counts.Missed == 0, "%d beats were missed%s", f.Counts.Missed, sp.client.excuse(o.interval))
	r.require(seen.inTime, "%v after the last one vanished the server is not back: %d connections (%d before), %d descriptors (%d before)",
		o.patience(o.timeout), seen.latest.active, seen.before.active, seen.latest.descriptors, seen.before.descriptors)
	r.requireBack(seen.before, seen.after)
	r.requireLooks(s.looks)
	if seen.before.closed != nil {
		f.Visits.requireCounts(r, difference(seen.before.closed, seen.after.closed))
	}
}

// fill reports what became of the visitors.
func (v *visits) fill(s *session, sp span, limits dependents) {
	o, r := s.whole, s.report
	r.add("visitors", float64(v.Begun))
	r.add("visitors_per_minute", float64(v.Begun)/sp.seconds()*60)
	for w, n := range v.Vanished {
		r.add("vanished_by_"+way(w).String(), float64(n))
	}
	if v.Expiry.count() > 0 {
		late := v.Expiry.latencies()
		limits.latencies = append(limits.latencies, timed{late.P99, []string{
			"expired_behind_timeout_p99_us", "expired_behind_timeout_p50_us", "expired_behind_timeout_max_us", "expired_beyond_two_ticks",
		}})
		r.add("expired_behind_timeout_p50_us", late.P50)
		r.add("expired_behind_timeout_p99_us", late.P99)
		r.add("expired_behind_timeout_max_us", late.Max)
		r.add("expired_beyond_two_ticks", float64(v.Late))
		r.comment("expired_behind_timeout_max_us", "(from the last byte to the end of the connection, less %v)", o.timeout)
	}
	s.calibrate(sp, limits)
	r.Failures, r.Losses = v.Failures, v.Losses
	failed, lost := total(v.Failures), total(v.Losses)
	r.require(v.Begun > 0, "nobody came in %v at %v a minute", o.duration, o.churnRate)
	r.require(failed == 0, "%d visitors could not be opened%s", failed, mostly(v.Failures))
	r.require(lost == 0, "%d visitors were ended before they vanished%s", lost, mostly(v.Losses))
	r.require(v.Unplaced == 0, "%d visitors found no room: others took too long to open or to end", v.Unplaced)
	r.require(v.Early == 0, "%d silent ones were ended before %v", v.Early, o.timeout)
	r.require(v.Overdue == 0, "%d silent ones were not ended within %v", v.Overdue, o.patience(o.timeout))
}

// silentReasons are those by which the server counts ends for silence: a peer that was heard no more, one whose host was not, and one that fell silent
// while the server itself stood still.
func silentReasons() []string { return []string{"expired", "unreachable", "stalled"} }

// requireCounts compares what the server counts with what was done: silent ones were ended for silence, the others left or were
// reset. A FIN that overtakes a ping under way is answered by the kernel with a reset, so those two are one sum.
func (v *visits) requireCounts(r *report, counts map[string]int) {
	silent, left := v.Vanished[bySilence], v.Vanished[byFIN]+v.Vanished[byRST]
	ended := 0
	for _, reason := range silentReasons() {
		ended += counts[reason]
	}
	r.require(ended == silent, "the server counts %d as ended for silence, %d fell silent", ended, silent)
	r.require(counts["end"]+counts["reset"] == left, "the server counts %d ends and %d resets, %d left so", counts["end"], counts["reset"], left)
	for reason, n := range counts {
		r.require(reason == "end" || reason == "reset" || slices.Contains(silentReasons(), reason), "the server counts %d as ended by %s", n, reason)
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
