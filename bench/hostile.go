package main

import (
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

func hostileDefaults(o *options) {
	heldDefaults(o)
	o.connections, o.duration, o.rate = 2000, 20*time.Second, 1000
	o.hostile, o.hostileRate, o.again, o.factor = 1000, 500, 5*time.Second, 2
	o.handshakeTimeout, o.kinds = 5*time.Second, kindNames()
}

func hostileFlags(fs *flag.FlagSet, o *options) {
	heldFlags(fs, o)
	fs.IntVar(&o.hostile, "hostile", o.hostile, "hostile peers, spread evenly over the kinds")
	fs.Var(&o.kinds, "kinds", "the `kinds` of them, comma-separated: "+strings.Join(kindNames(), ", "))
	fs.Float64Var(&o.hostileRate, "hostile-rate", o.hostileRate, "hostile peers that come a second; 0: all at once")
	fs.DurationVar(&o.again, "again", o.again, "a hostile peer that the server ended comes again after this; 0: never")
	fs.DurationVar(&o.handshakeTimeout, "handshake-timeout", o.handshakeTimeout, "the server's, from accept to the end of the upgrade")
	fs.Float64Var(&o.factor, "factor", o.factor, "how many times its p99 before the echo's p99 under attack may be")
}

func prepareHostile(o *options) []rule {
	o.guests = o.hostile
	return append(heldRules(o),
		rule{o.connections < 2, fmt.Sprintf("--connections %d is less than 2: one half echoes, the other is beaten", o.connections)},
		rule{!(o.rate > 0), "--rate is to be above 0: the latency of an open loop is compared"},
		rule{o.hostile < 1 || o.hostile > guestsMax, fmt.Sprintf("--hostile %d is less than 1", o.hostile)},
		rule{!(o.hostileRate >= 0), fmt.Sprintf("--hostile-rate %v is negative", o.hostileRate)},
		rule{o.hostileRate > 0 && float64(o.hostile)/o.hostileRate > alarmHorizon.Seconds(), fmt.Sprintf("--hostile-rate %v takes longer than %v", o.hostileRate, alarmHorizon)},
		rule{o.again < 0 || o.again > alarmHorizon, fmt.Sprintf("--again %v is not between 0 and %v", o.again, alarmHorizon)},
		rule{o.handshakeTimeout <= 0 || o.handshakeTimeout > alarmHorizon, fmt.Sprintf("--handshake-timeout %v is not between 0 and %v", o.handshakeTimeout, alarmHorizon)},
		rule{!(o.factor > 0), fmt.Sprintf("--factor %v is not positive", o.factor)})
}

// healthy are the connections that must not notice: the first half echoes on a plan, the other half says nothing and is
// beaten. Who says something is not beaten, so no connection could show both.
type healthy struct {
	beats  *beats
	echoer *echoer
}

func newHealthy(c *client, o *options) *healthy {
	h := &healthy{beats: newBeats(c, o)}
	h.beats.first = o.connections / 2
	h.beats.last[0] = c.clock() // it was opened before the hook was there
	echoing := *o
	echoing.connections = h.beats.first
	h.echoer = newEchoer(c, &echoing)
	return h
}

// start begins the plan of echoes.
func (h *healthy) start(c *client, o *options) {
	echoing := *o
	echoing.connections = h.beats.first
	h.echoer.startOpenLoop(&echoing)
	echoed := c.hooks.message
	c.hooks.message = func(i int, m wsframe.Message, at int64) {
		if i < h.beats.first {
			echoed(i, m, at)
			return
		}
		h.beats.message(i, m, at)
	}
}

// span measures both for the length the caller asked for.
func (h *healthy) span(s *session, what string) (span, calm, error) {
	h.echoer.latency.reset()
	beats, missed, messages := h.beats.counts.beats, h.beats.counts.missed, h.echoer.total
	h.beats.begin(s.opts.duration)
	h.echoer.recording = true
	sp, err := s.span(what)
	h.echoer.recording = false
	h.beats.stop()
	return sp, calm{
		latency: h.echoer.latency.latencies(), beats: h.beats.counts.beats - beats, missed: h.beats.counts.missed - missed,
		messages: h.echoer.total - messages,
	}, err
}

// calm is what the healthy connections had of a span.
type calm struct {
	latency                 latencies
	beats, missed, messages int
}

func runHostile(s *session) error {
	o, c, r := s.opts, s.client, s.report
	if err := s.lookOut(); err != nil {
		return err
	}
	l := s.looks
	defer l.stop()
	h := newHealthy(c, o)
	if err := s.open(o.connections); err != nil {
		return err
	}
	h.start(c, o)
	if err := s.rest("first beats", o.interval+o.settle); err != nil {
		return err
	}
	_, quiet, err := h.span(s, "before")
	if err != nil {
		return err
	}
	before, err := l.now()
	if err != nil {
		return err
	}
	a := newAttackers(c, o)
	sp, attacked, err := h.span(s, "under attack")
	if err != nil {
		return err
	}
	a.stop(c.clock())
	longest := o.openTimeout + o.timeout + o.interval + o.handshakeTimeout + serverCloseTimeout + o.patience(0)
	if err := s.await("last ones ended", longest, func() bool { return a.here == 0 }); err != nil {
		return err
	}
	a.finish(c.clock())
	h.echoer.pacer.stop(c.clock())
	missing, err := c.drain(func() int {
		return h.echoer.pacer.missing(c, func(i int) int { return int(h.echoer.received[i]) })
	})
	if err != nil {
		return err
	}
	most := l.most
	if err := s.rest("settling", o.settle); err != nil {
		return err
	}
	after, err := s.lookBack(before)
	if err != nil {
		return err
	}
	h.fill(s, sp, quiet, attacked)
	a.fill(r, o)
	r.compareLooks(before, most, after)
	if before.rss >= 0 {
		r.add("server_bytes_per_hostile", float64(most.rss-before.rss)/float64(max(a.most, 1)))
	}
	r.require(h.echoer.corrupt == 0, "%d messages came back changed", h.echoer.corrupt)
	r.require(missing == 0, "%d messages of healthy connections were not answered within %v", missing, drainFor)
	r.requireHeld(before, after)
	r.requireLooks(l)
	return nil
}

// fill reports what the healthy connections had before and under attack.
func (h *healthy) fill(s *session, sp span, quiet, attacked calm) {
	o, r := s.opts, s.report
	r.LatencyUs, r.latencyOf = &attacked.latency, "echo under attack"
	r.add("echo_p50_before_us", quiet.latency.P50)
	r.add("echo_p50_attacked_us", attacked.latency.P50)
	r.add("echo_p99_before_us", quiet.latency.P99)
	r.add("echo_p99_attacked_us", attacked.latency.P99)
	times := attacked.latency.P99 / quiet.latency.P99
	r.add("echo_p99_factor", times)
	r.add("messages_before", float64(quiet.messages))
	r.add("messages_attacked", float64(attacked.messages))
	r.add("beats_before", float64(quiet.beats))
	r.add("beats_attacked", float64(attacked.beats))
	r.add("beats_missed_before", float64(quiet.missed))
	r.add("beats_missed_attacked", float64(attacked.missed))
	r.add("client_cores", sp.clientCores())
	if sp.clientCores() >= limitedShare {
		r.ClientLimited = true
		r.note("the client was at %.2f of a core: latency and lateness may be its own", sp.clientCores())
	}
	r.require(quiet.messages > 0 && attacked.messages > 0, "no message came back: does the server echo?")
	r.require(quiet.beats > 0 && attacked.beats > 0, "no beat in %v: is --interval %v the server's?", o.duration, o.interval)
	r.require(quiet.missed == 0, "%d beats were missed before the attack", quiet.missed)
	r.require(attacked.missed == 0, "%d beats were missed under attack", attacked.missed)
	r.require(!(times > o.factor), "the echo's p99 under attack is %.2f times that before (%s, %s), more than %v",
		times, us(attacked.latency.P99), us(quiet.latency.P99), o.factor)
}

// fill reports how the hostile peers ended, and judges that.
func (a *attackers) fill(r *report, o *options) {
	r.Ends = map[string]map[string]int{}
	begun := 0
	for _, k := range a.kinds {
		res := a.results[k.name]
		begun += res.begun
		r.Ends[k.name] = res.ends
		key := strings.ReplaceAll(k.name, "-", "_")
		r.add(key+"_begun", float64(res.begun))
		r.add(key+"_longest_seconds", float64(res.longest)/1e9)
		r.require(len(res.wrong) == 0, "%s: %d did not end as wanted (%s)%s", k.name, total(res.wrong), k.want, mostly(res.wrong))
		r.require(res.early == 0, "%s: %d were ended before %v", k.name, res.early, k.limit)
		r.require(res.overdue == 0, "%s: %d were still open %v after %v", k.name, res.overdue, o.patience(0), k.limit)
	}
	r.add("hostile_begun", float64(begun))
	r.add("hostile_most", float64(a.most))
	r.comment("hostile_most", "(at one time)")
	r.require(begun >= min(o.hostile, len(a.all)), "only %d of %d hostile peers came: --duration is too short for --hostile-rate", begun, o.hostile)
}
