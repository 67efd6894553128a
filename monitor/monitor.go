package monitor

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// Source is what a Monitor reads; both methods must be safe for concurrent use.
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
	OverloadLoadFactor float64       // load average for each core at which the alarm begins; 0: no alarm
	Version            string        // of the program, for the metric build_info
	Revision           string        // of its source, likewise
	Logger             *slog.Logger  // default: slog.Default()
}

// Monitor shows a Source.
type Monitor struct {
	// Immutable after New.
	cfg    Config
	source Source
	http   *http.Server
	load   func() (load float64, cores int, err error)

	// Atomic; written by Run.
	overloaded atomic.Bool
	load1      atomic.Uint64 // math.Float64bits; NaN: not known
}

// New makes a Monitor of a source. Nothing runs yet.
func New(cfg Config, source Source) *Monitor {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	m := &Monitor{cfg: cfg, source: source, load: systemLoad}
	m.load1.Store(math.Float64bits(math.NaN()))
	m.http = &http.Server{
		Handler:           m.Handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	}
	return m
}

// Serve answers HTTP on a listener and blocks; it returns http.ErrServerClosed after Shutdown, and closes the listener.
func (m *Monitor) Serve(l net.Listener) error {
	return m.http.Serve(newBoundedListener(l, connectionsMax))
}

// Shutdown closes the listeners at once and waits for requests under way until the context ends, then cuts them.
func (m *Monitor) Shutdown(ctx context.Context) error {
	err := m.http.Shutdown(ctx)
	if err != nil {
		_ = m.http.Close() // The error of waiting says more.
	}
	return err
}

// Run writes the line of statistics and watches the load until the context ends.
func (m *Monitor) Run(ctx context.Context) {
	var lines <-chan time.Time // never ready without an interval
	if m.cfg.StatsInterval > 0 {
		ticker := time.NewTicker(m.cfg.StatsInterval)
		defer ticker.Stop()
		lines = ticker.C
	}
	loads := time.NewTicker(loadInterval)
	defer loads.Stop()

	rate := beatRate{}
	rate.next(m.source.Stats())
	watched := alarm{factor: m.cfg.OverloadLoadFactor}
	m.watchLoad(&watched)
	for {
		select {
		case <-ctx.Done():
			return
		case <-loads.C:
			m.watchLoad(&watched)
		case <-lines:
			m.logStats(&rate)
		}
	}
}

// watchLoad takes one reading and tells of a change.
func (m *Monitor) watchLoad(a *alarm) {
	load, cores, err := m.load()
	if err != nil {
		m.cfg.Logger.Debug("load average not known", "error", err)
		return
	}
	m.load1.Store(math.Float64bits(load))
	if !a.observe(load, cores) {
		return
	}
	m.overloaded.Store(a.overloaded)
	if a.overloaded {
		m.cfg.Logger.Warn("system overloaded", "reasons", []string{a.reason(load, cores)}, "load1", load, "cores", cores)
	} else {
		m.cfg.Logger.Warn("system recovered", "load1", load, "cores", cores)
	}
}

// loadNow returns the last reading of the load average, if there was one.
func (m *Monitor) loadNow() (load float64, known bool) {
	load = math.Float64frombits(m.load1.Load())
	return load, !math.IsNaN(load)
}
