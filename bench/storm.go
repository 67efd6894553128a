package main

import (
	"flag"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

func stormDefaults(o *options) { o.connections, o.duration = 9000, 3*time.Second }

func stormFlags(*flag.FlagSet, *options) {}

// stormFound is what one process found.
type stormFound struct {
	Opened, Held, Reconnected int
	First, Second             *histogram // of the opens one after another, and of those at once
	Again                     clientUse  // while all reconnected at once
}

func (f *stormFound) add(other *stormFound) {
	f.Opened += other.Opened
	f.Held += other.Held
	f.Reconnected += other.Reconnected
	f.First.merge(other.First)
	f.Second.merge(other.Second)
	f.Again.add(other.Again)
}

func runStorm(s *session) error {
	o, c := s.opts, s.client
	own := stormFound{First: newHistogram(), Second: newHistogram()}
	c.opens.took = own.First
	before := c.tally.Opened // the first connection of the leader, which showed that the target is there, is not part of the span
	first, err := s.measure(func() error { return s.open(o.connections) })
	if err != nil {
		return err
	}
	own.Opened = c.tally.Opened - before
	if err := s.rest("holding", o.duration); err != nil {
		return err
	}
	own.Held = c.tally.Active
	c.opens.took = own.Second
	second, err := s.measure(func() error {
		c.drop(poller.Close)
		c.restartOpens(o.connections) // all at once: whatever the backlog does not hold is sent again by the kernel
		c.opens.rate = 0
		return s.open(o.connections)
	})
	if err != nil {
		return err
	}
	own.Reconnected, own.Again = c.tally.Active, second.client
	if err := s.rest("holding", o.settle); err != nil {
		return err
	}
	all, err := collect(s, &first, own)
	if err != nil {
		return err
	}
	second.client = all.Again
	s.account(span{
		from: 0, to: first.to - first.from + second.to - second.from,
		serverCPU: first.serverCPU + second.serverCPU, serverUser: first.serverUser + second.serverUser,
	})
	all.fill(s, first, second)
	return nil
}

// fill writes the report.
func (f *stormFound) fill(s *session, first, second span) {
	r := s.report
	lat, again := f.First.latencies(), f.Second.latencies()
	r.LatencyUs, r.latencyOf = &lat, "connect and upgrade"
	r.add("opens_per_second", float64(f.Opened)/first.seconds())
	s.perOperation(first, "open", f.Opened)
	s.calibrate(first, dependents{
		what: "opening", rates: []string{"opens_per_second"}, latencies: []timed{{lat.P99, []string{latencyKey}}},
	})
	r.add("reconnects", float64(f.Reconnected))
	r.comment("reconnects", "(of %d dropped at once)", f.Held)
	r.add("reconnect_seconds", second.seconds())
	r.add("reconnects_per_second", float64(f.Reconnected)/second.seconds())
	r.add("reconnect_p50_us", again.P50)
	r.add("reconnect_p99_us", again.P99)
	r.add("reconnect_max_us", again.Max)
	s.withholdFor(second, dependents{
		what: "reconnecting", rates: []string{"reconnect_seconds", "reconnects_per_second"},
		latencies: []timed{{again.P99, []string{"reconnect_p99_us", "reconnect_p50_us", "reconnect_max_us"}}},
	})
	if s.server != nil {
		r.add("cpu_us_per_reconnect", second.serverCPU.Seconds()*1e6/float64(max(f.Reconnected, 1)))
		r.comment("cpu_us_per_reconnect", "(the end of the old connection included)")
	}
	if s.whole.syscalls {
		r.note("system calls are not counted here: an upgrade is not repeated under perf")
	}
}
