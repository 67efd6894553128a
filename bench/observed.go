package main

import (
	"flag"
	"fmt"
	"time"
)

func observedDefaults(o *options) {
	o.connections, o.interval, o.lateAfter, o.settle = 18000, 2*time.Second, 100*time.Millisecond, time.Second
	o.pairs, o.cpuMost = 5, 20*time.Millisecond
}

func observedFlags(fs *flag.FlagSet, o *options) {
	beatFlags(fs, o)
	fs.IntVar(&o.pairs, "pairs", o.pairs, "how often a span without observers and one with them follow each other; the median of their differences counts")
	fs.DurationVar(&o.cpuMost, "cpu-most", o.cpuMost, "the server's CPU time that observers may cost in a second; 0: any")
}

func prepareObserved(o *options) []rule {
	return []rule{
		{o.adminURL == "", "--admin is missing, such as --admin http://127.0.0.1:8081: there the server is observed"},
		{o.pid == 0, "--pid is missing: the server's CPU is what is measured"},
		intervalRule(o.interval),
		{o.duration < observeEvery, fmt.Sprintf("--duration %v is less than %v: the server is observed as often", o.duration, observeEvery)},
		{o.pairs < 1 || o.pairs > pairsMax, fmt.Sprintf("--pairs %d is not between 1 and %d", o.pairs, pairsMax)},
		spanRule("--cpu-most", o.cpuMost, 0, spanMost),
		{o.syscalls, "--syscalls belongs to echo and heartbeat"},
	}
}

// observedFound is what one process found: the beats of the spans, one each a pair.
type observedFound struct {
	Alone, Observed []beatCounts
}

func (f *observedFound) add(other *observedFound) {
	for i := range other.Alone {
		f.Alone[i].add(&other.Alone[i])
		f.Observed[i].add(&other.Observed[i])
	}
}

// observedSpans is what the leader measured, one each a pair.
type observedSpans struct {
	alone, observed []span
	watched         []sightings
}

func runObserved(s *session) error {
	o, c := s.opts, s.client
	b := newBeats(c, o)
	if err := s.open(o.connections); err != nil {
		return err
	}
	if err := s.rest("first beats", o.interval+o.settle); err != nil {
		return err
	}
	var own observedFound
	var spans observedSpans
	for pair := range o.pairs {
		// Which of the two comes first changes, so that what drifts with time befalls both alike.
		for turn := range 2 {
			if err := spans.one(s, b, &own, turn == pair%2); err != nil {
				return err
			}
		}
	}
	all, err := collect(s, &spans.observed[len(spans.observed)-1], own)
	if err != nil {
		return err
	}
	all.fill(s, &spans)
	return nil
}

// one measures one span, alone or observed, and rests.
func (w *observedSpans) one(s *session, b *beats, own *observedFound, alone bool) error {
	var watching *watcher
	what := "observed"
	if alone {
		what = "alone"
	} else if s.hand == nil {
		base, _ := adminBase(s.whole.adminURL) // checked with the flags
		watching = watch(base)
	}
	sp, err := s.span(what, func() { b.begin(s.opts.duration) })
	b.stop()
	if watching != nil {
		w.watched = append(w.watched, watching.stop())
	}
	if err != nil {
		return err
	}
	if alone {
		w.alone, own.Alone = append(w.alone, sp), append(own.Alone, b.beatCounts)
	} else {
		w.observed, own.Observed = append(w.observed, sp), append(own.Observed, b.beatCounts)
	}
	return s.rest("settling", s.opts.settle)
}

// fill writes the report.
func (f *observedFound) fill(s *session, w *observedSpans) {
	o, r := s.whole, s.report
	var without, with, more []float64 // ms of CPU a second
	for i := range w.alone {
		a, b := 1e3*w.alone[i].serverCores(), 1e3*w.observed[i].serverCores()
		without, with, more = append(without, a), append(with, b), append(more, b-a)
	}
	cost := spreadOf(more)
	r.add("pairs", float64(len(more)))
	r.add("cpu_ms_per_second_alone", spreadOf(without).Median)
	r.add("cpu_ms_per_second_observed", spreadOf(with).Median)
	r.add("cpu_ms_per_second_more", cost.Median)
	r.comment("cpu_ms_per_second_more", "(median of the pairs; %s to %s)", number(cost.Min), number(cost.Max))
	r.add("cpu_ms_per_second_more_min", cost.Min)
	r.add("cpu_ms_per_second_more_max", cost.Max)
	alone, observed := &beatCounts{Lateness: newHistogram()}, &beatCounts{Lateness: newHistogram()}
	for i := range f.Alone {
		alone.add(&f.Alone[i])
		observed.add(&f.Observed[i])
	}
	lat := observed.Lateness.latencies()
	r.LatencyUs, r.latencyOf = &lat, "behind the interval, observed"
	r.add("beats_alone", float64(alone.Beats))
	r.add("beats_observed", float64(observed.Beats))
	r.add("beats_late_alone", float64(alone.Late))
	r.add("beats_late_observed", float64(observed.Late))
	r.comment("beats_late_observed", "(more than %v behind %v)", o.lateAfter, o.interval)
	r.add("beats_missed_alone", float64(alone.Missed))
	r.add("beats_missed_observed", float64(observed.Missed))
	use := clientUse{}
	for i := range w.observed {
		use.add(w.observed[i].client)
	}
	scrapes, pages, events, bytes := 0, 0, 0, 0
	for i, seen := range w.watched {
		scrapes, pages, events, bytes = scrapes+seen.scrapes, pages+seen.pages, events+seen.events, bytes+seen.bytes
		least := max(int(w.observed[i].seconds()/observeEvery.Seconds())-1, 1)
		r.require(seen.err == nil, "the server could not be observed: %v", seen.err)
		r.require(seen.err != nil || min(seen.scrapes, seen.pages, seen.events) >= least,
			"the server was observed too rarely for its cost to be known: %d scrapes, %d lists, %d events in %.0f s", seen.scrapes, seen.pages, seen.events, w.observed[i].seconds())
	}
	r.add("scrapes", float64(scrapes))
	r.add("lists", float64(pages))
	r.add("events", float64(events))
	r.add("observed_bytes", float64(bytes))
	s.calibrate(w.observed[len(w.observed)-1], dependents{what: "beats", latencies: []timed{{lat.P99, []string{latencyKey}}}})
	r.require(o.cpuMost == 0 || cost.Median <= float64(o.cpuMost)/1e6, "being observed costs the server %.1f ms of CPU a second (median of %d pairs), more than %v",
		cost.Median, len(more), o.cpuMost)
	r.require(alone.Beats > 0 && observed.Beats > 0, "no beat in %v: is --interval %v the server's?", o.duration, o.interval)
	r.require(alone.Missed+observed.Missed == 0, "%d beats were missed%s", alone.Missed+observed.Missed, use.excuse(o.interval))
	r.require(observed.Late == 0, "%d beats were more than %v late while the server was observed, %d while it was not%s", observed.Late, o.lateAfter, alone.Late,
		lateClient(use, o.lateAfter))
}

// lateClient says that late beats may be the client's own fault.
func lateClient(use clientUse, by time.Duration) string {
	if use.Late == nil || use.Late.latencies().Max < float64(by.Microseconds())/2 {
		return ""
	}
	return ", but the client's own loop looked up to " + us(use.Late.latencies().Max) + " late"
}
