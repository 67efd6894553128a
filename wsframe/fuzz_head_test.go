package wsframe

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzHead checks that a head dripped in is judged like one that arrives whole, that net/http accepts every upgrade
// that we accept and reads the same in it, and that its answer is well formed.
func FuzzHead(f *testing.F) {
	f.Add([]byte(browserHead))
	f.Add(AppendRequest(nil, "[::1]:8080", "http://a/ws?b", [16]byte{}, [][2]string{{"Sec-WebSocket-Protocol", "a, b"}}))
	f.Add([]byte(request("GET /ws HTTP/1.1", with("Upgrade", "Upgrade: h2c, websocket")...)))
	f.Add([]byte(request("GET /ws HTTP/1.0", "Host: a", "Content-Length: 0", "X: \tb ")))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\nb: c\r\n\r\n"))
	f.Fuzz(func(t *testing.T, buf []byte) {
		lim := HeadLimits{Bytes: 2048, LineBytes: 512, Headers: 20}
		scanned := 0
		h, n, err := ParseHead(buf, &scanned, lim)
		dripped := 0
		for i := range buf {
			scannedBefore := dripped
			_, m, dripErr := ParseHead(buf[:i+1], &dripped, lim)
			if dripped < scannedBefore || dripped > i+1 {
				t.Fatalf("scanned went from %d to %d with %d bytes", scannedBefore, dripped, i+1)
			}
			if m != 0 && (m != i+1 || m != n) {
				t.Fatalf("dripped: complete with %d of %d, whole: %d", m, i+1, n)
			}
			if dripErr != nil && err == nil {
				t.Fatalf("dripped: %v, whole accepted", dripErr)
			}
			if m != 0 || dripErr != nil {
				break
			}
			if i == len(buf)-1 && (n != 0 || err != nil) {
				t.Fatalf("dripped: waits, whole: %d %v", n, err)
			}
		}
		if err != nil {
			r, ok := errors.AsType[*Refusal](err)
			if !ok {
				t.Fatalf("error of type %T", err)
			}
			checkRefusal(t, r)
			return
		}
		if n == 0 {
			return
		}
		r := CheckUpgrade(&h)
		compareWithNetHTTP(t, buf[:n], &h, r == nil)
		if r != nil {
			checkRefusal(t, r)
			return
		}
		acceptedByClient(t, &h)
		if d, answer := NegotiateDeflate(&h); d != 0 {
			if _, err := AppendUpgrade(nil, &h, Accept{Extensions: answer}); err != nil {
				t.Fatalf("%q: %v", answer, err)
			}
		}
	})
}

// checkRefusal reads the response with net/http.
func checkRefusal(t *testing.T, r *Refusal) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(AppendRefusal(nil, r))), nil)
	if err != nil || resp.StatusCode != r.Status {
		t.Fatalf("%v: %v", r, err)
	}
	resp.Body.Close()
}

// compareWithNetHTTP holds a head that was parsed, and accepted if upgrade, against net/http, which must read the same
// in it. The other way it would tell nothing: net/http takes much that is refused here (a bare LF, folded lines, other
// versions, a Host that is none, a body). It refuses only one thing that ParseHead takes: lengths of a body that cannot
// be or that contradict each other. ParseHead does not judge those, since no body is ever read: CheckUpgrade refuses each
// but a length of 0, and after any other answer the connection is closed.
func compareWithNetHTTP(t *testing.T, head []byte, h *Head, upgrade bool) {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		if upgrade || !h.hasBody() {
			t.Fatalf("accepted what net/http refuses with %v: %q", err, head)
		}
		return
	}
	if req.ContentLength != 0 && !h.hasBody() {
		t.Fatalf("a body of %d bytes that nobody saw: %q", req.ContentLength, head)
	}
	path, err := url.PathUnescape(string(h.Path))
	if err != nil || path != req.URL.Path && (path != "/" || req.URL.Path != "") || string(h.RawQuery) != req.URL.RawQuery {
		t.Fatalf("target: got %q %q, net/http has %q %q", path, h.RawQuery, req.URL.Path, req.URL.RawQuery)
	}
	if string(h.Host) != req.Host || string(h.Method) != req.Method || upgrade && req.ContentLength != 0 {
		t.Fatalf("got %q %q, net/http has %q %q and %d bytes of body", h.Method, h.Host, req.Method, req.Host, req.ContentLength)
	}
	ours := http.Header{}
	for name, value := range h.Each {
		ours.Add(string(name), string(value))
	}
	// net/http moves these out of the header, and adds one for Pragma.
	ours.Del("Host")
	ours.Del("Transfer-Encoding")
	ours.Del("Trailer")
	if h.hasBody() {
		ours.Del("Content-Length")
	}
	for name, values := range ours {
		if !slices.Equal(values, req.Header[name]) {
			t.Fatalf("%s: got %q, net/http has %q", name, values, req.Header[name])
		}
		value, count := h.Header(strings.ToLower(name))
		if count != len(values) || string(value) != values[0] {
			t.Fatalf("%s: Header gives %q %d", name, value, count)
		}
	}
}

// FuzzResponse: whatever a server answers, the client's side stays within the bytes it was given, and a 101 that it
// accepts is not accepted before its last byte.
func FuzzResponse(f *testing.F) {
	f.Add([]byte(request("HTTP/1.1 101 x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=")))
	f.Add([]byte("HTTP/1.1 101 x\r\n\r\r\n\r\n"))
	f.Add([]byte(request("HTTP/1.1 429 Too Many Requests", "Retry-After: 1")))
	f.Fuzz(func(t *testing.T, buf []byte) {
		n, status, err := CheckResponse(buf, [16]byte{})
		if n < 0 || n > len(buf) || n == 0 && status != 0 {
			t.Fatal(n, status, err)
		}
		if n == 0 || err != nil || status != http.StatusSwitchingProtocols {
			return
		}
		for i := range n {
			if m, _, err := CheckResponse(buf[:i], [16]byte{}); m != 0 || err != nil {
				t.Fatalf("%d bytes of %d: %d %v", i, n, m, err)
			}
		}
	})
}
