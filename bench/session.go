package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// syscallSpan bounds the span that is repeated under perf: counting needs no long one.
const syscallSpan = 5 * time.Second

// session is one process' part in a run of a scenario: the client, the server's account, the report in the making.
type session struct {
	opts    *options // of this process' part
	whole   *options // of the run
	client  *client
	crew    *crew    // of the leader of several processes; nil elsewhere
	hand    *hand    // of a hand; nil elsewhere
	server  *process // nil without --pid, and in a hand
	report  *report  // of a hand: for nobody
	bar     *progress
	looks   *lookout      // of churn and hostile; nil elsewhere
	audit   *audit        // of the leader, with --admin; nil elsewhere
	audited bool          // --admin was given, to the leader at least: the run ends so that counters can be compared
	calls   float64       // system calls of the server per operation; 0 not counted
	total   *tally        // of all processes, once they are collected
	lag     time.Duration // that another process may come later to a meeting than this one, beside meetWithin
}

// span is what a measured stretch of time took.
type span struct {
	from, to   int64 // on the client's clock
	serverCPU  time.Duration
	serverUser time.Duration
	client     clientUse
}

func (s span) seconds() float64 { return s.length().Seconds() }

func (s span) length() time.Duration { return time.Duration(s.to - s.from) }

// clientCores is how much of a core the clients used together.
func (s span) clientCores() float64 { return s.client.CPU.Seconds() / s.seconds() }

// serverCores likewise; 0 if unknown.
func (s span) serverCores() float64 { return s.serverCPU.Seconds() / s.seconds() }

// runScenario runs one scenario from the first connection to the exit code. words are its flags, for the hands that it may
// need.
func runScenario(sc scenario, whole *options, words []string, stdout, stderr io.Writer) error {
	if err := checkWritable(whole.jsonFile); err != nil {
		return err
	}
	parts, err := sc.parts(whole)
	if err != nil {
		return err
	}
	if err := checkMemory(whole); err != nil {
		return err
	}
	s := &session{opts: parts[0], whole: whole, report: &report{Scenario: sc.name, Target: whole.target.url}, bar: newProgress(stderr)}
	if whole.pid != 0 {
		s.server = &process{pid: whole.pid}
		if _, err := s.server.rss(); err != nil {
			return fmt.Errorf("%w: --pid: %w", errUsage, err)
		}
	}
	if err := s.beginAudit(); err != nil {
		return err
	}
	if s.client, err = newClient(s.opts); err != nil {
		return err
	}
	defer s.client.close() //nolint:errcheck // the process ends
	defer s.endOnSignal()()
	if err := s.client.reach(); err != nil {
		return err
	}
	if len(parts) > 1 {
		if err := s.hire(parts[1:], append([]string{sc.name}, words...)); err != nil {
			return err
		}
		defer s.crew.end()
	}
	err = sc.run(s)
	s.bar.done()
	if err != nil && !errors.Is(err, errProcessGone) {
		return err
	}
	s.report.require(err == nil, "%v", err)
	return s.finish(stdout)
}

// endOnSignal has Ctrl-C and SIGTERM end the run with errInterrupted, until stop is called.
func (s *session) endOnSignal() (stop func()) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	forget := context.AfterFunc(ctx, func() {
		s.client.interrupted.Store(true)
		s.wake()
	})
	return func() {
		forget()
		cancel()
	}
}

// hire starts the hands of a run, one for each of the parts.
func (s *session) hire(parts []*options, words []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.crew = newCrew(len(parts), s.wake)
	var idle []string
	if slices.ContainsFunc(parts, (*options).standsBack) {
		if idle = s.yield(); idle != nil {
			s.report.note("the hostile peers' process has a core only while nothing else wants it (--stand-back)")
		}
	}
	for _, p := range parts {
		hand := append([]string{self, handCommand, strconv.Itoa(p.index)}, words...)
		if p.standsBack() {
			hand = append(slices.Clone(idle), hand...)
		}
		if err := s.crew.hire(hand...); err != nil {
			s.crew.end()
			return err
		}
	}
	return nil
}

// standsBack says whether this part's process is to have a core only while no other wants it.
func (o *options) standsBack() bool { return o.standBack && o.hostile > 0 }

// yield is in front of the command line of a process that is to have a core only while nobody else wants it (SCHED_IDLE, sched(7)). Where that
// can't be had, nothing is, and the report says so.
func (s *session) yield() []string {
	idle := []string{"chrt", "-i", "0"}
	if err := exec.Command(idle[0], append(idle[1:], "true")...).Run(); err != nil {
		s.report.note("the hostile peers' process takes its turns with the others on the cores: chrt can't have it stand back (%v)", err)
		return nil
	}
	return idle
}

