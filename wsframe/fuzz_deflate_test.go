package wsframe

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws/wsflate"
)

// FuzzInflate gives the inflater whatever a peer may send: never may more than the limit come out or be asked for, and
// what comes out must be what another library says. The other way round it would not hold: that one decodes blocks
// without a code (see Inflater), and where several things are wrong it may see another one first.
func FuzzInflate(f *testing.F) {
	f.Add([]byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), uint16(100))
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), uint16(5))
	f.Add([]byte("\x00\x05\x00\xfa\xffHello\x00"), uint16(4))
	f.Add([]byte(strings.Repeat("\x03\x00", 16)+"\x00"), uint16(1))
	for _, like := range []string{"json", "html", "noise"} {
		f.Add([]byte(deflated(f, string(sample(like, 3000, 1)))), uint16(2999))
	}
	f.Fuzz(func(t *testing.T, payload []byte, limit uint16) {
		if len(payload) > fuzzInputBytesMax || limit == 0 {
			return
		}
		lim := &Limits{MessageBytesMax: int(limit), Deflate: true, Grow: func(buf []byte, size int) []byte {
			if size > int(limit) {
				t.Fatalf("asked for %d bytes, the limit is %d", size, limit)
			}
			return append(make([]byte, 0, size), buf...)
		}}
		var x Inflater
		before := bytes.Clone(payload)
		m, err := x.Inflate(lim, Message{Opcode: Binary, Compressed: true, Payload: payload})
		if !bytes.Equal(payload, before) {
			t.Fatal("the payload was written to")
		}
		want, wantErr := referenceInflate(payload, int(limit))
		if err == nil && (wantErr != nil || !bytes.Equal(m.Payload, want)) {
			t.Fatalf("got %d bytes, the other library %d and %v", len(m.Payload), len(want), wantErr)
		}
		first, firstErr := bytes.Clone(m.Payload), err
		// The same Inflater again, as text: what it says must not depend on what it did before, and text is judged too.
		m, err = x.Inflate(lim, Message{Opcode: Text, Compressed: true, Payload: payload})
		switch {
		case errors.Is(err, errTextUTF8):
			if firstErr == nil && utf8.Valid(first) {
				t.Fatalf("%q is no text", first)
			}
		case !errors.Is(err, firstErr) || !bytes.Equal(m.Payload, first):
			t.Fatalf("at first %d bytes and %v, then %d and %v", len(first), firstErr, len(m.Payload), err)
		case err == nil && !utf8.Valid(first):
			t.Fatalf("%q is text", first)
		}
	})
}

// FuzzDeflate compresses whatever there is to send: a client must get the same back, from a frame that is no longer than
// a plain one, within the window that was agreed on.
func FuzzDeflate(f *testing.F) {
	f.Add(bytes.Repeat([]byte("ab"), 100), uint8(8), false)
	f.Add(sample("json", 2000, 1), uint8(15), true)
	f.Add(bytes.Repeat(sample("noise", 600, 1), 3), uint8(9), false)
	var c Deflater
	f.Fuzz(func(t *testing.T, payload []byte, bits uint8, text bool) {
		if len(payload) > fuzzInputBytesMax {
			return
		}
		op, d := Binary, Deflate(WindowBitsMin+bits%8)
		if text {
			op, payload = Text, bytes.ToValidUTF8(payload, nil)
		}
		frame := c.Append(nil, d, op, payload)
		if len(frame) > HeaderBytes(len(payload))+len(payload) {
			t.Fatalf("%d bytes became a frame of %d", len(payload), len(frame))
		}
		events, reason := inflateAll(t, &Limits{Client: true, Deflate: true}, frame)
		if reason != "" || len(events) != 1 || events[0].payload != string(payload) || events[0].op != op {
			t.Fatalf("%d bits: got %v %q", d, events, reason)
		}
		if frame[0]&bitCompressed == 0 {
			return
		}
		body := frame[len(frame)-frameLength(t, frame):]
		if far := farthestMatch(t, append(bytes.Clone(body), syncTail+finalTail...)); far > 1<<d {
			t.Fatalf("a match %d bytes back, agreed are %d", far, 1<<d)
		}
	})
}

// FuzzExtensions holds the negotiation against that of gobwas, which reads an offer into parameters without choosing.
// What it takes must be what is chosen here, but for values in quotes and what else it lets pass.
func FuzzExtensions(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits")
	f.Add("permessage-deflate; server_max_window_bits=10, permessage-deflate")
	f.Add(`foo; a="b", permessage-deflate;server_max_window_bits="9"; client_no_context_takeover`)
	f.Add("permessage-deflate; server_max_window_bits=16,, permessage-deflate; client_max_window_bits=8")
	f.Fuzz(func(t *testing.T, value string) {
		if !isValue(value) || len(value) > 512 {
			return
		}
		h := offered(t, value)
		if CheckUpgrade(&h) != nil {
			return
		}
		d, answer := NegotiateDeflate(&h)
		if (d == 0) != (answer == "") {
			t.Fatalf("%d with %q", d, answer)
		}
		if d == 0 {
			return
		}
		options, ok := httphead.ParseOptions([]byte(answer), nil)
		if !ok || len(options) != 1 {
			t.Fatalf("the answer %q is no extension", answer)
		}
		var agreed wsflate.Parameters
		if err := agreed.Parse(options[0]); err != nil || !agreed.ServerNoContextTakeover || !agreed.ClientNoContextTakeover {
			t.Fatalf("the answer %q: %v", answer, err)
		}
		if window := Deflate(agreed.ServerMaxWindowBits); window != 0 && window != d || window == 0 && d != WindowBitsMax {
			t.Fatalf("the answer %q for a window of %d bits", answer, d)
		}
		// Some offer must have asked for exactly this.
		options, ok = httphead.ParseOptions([]byte(value), nil)
		for _, o := range options {
			var offer wsflate.Parameters
			if string(o.Name) == deflateName && offer.Parse(o) == nil && offer.ServerMaxWindowBits == agreed.ServerMaxWindowBits {
				return
			}
		}
		if ok && !strings.Contains(value, `"`) {
			t.Fatalf("nothing in %q asks for %q", value, answer)
		}
	})
}
