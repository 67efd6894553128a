package server

import "errors"

// ErrEnding is the error of a drain that comes too late: the server shuts down, and that can't be taken back.
var ErrEnding = errors.New("server: shutting down")

// Drain empties the server without ending it: Ready says no, new connections are refused (503), and those that are open are told to go
// (1012, with the second at which to come back) at the rate of a shutdown. The listeners stay open, so that Undrain can take it back.
// A second Drain changes nothing.
func (s *Server) Drain() error {
	if err := s.mayDrain(); err != nil {
		return err
	}
	if s.closing.Swap(true) {
		return nil
	}
	share := s.drainRate() / float64(len(s.loops))
	for _, l := range s.loops {
		l.post(task{kind: taskDo, do: func(l *loop) {
			if s.state.Load() == stateServing && s.closing.Load() {
				l.drain = drain{active: true, began: l.clock.read, rate: share}
			}
		}})
	}
	return nil
}

// Undrain takes Drain back: new connections are accepted again, and nobody else is told to go. Connections that were told to go
// are gone. ErrEnding: a shutdown has begun.
func (s *Server) Undrain() error {
	if err := s.mayDrain(); err != nil {
		return err
	}
	s.closing.Store(false)
	if s.state.Load() != stateServing { // a shutdown began meanwhile, and it has the last word
		s.closing.Store(true)
		return ErrEnding
	}
	for _, l := range s.loops {
		l.post(task{kind: taskDo, do: func(l *loop) {
			if s.state.Load() == stateServing && !s.closing.Load() {
				l.drain.active = false
			}
		}})
	}
	return nil
}

// Draining says whether the server empties itself, by Drain or by Shutdown.
func (s *Server) Draining() bool { return s.closing.Load() || s.state.Load() >= stateDraining }

// mayDrain says why the server can't be drained or undrained.
func (s *Server) mayDrain() error {
	switch {
	case s.state.Load() > stateServing:
		return ErrEnding
	case !s.isStarted():
		return ErrNotServing
	default:
		return nil
	}
}

// drainRate is how many connections a second are told to go.
func (s *Server) drainRate() float64 {
	if s.cfg.DrainRate > 0 {
		return float64(s.cfg.DrainRate)
	}
	rate := float64(defaultDrainRateLeast)
	if seconds := s.cfg.ShutdownTimeout.Seconds() * drainShare; seconds > 0 {
		rate = max(rate, float64(s.active())/seconds)
	}
	return rate
}
