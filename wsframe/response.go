package wsframe

import (
	"net/http"
	"strconv"
)

// Refusal is an answer other than 101 to a request. The values that this package returns are preallocated and must
// not be changed.
type Refusal struct {
	// Status is the HTTP status.
	Status int
	// Reason names the rule in lower-case ASCII with hyphens, at most 32 bytes: fit as a label.
	Reason string
	// Text is the line for whoever reads the response, without a newline; empty: Reason is sent.
	Text string
	// Header holds fields to send along, such as Allow.
	Header [][2]string
}

// Error says what was refused and with which status.
func (r *Refusal) Error() string {
	return "wsframe: " + r.Reason + " (HTTP " + strconv.Itoa(r.Status) + ")"
}

const (
	proxyHint = "if a proxy stands in front, have it speak HTTP/1.1 and pass Upgrade and Connection on " +
		"(nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";)"
	versionOnly = "13"
)

// What ParseHead and CheckUpgrade answer.
var (
	errHeadBytes       = &Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: "head-too-large", Text: "request head too large: see the handshake size limit"}
	errHeadLine        = &Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: "line-too-long", Text: "request line or header line too long: 4 KiB, or half of the handshake size limit"}
	errHeadHeaders     = &Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: "too-many-headers", Text: "too many header lines"}
	errHeadTLS         = &Refusal{Status: http.StatusBadRequest, Reason: "tls-on-plain-port", Text: "TLS on a port that does not speak it: use ws:// or http://"}
	errHeadRequestLine = &Refusal{Status: http.StatusBadRequest, Reason: "bad-request-line", Text: "malformed request line"}
	errHeadVersion     = &Refusal{Status: http.StatusBadRequest, Reason: "bad-http-version", Text: "this server speaks HTTP/1.1"}
	errHeadTarget      = &Refusal{Status: http.StatusBadRequest, Reason: "bad-target", Text: "malformed request target"}
	errHeadBareLF      = &Refusal{Status: http.StatusBadRequest, Reason: "bare-lf", Text: "lines end in CRLF, not in LF"}
	errHeadBareCR      = &Refusal{Status: http.StatusBadRequest, Reason: "bare-cr", Text: "CR without LF"}
	errHeadFold        = &Refusal{Status: http.StatusBadRequest, Reason: "folded-header", Text: "folded header line"}
	errHeadField       = &Refusal{Status: http.StatusBadRequest, Reason: "bad-header-name", Text: "malformed header line"}
	errHeadValue       = &Refusal{Status: http.StatusBadRequest, Reason: "bad-header-value", Text: "control character in a header value"}
	errHeadNoHost      = &Refusal{Status: http.StatusBadRequest, Reason: "no-host", Text: "no Host header"}
	errHeadHostTwice   = &Refusal{Status: http.StatusBadRequest, Reason: "duplicate-host", Text: "more than one Host header"}
	errHeadHost        = &Refusal{Status: http.StatusBadRequest, Reason: "bad-host", Text: "malformed Host header"}

	errUpgradeMethod = &Refusal{
		Status: http.StatusMethodNotAllowed, Reason: "method-not-allowed", Text: "a WebSocket upgrade is a GET",
		Header: [][2]string{{"Allow", http.MethodGet}},
	}
	errUpgradeHTTP10 = &Refusal{
		Status: http.StatusBadRequest, Reason: "http-1.0",
		Text: "a WebSocket upgrade needs HTTP/1.1, this request is HTTP/1.0; " + proxyHint,
	}
	errUpgradeBody    = &Refusal{Status: http.StatusBadRequest, Reason: "request-body", Text: "an upgrade request has no body"}
	errUpgradeMissing = &Refusal{
		Status: http.StatusUpgradeRequired, Reason: "no-upgrade", Text: "this is a WebSocket endpoint",
		Header: [][2]string{{nameUpgrade, "websocket"}},
	}
	errUpgradeDropped = &Refusal{
		Status: http.StatusBadRequest, Reason: "upgrade-header-dropped",
		Text: "no \"Upgrade: websocket\" in a WebSocket request; " + proxyHint,
	}
	errUpgradeConnection = &Refusal{
		Status: http.StatusBadRequest, Reason: "connection-header-dropped",
		Text: "no \"Connection: Upgrade\" in a WebSocket request; " + proxyHint,
	}
	errUpgradeVersion = &Refusal{
		Status: http.StatusUpgradeRequired, Reason: "bad-version", Text: "this server speaks WebSocket version 13",
		Header: [][2]string{{nameUpgrade, "websocket"}, {nameVersion, versionOnly}},
	}
	errUpgradeNoVersion = &Refusal{
		Status: http.StatusBadRequest, Reason: "no-version", Text: "not exactly one Sec-WebSocket-Version header",
		Header: [][2]string{{nameVersion, versionOnly}},
	}
	errUpgradeNoKey = &Refusal{Status: http.StatusBadRequest, Reason: "no-key", Text: "not exactly one Sec-WebSocket-Key header"}
	errUpgradeKey   = &Refusal{Status: http.StatusBadRequest, Reason: "bad-key", Text: "Sec-WebSocket-Key is not 16 bytes in base64"}
	errUpgradeTwice = &Refusal{Status: http.StatusBadRequest, Reason: "duplicate-origin", Text: "more than one Origin header"}

	errUpgradeProtocols     = &Refusal{Status: http.StatusBadRequest, Reason: "bad-protocols", Text: "Sec-WebSocket-Protocol is not a list of tokens"}
	errUpgradeProtocolTwice = &Refusal{
		Status: http.StatusBadRequest, Reason: "duplicate-protocol",
		Text: "a subprotocol stands twice in Sec-WebSocket-Protocol; all must be unique (RFC 6455, 4.1)",
	}
	errUpgradeExtensions = &Refusal{Status: http.StatusBadRequest, Reason: "bad-extensions", Text: "malformed Sec-WebSocket-Extensions"}
)

// AppendRefusal appends the complete response for r: text/plain, one line. The connection is to be closed after it.
func AppendRefusal(dst []byte, r *Refusal) []byte {
	text := r.Text
	if text == "" {
		text = r.Reason
	}
	return AppendResponse(dst, r.Status, "text/plain; charset=utf-8", text+"\n", r.Header)
}

// AppendResponse appends a complete HTTP/1.1 response with Content-Length and "Connection: close". A field of header
// that is not fit to be sent (a name that is no token, a control character in the value) is left out, and so is a
// contentType like that.
func AppendResponse(dst []byte, status int, contentType, body string, header [][2]string) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(status)...)
	dst = append(dst, crlf...)
	if contentType != "" {
		dst = appendField(dst, "Content-Type", contentType)
	}
	for _, f := range header {
		dst = appendField(dst, f[0], f[1])
	}
	dst = append(dst, "Connection: close\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, body...)
}

// appendField appends a header line, or nothing if it is not fit to be sent.
func appendField(dst []byte, name, value string) []byte {
	if !isTokens(name) || !isValue(value) {
		return dst
	}
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, crlf...)
}
