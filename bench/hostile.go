package main

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pairsMax bounds --pairs.
const pairsMax = 100

func hostileDefaults(o *options) {
	heldDefaults(o)
	o.connections, o.duration, o.rate = 2000, 20*time.Second, 1000
	o.hostile, o.hostileRate, o.again, o.factor, o.pairs = 1000, 500, 5*time.Second, 2, 1
	o.handshakeTimeout, o.kinds, o.standBack = 5*time.Second, kindNames(), true
}

func hostileFlags(fs *flag.FlagSet, o *options) {
	heldFlags(fs, o)
	fs.IntVar(&o.hostile, "hostile", o.hostile, "hostile peers, spread evenly over the kinds")
	fs.Var(&o.kinds, "kinds", "the `kinds` of them, comma-separated: "+strings.Join(kindNames(), ", "))
	fs.Float64Var(&o.hostileRate, "hostile-rate", o.hostileRate, "hostile peers that come a second; 0: all at once")
	fs.DurationVar(&o.again, "again", o.again, "a hostile peer that the server ended comes again so long after it came, at once if it lasted longer; 0: never")
	fs.IntVar(&o.atLeast, "at-least", 0, "the check fails if fewer hostile peers than this are connected at any moment once all have come; 0: any")
	fs.DurationVar(&o.handshakeTimeout, "handshake-timeout", o.handshakeTimeout, "the server's, from accept to the end of the upgrade")
	fs.BoolVar(&o.standBack, "stand-back", o.standBack, "attackers have a core only while nothing else wants it, as if they were on another host; --at-least tells whether that is enough for them")
	fs.IntVar(&o.pairs, "pairs", o.pairs, "how often a span without attack and one with it follow each other; the median of their factors counts")
	fs.Float64Var(&o.factor, "factor", o.factor, "how many times its p99 before the echo's p99 under attack may be; 0: any")
}

func prepareHostile(o *options) []rule {
	o.guests = o.hostile
	return append(heldRules(o),
		rule{o.connections < 2, fmt.Sprintf("--connections %d is less than 2: one half echoes, the other is beaten", o.connections)},
		rule{!(o.rate > 0), "--rate is to be above 0: the latency of an open loop is compared"},
		rule{o.hostile < 1 || o.hostile > guestsMax, fmt.Sprintf("--hostile %d is not between 1 and %d", o.hostile, guestsMax)},
		rateRule("--hostile-rate", o.hostileRate),
		rule{o.atLeast < 0 || o.atLeast > o.hostile, fmt.Sprintf("--at-least %d is not between 0 and --hostile %d", o.atLeast, o.hostile)},
		rule{o.gathering() > alarmHorizon, fmt.Sprintf("--hostile %d at --hostile-rate %v take longer than %v to come", o.hostile, o.hostileRate, alarmHorizon)},
		spanRule("--again", o.again, 0, alarmHorizon),
		spanRule("--handshake-timeout", o.handshakeTimeout, 1, alarmHorizon),
		rule{o.pairs < 1 || o.pairs > pairsMax, fmt.Sprintf("--pairs %d is not between 1 and %d", o.pairs, pairsMax)},
		rule{!(o.factor >= 0 && o.factor <= factorMost), fmt.Sprintf("--factor %v is not between 0 and %v", o.factor, factorMost)})
}

// gathering is how long the hostile peers take to come.
func (o *options) gathering() time.Duration {
	if o.hostileRate == 0 {
		return 0
	}
	return time.Duration(float64(o.hostile) / o.hostileRate * float64(time.Second))
}

// healthy are the connections of one process that must not notice. Half of all echo on a plan, the other half says nothing and is beaten: who says
// something is not beaten, so no connection could show both. Each half has processes of its own, or a batch of beats would be in the latency of the echoes
// that come behind it.
type healthy struct {
	beats  *beats  // nil where they echo
	echoer *echoer // nil where they are beaten
}

func newHealthy(c *client, o *options) *healthy {
	if o.echoing {
		return &healthy{echoer: newEchoer(c, o)}
	}
	return &healthy{beats: newBeats(c, o)}
}

// calm is what the healthy connections had of a span.
type calm struct {
	Latency                 *histogram
	Beats, Missed, Messages int
	Echoing, Beaten         clientUse // of the processes of each half
}

func (f *calm) add(other *calm) {
	f.Latency.merge(other.Latency)
	f.Beats += other.Beats
	f.Missed += other.Missed
	f.Messages += other.Messages
	f.Echoing.add(other.Echoing)
	f.Beaten.add(other.Beaten)
}

// use is what all processes took together. How late those were that are beaten is no part of the echoes' latency.
func (f *calm) use() clientUse {
	u := f.Beaten
	u.Late = nil
	u.add(f.Echoing)
	return u
}

