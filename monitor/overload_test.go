package monitor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// strainedSource is a fixedSource whose queues and lateness the test sets, and which notes what it is told of overload.
type strainedSource struct {
	*fixedSource

	smu      sync.Mutex
	pressure server.Pressure
	told     []server.Overload
}

func (s *strainedSource) Pressure() server.Pressure {
	s.smu.Lock()
	defer s.smu.Unlock()
	return s.pressure
}

func (s *strainedSource) SetOverload(to server.Overload) {
	s.smu.Lock()
	defer s.smu.Unlock()
	s.told = append(s.told, to)
}

// tellings is what it was told so far.
func (s *strainedSource) tellings() (all []string) {
	s.smu.Lock()
	defer s.smu.Unlock()
	for _, each := range s.told {
		all = append(all, fmt.Sprintf("%v %d", each.Shed, len(each.Reasons)))
	}
	return all
}

// machine is files that change while a monitor reads them.
type machine struct {
	mu    sync.Mutex
	files map[string]string
}

func (m *machine) set(path, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path] = text
}

func (m *machine) kernel() kernel {
	return kernel{read: func(path string) ([]byte, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return kernelOf(m.files).read(path)
	}}
}

// Each sign begins and ends the state with its name; the log, the server and the figures hear of each change once.
func TestOverloadBySign(t *testing.T) {
	pressureText := func(avg10 int) string { return fmt.Sprintf("some avg10=%d.00 avg60=0 avg300=0 total=0\n", avg10) }
	tests := []struct {
		name   string
		sign   string
		shed   bool
		strain func(s *strainedSource, m *machine)
		relax  func(s *strainedSource, m *machine)
	}{
		{
			"tasks wait for cores", "cpu_pressure", false,
			func(_ *strainedSource, m *machine) { m.set("/proc/pressure/cpu", pressureText(85)) },
			func(_ *strainedSource, m *machine) { m.set("/proc/pressure/cpu", pressureText(40)) },
		},
		{
			"tasks wait for memory", "memory_pressure", false,
			func(_ *strainedSource, m *machine) { m.set("/proc/pressure/memory", pressureText(25)) },
			func(_ *strainedSource, m *machine) { m.set("/proc/pressure/memory", pressureText(5)) },
		},
		{
			"memory is full", "memory", true,
			func(_ *strainedSource, m *machine) {
				m.set("/proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 50 kB\n")
			},
			func(_ *strainedSource, m *machine) {
				m.set("/proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 500 kB\n")
			},
		},
		{
			"the pools are full", "saturation", true,
			func(s *strainedSource, _ *machine) {
				s.pressure = server.Pressure{Loops: 2, LoopsStarved: 0, HandlersQueued: 4096, HandlersQueueMax: 4096}
			},
			func(s *strainedSource, _ *machine) { s.pressure.HandlersQueued = 0 },
		},
		{
			"loops wait for decoders", "saturation", true,
			func(s *strainedSource, _ *machine) {
				s.pressure = server.Pressure{Loops: 2, LoopsStarved: 2, HandlersQueueMax: 4096}
			},
			func(s *strainedSource, _ *machine) { s.pressure.LoopsStarved = 0 },
		},
		{
			"a turn doesn't end", "lateness", true,
			func(s *strainedSource, _ *machine) { s.pressure.TurnAge = 3 * time.Second },
			func(s *strainedSource, _ *machine) { s.pressure.TurnAge = 30 * time.Millisecond },
		},
		{
			"connections wait to be accepted", "accept_queue", false,
			func(s *strainedSource, _ *machine) {
				s.pressure = server.Pressure{AcceptQueue: 3700, AcceptQueueLimit: 4096}
			},
			func(s *strainedSource, _ *machine) { s.pressure.AcceptQueue = 100 },
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, files, out := &strainedSource{fixedSource: newFixedSource()}, &machine{files: map[string]string{}}, &syncBuffer{}
				m := New(Config{OverloadLoadFactor: 2, MemoryHigh: 0.9, Logger: newJSONLogger(out)}, source)
				m.load = func() (float64, int, error) { return 0.1, 2, nil }
				m.kernel = files.kernel()
				change := func(how func(*strainedSource, *machine)) {
					source.smu.Lock()
					how(source, files)
					source.smu.Unlock()
					pass(20 * time.Second)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { m.Run(ctx); close(done) }()
				pass(7 * time.Second)
				if m.verdict().overloaded() {
					t.Fatalf("overloaded at rest: %v", m.verdict())
				}
				change(test.strain)
				v := m.verdict()
				if len(v.reasons) != 1 || v.reasons[0].sign != test.sign || v.shed != test.shed {
					t.Errorf("strained: %+v", v)
				}
				if figures := m.statsNow(); !figures.Overloaded || figures.Refusing != test.shed || len(figures.OverloadReasons) != 1 {
					t.Errorf("figures %+v", figures)
				}
				change(test.relax)
				if m.verdict().overloaded() {
					t.Errorf("relaxed: %+v", m.verdict())
				}
				cancel()
				<-done
				if got, want := fmt.Sprint(source.tellings()), fmt.Sprintf("[%v 1 false 0]", test.shed); got != want {
					t.Errorf("the server was told %s, want %s", got, want)
				}
				var told []string
				for _, record := range out.lines(t) {
					told = append(told, record["msg"].(string))
				}
				if got := strings.Join(told, ", "); got != "system overloaded, system recovered" {
					t.Errorf("log: %s", got)
				}
			})
		})
	}
}

