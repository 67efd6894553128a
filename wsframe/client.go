package wsframe

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"strconv"
)

const (
	// responseBytesMax bounds the head of the answer to an upgrade.
	responseBytesMax = 16 << 10
	// acceptGUID is what RFC 6455, section 1.3 appends to the key.
	acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	// statusDigits is the length of an HTTP status.
	statusDigits = 3
)

// AppendRequest appends a client's upgrade request. path may carry a query. key is random and new for each
// connection. Fields of header that are not fit to be sent are left out; host and path go out as they are.
func AppendRequest(dst []byte, host, path string, key [16]byte, header [][2]string) []byte {
	dst = append(dst, "GET "...)
	dst = append(dst, path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = base64.StdEncoding.AppendEncode(dst, key[:])
	dst = append(dst, crlf...)
	for _, f := range header {
		dst = appendField(dst, f[0], f[1])
	}
	return append(dst, crlf...)
}

// CheckResponse reads the answer to AppendRequest with that key from the beginning of buf. With n == 0 and no error
// more bytes are needed. Else n is the length of the head and status that of the response; a status other than 101
// is not an error. With 101 the frames begin at buf[n] and the fields were checked (RFC 6455, section 4.1).
// Errors are ErrResponseMalformed and ErrAcceptMismatch.
func CheckResponse(buf []byte, key [16]byte) (n, status int, err error) {
	scanned := 0
	n, refusal := headEnd(buf, &scanned, responseBytesMax)
	if refusal != nil {
		return 0, 0, ErrResponseMalformed
	}
	if n == 0 {
		return 0, 0, nil
	}
	line, fields := cutLine(buf[:n-len(crlf)])
	if status = parseStatus(line); status == 0 {
		return 0, 0, ErrResponseMalformed
	}
	if status != 101 {
		return n, status, nil
	}
	h := Head{fields: fields}
	for _, id := range []struct {
		name string
		id   fieldID
	}{{nameUpgrade, fieldUpgrade}, {nameConnection, fieldConnection}} {
		h.known[id.id].value, h.known[id.id].count = h.Header(id.name)
	}
	accept, count := h.Header(nameAccept)
	if count != 1 || string(accept) != acceptOf(key) ||
		!h.hasToken(fieldUpgrade, nameUpgrade, "websocket") || !h.hasToken(fieldConnection, nameConnection, "upgrade") {
		return n, status, ErrAcceptMismatch
	}
	return n, status, nil
}

// parseStatus returns the status of "HTTP/1.1 200 OK", 0 if that is not what line is.
func parseStatus(line []byte) int {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok || len(rest) < statusDigits || len(rest) > statusDigits && rest[statusDigits] != ' ' {
		return 0
	}
	status, err := strconv.ParseUint(string(rest[:statusDigits]), 10, 16)
	if err != nil || status < 100 {
		return 0
	}
	return int(status)
}

// acceptOf returns the Sec-WebSocket-Accept that belongs to key.
func acceptOf(key [16]byte) string {
	text := base64.StdEncoding.AppendEncode(make([]byte, 0, keyTextSize+len(acceptGUID)), key[:])
	sum := sha1.Sum(append(text, acceptGUID...))
	return base64.StdEncoding.EncodeToString(sum[:])
}
