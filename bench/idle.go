package main

import (
	"bytes"
	"flag"
	"fmt"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

func idleDefaults(o *options) { o.connections = 18000 }

// stepsShare is where the first step lies unless --steps says otherwise: a ninth of the connections, as 2,000 of 18,000.
const stepsShare = 9

func idleFlags(fs *flag.FlagSet, o *options) {
	fs.Var(&o.steps, "steps", "`counts` at which memory is sampled, such as 2000,18000 (the default: a ninth of --connections, and all)")
	fs.BoolVar(&o.echoOnce, "echo-once", false, "one echo on every connection at each step, then --echo-settle, then another sample")
	fs.DurationVar(&o.echoSettle, "echo-settle", 20*time.Second, "rest between those echoes and the sample after them")
	fs.IntVar(&o.size, "size", o.size, "payload `bytes` of that echo")
}

// sample is the server's memory with so many connections open.
type sample struct {
	connections int
	rss         int64 // bytes, having settled
	echoedRSS   int64 // bytes, having settled after one echo on each; 0 without --echo-once
}

// idleFound is what one process found.
type idleFound struct {
	Pings   int // answered while all were held
	Due     int // echoes that did not come back
	Changed int // echoes that were not what was sent
	Took    *histogram
	Opening clientUse
}

func (f *idleFound) add(other *idleFound) {
	f.Pings += other.Pings
	f.Due += other.Due
	f.Changed += other.Changed
	f.Took.merge(other.Took)
	f.Opening.add(other.Opening)
}

func runIdle(s *session) error {
	o, c := s.opts, s.client
	steps := []int(o.steps)
	if len(steps) == 0 {
		steps = []int{max(o.connections/stepsShare, 1), o.connections}
	}
	own := idleFound{Took: newHistogram()}
	c.opens.took = own.Took
	pings := 0
	c.hooks.ping = func(int, int64) { pings++ }
	var samples []sample
	var opening span // from the first connect to the last upgrade, without the rests in between
	for i, n := range steps {
		sp, err := s.measure(func() error { return s.open(n) })
		if err != nil {
			return err
		}
		opening = opening.joined(sp)
		previous := 0
		if i > 0 {
			previous = steps[i-1]
		}
		sm, err := s.sample(previous, &own)
		if err != nil {
			return err
		}
		samples = append(samples, sm)
	}
	before := 0
	sp, err := s.span("holding", func() { before = pings })
	if err != nil {
		return err
	}
	own.Pings, own.Opening = pings-before, opening.client
	all, err := collect(s, &sp, own)
	if err != nil {
		return err
	}
	opening.client = all.Opening
	all.fill(s, opening, sp, samples)
	return nil
}

// joined is two spans, one after the other, as one.
func (s span) joined(next span) span {
	next.from -= s.to - s.from
	next.serverCPU += s.serverCPU
	next.serverUser += s.serverUser
	next.client.add(s.client)
	return next
}

// fill writes the report.
func (f *idleFound) fill(s *session, opening, held span, samples []sample) {
	r := s.report
	lat := f.Took.latencies()
	r.LatencyUs, r.latencyOf = &lat, "connect and upgrade"
	r.add("opens_per_second", float64(s.total.Opened)/opening.seconds())
	s.withholdFor(opening, dependents{
		what: "opening", rates: []string{"opens_per_second"}, latencies: []timed{{lat.P99, []string{latencyKey}}},
	})
	s.memory(samples)
	r.add("pings_answered", float64(f.Pings))
	if s.server == nil {
		r.note("without --pid neither the server's memory nor its CPU is known")
	} else {
		r.add("server_cores", held.serverCores())
		r.comment("server_cores", "(while all are held)")
	}
	s.calibrate(held, dependents{what: "holding"})
	r.require(f.Due <= 0, "%d of the echoes did not come back: does the server echo?", f.Due)
	r.require(f.Changed == 0, "%d messages came back changed", f.Changed)
}

// sample lets the server settle and reads its memory; then, if asked for, again after one echo on every connection. The
// connections below previous have had theirs.
func (s *session) sample(previous int, own *idleFound) (sample, error) {
	var sm sample
	if err := s.rest("settling", s.opts.settle); err != nil {
		return sm, err
	}
	read := func(rss *int64) func(int) error {
		return func(all int) (err error) {
			sm.connections = all
			if s.server != nil {
				*rss, err = s.server.rss()
			}
			return err
		}
	}
	active := func() int { return s.client.tally.Active }
	if err := s.meetCounting("settled", active, read(&sm.rss)); err != nil || !s.opts.echoOnce {
		return sm, err
	}
	if err := s.echoOnce(previous, own); err != nil {
		return sm, err
	}
	if err := s.rest("settling", s.opts.echoSettle); err != nil {
		return sm, err
	}
	return sm, s.meetCounting("settled after echo", active, read(&sm.echoedRSS))
}

// echoOnce sends one message on every connection from the first given on, and waits for all to come back. So many are
// under way at a time as connections were opened at a time.
func (s *session) echoOnce(from int, own *idleFound) error {
	c := s.client
	payload := payloadOf(s.opts.size)
	frame := c.frame(wsframe.Binary, payload)
	next, due, changed := from, 0, 0
	send := func() {
		for ; next < len(c.conns) && next < c.opens.want; next++ {
			if c.isOpen(next) && c.send(next, frame) {
				c.traffic.Sent++
				due++
				next++
				return
			}
		}
	}
	c.hooks.message = func(_ int, m wsframe.Message, _ int64) {
		if m.Opcode != wsframe.Binary {
			return
		}
		if !bytes.Equal(m.Payload, payload) {
			changed++
		}
		due--
		send()
	}
	defer func() { c.hooks.message = nil }()
	for range c.window {
		send()
	}
	s.watch("one echo each", func() (int, int) { return next - from, c.opens.want - from })
	err := c.run(c.clock()+int64(s.opts.openTimeout)+int64(drainFor), func() bool { return due <= 0 || c.tally.Active == 0 })
	own.Due += max(due, 0)
	own.Changed += changed
	return err
}

// memory reports what a connection costs: the slope between the first and the last sample. Between two samples only the
// connections in between were opened, so what the process itself takes, and what an echo leaves behind once, is not in it.
func (s *session) memory(samples []sample) {
	r := s.report
	if s.server == nil {
		return
	}
	for _, sm := range samples {
		r.add(fmt.Sprintf("rss_bytes_at_%d", sm.connections), float64(sm.rss))
	}
	first, last := samples[0], samples[len(samples)-1]
	more := float64(last.connections - first.connections)
	if more <= 0 {
		r.note("one step gives no slope: --steps takes two counts or more")
		return
	}
	if !s.opts.echoOnce {
		r.add("bytes_per_connection", float64(last.rss-first.rss)/more)
		return
	}
	// Each leg from one sample after an echo to the next one before it: idle connections alone.
	idle := 0.0
	for i, sm := range samples[1:] {
		idle += float64(sm.rss - samples[i].echoedRSS)
	}
	r.add("bytes_per_connection", idle/more)
	r.add("bytes_per_connection_after_echo", float64(last.echoedRSS-first.echoedRSS)/more)
}
