package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

const (
	// limitedShare is the share of one core from which on the client, a single loop, is taken for the limit.
	limitedShare = 0.9
	// waitedShare is the share of a span spent waiting for a core from which on that is worth a note.
	waitedShare = 0.1
	// syscallSpan bounds the span that is repeated under perf: counting needs no long one.
	syscallSpan = 5 * time.Second
)

// session is one run of a scenario: the client, the server's account, the report in the making.
type session struct {
	opts   *options
	client *client
	server *process // nil without --pid
	report *report
	bar    *progress
	looks  *lookout // of churn and hostile; nil elsewhere
	calls  float64  // system calls of the server per operation; 0 not counted
}

// span is what a measured stretch of time took.
type span struct {
	from, to   int64 // on the client's clock
	serverCPU  time.Duration
	serverUser time.Duration
	clientCPU  time.Duration
	clientWait time.Duration // for a core
}

func (s span) seconds() float64 { return float64(s.to-s.from) / 1e9 }

// clientCores is how much of a core the client used.
func (s span) clientCores() float64 { return s.clientCPU.Seconds() / s.seconds() }

// waitShare is the share of the span in which the client was ready to run but had no core.
func (s span) waitShare() float64 { return s.clientWait.Seconds() / s.seconds() }

// serverCores likewise; 0 if unknown.
func (s span) serverCores() float64 { return s.serverCPU.Seconds() / s.seconds() }

// runScenario runs one scenario from the first connection to the exit code.
func runScenario(sc scenario, o *options, stdout, stderr io.Writer) error {
	limit, err := poller.DescriptorLimit()
	if err != nil {
		return err
	}
	if need := o.connections + o.guests + spareDescriptors; uint64(need) > limit {
		return fmt.Errorf("%w: %d connections%s need %d descriptors, the limit is %d: raise it (ulimit -n) or lower --connections",
			errUsage, o.connections, besides(o.guests), need, limit)
	}
	s := &session{opts: o, report: &report{Scenario: sc.name, Target: o.target.url}, bar: newProgress(stderr)}
	if o.pid != 0 {
		s.server = &process{pid: o.pid}
		if _, err := s.server.rss(); err != nil {
			return fmt.Errorf("%w: --pid: %w", errUsage, err)
		}
	}
	if s.client, err = newClient(o); err != nil {
		return err
	}
	defer s.client.close() //nolint:errcheck // the process ends
	if err := s.client.reach(); err != nil {
		return err
	}
	err = sc.run(s)
	s.bar.done()
	if err != nil && !errors.Is(err, errProcessGone) {
		return err
	}
	s.report.require(err == nil, "%v", err)
	return s.finish(stdout)
}

// besides names the guests among what needs descriptors.
func besides(guests int) string {
	if guests == 0 {
		return ""
	}
	return fmt.Sprintf(" and up to %d beside them", guests)
}

// finish completes the report, prints and saves it, and judges.
func (s *session) finish(stdout io.Writer) error {
	r, t := s.report, &s.client.tally
	r.Connections, r.Failed, r.Lost = t.opened, t.failed, t.lost
	r.Failures, r.Losses = joined(r.Failures, t.failures), joined(r.Losses, t.losses)
	r.require(t.failed == 0, "%d connections could not be opened%s", t.failed, mostly(t.failures))
	r.require(t.lost == 0, "%d connections were lost%s", t.lost, mostly(t.losses))
	if s.server != nil && r.Server == nil {
		r.Server = &serverFigures{}
	}
	if s.server != nil {
		if rss, err := s.server.rss(); err == nil { // else a problem has been recorded, or it ended just now
			r.Server.RSSBytes = rss
		}
	}
	// With the object on standard output nothing else may be there.
	if s.opts.jsonFile != "-" {
		if err := r.summary(stdout); err != nil {
			return err
		}
	}
	if s.opts.jsonFile != "" {
		if err := r.save(s.opts.jsonFile, stdout); err != nil {
			return err
		}
	}
	if len(r.Problems) > 0 {
		return fmt.Errorf("%w: %s", errCheck, strings.Join(r.Problems, "; "))
	}
	return nil
}

// joined adds one count of causes to another, which may be nil.
func joined(to, counts map[string]int) map[string]int {
	if to == nil {
		return counts
	}
	for cause, n := range counts {
		to[cause] += n
	}
	return to
}

// mostly names the most frequent cause.
func mostly(counts map[string]int) string {
	lines := causes("", counts)
	if len(lines) == 0 {
		return ""
	}
	_, cause, _ := strings.Cut(lines[0], ": ")
	return ", mostly: " + cause
}

// open opens connections up to n, showing how far it is.
func (s *session) open(n int) error {
	t := &s.client.tally
	s.watch("opening", func() (int, int) { return t.active, n })
	return s.client.openTo(n)
}