// span measures what is there.
func (h *healthy) span(s *session, what string, length time.Duration) (span, calm, error) {
	found := calm{Latency: newHistogram()}
	if h.beats != nil {
		sp, err := s.spanOf(what, length, func() { h.beats.begin(length) })
		h.beats.stop()
		found.Beats, found.Missed, found.Beaten = h.beats.Beats, h.beats.Missed, sp.client
		return sp, found, err
	}
	before := 0
	sp, err := s.spanOf(what, length, func() {
		before = h.echoer.total
		h.echoer.begin(found.Latency)
	})
	if err != nil {
		return sp, found, err
	}
	h.echoer.end()
	found.Messages, found.Echoing = h.echoer.total-before, sp.client
	return sp, found, err
}

// hostileFound is what one process found, one that holds healthy connections or one that attacks.
type hostileFound struct {
	Before, Attacked []calm // one a pair
	Missing, Corrupt int
	Unsent           int // echoes that were due, and never sent: the client was too slow

	Results map[string]*result // by kind
	Most    int                // hostile peers at one time
	Least   int                // of them once all had come, in the pair that had the fewest
	CPU     time.Duration      // that attacking took, of all pairs
}

func (f *hostileFound) add(other *hostileFound) {
	for i := range other.Before {
		f.Before[i].add(&other.Before[i])
		f.Attacked[i].add(&other.Attacked[i])
	}
	f.Missing += other.Missing
	f.Unsent += other.Unsent
	f.Corrupt += other.Corrupt
	for kind, r := range other.Results {
		if f.Results[kind] == nil {
			f.Results[kind] = newResult()
		}
		f.Results[kind].add(r)
	}
	f.Most += other.Most
	f.Least += other.Least
	f.CPU += other.CPU
}

// splitHostile gives those that echo, those that are beaten and the hostile peers processes of their own: on one loop the others would disturb what is
// measured there. The leader's are beaten: it also looks at the server, which takes milliseconds.
func splitHostile(_ scenario, o *options, most int) ([]*options, error) {
	half := o.connections / 2
	roles := [...]struct {
		echoing                bool
		connections, processes int
	}{
		{false, o.connections - half, max(ceilDiv(o.connections-half, most), min(ceilDiv(o.processes, 2), half))},
		{true, half, max(ceilDiv(half, most), min(o.processes/2, half))},
	}
	attack := ceilDiv(o.hostile, most)
	all := func() int { return roles[0].processes + roles[1].processes + attack }
	for all() <= partsMax && ceilDiv(roles[0].connections, roles[0].processes) > roomOf(0, all(), most) {
		roles[0].processes++
	}
	if all() > partsMax {
		return nil, tooMany(o, most)
	}
	var parts []*options
	for _, of := range roles {
		for i := range of.processes {
			p := *o
			p.connections, p.hostile, p.guests = portion(of.connections, i, of.processes), 0, 0
			if p.echoing, p.rate = of.echoing, 0; p.echoing {
				p.rate = o.rate * float64(p.connections) / float64(half)
			}
			share := float64(p.connections) / float64(o.connections)
			p.openRate, p.opening = o.openRate*share, max(int(float64(o.opening)*share), 1)
			p.index = len(parts)
			parts = append(parts, &p)
		}
	}
	for i := range attack {
		p := *o
		p.index, p.connections, p.rate = len(parts), 0, 0
		p.hostile = portion(o.hostile, i, attack)
		p.guests = p.hostile
		parts = append(parts, &p)
	}
	return parts, nil
}

// runHostile is the script of both kinds of processes: they meet at the same points.
func runHostile(s *session) error {
	if s.opts.hostile > 0 {
		return runAttack(s)
	}
	o, c := s.opts, s.client
	if err := s.lookOut(); err != nil {
		return err
	}
	defer s.lookAway()
	s.lag = o.attackEnds()
	h := newHealthy(c, o)
	if err := s.open(o.connections); err != nil {
		return err
	}
	if h.echoer != nil {
		h.echoer.startOpenLoop(o)
	}
	if err := s.rest("first beats", o.interval+o.settle); err != nil {
		return err
	}
	own := hostileFound{Results: map[string]*result{}}
	var seen sights
	var quiet, attacked span // of all pairs
	for pair := range o.pairs {
		before, during, err := h.pair(s, &own, &seen, pair == 0)
		if err != nil {
			return err
		}
		quiet, attacked = quiet.joined(before), attacked.joined(during)
	}
	if err := h.finish(s, &own, &seen); err != nil {
		return err
	}
	all, err := collect(s, &attacked, own)
	if err != nil {
		return err
	}
	quiet.client, attacked.client = clientUse{}, clientUse{}
	for i := range all.Before {
		quiet.client.add(all.Before[i].use())
		attacked.client.add(all.Attacked[i].use())
	}
	all.fill(s, quiet, attacked)
	all.fillResults(s, attacked)
	r := s.report
	r.compareLooks(seen.before, seen.most, seen.after)
	if seen.before.rss >= 0 {
		r.add("server_bytes_per_hostile", float64(seen.most.rss-seen.before.rss)/float64(max(all.Most, 1)))
	}
	r.requireHeld(seen.before, seen.after)
	r.requireLooks(s.looks)
	return nil
}

