package monitor

import (
	"fmt"
	"slices"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// sign is one thing that tells of overload: a figure with the value at which it begins and the one below which it ends, so that a figure
// at its limit doesn't ring again and again.
type sign struct {
	// Immutable.
	name  string // the reason label of the metrics
	begin float64
	end   float64
	rise  int  // readings in a row at or above begin until it begins
	fall  int  // readings in a row below end until it ends
	shed  bool // the server refuses new connections; otherwise it only alarms

	// Owned by the goroutine of Run.
	on   bool
	runs int    // readings in a row that speak for the other state
	text string // why, in words with figures
}

// observe takes one reading. One that isn't known speaks for the end.
func (s *sign) observe(value float64, known bool, text string) {
	speaks := known && value >= s.begin
	needed := s.rise
	if s.on {
		speaks, needed = !known || value < s.end, s.fall
	}
	switch {
	case speaks:
		s.runs++
	default:
		s.runs = 0
	}
	if s.runs >= max(1, needed) {
		s.on, s.runs = !s.on, 0
	}
	if s.on && known && value >= s.end {
		s.text = text
	}
}

// overloadReason is one sign that tells of overload now.
type overloadReason struct {
	sign string
	text string
}

// verdict is the state of all signs together.
type verdict struct {
	shed    bool
	reasons []overloadReason // empty: no overload
}

func (v verdict) overloaded() bool { return len(v.reasons) > 0 }

func (v verdict) texts() []string {
	texts := make([]string, 0, len(v.reasons))
	for _, r := range v.reasons {
		texts = append(texts, r.text)
	}
	return texts
}

// sameSigns says whether two verdicts rest on the same signs.
func (v verdict) sameSigns(other verdict) bool {
	return slices.EqualFunc(v.reasons, other.reasons, func(a, b overloadReason) bool { return a.sign == b.sign })
}

// signs are all that are watched, in the order in which they are told. See limits.go for the figures.
type signs struct {
	load, cpu, memoryStalls, acceptQueue, lateness, saturation, memory sign
}

func newSigns(cfg *Config) *signs {
	return &signs{
		load:         sign{name: "load", rise: 1, fall: 1},
		cpu:          sign{name: "cpu_pressure", begin: cpuPressureBegin, end: cpuPressureEnd, rise: 1, fall: 2},
		memoryStalls: sign{name: "memory_pressure", begin: memoryPressureBegin, end: memoryPressureEnd, rise: 1, fall: 2},
		acceptQueue:  sign{name: "accept_queue", begin: acceptQueueBegin, end: acceptQueueEnd, rise: 1, fall: 3},
		lateness:     sign{name: "lateness", begin: latenessBegin.Seconds(), end: latenessEnd.Seconds(), rise: 2, fall: 5, shed: true},
		saturation:   sign{name: "saturation", begin: saturationBegin, end: saturationEnd, rise: 3, fall: 5, shed: true},
		memory:       sign{name: "memory", begin: cfg.MemoryHigh, end: max(cfg.MemoryHigh-memoryHysteresis, recoveryShare*cfg.MemoryHigh), rise: 1, fall: 5, shed: true},
	}
}

func (s *signs) all() []*sign {
	return []*sign{&s.load, &s.cpu, &s.memoryStalls, &s.acceptQueue, &s.lateness, &s.saturation, &s.memory}
}

// overloadSigns are the values of the reason label.
func overloadSigns() (names []string) {
	for _, s := range newSigns(&Config{}).all() {
		names = append(names, s.name)
	}
	return names
}

// judge sums up.
func (s *signs) judge() verdict {
	var v verdict
	for _, each := range s.all() {
		if each.on {
			v.shed = v.shed || each.shed
			v.reasons = append(v.reasons, overloadReason{each.name, each.text})
		}
	}
	return v
}

// watcher takes the readings; it belongs to the goroutine of Run.
type watcher struct {
	monitor *Monitor
	signs   *signs

	lateness  server.Histogram // as it was at the reading before
	lost      time.Duration    // likewise
	overflows float64          // likewise
	counted   bool             // overflows is known
}

func newWatcher(m *Monitor) *watcher { return &watcher{monitor: m, signs: newSigns(&m.cfg)} }

// lookSlow reads what the kernel renews every few seconds, and what only alarms: the load average lags by a minute and would turn away
// a fleet that reconnects.
func (w *watcher) lookSlow() {
	m, s := w.monitor, w.signs
	factor := m.cfg.OverloadLoadFactor
	load, cores, err := m.load()
	if err != nil {
		m.cfg.Logger.Debug("load average not known", "error", err)
	} else {
		m.setLoad(load)
	}
	s.load.begin = factor * float64(cores)
	s.load.end = recoveryShare * s.load.begin
	s.load.observe(load, err == nil && factor > 0,
		fmt.Sprintf("load1 %.2f reached %.2f (%g x %d cores)", load, s.load.begin, factor, cores))
	if factor <= 0 {
		return // no alarm is wanted
	}
	cpu, known := m.kernel.pressure("cpu")
	s.cpu.observe(cpu, known, fmt.Sprintf("tasks waited for a core %.0f%% of the last 10 s", cpu))
	memory, known := m.kernel.pressure("memory")
	s.memoryStalls.observe(memory, known, fmt.Sprintf("tasks waited for memory %.0f%% of the last 10 s", memory))
	overflows, known := m.kernel.acceptOverflows()
	dropped := 0.0
	if known && w.counted {
		dropped = overflows - w.overflows
	}
	w.overflows, w.counted = overflows, known
	w.lookAtAcceptQueue(dropped, known)
}

// lookFast reads what decides about refusing new connections.
func (w *watcher) lookFast() {
	m, s := w.monitor, w.signs
	now, known := m.pressure()
	w.lookAtLateness(now, known)
	if known {
		share := 0.0
		if now.HandlersQueueMax > 0 && now.Loops > 0 {
			share = max(float64(now.HandlersQueued)/float64(now.HandlersQueueMax), float64(now.LoopsStarved)/float64(now.Loops))
		}
		s.saturation.observe(share, true, fmt.Sprintf("the worker pools are full: %d of %d loops wait for a decoder, %d of %d deliveries for a handler",
			now.LoopsStarved, now.Loops, now.HandlersQueued, now.HandlersQueueMax))
	}
	if m.cfg.MemoryHigh > 0 {
		use, known := m.kernel.memory()
		s.memory.observe(use.share, known, fmt.Sprintf("memory is %.0f%% full (%s)", use.share*100, use.what))
	}
}

// lookAtLateness asks how far the loops are behind. Half of the turns that had a timer to serve were so late: one long turn, or one stop of the
// collector, is no overload. The longer turns get, the fewer there are, and in the end their timers aren't even late, since the server takes
// such turns out of the connections' time; then the turns' own length speaks, where the source tells it.
func (w *watcher) lookAtLateness(now server.Pressure, told bool) {
	lateness := w.monitor.source.Stats().WheelLateness
	recent := since(lateness, w.lateness)
	w.lateness = lateness
	share := 0.5
	if observations(recent) < latenessObservations {
		share = 0
	}
	behind, known := quantile(recent, share)
	text := fmt.Sprintf("heartbeat timers fire %.0f ms late", behind*1000)
	if told {
		if busy := max(now.TurnAge, now.Lost-w.lost).Seconds(); !known || busy > behind {
			behind, known = busy, true
			text = fmt.Sprintf("an event loop is busy for %.0f ms at a stretch", busy*1000)
		}
		w.lost = now.Lost
	}
	w.signs.lateness.observe(behind, known, text)
}

// lookAtAcceptQueue: what the kernel has dropped counts as a full queue, whoever's listener it was: the kernel doesn't tell.
func (w *watcher) lookAtAcceptQueue(dropped float64, known bool) {
	share, text := 0.0, ""
	if now, told := w.monitor.pressure(); told && now.AcceptQueueLimit > 0 {
		share, known = float64(now.AcceptQueue)/float64(now.AcceptQueueLimit), true
		text = fmt.Sprintf("%d connections of at most %d wait to be accepted", now.AcceptQueue, now.AcceptQueueLimit)
	}
	if dropped >= 1 {
		share, known, text = 1, true, fmt.Sprintf("the kernel dropped %.0f connections, the accept queue was full", dropped)
	}
	w.signs.acceptQueue.observe(share, known, text)
}

// pressured is a Source that knows how full its queues are.
type pressured interface{ Pressure() server.Pressure }

// pressure asks a source that is one.
func (m *Monitor) pressure() (now server.Pressure, known bool) {
	if p, ok := m.source.(pressured); ok {
		return p.Pressure(), true
	}
	return server.Pressure{}, false
}

// sheddable is a Source that can refuse new connections.
type sheddable interface{ SetOverload(to server.Overload) }

// conclude tells everybody of a change, each once.
func (w *watcher) conclude() {
	m := w.monitor
	before, now := m.verdict(), w.signs.judge()
	m.overload.Store(&now)
	if now.sameSigns(before) {
		return
	}
	if s, ok := m.source.(sheddable); ok {
		s.SetOverload(server.Overload{Shed: now.shed, Reasons: now.texts()})
	}
	attrs := []any{}
	if now.overloaded() {
		attrs = append(attrs, "reasons", now.texts(), "refusing", now.shed)
	}
	if load, known := m.loadNow(); known {
		attrs = append(attrs, "load1", load)
	}
	switch {
	case !before.overloaded():
		m.cfg.Logger.Warn("system overloaded", attrs...)
	case !now.overloaded():
		m.cfg.Logger.Warn("system recovered", attrs...)
	default:
		m.cfg.Logger.Warn("overload changed", attrs...)
	}
}