// Late timers shed; one late turn among many doesn't. Nor do few turns hide what is late: the longer they are, the fewer there are, and those
// beyond a stall aren't even late in the connections' time.
func TestOverloadByLateness(t *testing.T) {
	tests := []struct {
		name string
		add  []uint64      // a second, to the buckets up to 10 ms, 50 ms, 100 ms, 250 ms, 1 s
		lost time.Duration // a second
		want bool
	}{
		{"on time", []uint64{50, 0, 0, 0, 0}, 0, false},
		{"a tail", []uint64{30, 5, 5, 5, 5}, 0, false},
		{"half of them", []uint64{4, 0, 0, 3, 3}, 0, true},
		{"few, and all late", []uint64{0, 0, 0, 0, 3}, 0, true},
		{"few, and not all late", []uint64{1, 0, 0, 0, 2}, 0, false},
		{"none", []uint64{0, 0, 0, 0, 0}, 0, false},
		{"turns beyond a stall", []uint64{2, 0, 0, 0, 0}, 800 * time.Millisecond, true},
		{"nothing but one turn", []uint64{0, 0, 0, 0, 0}, time.Second, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			source := &strainedSource{fixedSource: newFixedSource()}
			m := quietMonitor(source)
			m.kernel = noKernel()
			w := newWatcher(m)
			counts := make([]uint64, 6)
			for range 10 {
				for i, n := range test.add {
					counts[i] += n
				}
				source.pressure.Lost += test.lost
				source.change(func(f *fixedSource) {
					f.stats.WheelLateness = server.Histogram{Bounds: []float64{0.01, 0.05, 0.1, 0.25, 1}, Counts: append([]uint64(nil), counts...)}
				})
				w.lookFast()
			}
			w.conclude()
			if v := m.verdict(); v.overloaded() != test.want || v.shed != test.want {
				t.Errorf("%+v", v)
			}
		})
	}
}

// However low its limit is set, a sign can end.
func TestOverloadBySmallMemory(t *testing.T) {
	for _, high := range []float64{0.001, 0.03, 0.5, 0.9, 1} {
		s := newSigns(&Config{MemoryHigh: high}).memory
		if s.end <= 0 || s.end >= s.begin {
			t.Errorf("--memory-high %g: begins at %g, ends below %g", high, s.begin, s.end)
		}
	}
}

// A turn that doesn't end, and a stall once, are told apart: the second is over when it is seen.
func TestOverloadByOneStall(t *testing.T) {
	source := &strainedSource{fixedSource: newFixedSource()}
	m := quietMonitor(source)
	m.kernel = noKernel()
	w := newWatcher(m)
	for _, lost := range []time.Duration{0, 5 * time.Second, 5 * time.Second, 5 * time.Second} {
		source.pressure.Lost = lost
		w.lookFast()
		w.conclude()
		if v := m.verdict(); v.overloaded() {
			t.Errorf("%v lost: %+v", lost, v)
		}
	}
}

// The accept queue's overflows count from the first reading on, not from the machine's start.
func TestOverloadByAcceptQueue(t *testing.T) {
	files := &machine{files: map[string]string{}}
	count := func(n int) {
		files.set("/proc/net/netstat", fmt.Sprintf("TcpExt: ListenOverflows\nTcpExt: %d\n", n))
	}
	m := New(Config{OverloadLoadFactor: 2, Logger: quietMonitor(newFixedSource()).cfg.Logger}, newFixedSource())
	m.load = func() (float64, int, error) { return 0, 2, nil }
	m.kernel = files.kernel()
	w := newWatcher(m)
	for i, step := range []struct {
		overflows int
		want      bool
	}{{1000, false}, {1000, false}, {1007, true}, {1007, true}, {1007, true}, {1007, false}} {
		count(step.overflows)
		w.lookSlow()
		w.conclude()
		if got := m.verdict().overloaded(); got != step.want {
			t.Errorf("reading %d: %v", i, got)
		}
	}
}

// A second sign is told, and the state ends with the last one only.
func TestOverloadChanges(t *testing.T) {
	out := &syncBuffer{}
	source := &strainedSource{fixedSource: newFixedSource()}
	m := New(Config{Logger: newJSONLogger(out)}, source)
	w := newWatcher(m)
	for _, state := range []struct{ load, memory bool }{{true, false}, {true, true}, {false, true}, {false, false}} {
		w.signs.load.on, w.signs.memory.on = state.load, state.memory
		w.conclude()
		w.conclude() // nothing new
	}
	var told []string
	for _, record := range out.lines(t) {
		told = append(told, record["msg"].(string))
	}
	if got, want := strings.Join(told, ", "), "system overloaded, overload changed, overload changed, system recovered"; got != want {
		t.Errorf("log %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(source.tellings()), "[false 1 true 2 true 1 false 0]"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}
