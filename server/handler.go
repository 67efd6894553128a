package server

import (
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Op tells what a message is.
type Op uint8

// The two kinds of message (RFC 6455, section 5.6). Text is always valid UTF-8, in both directions.
const (
	Text   Op = 1
	Binary Op = 2
)

func (o Op) String() string {
	if o == Text {
		return "text"
	}
	return "binary"
}

// Handler is what an application does with connections. For one connection the calls come one at a time and in this order: Open
// once, Message for each message, Close once. Different connections call at the same time.
//
// By default the calls run on the handler pool and may block; a connection whose handler is busy is not read any further.
// With [Config.HandlerInline] they run where the bytes were read and must never block.
//
// A panic closes the connection it came from (1011) and no other; it is counted and logged.
type Handler interface {
	// Open tells that the upgrade is done. The request is the handler's to keep.
	Open(c Conn, r *Request)
	// Message hands over one whole message. The data is valid until Message returns.
	Message(c Conn, op Op, data []byte)
	// Close tells that the connection is gone, for whatever reason; code is what RFC 6455 section 7.1.5 calls the close code: the
	// peer's, ours, 1005 or 1006. Value and User still answer, Send no longer does.
	Close(c Conn, code uint16, reason string)
}

// Request is the upgrade request of a connection. Its fields don't change; it may be kept.
type Request struct {
	Method     string
	Path       string
	RawQuery   string
	Host       string
	Header     http.Header
	RemoteAddr netip.AddrPort // zero on a Unix socket
	Protocols  []string       // offered subprotocols, in the client's order of preference
}

// Query parses the query of the request; pairs that can't be parsed are left out.
func (r *Request) Query() url.Values {
	v, _ := url.ParseQuery(r.RawQuery) // it returns what it could parse
	return v
}

// Accept is how a connection is taken: the zero value takes it with the server's defaults and what the client asked for.
type Accept struct {
	Protocol string      // chosen subprotocol, one of those offered; empty: none
	User     string      // whose connection it is; [Conn.User]
	Value    any         // the application's own; [Conn.Value]
	Header   http.Header // more headers for the 101 response

	// Heartbeats of this connection, over what the client asked for; zero: no say.
	HeartbeatMode     HeartbeatMode
	HeartbeatInterval time.Duration
	HeartbeatTimeout  time.Duration
	// MessageSizeLimit of this connection in bytes, at most that of the server; 0: the server's.
	MessageSizeLimit int
}

// RefusalError refuses an upgrade with a status and a body of one line. Any other error of [Config.Upgrade] is answered with
// 500 and no text of its own, since it may say what strangers shouldn't read.
type RefusalError struct {
	Status int         // 4xx or 5xx
	Body   string      // one line of ASCII for the peer
	Header http.Header // for example WWW-Authenticate or Retry-After
}

func (e *RefusalError) Error() string { return e.Body }

// HeartbeatMode is how the server beats on a connection.
type HeartbeatMode uint8

// The modes by name: ping frames, JSON text messages, or nothing at all. Silence expires a connection in every mode.
const (
	HeartbeatDefault HeartbeatMode = iota
	HeartbeatPing
	HeartbeatText
	HeartbeatNone
)

func (m HeartbeatMode) String() string {
	switch m {
	case HeartbeatPing:
		return "ping"
	case HeartbeatText:
		return "text"
	case HeartbeatNone:
		return "none"
	default:
		return "default"
	}
}

// ParseHeartbeatMode reads the name of a mode: ping, text or none.
func ParseHeartbeatMode(name string) (HeartbeatMode, bool) {
	switch name {
	case "ping":
		return HeartbeatPing, true
	case "text":
		return HeartbeatText, true
	case "none":
		return HeartbeatNone, true
	default:
		return HeartbeatDefault, false
	}
}

// JSONHeartbeats is what becomes of a client's {"type":"heartbeat"}.
type JSONHeartbeats uint8

// Edge answers it and keeps it, Forward answers it and delivers it, Off takes it for plain data.
const (
	JSONHeartbeatsDefault JSONHeartbeats = iota
	JSONHeartbeatsEdge
	JSONHeartbeatsForward
	JSONHeartbeatsOff
)

// ParseJSONHeartbeats reads the name of a setting: edge, forward or off.
func ParseJSONHeartbeats(name string) (JSONHeartbeats, bool) {
	switch name {
	case "edge":
		return JSONHeartbeatsEdge, true
	case "forward":
		return JSONHeartbeatsForward, true
	case "off":
		return JSONHeartbeatsOff, true
	default:
		return JSONHeartbeatsDefault, false
	}
}
