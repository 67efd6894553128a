package main

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"time"
)

// What the scenarios have in common that watch how the server bears others while it holds the members: what it promises
// (its interval and timeouts), and what is seen of it meanwhile.

const (
	// serverTick is Pulsewheel's: what has a deadline there ends at most two ticks behind it.
	serverTick = 20 * time.Millisecond
	// defaultSlack is allowed beyond two ticks: both sides share the machine with whatever else runs there.
	defaultSlack = time.Second
	// goroutineSlack is how many more goroutines the server may have afterwards: those that answer the question itself.
	goroutineSlack = 4
	// objectSlack is how many more objects it may have in use on its heap: what it keeps to answer such questions.
	objectSlack = 5000
	// memorySlackLeast and memorySlackShare bound how much more memory it may have afterwards, whichever is more: a page
	// of records, buffers in pools and what a collector keeps for the next time are no leak. It is coarse: what is small
	// and leaks shows in the objects first.
	memorySlackLeast = 8 << 20
	memorySlackShare = 0.1
)

func heldDefaults(o *options) {
	o.interval, o.lateAfter, o.timeout, o.slack = 2*time.Second, 100*time.Millisecond, 6*time.Second, defaultSlack
}

func heldFlags(fs *flag.FlagSet, o *options) {
	fs.DurationVar(&o.interval, "interval", o.interval, "the server's heartbeat interval")
	fs.DurationVar(&o.timeout, "timeout", o.timeout, "the server's heartbeat timeout")
	fs.DurationVar(&o.slack, "slack", o.slack, "how long after a deadline and two ticks of the server its effect may be seen here")
}

func heldRules(o *options) []rule {
	return []rule{
		intervalRule(o.interval),
		{o.timeout < 2*o.interval || o.timeout > alarmHorizon, fmt.Sprintf("--timeout %v is not between twice --interval %v and %v", o.timeout, o.interval, alarmHorizon)},
		{o.slack < 0 || o.slack > time.Minute, fmt.Sprintf("--slack %v is not between 0 and 1m", o.slack)},
		{o.syscalls, "--syscalls belongs to echo and heartbeat"},
	}
}

// patience is how long the effect of a deadline of the server is waited for.
func (o *options) patience(deadline time.Duration) time.Duration {
	return deadline + 2*serverTick + o.slack
}

// sights are what the leader saw of the server.
type sights struct{ before, most, after look }

// lookOut begins to look at the server with what the flags allow, until lookAway. It is the leader's to do.
func (s *session) lookOut() error {
	if s.hand != nil {
		return nil
	}
	var a *admin
	if base, ok := adminBase(s.opts.adminURL); ok {
		a = newAdmin(base)
	}
	l, err := startLookout(s.server, a)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	s.looks = l
	if s.server == nil {
		s.report.note("without --pid the server's descriptors, memory and CPU are not known")
	}
	if a == nil {
		s.report.note("without --admin the server's own counts are not known")
	}
	return nil
}

// lookAway ends it.
func (s *session) lookAway() {
	if s.looks != nil {
		s.looks.stop()
	}
}

// lookBack looks at the server until it is back where it began, or for as long as is allowed for that.
func (s *session) lookBack(before look) (look, error) {
	for until := s.client.clock() + int64(s.opts.slack); ; {
		after, err := s.looks.now()
		if err != nil || s.client.clock() >= until || after.active == before.active &&
			after.descriptors <= before.descriptors && after.goroutines <= before.goroutines+goroutineSlack {
			return after, err
		}
		if err := s.rest("looking", lookEvery); err != nil {
			return after, err
		}
	}
}

// difference is by how much counts of the server rose between two looks, by reason.
func difference(before, after map[string]int) map[string]int {
	counts := map[string]int{}
	for reason, n := range after {
		if d := n - before[reason]; d != 0 {
			counts[reason] = d
		}
	}
	return counts
}

// compareLooks sets each figure of the server before, during and after beside the others.
func (r *report) compareLooks(before, most, after look) {
	add := func(name string, before, most, after int64) {
		if before < 0 || after < 0 {
			return
		}
		r.add("server_"+name+"_before", float64(before))
		if most >= 0 {
			r.add("server_"+name+"_most", float64(most))
		}
		r.add("server_"+name+"_after", float64(after))
	}
	add("rss_bytes", before.rss, most.rss, after.rss)
	add("descriptors", int64(before.descriptors), int64(most.descriptors), int64(after.descriptors))
	add("active", int64(before.active), int64(most.active), int64(after.active))
	add("goroutines", int64(before.goroutines), -1, int64(after.goroutines))
	add("heap_objects", int64(before.heapObjects), -1, int64(after.heapObjects))
	counts := difference(before.closed, after.closed)
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		r.add("server_closed_"+reason, float64(counts[reason]))
	}
	counts = difference(before.rejected, after.rejected)
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		r.add("server_rejected_"+reason, float64(counts[reason]))
	}
}

// requireBack records what of the server is not where it began.
func (r *report) requireBack(before, after look) {
	r.requireHeld(before, after)
	r.require(after.heapObjects <= before.heapObjects+objectSlack, "the server has %d objects in use, before it were %d: more than %d above",
		after.heapObjects, before.heapObjects, objectSlack)
	room := max(memorySlackLeast, int64(float64(before.rss)*memorySlackShare))
	r.require(after.rss <= before.rss+room, "the server has %.1f MiB resident, before it were %.1f: more than %.1f MiB above",
		mebibytes(after.rss), mebibytes(before.rss), mebibytes(room))
}

// requireHeld is requireBack without the memory, which a collector gives back in its own time.
func (r *report) requireHeld(before, after look) {
	r.require(after.active == before.active, "the server counts %d connections, before it were %d", after.active, before.active)
	r.require(after.descriptors <= before.descriptors, "the server has %d descriptors, before it were %d", after.descriptors, before.descriptors)
	r.require(after.goroutines <= before.goroutines+goroutineSlack, "the server has %d goroutines, before it were %d", after.goroutines, before.goroutines)
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// requireLooks records that looks failed.
func (r *report) requireLooks(l *lookout) {
	r.require(l.errs == 0, "the server could not be looked at %d times: %v", l.errs, l.err)
}
