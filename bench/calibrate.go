package main

import (
	"runtime"
	"time"
)

// A number that depends on the client says something about the server only as long as the client has time to spare. Two
// things tell: how much of a core the busiest client process used, and how late its loop looked at what it had planned (a
// probe every probeEvery). What the client was the limit of is withheld: the report names it, and gives no number.

const (
	// limitedShare is the share of one core from which on a client, a single loop, is taken for the limit.
	limitedShare = 0.9
	// fullShare is the share of all cores from which on the machine is taken for full: the kernel needs the rest.
	fullShare = 0.9
	// waitedShare is the share of a span spent waiting for a core from which on that is worth a note.
	waitedShare = 0.1
	// turnShare is the share of the client's waiting that the server's work must account for, if it was the server that it
	// waited for.
	turnShare = 0.8
	// lateShare is the share of a latency's p99 from which on the lateness of the client's own loop is too much of it.
	lateShare = 0.5
	// spanLeast is the shortest span of which it can be told who was the limit: what is read before and after it costs a
	// millisecond or two itself, and the kernel counts in ticks.
	spanLeast = 100 * time.Millisecond
	// probeEvery is the pace of the probes, in ns: there is one at some time of each such gap (scatter).
	probeEvery = int64(10 * time.Millisecond)
)

// clientUse is what the clients took in a span. Those of several processes add up.
type clientUse struct {
	CPU     time.Duration
	Wait    time.Duration // for a core, while ready to run
	Busiest float64       // share of a core that the busiest process used
	Waited  float64       // share of the span that the one waited which waited longest
	Late    *histogram    // how late the loops looked; nil: no probes
}

func (u *clientUse) add(other clientUse) {
	u.CPU += other.CPU
	u.Wait += other.Wait
	u.Busiest = max(u.Busiest, other.Busiest)
	u.Waited = max(u.Waited, other.Waited)
	if u.Late == nil {
		u.Late = other.Late
		return
	}
	u.Late.merge(other.Late)
}

// late99 is the p99 of how late the loops looked, in µs; 0 without probes.
func (u *clientUse) late99() float64 {
	if u.Late == nil || u.Late.count() == 0 {
		return 0
	}
	return u.Late.latencies().P99
}

// probe notes how late the loop is for each probe that was due, those included that it slept through.
func (c *client) probe(now int64) {
	for c.probeDue <= now {
		c.late.record(now - c.probeDue)
		c.planProbe()
	}
}

// planProbe sets when the next probe is due.
func (c *client) planProbe() {
	c.probeDue = c.probesFrom + int64(c.probes)*probeEvery + int64(scatter(c.probesFrom, c.probes)*float64(probeEvery))
	c.probes++
}

// startProbes begins probing, with an empty account.
func (c *client) startProbes(now int64) {
	c.late, c.probesFrom, c.probes = newHistogram(), now, 0
	c.planProbe()
}

// stopProbes ends it and returns the account.
func (c *client) stopProbes() *histogram {
	late := c.late
	c.late = nil
	return late
}

// verdict says what stood in the way in a span.
type verdict struct {
	client  bool // a client was at the end of its core while the machine had cores to spare
	machine bool // clients and server used all cores
}

// judge says what was the limit of a span on a machine of so many cores, and notes it, of what the span was about.
func (r *report) judge(sp span, what string, cores int) verdict {
	var v verdict
	if length := sp.length(); length < spanLeast {
		r.note("%s took %v: too short to tell whether the client was the limit", what, length.Round(100*time.Microsecond))
		return v
	}
	together := sp.clientCores() + sp.serverCores()
	switch waited := sp.client.Waited >= waitedShare; {
	case sp.serverCPU > 0 && together >= fullShare*float64(cores):
		v.machine = true
		r.note("%s: client (%.2f cores) and server (%.2f) filled the machine: a rate is what both can do together", what, sp.clientCores(), sp.serverCores())
	case sp.client.Busiest >= limitedShare:
		v.client = true
		r.note("%s: the client was the limit (%.2f of a core), what depends on it is withheld; --processes spreads it over more cores", what, sp.client.Busiest)
	case waited && together >= fullShare && sp.serverCores() >= turnShare*sp.client.Waited:
		// Over loopback the kernel likes to run whoever is woken on the core of whoever woke it.
		v.machine = true
		r.note("%s: client (%.2f cores) and server (%.2f) took turns on the same core: a rate is what both can do together", what, sp.clientCores(), sp.serverCores())
	case waited:
		r.note("%s: the machine was busy, the client was ready but without a core for %.0f %% of %.1f s; rates and latencies suffer",
			what, 100*sp.client.Waited, sp.seconds())
	}
	r.ClientLimited = r.ClientLimited || v.client
	r.MachineLimited = r.MachineLimited || v.machine
	return v
}

// dependents are the figures of a span that depend on the client.
type dependents struct {
	what      string // the span is about
	rates     []string
	latencies []timed
}

// timed are figures of one latency, which is withheld if the client's own lateness is too much of its p99 (µs; 0: nothing
// was measured).
type timed struct {
	p99  float64
	keys []string
}

// withholdFor judges a span and withholds what is the client's.
func (s *session) withholdFor(sp span, d dependents) {
	r := s.report
	v := r.judge(sp, d.what, runtime.NumCPU())
	if v.client {
		r.withhold(d.rates...)
	}
	late := sp.client.late99()
	for _, l := range d.latencies {
		if !v.client && l.p99 > 0 && late >= lateShare*l.p99 {
			r.ClientLimited = true
			r.note("%s: the client's own loop looked up to %s late (p99) where %s has a p99 of %s: that is the client's as much as the server's, and withheld",
				d.what, us(late), l.keys[0], us(l.p99))
			r.withhold(l.keys...)
		}
		if v.client {
			r.withhold(l.keys...)
		}
	}
}

// calibrate puts the clients' own account of the main span into the report, judges it and withholds what is the client's.
func (s *session) calibrate(sp span, d dependents) {
	r := s.report
	if sp.length() < spanLeast {
		s.withholdFor(sp, d)
		return
	}
	r.add("client_cores", sp.clientCores())
	if s.crew != nil {
		r.comment("client_cores", "(in %d processes, the busiest %.2f)", len(s.crew.hands)+1, sp.client.Busiest)
	}
	r.add("client_wait_share", sp.client.Waited)
	r.comment("client_wait_share", "(ready to run, but without a core)")
	r.add("client_late_p99_us", sp.client.late99())
	r.comment("client_late_p99_us", "(how late the client's own loop looked)")
	s.withholdFor(sp, d)
}