// pair is a span without attack and one with it.
func (h *healthy) pair(s *session, own *hostileFound, seen *sights, first bool) (quiet, attacked span, err error) {
	quiet, before, err := h.span(s, "before", s.whole.duration)
	if err != nil {
		return quiet, attacked, err
	}
	if err := s.meet("look before", func() (err error) {
		if first {
			seen.before, err = s.looks.now()
		}
		return err
	}); err != nil {
		return quiet, attacked, err
	}
	attacked, during, err := h.span(s, "under attack", s.whole.gathering()+s.whole.duration)
	if err != nil {
		return quiet, attacked, err
	}
	own.Before, own.Attacked = append(own.Before, before), append(own.Attacked, during)
	if err := s.meet("attack over", nil); err != nil {
		return quiet, attacked, err
	}
	return quiet, attacked, s.rest("settling", s.opts.settle)
}

// finish waits for the last echoes and looks at the server once more.
func (h *healthy) finish(s *session, own *hostileFound, seen *sights) (err error) {
	if h.echoer != nil {
		if own.Missing, err = h.echoer.finish(); err != nil {
			return err
		}
		own.Unsent, own.Corrupt = h.echoer.unsent(), h.echoer.corrupt
	}
	return s.meet("look after", func() (err error) {
		seen.most = s.looks.most
		seen.after, err = s.lookBack(seen.before)
		return err
	})
}

// attackEnds is how long the last hostile peers may take to end once no more come: those that healthy connections wait for.
func (o *options) attackEnds() time.Duration {
	return o.openTimeout + o.timeout + o.interval + o.handshakeTimeout + serverCloseTimeout + o.patience(0)
}

// runAttack is the script of a process whose peers are hostile.
func runAttack(s *session) error {
	o, c := s.opts, s.client
	if err := s.open(0); err != nil {
		return err
	}
	own := hostileFound{Results: map[string]*result{}}
	for pair := range o.pairs {
		if _, err := s.span("before", nil); err != nil {
			return err
		}
		if err := s.meet("look before", nil); err != nil {
			return err
		}
		var a *attackers
		gathering := s.whole.gathering()
		sp, err := s.spanOf("attacking", gathering+o.duration, func() { a = newAttackers(c, o, gathering) })
		if err != nil {
			return err
		}
		own.CPU += sp.client.CPU
		a.stop(c.clock())
		if err := s.await("last ones ended", o.attackEnds(), func() bool { return a.here == 0 }); err != nil {
			return err
		}
		a.finish(c.clock())
		own.add(&hostileFound{Results: a.results})
		own.Most = max(own.Most, a.most)
		if pair == 0 || a.fewest < own.Least {
			own.Least = a.fewest
		}
		if err := s.meet("attack over", nil); err != nil {
			return err
		}
	}
	if err := s.meet("look after", nil); err != nil {
		return err
	}
	_, err := collect(s, &span{}, own)
	return err
}

