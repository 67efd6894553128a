package server

import (
	"fmt"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// policy is the part of the configuration that may change while the server runs. A new one replaces it as a whole; connections
// see it with their next frame, handshakes with their next byte.
type policy struct {
	origins          *origins
	head             wsframe.HeadLimits
	limits           *wsframe.Limits
	deflateLimits    *wsframe.Limits // the same, for connections that agreed on compression
	connections      int64
	maxBackpressure  int    // negative: none
	controlRateLimit int    // negative: none
	messageStep      uint64 // µs that a data message pays for; 0: no limit
}

// newPolicy compiles the changeable part of a configuration that was defaulted.
func (s *Server) newPolicy(cfg *Config) (*policy, error) {
	connections, err := connectionLimit(cfg.ConnectionLimit, s.DescriptorReserve())
	if err != nil {
		return nil, err
	}
	p := &policy{
		origins: newOrigins(cfg.AllowedOrigins, cfg.TrustedOrigins),
		head:    wsframe.HeadLimits{Bytes: cfg.HandshakeSizeLimit, LineBytes: max(handshakeLineBytesMax, cfg.HandshakeSizeLimit/2), Headers: handshakeHeadersMax},
		limits: &wsframe.Limits{
			MessageBytesMax: max(0, cfg.MessageSizeLimit), FragmentsMax: max(0, cfg.MaxFragments), EmptyFragmentsMax: emptyFragmentsMax,
			Grow: s.assembly.grow,
		},
		connections:      connections,
		maxBackpressure:  cfg.MaxBackpressure,
		controlRateLimit: cfg.ControlRateLimit,
	}
	deflate := *p.limits
	deflate.Deflate = true
	p.deflateLimits = &deflate
	if cfg.MessageRateLimit > 0 {
		p.messageStep = max(1, uint64(time.Second/time.Microsecond)/uint64(cfg.MessageRateLimit))
	}
	return p, nil
}

// connectionLimit is what is configured, or else what the descriptor limit allows.
func connectionLimit(configured, reserve int) (int64, error) {
	if configured > 0 {
		return int64(configured), nil
	}
	descriptors, err := poller.DescriptorLimit()
	if err != nil {
		return 0, fmt.Errorf("descriptor limit: %w", err)
	}
	return max(1, int64(min(descriptors, 1<<40))-int64(reserve)), nil
}

// DescriptorReserve is how many descriptors the server keeps for everything but connections: its loops, its listeners, and what the program has
// beside it. Without Config.ConnectionLimit, the process's descriptor limit less this is the limit.
func (s *Server) DescriptorReserve() int {
	return descriptorReserve + descriptorsPerLoop*s.cfg.Loops + descriptorsPerListener*len(s.cfg.Listen)
}

// Reload takes from a configuration what may change while the server runs: AllowedOrigins, TrustedOrigins, HandshakeSizeLimit,
// MessageSizeLimit, MaxFragments, MaxBackpressure, ControlRateLimit, MessageRateLimit and ConnectionLimit. Other fields are not looked at but for their
// validity; a configuration that New would refuse changes nothing. Connections beyond a lower limit stay.
func (s *Server) Reload(cfg Config) error {
	cfg, err := cfg.defaulted()
	if err != nil {
		return err
	}
	p, err := s.newPolicy(&cfg)
	if err != nil {
		return err
	}
	s.policy.Store(p)
	return nil
}
