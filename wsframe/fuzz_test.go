package wsframe

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// The seeds below are the streams of the tables; testdata/fuzz holds more, each named after what it is.

const (
	// fuzzMessageBytesMax is low enough for the fuzzer to reach it.
	fuzzMessageBytesMax = 300
	// fuzzInputBytesMax bounds what one run may cost; the oracles keep all that they decode.
	fuzzInputBytesMax = 16 << 10
)

// FuzzDecoder checks that what is decoded does not depend on how the stream was cut, that memory stays within twice
// what arrived and within the limits, and that the events are those that another implementation sees. Where compression
// was agreed on only the first two can be asked: the other implementation does not judge the reserved bits then.
func FuzzDecoder(f *testing.F) {
	for _, c := range streams() {
		f.Add(c.stream, []byte{3, 1, 4}, false)
	}
	f.Add(join(unmasked(Text, false, "€"), unmasked(Ping, true, "p"), unmasked(Continuation, true, "x")), []byte{1}, true)
	f.Fuzz(func(t *testing.T, stream, cuts []byte, client bool) {
		if len(stream) > fuzzInputBytesMax {
			return
		}
		lim := &Limits{MessageBytesMax: fuzzMessageBytesMax, FragmentsMax: 20, EmptyFragmentsMax: 5, Client: client}
		events, reason := decodeCut(t, lim, stream, cuts)
		compareWithGobwas(t, stream, client, events, reason)
		deflate := *lim
		deflate.Deflate = true
		decodeCut(t, &deflate, stream, cuts)
	})
}

// decodeCut decodes the stream whole and in pieces, and returns what must be the same.
func decodeCut(t *testing.T, lim *Limits, stream, cuts []byte) (events []event, reason string) {
	t.Helper()
	arrived := len(stream)
	lim.Grow = func(buf []byte, size int) []byte {
		if size > 2*arrived || size > compressedBytesMost(fuzzMessageBytesMax)+ControlBytesMax {
			t.Fatalf("asked for %d bytes after %d arrived", size, arrived)
		}
		return append(make([]byte, 0, size), buf...)
	}
	var whole Decoder
	want, wantReason := feed(t, &whole, lim, stream)
	arrived = 0
	var d Decoder
	for _, piece := range pieces(stream, cuts) {
		arrived += len(piece)
		var more []event
		more, reason = feed(t, &d, lim, piece)
		if events = append(events, more...); reason != "" {
			break
		}
	}
	if reason != wantReason || !slices.Equal(events, want) {
		t.Fatalf("cut: %v %q, whole: %v %q", events, reason, want, wantReason)
	}
	return events, reason
}

// pieces cuts a stream: each byte of cuts is the length of a piece less one, and what is left comes in single bytes.
func pieces(stream, cuts []byte) (list [][]byte) {
	for len(stream) > 0 {
		n := 1
		if len(cuts) > 0 {
			n, cuts = min(int(cuts[0])+1, len(stream)), cuts[1:]
		}
		list = append(list, stream[:n])
		stream = stream[n:]
	}
	return list
}

// FuzzAssembler builds a stream of valid messages, fragmented, compressed, with control frames in them and cut as its
// input says, and checks that exactly these messages come out.
func FuzzAssembler(f *testing.F) {
	f.Add([]byte{0, 3, 'a', 'b', 'c'}, []byte{2})
	f.Add([]byte("\x4b\x20for the most part fragmented text\x85\x03\xff\x00\xfe\xff\x00"), []byte{1, 9, 0, 30})
	f.Add([]byte("\xff\xff"+strings.Repeat("compressed ", 30)), []byte{})
	f.Fuzz(func(t *testing.T, script, cuts []byte) {
		if len(script) > fuzzInputBytesMax {
			return
		}
		var stream []byte
		var want []event
		for len(script) > 2 {
			n := min(int(script[1]), len(script)-2)
			stream, want = appendScripted(stream, want, script[0], string(script[2:2+n]))
			script = script[2+n:]
		}
		got, reason := inflateAll(t, &Limits{MessageBytesMax: 4 * 256, Deflate: true}, pieces(stream, cuts)...)
		if reason != "" || !slices.Equal(got, want) {
			t.Fatalf("got %v %q, want %v", got, reason, want)
		}
	})
}

// appendScripted appends one message. Of how, from the lowest bit: 3 bits are how many frames there are besides the
// first, then binary, compressed, a ping behind the first frame, a close there too, an empty last frame.
func appendScripted(stream []byte, events []event, how byte, payload string) ([]byte, []event) {
	op, frames := Text, int(how&7)+1
	if how&8 != 0 {
		op = Binary
	} else {
		payload = strings.ToValidUTF8(payload, "?")
	}
	rest, rsv := []byte(payload), byte(0)
	if how&16 != 0 {
		var c Deflater
		if frame := c.Append(nil, WindowBitsMin, op, rest); frame[0]&bitCompressed != 0 {
			rest, rsv = frame[HeaderBytes(len(frame)-4):], bitCompressed
		}
	}
	if how&128 != 0 {
		frames++
	}
	message := event{op, payload, frames}
	for i := range frames {
		part := rest[:(len(rest)+frames-i-1)/(frames-i)]
		if how&128 != 0 && i == frames-2 {
			part = rest
		}
		rest = rest[len(part):]
		frame := masked(op, i == frames-1, string(part))
		frame[0] |= rsv
		stream = append(stream, frame...)
		if op, rsv = Continuation, 0; i > 0 || frames == 1 {
			continue
		}
		if how&32 != 0 {
			stream, events = append(stream, masked(Ping, true, "between")...), append(events, event{Ping, "between", 1})
		}
		if how&64 != 0 {
			stream, events = append(stream, masked(Close, true, "\x03\xE8")...), append(events, event{Close, "\x03\xE8", 1})
		}
	}
	return stream, append(events, message)
}

// TestOracleAllocatesNoDeclaredLength: a run of the fuzzer must cost what its input is worth. Reading whole frames with
// gobwas allocates what a header announces; its frame by frame reader, which is used here, does not.
func TestOracleAllocatesNoDeclaredLength(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, length := range []string{"\x00\x00\x00\x7F\xFF\xFF\xFF\xFF", "\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"} {
		if events, err := gobwasEvents([]byte("\x82\xFF"+length+"\x00\x00\x00\x00x"), false); err != nil || len(events) > 0 {
			t.Errorf("got %v %v, want to wait", events, err)
		}
	}
	runtime.ReadMemStats(&after)
	if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 64<<10 {
		t.Errorf("the oracle allocated %d bytes", bytes)
	}
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
		if len(p) > fuzzInputBytesMax {
			return
		}
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
