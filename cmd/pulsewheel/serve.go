package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/pulsewheel/pulsewheel/monitor"
	"github.com/pulsewheel/pulsewheel/server"
)

// shutdownGrace is how much longer than its own bounds a shutdown may take before we stop waiting for it.
const shutdownGrace = 10 * time.Second

// check completes the options and returns everything that is wrong with them, what the parser found included.
func check(in *parsed) (token string, problems []string) {
	token, problems = in.options.complete()
	problems = append(in.problems, problems...)
	if _, err := server.New(in.options.serverConfig(), nil); err != nil { // New opens nothing; Serve does
		problems = append(problems, errorLines(err)...)
	}
	return token, problems
}

// serve runs the server.
func serve(p process, in parsed) int {
	token, problems := check(&in)
	if len(problems) > 0 {
		return report(p, problems)
	}
	level := new(slog.LevelVar)
	level.Set(slogLevel(in.options.LogLevel))
	logger := newLogger(p.stderr, in.options.LogFormat, level)
	// Connections make no garbage; what does is the monitor, some tens of kilobytes a second. With Go's default it grows to 4 MiB before the first
	// collection, which at 20,000 connections is as much as all of them hold (measured: 236 bytes a connection after minutes, 156 at
	// 40 %). The heap is records without pointers, so a collection costs milliseconds.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAtPercent)
	}
	s := &service{process: p, parsed: in, logger: logger, level: level}
	if err := s.start(token); err != nil {
		logger.Error("cannot start", "error", oneLine(err.Error()))
		return exitFault
	}
	return s.run()
}

// collectAtPercent of the live heap may become garbage, unless the environment says otherwise (GOGC).
const collectAtPercent = 25

// service is a server with its monitor and its log.
type service struct {
	process process
	parsed  parsed
	logger  *slog.Logger
	level   *slog.LevelVar

	server  *server.Server
	monitor *monitor.Monitor
	admin   net.Listener // nil: none
}

// start binds the admin listener and makes the server. The listener comes first, because the server trusts the pages that it
// serves, and those are known by its port.
func (s *service) start(token string) error {
	o := &s.parsed.options
	if o.AdminListen != "" {
		l, err := monitor.Listen(o.AdminListen)
		if err != nil {
			return fmt.Errorf("admin-listen: %w", err)
		}
		s.admin = l
	}
	var handler server.Handler // nil: what connections say has nowhere to go, and is counted and dropped
	if o.Echo {
		handler = server.Echo{}
	}
	srv, err := server.New(s.serverConfig(o), handler)
	if err != nil {
		s.closeAdmin()
		return err
	}
	b := readBuild()
	s.server = srv
	s.monitor = monitor.New(monitor.Config{
		Token:              token,
		Hosts:              o.AdminHosts,
		StatsInterval:      o.StatsInterval,
		OverloadLoadFactor: o.OverloadLoadFactor,
		MemoryHigh:         float64(o.MemoryHigh) / 100,
		MessageBytesMax:    int(o.MessageSizeLimit),
		Version:            b.version,
		Revision:           b.revision,
		Logger:             s.logger,
	}, srv)
	return nil
}

// serverConfig is what the options say, and what only the running program knows.
func (s *service) serverConfig(o *options) server.Config {
	cfg := o.serverConfig()
	cfg.Logger = s.logger
	if s.admin != nil {
		cfg.TrustedOrigins = monitor.Origins(s.admin.Addr())
	}
	return cfg
}

func (s *service) closeAdmin() {
	if s.admin != nil {
		_ = s.admin.Close() // Only the descriptor matters, and it goes.
	}
}

// run serves until a signal or a fault ends it, and returns the exit code.
func (s *service) run() int {
	served := make(chan error, 1)
	go func() { served <- s.server.Serve() }()
	select {
	case err := <-served:
		s.closeAdmin()
		s.logger.Error("cannot serve", "error", oneLine(err.Error()))
		return exitFault
	case <-s.server.Started():
	}
	s.announce()

	background, stop := context.WithCancel(context.Background())
	defer stop()
	go s.monitor.Run(background)
	if s.admin != nil {
		go func() {
			if err := s.monitor.Serve(s.admin); !errors.Is(err, http.ErrServerClosed) {
				s.logger.Error("admin listener failed", "error", err)
			}
		}()
		defer s.shutdownAdmin()
	}
	return s.untilEnd(served)
}

// untilEnd waits for whatever ends the service.
func (s *service) untilEnd(served <-chan error) int {
	var ended chan error // of Shutdown; nil, and so never ready, before the first signal
	for {
		select {
		case sig := <-s.process.signals:
			switch {
			case sig == syscall.SIGHUP:
				s.reload()
			case ended != nil:
				s.logger.Warn("ended at once by a second signal", "signal", sig.String())
				return exitFault
			default:
				s.logger.Info("shutting down", "signal", sig.String(), "connections", s.server.Stats().Active)
				ended = make(chan error, 1)
				go s.shutdown(ended)
			}
		case err := <-ended:
			if err != nil {
				s.logger.Error("shutdown failed", "error", err)
				return exitFault
			}
			s.logger.Info("shut down")
			return exitOK
		case err := <-served:
			served = nil
			if ended == nil || !errors.Is(err, server.ErrClosed) {
				s.logger.Error("server failed", "error", err)
				return exitFault
			}
		}
	}
}

// shutdown drains the server. Its own bounds should end it; the context is for the case that they don't.
func (s *service) shutdown(ended chan<- error) {
	o := &s.parsed.options
	bound, cancel := context.WithTimeout(context.Background(), o.DrainDelay+o.ShutdownTimeout+shutdownGrace)
	defer cancel()
	ended <- s.server.Shutdown(bound)
}

// shutdownAdmin ends the admin listener after the server, so that the drain can be watched to its end.
func (s *service) shutdownAdmin() {
	bound, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.monitor.Shutdown(bound) // A request that doesn't end in time is cut.
}

// announce tells where the server listens, and what the host won't let it do.
func (s *service) announce() {
	o := &s.parsed.options
	attrs := []any{"addresses", addressList(s.server.Addrs()), "path", o.Path}
	if s.admin != nil {
		attrs = append(attrs, "admin", addressList([]net.Addr{s.admin.Addr()})[0])
	}
	limit := s.server.Stats().Limit
	s.logger.Info("listening", append(attrs, "connection_limit", limit, "node", o.NodeName, "version", readBuild().version)...)
	reserve := s.server.DescriptorReserve()
	if descriptors, ok := descriptorLimit(); ok && o.ConnectionLimit > 0 && uint64(o.ConnectionLimit+reserve) > descriptors {
		s.logger.Warn("connection-limit exceeds what the descriptor limit allows", "connection_limit", o.ConnectionLimit,
			"descriptors", descriptors, "reserve", reserve)
	}
}

// descriptorLimit is the number of descriptors that this process may have. The Go runtime raises the soft limit to the hard
// one at its start.
func descriptorLimit() (limit uint64, ok bool) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, false
	}
	return uint64(r.Cur), true //nolint:unconvert // freebsd has a signed number here
}

// addressList prints addresses as --listen takes them.
func addressList(addrs []net.Addr) (list []string) {
	for _, addr := range addrs {
		text := addr.String()
		if addr.Network() == "unix" {
			text = "unix:" + text
		}
		list = append(list, text)
	}
	return list
}

// newLogger writes the log; the level may change while it does.
func newLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// slogLevel translates a name that the parser has let through.
func slogLevel(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}
