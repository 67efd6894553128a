package wsframe

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// The seeds below are the streams of the tables; testdata/fuzz holds more, each named after what it is.

// fuzzMessageBytesMax is low enough for the fuzzer to reach it.
const fuzzMessageBytesMax = 300

// FuzzDecoder checks that what is decoded does not depend on how the stream was cut, that memory stays within twice
// what arrived and within the limits, and that the events are those that another implementation sees.
func FuzzDecoder(f *testing.F) {
	for _, c := range streams() {
		f.Add(c.stream, []byte{3, 1, 4}, false)
	}
	f.Add(join(unmasked(Text, false, "€"), unmasked(Ping, true, "p"), unmasked(Continuation, true, "x")), []byte{1}, true)
	f.Fuzz(func(t *testing.T, stream, cuts []byte, client bool) {
		arrived := 0
		lim := &Limits{MessageBytesMax: fuzzMessageBytesMax, FragmentsMax: 20, EmptyFragmentsMax: 5, Client: client}
		lim.Grow = func(buf []byte, size int) []byte {
			if size > 2*arrived || size > fuzzMessageBytesMax+ControlBytesMax {
				t.Fatalf("asked for %d bytes after %d arrived", size, arrived)
			}
			return append(make([]byte, 0, size), buf...)
		}
		arrived = len(stream)
		var whole Decoder
		want, wantReason := feed(t, &whole, lim, stream)

		arrived = 0
		var d Decoder
		var got []event
		reason := ""
		for rest := stream; len(rest) > 0 && reason == ""; {
			n := 1
			if len(cuts) > 0 {
				n, cuts = min(int(cuts[0])+1, len(rest)), cuts[1:]
			}
			arrived += n
			var events []event
			events, reason = feed(t, &d, lim, rest[:n])
			got = append(got, events...)
			rest = rest[n:]
		}
		if reason != wantReason || !slices.Equal(got, want) {
			t.Fatalf("cut: %v %q, whole: %v %q", got, reason, want, wantReason)
		}
		compareWithGobwas(t, stream, client, want, wantReason)
	})
}

// compareWithGobwas decodes the stream with gobwas' own reader. Where that fails, Decoder must fail; where Decoder
// fails alone, it must be for a rule that gobwas does not have, or earlier than gobwas can know.
func compareWithGobwas(t *testing.T, stream []byte, client bool, got []event, reason string) {
	t.Helper()
	want, err := gobwasEvents(stream, client)
	switch reason {
	case "":
		if err != nil {
			t.Fatalf("gobwas fails with %v, Decoder waits for more", err)
		}
	case "length-not-minimal", "control-frame-too-long", "close-length", "close-code", "close-reason-not-utf8",
		"message-too-big", "too-many-fragments", "too-many-empty-fragments":
		// Not judged by gobwas, which may have gone on: it takes a short control frame whose length has 16 bits.
		if len(got) > len(want) {
			t.Fatalf("Decoder saw %v, gobwas %v %v", got, want, err)
		}
		want = want[:len(got)]
	}
	// gobwas does not count frames.
	if !slices.EqualFunc(got, want, func(a, b event) bool { return a.op == b.op && a.payload == b.payload }) {
		t.Fatalf("Decoder saw %v %q, gobwas %v %v", got, reason, want, err)
	}
}

// gobwasEvents returns what gobwas' reader makes of the stream; err is nil if it only waits for more.
func gobwasEvents(stream []byte, client bool) (events []event, err error) {
	state := ws.StateServerSide
	if client {
		state = ws.StateClientSide
	}
	r := wsutil.NewReader(bytes.NewReader(stream), state)
	r.CheckUTF8 = true
	r.OnIntermediate = func(h ws.Header, body io.Reader) error {
		payload, err := io.ReadAll(body)
		if err == nil && int64(len(payload)) < h.Length {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			events = append(events, event{op: Opcode(h.OpCode), payload: string(payload)})
		}
		return err
	}
	for {
		h, err := r.NextFrame()
		var payload []byte
		if err == nil {
			payload, err = io.ReadAll(r)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return events, nil
		case err != nil:
			return events, err
		}
		events = append(events, event{op: Opcode(h.OpCode), payload: string(payload)})
	}
}

// FuzzText holds textPrefix against its definition: a prefix is valid if some bytes after it make it valid text, and
// what it calls open is what is missing from being valid already.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a", "κόσμε", "\xE2\x82", "\xF4\x90", "\xED\xA0", "\xE0\x80", "\xF0\x9F\x98", "\xC0", "\x80", "a\xF0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		open, valid := textPrefix(p)
		if open < 0 || open > min(3, len(p)) {
			t.Fatalf("%d bytes open of %d", open, len(p))
		}
		if want := canBecomeText(p, 3); valid != want {
			t.Fatalf("% x: got %v, want %v", p, valid, want)
		}
		if valid && (utf8.Valid(p) != (open == 0) || !utf8.Valid(p[:len(p)-open])) {
			t.Fatalf("% x: %d bytes open", p, open)
		}
	})
}

// canBecomeText tries all endings of at most more bytes. Four bytes stand for all continuation bytes: the second byte
// of a character is bound to 80..8F, 90..9F, A0..BF or parts of them.
func canBecomeText(p []byte, more int) bool {
	if utf8.Valid(p) {
		return true
	}
	if more == 0 {
		return false
	}
	for _, c := range []byte{0x80, 0x90, 0xA0} {
		if canBecomeText(append(slices.Clip(p), c), more-1) {
			return true
		}
	}
	return false
}

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
		if r := CheckUpgrade(&h); r != nil {
			checkRefusal(t, r)
			return
		}
		compareWithNetHTTP(t, buf[:n], &h)
		acceptedByClient(t, &h)
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

func compareWithNetHTTP(t *testing.T, head []byte, h *Head) {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		t.Fatalf("accepted what net/http refuses with %v: %q", err, head)
	}
	path, err := url.PathUnescape(string(h.Path))
	if err != nil || path != req.URL.Path && (path != "/" || req.URL.Path != "") || string(h.RawQuery) != req.URL.RawQuery {
		t.Fatalf("target: got %q %q, net/http has %q %q", path, h.RawQuery, req.URL.Path, req.URL.RawQuery)
	}
	if string(h.Host) != req.Host || string(h.Method) != req.Method || req.ContentLength != 0 {
		t.Fatalf("got %q %q, net/http has %q %q and %d bytes of body", h.Method, h.Host, req.Method, req.Host, req.ContentLength)
	}
	ours := http.Header{}
	for name, value := range h.Each {
		ours.Add(string(name), string(value))
	}
	ours.Del("Host")
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
