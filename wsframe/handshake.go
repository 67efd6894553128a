package wsframe

import (
	"bytes"
	"encoding/base64"
	"io"

	"github.com/gobwas/ws"
)

const (
	keyBytes    = 16 // of a key before it is encoded
	keyTextAt   = len(requestBeforeKey)
	keyTextSize = 24 // of a key in base64

	// The upgrader's own buffers, from its pool: the request it is given and the usual response fit.
	upgraderBufferBytes = 512
)

// CheckUpgrade judges a request head by RFC 6455, section 4.2.1, and returns nil for a valid upgrade. Path, origin and
// whatever the application wants are the caller's to judge.
//
// A request that has nothing of an upgrade gets 426 with Upgrade, one for another version of the protocol 426 with
// Sec-WebSocket-Version. One that began as an upgrade but lost its Upgrade or Connection on the way, or comes as
// HTTP/1.0, gets 400 and a hint at the proxy that did it.
func CheckUpgrade(h *Head) *Refusal {
	switch {
	case string(h.Method) != "GET":
		return errUpgradeMethod
	case h.Minor < 1:
		return errUpgradeHTTP10
	case h.hasBody():
		return errUpgradeBody
	}
	upgrade := h.hasToken(fieldUpgrade, nameUpgrade, "websocket")
	connection := h.hasToken(fieldConnection, nameConnection, "upgrade")
	if !upgrade || !connection {
		switch {
		case !upgrade && h.known[fieldKey].count == 0 && h.known[fieldVersion].count == 0:
			return errUpgradeMissing
		case !upgrade:
			return errUpgradeDropped
		default:
			return errUpgradeConnection
		}
	}
	switch {
	case h.known[fieldVersion].count != 1:
		return errUpgradeNoVersion
	case string(h.known[fieldVersion].value) != versionOnly:
		return errUpgradeVersion
	case h.known[fieldKey].count != 1:
		return errUpgradeNoKey
	case !isKey(h.known[fieldKey].value):
		return errUpgradeKey
	case h.known[fieldOrigin].count > 1:
		return errUpgradeTwice
	// RFC 6455, 4.2.1: any violation of the ABNF grammar specified for the components of the handshake MUST stop its
	// processing.
	case !h.areProtocols():
		return errUpgradeProtocols
	case !h.areUnique():
		return errUpgradeProtocolTwice
	case !h.areExtensions():
		return errUpgradeExtensions
	}
	return nil
}

// areProtocols reports whether each element of the list of subprotocols is a token. An empty list offers nothing.
func (h *Head) areProtocols() bool {
	return h.lines(fieldProtocol, func(value []byte) bool { return eachToken(value, isTokens[[]byte]) })
}

// protocolsCompared is up to how many subprotocols each is compared with each.
const protocolsCompared = 8

// areUnique reports whether no subprotocol is offered twice. RFC 6455, 4.1, item 10: the elements MUST all be unique
// strings. Where a peer offers more than anybody has, a set keeps the work linear.
func (h *Head) areUnique() bool {
	var first [protocolsCompared][]byte
	var all map[string]bool
	n := 0
	return h.lines(fieldProtocol, func(value []byte) bool {
		return eachToken(value, func(token []byte) bool {
			for _, other := range first[:min(n, protocolsCompared)] {
				if bytes.Equal(token, other) {
					return false
				}
			}
			if n++; n <= protocolsCompared {
				first[n-1] = token
				return true
			}
			if all == nil {
				all = make(map[string]bool)
			}
			if all[string(token)] {
				return false
			}
			all[string(token)] = true
			return true
		})
	})
}

// hasBody reports whether the request announces a body. A body would be taken for frames, or would have to be
// collected before the answer; neither may be.
func (h *Head) hasBody() bool {
	if h.known[fieldTransferEncoding].count > 0 || h.known[fieldContentLength].count > 1 {
		return true
	}
	return h.known[fieldContentLength].count == 1 && string(h.known[fieldContentLength].value) != "0"
}

// isKey reports whether v is 16 bytes in base64 (RFC 6455, section 4.2.1, item 5).
func isKey(v []byte) bool {
	if len(v) != keyTextSize {
		return false
	}
	var key [keyTextSize]byte
	n, err := base64.StdEncoding.Decode(key[:], v)
	return err == nil && n == keyBytes
}

// Accept is what the server adds to its 101.
type Accept struct {
	Protocol   string      // one of those the client offered; empty: none
	Extensions string      // value of Sec-WebSocket-Extensions, of what the client offered; empty: none
	Header     [][2]string // further fields, such as Set-Cookie
}

