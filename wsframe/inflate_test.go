package wsframe

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	reference "github.com/klauspost/compress/flate"
)

// compressedFrame is a frame of a client's compressed message: RSV1 is on its first frame.
func compressedFrame(op Opcode, fin bool, payload string) []byte {
	frame := masked(op, fin, payload)
	if op != Continuation {
		frame[0] |= bitCompressed
	}
	return frame
}

// deflated is text as any sender may compress it, without the tail.
func deflated(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), syncTail)
}

// inflateAll decodes and inflates the pieces like a connection does.
func inflateAll(t testing.TB, lim *Limits, pieces ...[]byte) (events []event, reason string) {
	t.Helper()
	var d Decoder
	var x Inflater
	for _, piece := range pieces {
		buf := bytes.Clone(piece)
		for {
			m, n, ok, err := d.Next(lim, buf)
			if ok {
				buf = buf[n:]
				m, err = x.Inflate(lim, m)
			}
			if perr, failed := errors.AsType[*ProtocolError](err); failed {
				return events, fmt.Sprint(perr.Reason, " ", perr.Code)
			}
			if !ok {
				break
			}
			events = append(events, event{m.Opcode, string(m.Payload), m.Frames})
		}
	}
	return events, ""
}

// TestInflateExamples are the streams of RFC 7692, section 7.2.3.
func TestInflateExamples(t *testing.T) {
	const hello = "\xf2\x48\xcd\xc9\xc9\x07\x00"
	cases := []struct {
		name   string
		stream []byte
		want   []event
		reason string
	}{
		{name: "7.2.3.1 one block", stream: compressedFrame(Text, true, hello), want: []event{{Text, "Hello", 1}}},
		{
			name:   "7.2.3.1 in two fragments",
			stream: join(compressedFrame(Text, false, hello[:3]), compressedFrame(Continuation, true, hello[3:])),
			want:   []event{{Text, "Hello", 2}},
		},
		{
			name:   "7.2.3.2 refers to the message before, which was agreed not to happen",
			stream: join(compressedFrame(Text, true, hello), compressedFrame(Text, true, "\xf2\x00\x11\x00\x00")),
			want:   []event{{Text, "Hello", 1}}, reason: "deflate-data 1007",
		},
		{name: "7.2.3.3 no compression", stream: compressedFrame(Text, true, "\x00\x05\x00\xfa\xffHello\x00"), want: []event{{Text, "Hello", 1}}},
		{name: "7.2.3.4 last block", stream: compressedFrame(Text, true, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), want: []event{{Text, "Hello", 1}}},
		{name: "7.2.3.5 two blocks", stream: compressedFrame(Text, true, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), want: []event{{Text, "Hello", 1}}},
		{name: "7.2.3.6 empty message", stream: compressedFrame(Text, true, "\x00"), want: []event{{Text, "", 1}}},

		{name: "not compressed", stream: masked(Text, true, "plain"), want: []event{{Text, "plain", 1}}},
		{
			name: "ping between compressed fragments",
			stream: join(compressedFrame(Binary, false, hello[:2]), masked(Ping, true, "p"), compressedFrame(Continuation, false, hello[2:5]),
				compressedFrame(Continuation, false, ""), compressedFrame(Continuation, true, hello[5:])),
			want: []event{{Ping, "p", 1}, {Binary, "Hello", 4}},
		},
		{
			name:   "plain after compressed",
			stream: join(compressedFrame(Text, false, hello), compressedFrame(Continuation, true, ""), masked(Text, false, "a"), masked(Continuation, true, "b")),
			want:   []event{{Text, "Hello", 2}, {Text, "ab", 2}},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			lim := &Limits{MessageBytesMax: 100, Deflate: true}
			for _, pieces := range [][][]byte{{c.stream}, bytewise(c.stream)} {
				got, reason := inflateAll(t, lim, pieces...)
				if fmt.Sprint(got) != fmt.Sprint(c.want) || reason != c.reason {
					t.Errorf("in %d pieces: got %v %q, want %v %q", len(pieces), got, reason, c.want, c.reason)
				}
			}
		})
	}
}

