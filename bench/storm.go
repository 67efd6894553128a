package main

import (
	"flag"

	"github.com/pulsewheel/pulsewheel/poller"
)

func stormDefaults(o *options) { o.connections = 9000 }

func stormFlags(*flag.FlagSet, *options) {}

func runStorm(s *session) error {
	o, c, r := s.opts, s.client, s.report
	c.opens.took = newHistogram()
	var first, second span
	var err error
	// The first connection, which showed that the target is there, is not part of the span.
	n := o.connections - c.tally.active
	if first, err = s.measure(func() error { return s.open(o.connections) }); err != nil {
		return err
	}
	firstLat := c.opens.took.latencies()
	if err := s.rest("holding", o.settle); err != nil {
		return err
	}
	held := c.tally.active
	c.opens.took.reset()
	second, err = s.measure(func() error {
		c.drop(poller.Close)
		c.restartOpens(o.connections) // all at once: whatever the backlog does not hold is sent again by the kernel
		c.opens.rate = 0
		return s.open(o.connections)
	})
	if err != nil {
		return err
	}
	secondLat := c.opens.took.latencies()
	if err := s.rest("holding", o.settle); err != nil {
		return err
	}
	s.account(span{
		from: 0, to: first.to - first.from + second.to - second.from,
		serverCPU: first.serverCPU + second.serverCPU, serverUser: first.serverUser + second.serverUser,
	})
	r.LatencyUs, r.latencyOf = &firstLat, "connect and upgrade"
	r.add("opens_per_second", float64(n)/first.seconds())
	s.perOperation(first, "open", n)
	s.judgeClient(first, "the rate")
	r.add("reconnects", float64(c.tally.active))
	r.comment("reconnects", "(of %d dropped at once)", held)
	r.add("reconnect_seconds", second.seconds())
	r.add("reconnects_per_second", float64(c.tally.active)/second.seconds())
	r.add("reconnect_p50_us", secondLat.P50)
	r.add("reconnect_p99_us", secondLat.P99)
	r.add("reconnect_max_us", secondLat.Max)
	if s.server != nil {
		r.add("cpu_us_per_reconnect", second.serverCPU.Seconds()*1e6/float64(max(c.tally.active, 1)))
		r.comment("cpu_us_per_reconnect", "(the end of the old connection included)")
	}
	if s.opts.syscalls {
		r.note("system calls are not counted here: an upgrade is not repeated under perf")
	}
	return nil
}
