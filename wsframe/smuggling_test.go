package wsframe

import (
	"bytes"
	"net/http"
	"testing"
)

// TestNoBodyIsSmuggled: the bytes behind the head of an upgrade are frames, and a proxy in front must agree on where they
// begin. So nothing that any proxy could read as a body is accepted, however it is spelt: the field is there, or the head
// is malformed. A length of 0 in its one spelling says what everybody believes without it.
func TestNoBodyIsSmuggled(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields []string
		reason string // "": accepted
	}{
		{name: "no length", fields: nil},
		{name: "length 0", fields: []string{"Content-Length: 0"}},
		{name: "length", fields: []string{"Content-Length: 6"}, reason: "request-body"},
		{name: "length 0 twice", fields: []string{"Content-Length: 0", "Content-Length: 0"}, reason: "request-body"},
		{name: "two lengths", fields: []string{"Content-Length: 0", "content-length: 6"}, reason: "request-body"},
		{name: "list of lengths", fields: []string{"Content-Length: 0, 6"}, reason: "request-body"},
		{name: "list of zeros", fields: []string{"Content-Length: 0, 0"}, reason: "request-body"},
		{name: "sign", fields: []string{"Content-Length: +0"}, reason: "request-body"},
		{name: "negative", fields: []string{"Content-Length: -0"}, reason: "request-body"},
		{name: "zeros", fields: []string{"Content-Length: 00"}, reason: "request-body"},
		{name: "hexadecimal", fields: []string{"Content-Length: 0x0"}, reason: "request-body"},
		{name: "empty", fields: []string{"Content-Length:"}, reason: "request-body"},
		{name: "chunked", fields: []string{"Transfer-Encoding: chunked"}, reason: "request-body"},
		{name: "identity", fields: []string{"Transfer-Encoding: identity"}, reason: "request-body"},
		{name: "unknown coding", fields: []string{"Transfer-Encoding: xchunked"}, reason: "request-body"},
		{name: "empty coding", fields: []string{"Transfer-Encoding:"}, reason: "request-body"},
		{name: "chunked with a tab", fields: []string{"Transfer-Encoding:\tchunked"}, reason: "request-body"},
		{name: "length and chunked", fields: []string{"Content-Length: 0", "Transfer-Encoding: chunked"}, reason: "request-body"},
		{name: "chunked and length", fields: []string{"Transfer-Encoding: chunked", "Content-Length: 6"}, reason: "request-body"},
		{name: "chunked by two codings", fields: []string{"Transfer-Encoding: cow", "Transfer-Encoding: chunked"}, reason: "request-body"},
		{name: "blank before the colon", fields: []string{"Transfer-Encoding : chunked"}, reason: "bad-header-name"},
		{name: "vertical tab in front of the value", fields: []string{"Transfer-Encoding:\x0bchunked"}, reason: "bad-header-value"},
		{name: "NUL in the value", fields: []string{"Transfer-Encoding: chunked\x00"}, reason: "bad-header-value"},
		{name: "folded", fields: []string{"Transfer-Encoding:", " chunked"}, reason: "folded-header"},
		{name: "behind a bare LF", fields: []string{"X: y\nTransfer-Encoding: chunked"}, reason: "bare-lf"},
		{name: "behind a bare CR", fields: []string{"X: y\rTransfer-Encoding: chunked"}, reason: "bare-cr"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, r := parse(t, request("GET /ws HTTP/1.1", append(upgradeFields(), c.fields...)...), HeadLimits{})
			if r == nil {
				r = CheckUpgrade(&h)
			}
			if r == nil && c.reason != "" || r != nil && (r.Reason != c.reason || r.Status != http.StatusBadRequest) {
				t.Errorf("got %v, want %q", r, c.reason)
			}
		})
	}
}

// TestBytesBehindTheHead: what comes in the same packet is left for the caller, whatever it is. As frames a second request
// fails with its first bytes.
func TestBytesBehindTheHead(t *testing.T) {
	head := []byte(request("GET /ws HTTP/1.1", upgradeFields()...))
	for _, c := range []struct {
		name, behind, reason string
	}{
		{name: "frame", behind: string(masked(Text, true, "early"))},
		{name: "half a frame", behind: "\x81"},
		{name: "second request", behind: string(head), reason: "reserved-bits"},
		{name: "chunk", behind: "5\r\nhello\r\n0\r\n\r\n", reason: "reserved-bits"},
		{name: "empty line", behind: "\r\n", reason: "unmasked-frame"},
	} {
		buf := append(bytes.Clone(head), c.behind...)
		scanned := 0
		_, n, err := ParseHead(buf, &scanned, HeadLimits{Bytes: len(head)})
		if err != nil || n != len(head) || string(buf[n:]) != c.behind {
			t.Fatalf("%s: %d bytes of head, %v", c.name, n, err)
		}
		var d Decoder
		if _, reason := feed(t, &d, &Limits{}, buf[n:]); reason != c.reason {
			t.Errorf("%s: got %q, want %q", c.name, reason, c.reason)
		}
	}
}