// fill reports what the healthy connections had before and under attack.
func (f *hostileFound) fill(s *session, quiet, attacked span) {
	o, r := s.whole, s.report
	latency := newHistogram()
	var before, during calm
	before.Latency, during.Latency = newHistogram(), newHistogram()
	var p99Before, p99Attacked, times []float64
	for i := range f.Before {
		b, a := f.Before[i].Latency.latencies().P99, f.Attacked[i].Latency.latencies().P99
		p99Before, p99Attacked, times = append(p99Before, b), append(p99Attacked, a), append(times, a/b)
		before.add(&f.Before[i])
		during.add(&f.Attacked[i])
		latency.merge(f.Attacked[i].Latency)
	}
	lat := latency.latencies()
	r.LatencyUs, r.latencyOf = &lat, "echo under attack"
	factor := spreadOf(times)
	r.add("pairs", float64(len(times)))
	r.add("echo_p50_before_us", before.Latency.latencies().P50)
	r.add("echo_p50_attacked_us", lat.P50)
	r.add("echo_p99_before_us", spreadOf(p99Before).Median)
	r.add("echo_p99_attacked_us", spreadOf(p99Attacked).Median)
	r.add("echo_p99_factor", factor.Median)
	r.comment("echo_p99_factor", "(median of the pairs)")
	r.add("echo_p99_factor_min", factor.Min)
	r.add("echo_p99_factor_max", factor.Max)
	r.add("messages_before", float64(before.Messages))
	r.add("messages_attacked", float64(during.Messages))
	r.add("beats_before", float64(before.Beats))
	r.add("beats_attacked", float64(during.Beats))
	r.add("beats_missed_before", float64(before.Missed))
	r.add("beats_missed_attacked", float64(during.Missed))
	judged := []string{"echo_p99_factor", "echo_p99_factor_min", "echo_p99_factor_max"}
	s.withholdFor(quiet, dependents{what: "before", latencies: []timed{
		{spreadOf(p99Before).Median, append([]string{"echo_p99_before_us", "echo_p50_before_us"}, judged...)},
	}})
	// A client that is late under attack adds to the latency there and so to the factor, which is then an upper bound: what holds for it
	// holds for the server.
	s.calibrate(attacked, dependents{what: "under attack", rates: judged, latencies: []timed{
		{spreadOf(p99Attacked).Median, []string{"echo_p99_attacked_us", "echo_p50_attacked_us", latencyKey}},
	}})
	atMost := slices.Contains(r.Withheld, latencyKey)
	if atMost {
		r.comment("echo_p99_factor", "(median of the pairs; at most, since the client's own lateness is in it)")
	}
	r.require(before.Messages > 0 && during.Messages > 0, "no message came back: does the server echo?")
	r.require(before.Beats > 0 && during.Beats > 0, "no beat in %v: is --interval %v the server's?", o.duration, o.interval)
	r.require(before.Missed == 0, "%d beats were missed before the attack%s", before.Missed, before.Beaten.excuse(o.interval))
	r.require(during.Missed == 0, "%d beats were missed under attack%s", during.Missed, during.Beaten.excuse(o.interval))
	switch {
	case o.factor == 0:
	case slices.Contains(r.Withheld, judged[0]), atMost && factor.Median > o.factor:
		r.require(before.Messages == 0, "the client was the limit: the echo's p99 can't be judged")
	default:
		r.require(!(factor.Median > o.factor), "the echo's p99 under attack is %.2f times that before (%s, %s), more than %v",
			factor.Median, us(spreadOf(p99Attacked).Median), us(spreadOf(p99Before).Median), o.factor)
	}
	r.require(f.Corrupt == 0, "%d messages came back changed", f.Corrupt)
	r.require(f.Missing == 0, "%d messages of healthy connections were not answered within %v%s", f.Missing, drainFor, unsentExcuse(f.Unsent))
	r.require(f.Unsent == 0, "%d messages were due and never sent: the client was the limit", f.Unsent)
}

// fillResults reports how the hostile peers ended, and judges that.
func (f *hostileFound) fillResults(s *session, attacked span) {
	o, r := s.whole, s.report
	r.Ends = map[string]map[string]int{}
	begun := 0
	for _, name := range o.kinds {
		k, res := kindNamed(name, s.client, o), f.Results[name]
		if res == nil { // no peer of this kind came
			res = newResult()
		}
		begun += res.Begun
		r.Ends[name] = res.Ends
		key := strings.ReplaceAll(name, "-", "_")
		r.add(key+"_begun", float64(res.Begun))
		r.add(key+"_longest_seconds", float64(res.Longest)/1e9)
		r.require(len(res.Wrong) == 0, "%s: %d did not end as wanted (%s)%s", name, total(res.Wrong), k.want, mostly(res.Wrong))
		r.require(res.Early == 0, "%s: %d were ended before %v", name, res.Early, k.limit)
		r.require(res.Overdue == 0, "%s: %d were still open %v after %v", name, res.Overdue, o.patience(0), k.limit)
	}
	r.add("hostile_begun", float64(begun))
	r.add("hostile_most", float64(f.Most))
	r.comment("hostile_most", "(at one time)")
	r.add("hostile_least", float64(f.Least))
	r.comment("hostile_least", "(at any time, once all had come)")
	r.add("hostile_client_cores", f.CPU.Seconds()/attacked.seconds())
	r.comment("hostile_client_cores", "(of the processes that attack)")
	r.require(begun >= o.hostile*o.pairs, "only %d of %d hostile peers came in %d attacks", begun, o.hostile, o.pairs)
	r.require(f.Least >= o.atLeast, "at one moment only %d hostile peers were connected, %d were to be", f.Least, o.atLeast)
}