// TestReservedBitsWithDeflate: RFC 7692, section 6: RSV1 means compression on the first frame of a data message and is an
// error on any other; RSV2 and RSV3 stay errors.
func TestReservedBitsWithDeflate(t *testing.T) {
	frame := func(op Opcode, fin bool, rsv byte, payload string) []byte {
		p := masked(op, fin, payload)
		p[0] |= rsv << 4
		return p
	}
	for _, c := range []struct {
		name   string
		stream []byte
		off    bool // no compression agreed
	}{
		{name: "RSV1 not agreed", stream: frame(Text, true, 4, "\x00"), off: true},
		{name: "RSV2", stream: frame(Text, true, 2, "\x00")},
		{name: "RSV3", stream: frame(Binary, true, 1, "\x00")},
		{name: "RSV1 and RSV2", stream: frame(Text, true, 6, "\x00")},
		{name: "all three", stream: frame(Text, true, 7, "\x00")},
		{name: "RSV1 on a ping", stream: frame(Ping, true, 4, "")},
		{name: "RSV1 on a pong", stream: frame(Pong, true, 4, "")},
		{name: "RSV1 on a close", stream: frame(Close, true, 4, "")},
		{name: "RSV1 on a continuation of a plain message", stream: join(masked(Text, false, "a"), frame(Continuation, true, 4, "b"))},
		{name: "RSV1 on a continuation of a compressed message", stream: join(frame(Text, false, 4, "\x00"), frame(Continuation, true, 4, ""))},
		{name: "RSV1 on a continuation of nothing", stream: frame(Continuation, true, 4, "")},
		{name: "RSV1 on a reserved opcode", stream: frame(3, true, 4, "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, pieces := range [][][]byte{{c.stream}, bytewise(c.stream)} {
				if _, reason := inflateAll(t, &Limits{Deflate: !c.off}, pieces...); reason != "reserved-bits 1002" {
					t.Errorf("in %d pieces: got %q", len(pieces), reason)
				}
			}
		})
	}
}

// TestInflateRefuses has what cannot be inflated, or not within the limits.
func TestInflateRefuses(t *testing.T) {
	stored := func(text string) string {
		n := len(text)
		return string([]byte{0, byte(n), byte(n >> 8), byte(^n), byte(^n >> 8)}) + text
	}
	whole := deflated(t, strings.Repeat("The quick brown fox. ", 20))
	cases := []struct {
		name    string
		op      Opcode
		payload string
		want    string // "": accepted
	}{
		{name: "no block at all", payload: "", want: "deflate-data 1007"},
		{name: "reserved block type", payload: "\x06", want: "deflate-data 1007"},
		{name: "noise", payload: "\xde\xad\xbe\xef\xde\xad\xbe\xef", want: "deflate-data 1007"},
		{name: "text that was not compressed", payload: "Hello, world", want: "deflate-data 1007"},
		{name: "cut inside a block", payload: whole[:len(whole)/2], want: "deflate-data 1007"},
		{name: "last byte missing", payload: whole[:len(whole)-1], want: "deflate-data 1007"},
		{name: "cut inside a stored block", op: Binary, payload: stored("0123456789abcdef")[:10], want: "deflate-data 1007"},
		{name: "stored length and its complement differ", payload: "\x00\x05\x00\xfb\xffHello\x00", want: "deflate-data 1007"},
		{name: "tail not cut off", payload: whole + syncTail, want: "deflate-data 1007"},
		{name: "zlib header", payload: "\x78\x9c" + whole, want: "deflate-data 1007"},
		{name: "distance beyond the beginning", payload: "\xf2\x00\x11\x00\x00", want: "deflate-data 1007"},
		{name: "last block, then nothing of the tail's block", payload: "\xf3\x48\xcd\xc9\xc9\x07\x00", want: "deflate-data 1007"},
		{name: "last block, then another that refers to it", payload: "\xf3\x48\xcd\xc9\xc9\x07\x00" + "\x02\x11\x00\x00"},
		{name: "16 last blocks", payload: strings.Repeat("\x03\x00", 16) + "\x00"},
		{name: "17 last blocks", payload: strings.Repeat("\x03\x00", 17) + "\x00", want: "too-many-final-blocks 1008"},
		{name: "at the limit", op: Binary, payload: deflated(t, strings.Repeat("x", 1000))},
		{name: "one byte beyond", op: Binary, payload: deflated(t, strings.Repeat("x", 1001)), want: "message-too-big 1009"},
		{name: "far beyond", op: Binary, payload: deflated(t, strings.Repeat("x", 1_000_000)), want: "message-too-big 1009"},
		{name: "text that is not UTF-8", op: Text, payload: deflated(t, "a\xFFb"), want: "text-not-utf8 1007"},
		{name: "text that ends in a character", op: Text, payload: deflated(t, "a\xE2\x82"), want: "text-not-utf8 1007"},
		{name: "text that is not UTF-8 before it gets too big", op: Text, payload: deflated(t, "\xFF"+strings.Repeat("x", 2000)), want: "text-not-utf8 1007"},
		{name: "the same as binary", op: Binary, payload: deflated(t, "a\xFFb\xE2")},
		{name: "valid text in stored pieces", op: Text, payload: stored("\xE2") + stored("\x82\xAC") + "\x00"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			op := c.op
			if op == 0 {
				op = Text
			}
			lim := &Limits{MessageBytesMax: 1000, Deflate: true}
			if _, reason := inflateAll(t, lim, compressedFrame(op, true, c.payload)); reason != c.want {
				t.Errorf("got %q, want %q", reason, c.want)
			}
			// An Inflater that failed is as good as new.
			var x Inflater
			_, _ = x.Inflate(lim, Message{Opcode: op, Compressed: true, Payload: []byte(c.payload)})
			m, err := x.Inflate(lim, Message{Opcode: Text, Compressed: true, Payload: []byte(deflated(t, "next"))})
			if err != nil || string(m.Payload) != "next" || m.Compressed {
				t.Errorf("the next message: got %q %v", m.Payload, err)
			}
		})
	}
}

