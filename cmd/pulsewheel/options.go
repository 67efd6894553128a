package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/pulsewheel/pulsewheel/monitor"
	"github.com/pulsewheel/pulsewheel/server"
)

// options are those of serve, in the order of the help and of check-config. Flags, environment variables and file keys are
// derived from the field names; the tags say the rest. positive means that 0 has no meaning there.
type options struct {
	Listen      []string `group:"listen" default:":8080" help:"Address for WebSocket: :8080 is IPv4 and IPv6, unix:/path a Unix socket. Repeatable."`
	Path        string   `group:"listen" default:"/ws" help:"Path of the WebSocket endpoint."`
	NodeName    string   `group:"listen" placeholder:"HOST-NAME" help:"Name of this node in messages and figures; default: the host's name."`
	Echo        bool     `group:"listen" help:"Answer every data message with itself: for demonstrations, conformance suites and load tests."`
	Loops       int      `group:"listen" default:"0" help:"Event loops; 0: from the cores."`
	Workers     int      `group:"listen" default:"0" help:"Goroutines for handlers that may block; 0: from the cores."`
	InlineBatch int      `group:"listen" default:"256" help:"Ready connections up to which a loop serves a batch itself; 0: every inbound frame goes through the pool."`

	HeartbeatInterval time.Duration `group:"heartbeats" positive:"yes" default:"25s" help:"Quiet time after which the server sends a heartbeat."`
	HeartbeatTimeout  time.Duration `group:"heartbeats" default:"75s" help:"Silence after which a connection is expired, at least twice the interval; 0: never."`
	HeartbeatMode     string        `group:"heartbeats" default:"ping" enum:"ping,text,none" help:"What the server sends: ping (a ping frame), text (a JSON message) or none (silence still expires)."`
	HeartbeatMin      time.Duration `group:"heartbeats" positive:"yes" default:"5s" help:"Least interval that a client may ask for."`
	HeartbeatMax      time.Duration `group:"heartbeats" positive:"yes" default:"10m" help:"Largest interval that a client may ask for."`
	JSONHeartbeats    string        `group:"heartbeats" name:"json-heartbeats" default:"edge" enum:"edge,forward,off" help:"What becomes of a client's {\"type\":\"heartbeat\"}: edge (answered, goes no further), forward (answered and delivered) or off (plain data)."`

	HandshakeTimeout   time.Duration `group:"limits" positive:"yes" default:"5s" help:"From accept to the end of the upgrade."`
	HandshakeSizeLimit size          `group:"limits" positive:"yes" default:"8KiB" help:"Bytes of a request head, from 512B to 64KiB."`
	MessageSizeLimit   size          `group:"limits" default:"64KiB" help:"Bytes of a whole message; 0: no limit."`
	MaxFragments       int           `group:"limits" default:"1024" help:"Frames of one message; 0: no limit."`
	MaxBackpressure    size          `group:"limits" default:"64KiB" help:"Unsent bytes that a connection may hold before it is closed; above half of it the server stops reading it; 0: no limit."`
	ControlRateLimit   int           `group:"limits" default:"20" help:"Ping and pong frames a second from one peer; 0: no limit."`
	MessageRateLimit   int           `group:"limits" default:"0" help:"Data messages a second from one peer, beyond which the server reads it more slowly; 0: no limit."`
	Compression        bool          `group:"limits" help:"permessage-deflate for those who ask for it, without context takeover."`
	AllowedOrigins     []string      `group:"limits" placeholder:"ORIGIN" help:"Origins that browsers may connect from: exact, https://*.example.com, or *. Default: same host and port, and the pages of the admin listener on loopback. Repeatable."`

	ConnectionLimit      int  `group:"limits" default:"0" help:"Connections at once; 0: what the descriptor limit allows, less a reserve."`
	ConnectionLimitPerIP int  `group:"limits" name:"connection-limit-per-ip" default:"0" help:"Connections from one address (IPv6: from one /64); 0: no limit."`
	ConnectionRateLimit  int  `group:"limits" default:"0" help:"Accepted upgrades a second; 0: no limit."`
	SocketSendBuffer     size `group:"limits" default:"64KiB" help:"Send buffer of each socket; 0: the kernel's own tuning."`
	SocketReceiveBuffer  size `group:"limits" default:"64KiB" help:"Receive buffer of each socket; 0: the kernel's own tuning."`

	DrainDelay      time.Duration `group:"shutdown" default:"0s" help:"After SIGTERM, how long readyz says 503 while connections are still accepted."`
	DrainRate       int           `group:"shutdown" default:"0" help:"Connections closed a second; 0: the larger of 1000 and active / (0.8 x shutdown-timeout)."`
	ReconnectRate   int           `group:"shutdown" positive:"yes" default:"5000" help:"Retry slots handed out a second: a client is told to retry after slot / rate seconds."`
	ShutdownTimeout time.Duration `group:"shutdown" default:"30s" help:"After it, what is left is closed at once."`

	AdminListen    string   `group:"monitor" default:"127.0.0.1:8081" help:"Address of metrics, API and pages; unix:/path for a Unix socket; empty: none."`
	AdminTokenFile string   `group:"monitor" placeholder:"FILE" help:"File with the bearer token of the admin listener, at least 16 characters; needed off loopback."`
	AdminHosts     []string `group:"monitor" placeholder:"HOST" help:"Host names under which the admin listener answers, beside loopback and the bound address. Repeatable."`

	StatsInterval      time.Duration `group:"monitor" default:"5s" help:"Of the line of statistics in the log; 0: none."`
	OverloadLoadFactor float64       `group:"monitor" default:"2" help:"Alarm when the 1-minute load average reaches this many times the cores; 0: no alarm."`
	MemoryHigh         percent       `group:"monitor" default:"90%" help:"Share of the memory of the machine or the control group, kernel sockets included, beyond which new connections are refused; 0: none."`
	LogFormat          string        `group:"monitor" default:"text" enum:"text,json" help:"Format of the log on standard error: text or json."`
	LogLevel           string        `group:"monitor" default:"info" enum:"debug,info,warn,error" help:"Least level that is logged: debug, info, warn or error."`

	Config string `group:"monitor" placeholder:"FILE" help:"YAML file with these options as keys."`
}