// watch shows what the client is at from now on.
func (s *session) watch(what string, state func() (have, want int)) {
	s.client.progress = func(at int64) {
		have, want := state()
		s.bar.show(at, what, have, want)
		if s.looks != nil {
			s.looks.fetch()
		}
	}
}

// rest serves the client for a while, or until nobody is left to serve.
func (s *session) rest(what string, d time.Duration) error {
	return s.await(what, d, func() bool { return s.client.tally.active == 0 })
}

// await serves the client until something has come about, for so long at most.
func (s *session) await(what string, most time.Duration, done func() bool) error {
	from := s.client.clock()
	s.watch(what, func() (int, int) { return int((s.client.clock() - from) / 1e6), int(most.Milliseconds()) })
	return s.client.run(from+int64(most), done)
}

// measure runs work and accounts for it.
func (s *session) measure(work func() error) (span, error) {
	var sp span
	before, err := s.usage()
	if err != nil {
		return sp, err
	}
	own, err := ownUsage()
	if err != nil {
		return sp, err
	}
	sp.from = s.client.clock()
	if err := work(); err != nil {
		return sp, err
	}
	sp.to = s.client.clock()
	after, err := s.usage()
	if err != nil {
		return sp, err
	}
	ownAfter, err := ownUsage()
	if err != nil {
		return sp, err
	}
	sp.serverCPU, sp.serverUser = before.cpu(after), after.user-before.user
	sp.clientCPU, sp.clientWait = own.cpu(ownAfter), ownAfter.waited-own.waited
	s.report.judgeMachine(sp)
	return sp, nil
}

// judgeMachine says so if something else on the machine kept the client from its core: latencies and rates of such a
// span are that something's.
func (r *report) judgeMachine(sp span) {
	if share := sp.waitShare(); share >= waitedShare {
		r.note("the machine was busy: the client was ready but without a core for %.0f %% of %.1f s; rates and latencies suffer", 100*share, sp.seconds())
	}
}

// span is measure for the stretch that the report is about, of the length the caller asked for.
func (s *session) span(what string) (span, error) {
	sp, err := s.measure(func() error { return s.rest(what, s.opts.duration) })
	s.account(sp)
	return sp, err
}

// account puts the main span into the report.
func (s *session) account(sp span) {
	s.report.DurationSeconds = sp.seconds()
	if s.server != nil {
		s.report.Server = &serverFigures{CPUSeconds: sp.serverCPU.Seconds(), UserSeconds: sp.serverUser.Seconds()}
	}
}

func (s *session) usage() (usage, error) {
	if s.server == nil {
		return usage{}, nil
	}
	return s.server.usage()
}

// perOperation adds what one operation cost the server in CPU, and how busy both sides were.
func (s *session) perOperation(sp span, name string, operations int) {
	r := s.report
	if s.server == nil {
		r.note("without --pid neither the server's memory nor its CPU is known")
	} else {
		key := "cpu_us_per_" + name
		r.add(key, sp.serverCPU.Seconds()*1e6/float64(operations))
		if sp.serverCPU > 0 {
			r.comment(key, "(%.0f %% in user mode)", 100*min(sp.serverUser.Seconds()/sp.serverCPU.Seconds(), 1))
		}
		if s.calls > 0 {
			r.add("syscalls_per_"+name, s.calls)
		}
		r.add("server_cores", sp.serverCores())
	}
	r.add("client_cores", sp.clientCores())
	r.add("client_wait_share", sp.waitShare())
	r.comment("client_wait_share", "(ready to run, but without a core)")
}

// judgeClient says so if the client was the limit of a rate.
func (s *session) judgeClient(sp span, rate string) {
	if sp.clientCores() < limitedShare {
		return
	}
	s.report.ClientLimited = true
	if sp.serverCores() < limitedShare {
		s.report.note("the client was the limit (%.2f of a core): %s is the client's, the server can do more", sp.clientCores(), rate)
		return
	}
	s.report.note("client and server were both at a full core (%.2f, %.2f): %s is what both can do together", sp.clientCores(), sp.serverCores(), rate)
}

// countSyscalls lets the load go on for a short span under perf and keeps the server's system calls per operation for
// perOperation. It is a span of its own because counting costs the server CPU.
func (s *session) countSyscalls(operations func() int) error {
	if !s.opts.syscalls {
		return nil
	}
	c, err := newCounter(s.opts.pid)
	if err == nil {
		err = c.command("enable")
	}
	if err != nil {
		s.report.note("system calls not counted: %v", err)
		return nil
	}
	before := operations()
	if err := s.rest("counting system calls", min(s.opts.duration, syscallSpan)); err != nil {
		_, _ = c.finish() // perf must not outlive us
		return err
	}
	done := operations() - before
	err = c.command("disable")
	var n int64
	if err == nil {
		n, err = c.finish()
	}
	if err != nil {
		s.report.note("system calls not counted: %v", err)
		return nil
	}
	s.calls = float64(n) / float64(max(done, 1))
	return nil
}