// TestInflateIsBoundedWhileItInflates: a bomb of a thousand to one is stopped at the limit, not after it.
func TestInflateIsBoundedWhileItInflates(t *testing.T) {
	bomb := deflated(t, strings.Repeat("\x00", 8<<20))
	if len(bomb) > 64<<10 {
		t.Fatalf("a bomb of %d bytes would not even arrive", len(bomb))
	}
	const limit = 64 << 10
	asked := 0
	lim := &Limits{MessageBytesMax: limit, Deflate: true, Grow: func(buf []byte, size int) []byte {
		asked = max(asked, size)
		return append(make([]byte, 0, size), buf...)
	}}
	var x Inflater
	m := Message{Opcode: Binary, Compressed: true, Payload: []byte(bomb)}
	if _, err := x.Inflate(lim, m); !errors.Is(err, errMessageTooBig) {
		t.Errorf("got %v, want %v", err, errMessageTooBig)
	}
	if asked != limit {
		t.Errorf("asked for %d bytes, want no more than the limit of %d", asked, limit)
	}
	if read := x.source.at; read != 0 {
		t.Errorf("the Inflater still holds the payload, at byte %d", read)
	}
	if buf := x.Release(); cap(buf) != limit || len(buf) != 0 || x.Release() != nil {
		t.Errorf("released %d bytes", cap(buf))
	}
}

// TestCompressedBytesAreBounded: what a peer may send compressed is little more than what it may send plain.
func TestCompressedBytesAreBounded(t *testing.T) {
	lim := &Limits{MessageBytesMax: 1000, Deflate: true}
	most := compressedBytesMost(lim.MessageBytesMax)
	for _, c := range []struct {
		name   string
		frames [][]byte
		want   string
	}{
		{name: "at the bound", frames: [][]byte{compressedFrame(Binary, false, strings.Repeat("x", most))}},
		{name: "beyond it", frames: [][]byte{compressedFrame(Binary, false, strings.Repeat("x", most+1))}, want: "message-too-big 1009"},
		{name: "beyond it in fragments", want: "message-too-big 1009", frames: [][]byte{
			compressedFrame(Binary, false, strings.Repeat("x", most)), compressedFrame(Continuation, true, "x"),
		}},
		{name: "plain", frames: [][]byte{masked(Binary, false, strings.Repeat("x", 1001))}, want: "message-too-big 1009"},
		{name: "plain after compressed", want: "message-too-big 1009", frames: [][]byte{
			compressedFrame(Binary, true, "\x00"), masked(Binary, false, strings.Repeat("x", 1001)),
		}},
		{name: "plain after compressed fragments", want: "message-too-big 1009", frames: [][]byte{
			compressedFrame(Binary, false, "\x00"), compressedFrame(Continuation, true, ""), masked(Binary, false, strings.Repeat("x", 1001)),
		}},
	} {
		if _, reason := inflateAll(t, lim, c.frames...); reason != c.want {
			t.Errorf("%s: got %q, want %q", c.name, reason, c.want)
		}
	}
	// The worst that a deflate can make of the limit's worth of bytes must still pass: each takes 9 bits.
	worst := bytes.Repeat([]byte{0xFF}, 1000)
	var b bytes.Buffer
	bitsOut := uint64(0b010) // not last, fixed code
	n := 3
	put := func(code, length int) {
		for i := length - 1; i >= 0; i-- {
			bitsOut |= uint64(code>>i&1) << n
			if n++; n == 8 {
				b.WriteByte(byte(bitsOut))
				bitsOut, n = 0, 0
			}
		}
	}
	for range worst {
		put(0b111111111, 9)
	}
	put(0, 7) // end of the block
	put(0, 3) // the tail's block
	if n > 0 {
		b.WriteByte(byte(bitsOut))
	}
	events, reason := inflateAll(t, lim, compressedFrame(Binary, true, b.String()))
	if reason != "" || len(events) != 1 || events[0].payload != string(worst) {
		t.Errorf("%d bytes as %d: %v %q", len(worst), b.Len(), events, reason)
	}
}