// finish completes the report, prints and saves it, and judges.
func (s *session) finish(stdout io.Writer) error {
	r, t := s.report, s.total
	if t == nil { // it did not get so far
		t = &s.client.tally
	}
	r.Connections, r.Failed, r.Lost = t.Opened, t.Failed, t.Lost
	r.Failures, r.Losses = joined(r.Failures, t.Failures), joined(r.Losses, t.Losses)
	r.require(t.Failed == 0, "%d connections could not be opened%s", t.Failed, mostly(t.Failures))
	r.require(t.Lost == 0, "%d connections were lost%s", t.Lost, mostly(t.Losses))
	if s.server != nil {
		if rss, err := s.server.rss(); err == nil { // else a problem has been recorded, or it ended just now
			if r.Server == nil {
				r.Server = &serverFigures{}
			}
			r.Server.RSSBytes = rss
		}
	}
	return r.publish(s.opts.jsonFile, stdout)
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

// open opens connections up to n, showing how far it is, and returns when all processes have theirs.
func (s *session) open(n int) error {
	t := &s.client.tally
	s.watch("opening", func() (int, int) { return t.Active, n })
	if err := s.client.openTo(n); err != nil {
		return err
	}
	return s.meet("opened", nil)
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
	return s.await(what, d, func() bool { return s.opts.connections > 0 && s.client.tally.Active == 0 })
}

// await serves the client until something has come about, for so long at most.
func (s *session) await(what string, most time.Duration, done func() bool) error {
	from := s.client.clock()
	s.watch(what, func() (int, int) { return int((s.client.clock() - from) / 1e6), int(most.Milliseconds()) })
	return s.client.run(from+int64(most), done)
}

// measure runs work, in all processes at the same time, and accounts for it until the last is done.
func (s *session) measure(work func() error) (span, error) {
	var sp span
	var before, after usage
	err := s.meet("begin", func() (err error) {
		before, err = s.usage()
		return err
	})
	if err != nil {
		return sp, err
	}
	own, err := ownUsage()
	if err != nil {
		return sp, err
	}
	sp.from = s.client.clock()
	s.client.startProbes(sp.from)
	if err := work(); err != nil {
		return sp, err
	}
	err = s.meet("end", func() (err error) {
		after, err = s.usage()
		return err
	})
	if err != nil {
		return sp, err
	}
	sp.to = s.client.clock()
	late := s.client.stopProbes()
	ownAfter, err := ownUsage()
	if err != nil {
		return sp, err
	}
	sp.serverCPU, sp.serverUser = before.cpu(after), after.user-before.user
	sp.client = clientUse{CPU: own.cpu(ownAfter), Wait: ownAfter.waited - own.waited, Late: late}
	sp.client.Busiest, sp.client.Waited = sp.client.CPU.Seconds()/sp.seconds(), sp.client.Wait.Seconds()/sp.seconds()
	return sp, nil
}

// span is measure for the stretch that the report is about, of the length the caller asked for. begin is called when it
// begins; nil: nothing.
func (s *session) span(what string, begin func()) (span, error) {
	return s.spanOf(what, s.opts.duration, begin)
}

// spanOf is span of another length.
func (s *session) spanOf(what string, length time.Duration, begin func()) (span, error) {
	sp, err := s.measure(func() error {
		if begin != nil {
			begin()
		}
		return s.rest(what, length)
	})
	if err != nil {
		return sp, err // it has no end
	}
	s.account(sp)
	return sp, nil
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

// perOperation adds what one operation cost the server.
func (s *session) perOperation(sp span, name string, operations int) {
	r := s.report
	if s.server == nil {
		r.note("without --pid neither the server's memory nor its CPU is known")
		return
	}
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

// countSyscalls lets the load go on for a short span under perf and keeps the server's system calls per operation for
// perOperation. It is a span of its own because counting costs the server CPU.
func (s *session) countSyscalls(operations func() int) error {
	if !s.whole.syscalls {
		return nil
	}
	var perf *counter
	var refused error // what perf can't do is no reason to fail
	before, after := 0, 0
	err := s.meet("perf started", func() error { // which takes a while, and the load goes on
		perf, refused = newCounter(s.whole.pid)
		return nil
	})
	if err != nil {
		return err
	}
	err = s.meetCounting("counting", operations, func(all int) error {
		before = all
		if refused == nil {
			refused = perf.command("enable")
		}
		return nil
	})
	if err != nil {
		perf.abandon()
		return err
	}
	if err := s.rest("counting system calls", min(s.opts.duration, syscallSpan)); err != nil {
		perf.abandon()
		return err
	}
	var n int64
	err = s.meetCounting("counted", operations, func(all int) error {
		after = all
		if refused == nil {
			n, refused = perf.stop()
		}
		return nil
	})
	if err != nil || s.hand != nil {
		return err
	}
	if refused != nil {
		s.report.note("system calls not counted: %v", refused)
		return nil
	}
	s.calls = float64(n) / float64(max(after-before, 1))
	return nil
}

// beginAudit reads the server's counters before the first connection.
func (s *session) beginAudit() error {
	base, ok := adminBase(s.whole.adminURL)
	if !ok {
		return nil
	}
	s.audited = true
	a, note, err := newAudit(base)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if a == nil {
		s.report.note("%s", note)
	}
	s.audit = a
	return nil
}

// auditCounters compares the server's counters with what all processes did. A server that has ended is another check's to tell.
func (s *session) auditCounters(t *traffic) {
	if s.audit == nil || s.total.Active == 0 && s.total.Lost > 0 {
		return
	}
	err := s.audit.compare(t)
	s.report.require(err == nil, "the server's counters can't be read: %v", err)
	s.audit.fill(s.report, t)
}
