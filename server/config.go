package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"
)

// Config is what a server is made of. A zero field means the default that stands beside it; a negative one means "none" where
// the flag's 0 does. The fields are named after the flags of the command.
type Config struct {
	Listen []string // addresses: ":8080" (dual-stack), "127.0.0.1:0", "unix:/path". Default ":8080"; "none" alone listens nowhere, for servers that only adopt
	Path   string   // of the WebSocket endpoint. Default "/ws"

	HeartbeatInterval time.Duration  // quiet time after which the server sends a heartbeat. Default 25 s
	HeartbeatTimeout  time.Duration  // silence after which a connection is expired; at least twice the interval; negative: never. Default 75 s
	HeartbeatMode     HeartbeatMode  // Default ping
	HeartbeatMin      time.Duration  // least interval that a client may ask for. Default 5 s
	HeartbeatMax      time.Duration  // largest interval that a client may ask for. Default 10 min
	JSONHeartbeats    JSONHeartbeats // Default edge

	HandshakeTimeout   time.Duration // from accept to the end of the upgrade. Default 5 s
	HandshakeSizeLimit int           // bytes of request head. Default 8 KiB
	MessageSizeLimit   int           // bytes of a whole message. Default 64 KiB; negative: none
	MaxFragments       int           // frames of one message. Default 1024; negative: none
	MaxBackpressure    int           // unsent bytes that a connection may hold. Default 64 KiB; negative: none
	ControlRateLimit   int           // ping and pong frames a second from one peer. Default 20; negative: none
	MessageRateLimit   int           // data messages a second from one peer, heartbeat messages included; beyond it the server reads it more slowly. Default: none

	Compression bool // permessage-deflate (RFC 7692) for those who ask for it, without context takeover: an idle connection holds no window. Default: off

	AllowedOrigins       []string // exact origins, "https://*.example.com" or "*"; a request without Origin passes. Default: same host and port, and TrustedOrigins
	TrustedOrigins       []string // allowed beside the default policy: the pages of the server's own admin listener
	ConnectionLimit      int      // Default: what the descriptor limit allows, less a reserve
	ConnectionLimitPerIP int      // IPv6 counted by /64. Default: none
	ConnectionRateLimit  int      // accepted upgrades a second. Default: none

	Loops       int // event loops. Default: half the cores, at least 1
	Workers     int // goroutines for handlers that may block. Default: 64 times the cores
	InlineBatch int // ready connections up to which a loop serves a batch itself; negative: everything goes through the pool

	SocketSendBuffer    int // bytes; negative: the kernel's own tuning. Default 64 KiB
	SocketReceiveBuffer int // bytes; negative: the kernel's own tuning. Default 64 KiB

	DrainDelay      time.Duration // after Shutdown begins, how long connections are still accepted while Ready says no. Default none
	DrainRate       int           // connections closed a second while draining. Default: the larger of 1000 and active ÷ (0.8 × ShutdownTimeout)
	ReconnectRate   int           // retry slots handed out a second while draining. Default 5000
	ShutdownTimeout time.Duration // after it, what is left is closed at once. Default 30 s

	NodeName string // Default: the host's name

	// Upgrade decides on each request: it chooses subprotocol, user, heartbeats and limits, or refuses with an error
	// ([*RefusalError] tells status and body). Default: every request that the rules above allow is taken, without a subprotocol.
	Upgrade func(*Request) (Accept, error)
	// HandlerInline declares that the handler and Upgrade never block: they then run where the bytes are read.
	HandlerInline bool

	Logger *slog.Logger // Default: slog.Default()
}