// TestPeekOfCompressed: who asks how much a message may become must not be told how much it is.
func TestPeekOfCompressed(t *testing.T) {
	lim := &Limits{MessageBytesMax: 5000, Deflate: true}
	first := compressedFrame(Text, false, "\xf2\x48")
	var d Decoder
	if total, ok := d.Peek(lim, first); !ok || total != 2*1032 {
		t.Errorf("first frame: got %d %v", total, ok)
	}
	if _, _, _, err := d.Next(lim, bytes.Clone(first[:len(first)-1])); err != nil {
		t.Fatal(err)
	}
	if total, ok := d.Peek(lim, nil); !ok || total != 2*1032 {
		t.Errorf("inside it: got %d %v", total, ok)
	}
	if _, _, _, err := d.Next(lim, bytes.Clone(first[len(first)-1:])); err != nil {
		t.Fatal(err)
	}
	if total, ok := d.Peek(lim, compressedFrame(Continuation, true, "\xcd\xc9\xc9\x07\x00")); !ok || total != 5001 {
		t.Errorf("second frame: got %d %v", total, ok)
	}
	if total, _ := d.Peek(&Limits{Deflate: true}, []byte{0x80, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}); total <= 0 {
		t.Errorf("a length that overflows: got %d", total)
	}
}

// TestInflaterForgets: what one connection sent must not show in what becomes of another one's message. The messages
// have a code that is empty, for lengths or for distances, and use it: an inflater that leaves its tables as they were
// decodes them by the message before.
func TestInflaterForgets(t *testing.T) {
	lim := &Limits{MessageBytesMax: 5000, Deflate: true}
	for _, c := range []struct{ name, payload string }{
		{name: "no lengths", payload: "$\x00$\x04\x02QA\x8a4\xa9\xc1-\x02f\xa2\xef\xe8\xca\xca\xca\xca\xca_\xdal"},
		{name: "no distances", payload: "\x0c\xc0\x01\x09\x00\x00\x00\x80\xa0\xad\xfe\x3f\x51\x00\x00\xc0\xb5\x1c\xd3\x72\x6d\xcf\xb5\x1c\x53\x00"},
	} {
		hostile := Message{Opcode: Binary, Compressed: true, Payload: []byte(c.payload)}
		var fresh Inflater
		if m, err := fresh.Inflate(lim, hostile); !errors.Is(err, errDeflateData) {
			t.Errorf("%s: got %q %v, want %v", c.name, m.Payload, err, errDeflateData)
		}
		for _, like := range []string{"json", "html", "prose", "image"} {
			var x Inflater
			before := Message{Opcode: Binary, Compressed: true, Payload: []byte(deflated(t, string(sample(like, 4000, 1))))}
			if _, err := x.Inflate(lim, before); err != nil {
				t.Fatal(err)
			}
			if _, err := x.Inflate(lim, hostile); !errors.Is(err, errDeflateData) || !bytes.Equal(x.buf, fresh.buf) {
				t.Errorf("%s after %s: %q and %v came out, without it %q", c.name, like, x.buf, err, fresh.buf)
			}
		}
	}
}

// referenceInflate inflates a payload with another library, a new inflater for each stream, as RFC 7692, section 7.2.2
// says: append the tail and decompress.
func referenceInflate(payload []byte, limit int) (out []byte, err error) {
	r := bytes.NewReader(append(bytes.Clone(payload), syncTail+finalTail...))
	for range finalBlocksMax + 1 {
		inflater := reference.NewReaderDict(r, out[max(0, len(out)-windowBytes):])
		more, err := io.ReadAll(io.LimitReader(inflater, int64(limit-len(out)+1)))
		out = append(out, more...)
		switch {
		case len(out) > limit:
			return nil, errMessageTooBig
		case err != nil:
			return nil, errDeflateData
		case r.Len() == 0:
			return out, nil
		}
	}
	return nil, errDeflateBlocks
}