// adminOptions are those of the commands that speak with a running server.
type adminOptions struct {
	AdminListen    string `default:"127.0.0.1:8081" help:"Address of the server's admin listener; unix:/path for a Unix socket."`
	AdminTokenFile string `placeholder:"FILE" help:"File with its bearer token."`
	Config         string `placeholder:"FILE" help:"The server's YAML file, to take both from."`
}

// doctorOptions are those of doctor.
type doctorOptions struct {
	Connections int           `default:"100000" positive:"yes" help:"Connections that the host is to hold."`
	URL         string        `name:"url" placeholder:"URL" help:"Also open a WebSocket (ws:// or wss://) through whatever stands in front, stay silent, and tell when it is cut."`
	Patience    time.Duration `default:"6m" positive:"yes" help:"How long to wait for that."`
	JSON        bool          `name:"json" help:"Print JSON."`
}

// optionGroups are the headings of the help.
func optionGroups() []kong.Group {
	return []kong.Group{
		{Key: "listen", Title: "Server:"},
		{Key: "heartbeats", Title: "Heartbeats:"},
		{Key: "limits", Title: "Limits:"},
		{Key: "shutdown", Title: "Shutdown:"},
		{Key: "monitor", Title: "Observation and configuration:"},
	}
}

// The token guards everything that the admin listener shows and does.
const (
	tokenBytesMin = 16
	tokenBytesMax = 4 << 10
)

// serverConfig translates the flags into Config, where a zero field is the default and a negative one what 0 means here.
func (o *options) serverConfig() server.Config {
	mode, _ := server.ParseHeartbeatMode(o.HeartbeatMode)    // the parser took only known names
	beats, _ := server.ParseJSONHeartbeats(o.JSONHeartbeats) // likewise
	return server.Config{
		Listen:               o.Listen,
		Path:                 o.Path,
		HeartbeatInterval:    o.HeartbeatInterval,
		HeartbeatTimeout:     noneIfZero(o.HeartbeatTimeout),
		HeartbeatMode:        mode,
		HeartbeatMin:         o.HeartbeatMin,
		HeartbeatMax:         o.HeartbeatMax,
		JSONHeartbeats:       beats,
		HandshakeTimeout:     o.HandshakeTimeout,
		HandshakeSizeLimit:   int(o.HandshakeSizeLimit),
		MessageSizeLimit:     noneIfZero(int(o.MessageSizeLimit)),
		MaxFragments:         noneIfZero(o.MaxFragments),
		MaxBackpressure:      noneIfZero(int(o.MaxBackpressure)),
		ControlRateLimit:     noneIfZero(o.ControlRateLimit),
		MessageRateLimit:     o.MessageRateLimit,
		Compression:          o.Compression,
		AllowedOrigins:       o.AllowedOrigins,
		ConnectionLimit:      o.ConnectionLimit,
		ConnectionLimitPerIP: o.ConnectionLimitPerIP,
		ConnectionRateLimit:  o.ConnectionRateLimit,
		Loops:                o.Loops,
		Workers:              o.Workers,
		InlineBatch:          noneIfZero(o.InlineBatch),
		SocketSendBuffer:     noneIfZero(int(o.SocketSendBuffer)),
		SocketReceiveBuffer:  noneIfZero(int(o.SocketReceiveBuffer)),
		DrainDelay:           o.DrainDelay,
		DrainRate:            o.DrainRate,
		ReconnectRate:        o.ReconnectRate,
		ShutdownTimeout:      max(o.ShutdownTimeout, 1), // 0 is "at once", and the shortest time is as good
		NodeName:             o.NodeName,
		HandlerInline:        true, // neither of our two handlers blocks
	}
}

// noneIfZero turns a flag's 0 into Config's negative.
func noneIfZero[T int | time.Duration](value T) T {
	if value == 0 {
		return -1
	}
	return value
}

// complete fills in what depends on the host and returns everything that is wrong with the options beyond what the parser
// saw. The token is that of the admin listener.
func (o *options) complete() (token string, problems []string) {
	if o.NodeName == "" {
		if name, err := os.Hostname(); err == nil {
			o.NodeName = name
		} else {
			o.NodeName = "localhost"
		}
	}
	wrong := func(name string, err error) {
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", name, err))
		}
	}
	if len(o.Listen) == 0 {
		wrong("listen", errors.New("at least one address is needed"))
	}
	if o.AdminListen != "" {
		var err error
		token, err = readToken(o.AdminTokenFile)
		wrong("admin-token-file", err)
		if err := monitor.CheckAddress(o.AdminListen, o.AdminTokenFile != ""); err != nil {
			wrong(fmt.Sprintf("admin-listen %q", o.AdminListen), err)
		}
	}
	return token, problems
}

// readToken reads the file of the admin listener's token; without a file there is none. The error never holds the token.
func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := readBounded(path, tokenBytesMax)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if len(token) < tokenBytesMin || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("%s must hold one token of at least %d characters", path, tokenBytesMin)
	}
	return token, nil
}