// defaulted returns the configuration with every zero field replaced, or all that is wrong with it at once.
func (c Config) defaulted() (Config, error) {
	if len(c.Listen) == 0 {
		c.Listen = []string{":8080"}
	}
	setDefault(&c.Path, "/ws")
	setDefault(&c.HeartbeatInterval, defaultHeartbeatInterval)
	if c.HeartbeatTimeout == 0 {
		c.HeartbeatTimeout = max(defaultHeartbeatTimeout, 3*c.HeartbeatInterval)
	}
	setDefault(&c.HeartbeatMode, HeartbeatPing)
	setDefault(&c.HeartbeatMin, defaultHeartbeatMin)
	setDefault(&c.HeartbeatMax, defaultHeartbeatMax)
	setDefault(&c.JSONHeartbeats, JSONHeartbeatsEdge)
	setDefault(&c.HandshakeTimeout, defaultHandshakeTimeout)
	setDefault(&c.HandshakeSizeLimit, defaultHandshakeSizeLimit)
	setDefault(&c.MessageSizeLimit, defaultMessageSizeLimit)
	setDefault(&c.MaxFragments, defaultMaxFragments)
	setDefault(&c.MaxBackpressure, defaultMaxBackpressure)
	setDefault(&c.ControlRateLimit, defaultControlRateLimit)
	setDefault(&c.Loops, max(1, runtime.GOMAXPROCS(0)/2))
	setDefault(&c.Workers, handlersPerCore*runtime.GOMAXPROCS(0))
	setDefault(&c.InlineBatch, defaultInlineBatch)
	setDefault(&c.SocketSendBuffer, defaultSocketBuffer)
	setDefault(&c.SocketReceiveBuffer, defaultSocketBuffer)
	setDefault(&c.ReconnectRate, defaultReconnectRate)
	setDefault(&c.ShutdownTimeout, defaultShutdownTimeout)
	if c.NodeName == "" {
		c.NodeName, _ = os.Hostname() // an unnamed host is called what INTERFACE calls it below
		setDefault(&c.NodeName, "localhost")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, c.validate()
}

// Validate tells everything that is wrong with the configuration, as New would.
func (c Config) Validate() error {
	_, err := c.defaulted()
	return err
}

// setDefault replaces a zero value.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate tells everything that is wrong at once, one line each.
func (c *Config) validate() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(!strings.HasPrefix(c.Path, "/") || strings.ContainsAny(c.Path, "?# "), "path %q: must begin with / and hold no ?, # or space", c.Path)
	wrong(isHealthPath([]byte(c.Path)), "path %q: taken by the health checks", c.Path)
	wrong(c.HeartbeatInterval < heartbeatIntervalLeast, "heartbeat-interval %v: at least %v", c.HeartbeatInterval, heartbeatIntervalLeast)
	wrong(c.HeartbeatTimeout > 0 && c.HeartbeatTimeout < 2*c.HeartbeatInterval, "heartbeat-timeout %v: at least twice the heartbeat-interval of %v", c.HeartbeatTimeout, c.HeartbeatInterval)
	wrong(c.HeartbeatMode > HeartbeatNone, "heartbeat-mode %d: ping, text or none", c.HeartbeatMode)
	wrong(c.HeartbeatMin <= 0 || c.HeartbeatMax < c.HeartbeatMin, "heartbeat-min %v, heartbeat-max %v: must be positive and in order", c.HeartbeatMin, c.HeartbeatMax)
	wrong(c.HeartbeatMax > negotiatedTimeoutMax/2, "heartbeat-max %v: at most %v", c.HeartbeatMax, negotiatedTimeoutMax/2)
	wrong(c.HeartbeatInterval > 24*time.Hour || c.HeartbeatTimeout > 7*24*time.Hour, "heartbeat-interval %v, heartbeat-timeout %v: at most 24h and 168h", c.HeartbeatInterval, c.HeartbeatTimeout)
	wrong(c.JSONHeartbeats > JSONHeartbeatsOff, "json-heartbeats %d: edge, forward or off", c.JSONHeartbeats)
	wrong(c.HandshakeTimeout < tick || c.HandshakeTimeout > time.Hour, "handshake-timeout %v: from %v to 1h", c.HandshakeTimeout, tick)
	wrong(c.HandshakeSizeLimit < 512 || c.HandshakeSizeLimit > readBytes, "handshake-size-limit %d: from 512 bytes to 64KiB", c.HandshakeSizeLimit)
	wrong(c.MessageRateLimit > 1e6, "message-rate-limit %d: at most 1000000", c.MessageRateLimit)
	wrong(c.Loops < 1 || c.Loops > loopsMax, "loops %d: from 1 to %d", c.Loops, loopsMax)
	wrong(c.Workers < 1, "workers %d: at least 1", c.Workers)
	wrong(c.DrainDelay < 0, "drain-delay %v: not negative", c.DrainDelay)
	wrong(c.DrainRate < 0, "drain-rate %d: not negative", c.DrainRate)
	wrong(c.ReconnectRate < 1, "reconnect-rate %d: at least 1", c.ReconnectRate)
	wrong(c.ShutdownTimeout < 0, "shutdown-timeout %v: not negative", c.ShutdownTimeout)
	for _, address := range c.Listen {
		wrong(!validListen(address), "listen %q: host:port, :port, or unix:/path", address)
	}
	for _, origin := range c.AllowedOrigins {
		wrong(!validOriginPattern(origin), "allowed-origins %q: an origin such as https://example.com, https://*.example.com, or *", origin)
	}
	return errors.Join(errs...)
}

// validListen says whether an address can be listened on at all: "none", unix: with a path, or a host, which may be empty, and a port.
func validListen(address string) bool {
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		return path != ""
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return address == "none"
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil && port != ""
}

// validOriginPattern says whether a pattern can match an origin at all: a scheme and a host, nothing behind them.
func validOriginPattern(pattern string) bool {
	if pattern == "*" || pattern == "null" {
		return true
	}
	u, err := url.Parse(strings.Replace(pattern, "://*.", "://", 1))
	return err == nil && u.Scheme != "" && u.Host != "" && u.Path == "" && u.RawQuery == "" && u.Fragment == "" && u.User == nil && !strings.Contains(u.Host, "*")
}