// AppendUpgrade appends the 101 response to a head for which CheckUpgrade returned nil. On an error dst is returned as
// it was: ErrNotUpgrade for another head, ErrNotOffered for a subprotocol or extension that the client did not
// offer, ErrHeaderInvalid for a field that is not fit to be sent or that the handshake itself sets.
func AppendUpgrade(dst []byte, h *Head, a Accept) ([]byte, error) {
	return new(Upgrader).Append(dst, h, a)
}

// Upgrader is AppendUpgrade for who upgrades often: it is used again and again, by one goroutine at a time, so that an
// upgrade leaves some 24 bytes to the collector instead of 300. The zero value is ready.
type Upgrader struct {
	conn memoryConn
}

// Append is AppendUpgrade.
func (u *Upgrader) Append(dst []byte, h *Head, a Accept) ([]byte, error) {
	if CheckUpgrade(h) != nil {
		return dst, ErrNotUpgrade
	}
	if err := a.check(h); err != nil {
		return dst, err
	}
	m := &u.conn
	m.read, m.accept, m.dst = 0, a, dst
	defer func() { m.accept, m.dst = Accept{}, nil }()
	copy(m.request[:], requestBeforeKey)
	copy(m.request[keyTextAt:], h.known[fieldKey].value)
	copy(m.request[keyTextAt+keyTextSize:], requestAfterKey)
	up := ws.Upgrader{ReadBufferSize: upgraderBufferBytes, WriteBufferSize: upgraderBufferBytes, Header: m}
	if _, err := up.Upgrade(m); err != nil {
		return dst, ErrNotUpgrade
	}
	return m.dst, nil
}

// check judges what the application wants to send with the 101.
func (a *Accept) check(h *Head) error {
	if a.Protocol != "" {
		offered := false
		for p := range h.Protocols {
			offered = offered || string(p) == a.Protocol
		}
		if !offered {
			return ErrNotOffered
		}
	}
	if a.Extensions != "" && h.known[fieldExtensions].count == 0 {
		return ErrNotOffered
	}
	if !isValue(a.Extensions) {
		return ErrHeaderInvalid
	}
	for _, f := range a.Header {
		if !isTokens(f[0]) || !isValue(f[1]) || isHandshakeField(f[0]) {
			return ErrHeaderInvalid
		}
	}
	return nil
}

// isHandshakeField reports whether a 101 has at most one such field, which this package writes, or none.
func isHandshakeField(name string) bool {
	switch identify([]byte(name)) {
	case fieldUpgrade, fieldConnection, fieldProtocol, fieldExtensions, fieldContentLength, fieldTransferEncoding:
		return true
	default:
		return equalFold([]byte(name), nameAccept)
	}
}

// What the upgrader reads: a request with the peer's key and nothing else of the peer's. The head itself was judged
// by CheckUpgrade, as the RFC has it; the upgrader reads it otherwise in places (it refuses a second Connection line
// and an Upgrade that is a list) and would go over all fields again.
const (
	requestBeforeKey = "GET / HTTP/1.1\r\nHost: -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-Websocket-Version: 13\r\nSec-Websocket-Key: "
	requestAfterKey = "\r\n\r\n"
	requestBytes    = len(requestBeforeKey) + keyTextSize + len(requestAfterKey)
)

// memoryConn is the connection that the upgrader believes it has, and the source of its extra fields.
type memoryConn struct {
	request [requestBytes]byte
	read    int
	accept  Accept
	dst     []byte
}

// Read gives the request.
func (m *memoryConn) Read(p []byte) (int, error) {
	if m.read == len(m.request) {
		return 0, io.EOF
	}
	n := copy(p, m.request[m.read:])
	m.read += n
	return n, nil
}

// Write takes the response.
func (m *memoryConn) Write(p []byte) (int, error) {
	m.dst = append(m.dst, p...)
	return len(p), nil
}

// WriteTo gives the fields of Accept.
func (m *memoryConn) WriteTo(w io.Writer) (int64, error) {
	var fields []byte
	if m.accept.Protocol != "" {
		fields = appendField(fields, nameProtocol, m.accept.Protocol)
	}
	if m.accept.Extensions != "" {
		fields = appendField(fields, nameExtensions, m.accept.Extensions)
	}
	for _, f := range m.accept.Header {
		fields = appendField(fields, f[0], f[1])
	}
	n, err := w.Write(fields)
	return int64(n), err
}
