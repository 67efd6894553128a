package monitor

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// Source is what a Monitor reads; both methods must be safe for concurrent use. What more a Source offers ([Control], and the
// server's Pressure, Distributions and SetOverload) is used as well.
type Source interface {
	Stats() server.Stats
	// Ready returns nil, or why the server takes no connections.
	Ready() error
}

var _ Source = (*server.Server)(nil)

// Config is what a Monitor is made of. Every field may be left zero.
type Config struct {
	Token              string        // bearer token of every request but health; empty: none is asked for
	Hosts              []string      // names that the Host header may bear beside loopback and the bound address
	StatsInterval      time.Duration // of the line in the log; 0: none
	OverloadLoadFactor float64       // load average for each core at which the alarm begins; 0: no alarm of load, waiting tasks or accept queues
	MemoryHigh         float64       // share of the machine's or control group's memory, from 0 to 1, beyond which new connections are refused; 0: none
	MessageBytesMax    int           // of a message that the API sends; 0: 1 MiB
	Version            string        // of the program, for the metric build_info
	Revision           string        // of its source, likewise
	Logger             *slog.Logger  // default: slog.Default()
}

func (c *Config) messageBytesMax() int64 {
	if c.MessageBytesMax > 0 {
		return int64(c.MessageBytesMax)
	}
	return messageBytesMaxDefault
}

// Monitor shows a Source.
type Monitor struct {
	// Immutable after New.
	cfg     Config
	source  Source
	control Control // nil: the source is only looked at
	http    *http.Server
	load    func() (load float64, cores int, err error)
	kernel  kernel

	// Any goroutine, by their own rules.
	live   *live
	charts runtimeCharts

	// Held during a change of draining, so that who changed it can be told.
	drainMu sync.Mutex

	// Atomic; written by Run.
	overload atomic.Pointer[verdict]
	load1    atomic.Uint64 // math.Float64bits; NaN: not known
	notes    atomic.Pointer[[]string]
}

// New makes a Monitor of a source. Nothing runs yet.
func New(cfg Config, source Source) *Monitor {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	m := &Monitor{cfg: cfg, source: source, load: systemLoad, kernel: kernel{read: os.ReadFile}}
	m.control, _ = source.(Control)
	m.live = newLive(m)
	m.load1.Store(math.Float64bits(math.NaN()))
	m.overload.Store(&verdict{})
	m.notes.Store(&[]string{})
	m.http = &http.Server{
		Handler:           keepsPlace(m.Handler()),
		ConnContext:       withConn,
		ConnState:         keepTaken,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	}
	m.http.RegisterOnShutdown(m.live.end)
	m.http.RegisterOnShutdown(m.charts.end)
	return m
}

// Serve answers HTTP on a listener and blocks; it returns http.ErrServerClosed after Shutdown, and closes the listener.
func (m *Monitor) Serve(l net.Listener) error {
	return m.http.Serve(newBoundedListener(l, connectionsMax))
}

// Shutdown closes the listeners at once and waits for requests under way until the context ends, then cuts them. Pages that are open are
// told to come back later.
func (m *Monitor) Shutdown(ctx context.Context) error {
	err := m.http.Shutdown(ctx)
	if err != nil {
		_ = m.http.Close() // The error of waiting says more.
	}
	return err
}

// Run writes the line of statistics, watches for overload and looks where connections end, until the context ends.
func (m *Monitor) Run(ctx context.Context) {
	var lines <-chan time.Time // never ready without an interval
	if m.cfg.StatsInterval > 0 {
		ticker := time.NewTicker(m.cfg.StatsInterval)
		defer ticker.Stop()
		lines = ticker.C
	}
	slow, fast, ends := time.NewTicker(loadInterval), time.NewTicker(pressureInterval), time.NewTicker(idleInterval)
	defer slow.Stop()
	defer fast.Stop()
	defer ends.Stop()

	rate, history := beatRate{}, beatRate{}
	first := m.source.Stats()
	rate.next(first)
	history.next(first)
	m.live.rememberEnds(first)
	watching, cuts := newWatcher(m), newCutWatcher(m)
	watching.lookSlow()
	watching.lookFast()
	watching.conclude()
	for {
		select {
		case <-ctx.Done():
			return
		case <-slow.C:
			watching.lookSlow()
			watching.conclude()
			now := m.source.Stats()
			m.live.remember(now, &history)
			m.live.rememberEnds(now)
		case <-fast.C:
			watching.lookFast()
			watching.conclude()
		case <-ends.C:
			cuts.look()
		case <-lines:
			m.logStats(&rate)
		}
	}
}

// verdict is whether the system is overloaded, and why.
func (m *Monitor) verdict() verdict { return *m.overload.Load() }

func (m *Monitor) setLoad(load float64) { m.load1.Store(math.Float64bits(load)) }

// loadNow returns the last reading of the load average, if there was one.
func (m *Monitor) loadNow() (load float64, known bool) {
	load = math.Float64frombits(m.load1.Load())
	return load, !math.IsNaN(load)
}
