package wsframe

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// TestHeaderRules has a row for each rule of RFC 6455, sections 5.1 to 5.5, that a frame header can break. Headers are
// in bits: FIN RSV1-3 opcode, MASK length, then the extended length. Every row is fed whole and byte by byte.
func TestHeaderRules(t *testing.T) {
	const mask = "00000000 00000000 00000000 00000000"
	cases := []struct {
		name   string
		before []byte
		header string
		client bool
		reason string
		code   CloseCode
	}{
		{name: "5.1 client frame unmasked", header: "1000 0001 0 0000000", reason: "unmasked-frame", code: 1002},
		{name: "5.1 server frame masked", header: "1000 0001 1 0000000" + mask, client: true, reason: "masked-frame", code: 1002},
		{name: "5.2 RSV1", header: "1100 0001 1 0000000" + mask, reason: "reserved-bits", code: 1002},
		{name: "5.2 RSV2", header: "1010 0001 1 0000000" + mask, reason: "reserved-bits", code: 1002},
		{name: "5.2 RSV3", header: "1001 0001 1 0000000" + mask, reason: "reserved-bits", code: 1002},
		{name: "5.2 RSV1 on a control frame", header: "1100 1001 1 0000000" + mask, reason: "reserved-bits", code: 1002},
		{name: "5.2 reserved data opcode 3", header: "1000 0011 1 0000000" + mask, reason: "reserved-opcode", code: 1002},
		{name: "5.2 reserved data opcode 7", header: "1000 0111 1 0000000" + mask, reason: "reserved-opcode", code: 1002},
		{name: "5.2 reserved control opcode B", header: "1000 1011 1 0000000" + mask, reason: "reserved-opcode", code: 1002},
		{name: "5.2 reserved control opcode F", header: "1000 1111 1 0000000" + mask, reason: "reserved-opcode", code: 1002},
		{
			name: "5.2 16-bit length not minimal", header: "1000 0010 1 1111110 00000000 01111101" + mask,
			reason: "length-not-minimal", code: 1002,
		},
		{
			name:   "5.2 64-bit length not minimal",
			header: "1000 0010 1 1111111 00000000 00000000 00000000 00000000 00000000 00000000 11111111 11111111" + mask,
			reason: "length-not-minimal", code: 1002,
		},
		{
			name:   "5.2 64-bit length with the highest bit",
			header: "1000 0010 1 1111111 10000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000" + mask,
			reason: "length-top-bit", code: 1002,
		},
		{name: "5.4 continuation of nothing", header: "1000 0000 1 0000000" + mask, reason: "continuation-without-message", code: 1002},
		{name: "5.4 first continuation of nothing", header: "0000 0000 1 0000000" + mask, reason: "continuation-without-message", code: 1002},
		{
			name: "5.4 continuation after a whole message", before: masked(Text, true, "x"),
			header: "1000 0000 1 0000000" + mask, reason: "continuation-without-message", code: 1002,
		},
		{
			name: "5.4 text inside a message", before: masked(Text, false, "x"),
			header: "1000 0001 1 0000000" + mask, reason: "message-inside-message", code: 1002,
		},
		{
			name: "5.4 binary inside a message", before: masked(Text, false, "x"),
			header: "1000 0010 1 0000000" + mask, reason: "message-inside-message", code: 1002,
		},
		{name: "5.5 fragmented ping", header: "0000 1001 1 0000000" + mask, reason: "fragmented-control-frame", code: 1002},
		{name: "5.5 fragmented close", header: "0000 1000 1 0000000" + mask, reason: "fragmented-control-frame", code: 1002},
		{
			name: "5.5 ping of 126 bytes", header: "1000 1001 1 1111110 00000000 01111110" + mask,
			reason: "control-frame-too-long", code: 1002,
		},
		{
			name: "5.5 pong of 65536 bytes", reason: "control-frame-too-long", code: 1002,
			header: "1000 1010 1 1111111 00000000 00000000 00000000 00000000 00000000 00000001 00000000 00000000" + mask,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			lim := &Limits{Client: c.client}
			stream := append(bytes.Clone(c.before), bits(t, c.header)...)
			for _, pieces := range [][][]byte{{stream}, bytewise(stream)} {
				var d Decoder
				_, reason := feed(t, &d, lim, pieces...)
				if reason != c.reason {
					t.Fatalf("in %d pieces: got %q, want %q", len(pieces), reason, c.reason)
				}
				if d.failed.Code != c.code {
					t.Fatalf("code: got %d, want %d", d.failed.Code, c.code)
				}
				// The error stays, and nothing more is consumed.
				if _, n, ok, err := d.Next(lim, masked(Ping, true, "")); n != 0 || ok || !errors.Is(err, d.failed) || d.Idle() {
					t.Fatalf("after the error: %d %v %v, idle %v", n, ok, err, d.Idle())
				}
			}
		})
	}
}

// TestFirstTwoBytesSuffice feeds the broken first bytes alone: the peer need not send the rest of the header.
func TestFirstTwoBytesSuffice(t *testing.T) {
	for _, c := range []struct {
		name   string
		head   string
		reason string
	}{
		{name: "reserved bits", head: "1100 0001 1 1111111", reason: "reserved-bits"},
		{name: "long ping", head: "1000 1001 1 1111111", reason: "control-frame-too-long"},
		{name: "reserved opcode", head: "1000 0011 1 1111110", reason: "reserved-opcode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Decoder
			if _, reason := feed(t, &d, &Limits{}, bits(t, c.head)); reason != c.reason {
				t.Errorf("got %q, want %q", reason, c.reason)
			}
		})
	}
}

// TestLengthForms decodes payloads around each change of the length's encoding.
func TestLengthForms(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 127, 128, 65535, 65536, 70000} {
		payload := strings.Repeat("x", size)
		for _, client := range []bool{false, true} {
			frame := masked(Binary, true, payload)
			if client {
				frame = unmasked(Binary, true, payload)
			}
			var d Decoder
			events, reason := feed(t, &d, &Limits{Client: client}, frame)
			if want := []event{{Binary, payload, 1}}; reason != "" || !slices.Equal(events, want) {
				t.Errorf("%d bytes, client %v: got %v %q", size, client, events, reason)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	lim := &Limits{MessageBytesMax: 10, FragmentsMax: 3, EmptyFragmentsMax: 1}
	empty := masked(Continuation, false, "")
	cases := []struct {
		name   string
		stream []byte
		events int
		reason string
	}{
		{name: "message at the limit", stream: masked(Binary, true, "0123456789"), events: 1},
		{name: "message beyond the limit", stream: masked(Binary, true, "0123456789a"), reason: "message-too-big"},
		{name: "only the header of one", stream: masked(Binary, true, "0123456789a")[:6], reason: "message-too-big"},
		{
			name:   "64-bit length of 8 EiB",
			stream: []byte{0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}, reason: "message-too-big",
		},
		{
			name:   "fragments add up to the limit",
			stream: join(masked(Text, false, "01234"), masked(Continuation, true, "56789")), events: 1,
		},
		{
			name:   "fragments add up beyond it",
			stream: join(masked(Text, false, "01234"), masked(Continuation, false, "567890")[:6]), reason: "message-too-big",
		},
		{
			name:   "control payload counts for no message",
			stream: join(masked(Text, false, "0123456789"), masked(Ping, true, "ping payload of 125 or less"), masked(Continuation, true, "")),
			events: 2,
		},
		{
			name:   "three frames",
			stream: join(masked(Text, false, "a"), masked(Continuation, false, "b"), masked(Continuation, true, "c")), events: 1,
		},
		{
			name:   "fourth frame",
			stream: join(masked(Text, false, "a"), masked(Continuation, false, "b"), masked(Continuation, false, "c"), masked(Continuation, true, "d")),
			reason: "too-many-fragments",
		},
		{name: "one empty frame", stream: join(masked(Text, false, ""), masked(Continuation, true, "")), events: 1},
		{name: "two empty frames", stream: join(masked(Text, false, ""), empty), reason: "too-many-empty-fragments"},
		{
			name: "counts begin anew with each message", events: 2,
			stream: join(masked(Text, false, ""), masked(Continuation, true, "0123456789"), masked(Text, false, ""), masked(Continuation, true, "0123456789")),
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, pieces := range [][][]byte{{c.stream}, bytewise(c.stream)} {
				var d Decoder
				events, reason := feed(t, &d, lim, pieces...)
				if len(events) != c.events || reason != c.reason {
					t.Errorf("in %d pieces: got %v %q, want %d events and %q", len(pieces), events, reason, c.events, c.reason)
				}
			}
		})
	}
	codes := map[*ProtocolError]CloseCode{errMessageTooBig: CloseTooBig, errFragments: ClosePolicy, errEmptyFragments: ClosePolicy}
	for perr, want := range codes {
		if perr.Code != want {
			t.Errorf("%s: got %d, want %d", perr.Reason, perr.Code, want)
		}
	}
}

// TestLengthThatIntCannotHold: without a bound a declared length must still not overflow when the part that was
// assembled before is added.
func TestLengthThatIntCannotHold(t *testing.T) {
	var d Decoder
	huge := []byte{0x80, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}
	if _, reason := feed(t, &d, &Limits{}, join(masked(Binary, false, "abc"), huge)); reason != "message-too-big" {
		t.Errorf("got %q, want message-too-big", reason)
	}
}

// TestMemoryFollowsWhatArrived declares 1 MiB and sends it slowly: the buffer asked for must never exceed twice what
// arrived, nor the declared length, and the number of requests is logarithmic.
func TestMemoryFollowsWhatArrived(t *testing.T) {
	const declared = 1 << 20
	arrived, calls := 0, 0
	lim := &Limits{MessageBytesMax: declared, Grow: func(buf []byte, size int) []byte {
		calls++
		if size > max(2*arrived, 64) || size > declared {
			t.Fatalf("asked for %d bytes after %d arrived of %d", size, arrived, declared)
		}
		return append(make([]byte, 0, size), buf...)
	}}
	frame := masked(Binary, true, strings.Repeat("x", declared))
	var d Decoder
	header := HeaderBytesMax
	if events, reason := feed(t, &d, lim, frame[:header]); len(events) != 0 || reason != "" || calls != 0 {
		t.Fatalf("header alone: %v %q, %d requests for memory", events, reason, calls)
	}
	var events []event
	for at := header; at < len(frame); at += 64 {
		arrived += 64
		got, reason := feed(t, &d, lim, frame[at:min(at+64, len(frame))])
		if reason != "" {
			t.Fatal(reason)
		}
		events = append(events, got...)
	}
	if len(events) != 1 || len(events[0].payload) != declared || calls > 20 {
		t.Errorf("got %d events after %d requests for memory", len(events), calls)
	}
}

// TestGrowIsHeldToItsContract: a Grow that loses bytes is a bug of this process, not of the peer.
func TestGrowIsHeldToItsContract(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a Grow that returned too little went unnoticed")
		}
	}()
	lim := &Limits{Grow: func([]byte, int) []byte { return nil }}
	var d Decoder
	frame := masked(Binary, true, "abc")
	_, _, _, _ = d.Next(lim, frame[:len(frame)-1])
}

// TestTextFailsWithTheFirstImpossibleByte: RFC 6455, section 8.1, and the wish of conformance suites that it be early.
func TestTextFailsWithTheFirstImpossibleByte(t *testing.T) {
	cases := []struct {
		name string
		text string
		at   int // index of the byte that must fail; len(text): only the end does; -1: valid
	}{
		{name: "kosme", text: "κόσμε", at: -1},
		{name: "highest code point", text: "\U0010FFFF", at: -1},
		{name: "noncharacter", text: "\uFFFE", at: -1},
		{name: "beyond U+10FFFF", text: "ok\xF4\x90\x80\x80", at: 3},
		{name: "surrogate", text: "\xED\xA0\x80", at: 1},
		{name: "overlong slash", text: "\xE0\x80\xAF", at: 1},
		{name: "overlong in two", text: "a\xC0\xAF", at: 1},
		{name: "overlong in four", text: "\xF0\x80\x80\xAF", at: 1},
		{name: "lone continuation", text: "abc\x80", at: 3},
		{name: "F5", text: "\xF5\x80\x80\x80", at: 0},
		{name: "FF", text: "a\xFFb", at: 1},
		{name: "lead followed by ASCII", text: "\xCEa", at: 1},
		{name: "third byte wrong", text: "\xE2\x82a", at: 2},
		{name: "ends in a character of two", text: "ab\xCE", at: 3},
		{name: "ends in a character of four", text: "\xF0\x9F\x98", at: 3},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			frame := masked(Text, true, c.text)
			header := len(frame) - len(c.text)
			var d Decoder
			failed := -1
			for i := range frame {
				if _, reason := feed(t, &d, &Limits{}, frame[i:i+1]); reason != "" {
					if reason != "text-not-utf8" || d.failed.Code != CloseInvalidUTF8 {
						t.Fatalf("got %q, code %d", reason, d.failed.Code)
					}
					failed = i - header
					break
				}
			}
			// What only the end of the frame shows is found with its last byte.
			if want := min(c.at, len(c.text)-1); failed != want {
				t.Errorf("one frame: failed at byte %d, want %d", failed, want)
			}
			var whole Decoder
			if _, reason := feed(t, &whole, &Limits{}, frame); (reason != "") != (c.at >= 0) {
				t.Errorf("whole: got %q", reason)
			}
			failed = failedFragment(t, c.text)
			if failed != c.at {
				t.Errorf("a frame for each byte: failed at frame %d, want %d", failed, c.at)
			}
		})
	}
}

// failedFragment sends each byte of text as a frame of one message, then an empty last frame, and returns the index of
// the frame that failed; -1: none.
func failedFragment(t *testing.T, text string) int {
	t.Helper()
	var d Decoder
	op := Text
	for i := range len(text) + 1 {
		frame := masked(op, i == len(text), text[i:min(i+1, len(text))])
		if _, reason := feed(t, &d, &Limits{}, frame); reason != "" {
			return i
		}
		op = Continuation
	}
	return -1
}

// TestBinaryIsNotText: only text is checked.
func TestBinaryIsNotText(t *testing.T) {
	var d Decoder
	stream := join(masked(Binary, false, "\xFF"), masked(Continuation, true, "\xC0\x80"), masked(Ping, true, "\xFF"))
	events, reason := feed(t, &d, &Limits{}, bytewise(stream)...)
	if want := []event{{Binary, "\xFF\xC0\x80", 2}, {Ping, "\xFF", 1}}; reason != "" || !slices.Equal(events, want) {
		t.Errorf("got %v %q, want %v", events, reason, want)
	}
}

// TestControlFrameInsideMessage: RFC 6455, section 5.4: control frames may be injected in the middle of a message,
// also in the middle of a character of its text.
func TestControlFrameInsideMessage(t *testing.T) {
	stream := join(masked(Text, false, "\xE2\x82"), masked(Ping, true, "p1"), masked(Continuation, false, "\xAC+\xE2"),
		masked(Pong, true, ""), masked(Continuation, true, "\x82\xAC"), masked(Close, true, "\x03\xE8bye"))
	want := []event{{Ping, "p1", 1}, {Pong, "", 1}, {Text, "€+€", 3}, {Close, "\x03\xE8bye", 1}}
	for _, pieces := range [][][]byte{{stream}, bytewise(stream)} {
		var d Decoder
		if events, reason := feed(t, &d, &Limits{}, pieces...); reason != "" || !slices.Equal(events, want) {
			t.Errorf("in %d pieces: got %v %q, want %v", len(pieces), events, reason, want)
		}
		if !d.Idle() {
			t.Error("not idle at the end")
		}
	}
}

// TestClosePayload: RFC 6455, sections 5.5.1 and 7.4.
func TestClosePayload(t *testing.T) {
	cases := []struct {
		name    string
		payload string
		reason  string
		code    CloseCode
	}{
		{name: "empty", payload: ""},
		{name: "1000", payload: "\x03\xE8"},
		{name: "4999 with a reason", payload: "\x13\x87grüße"},
		{name: "one byte", payload: "\x03", reason: "close-length", code: 1002},
		{name: "1005", payload: "\x03\xED", reason: "close-code", code: 1002},
		{name: "65535", payload: "\xFF\xFF", reason: "close-code", code: 1002},
		{name: "reason not UTF-8", payload: "\x03\xE8\xCE", reason: "close-reason-not-utf8", code: 1007},
		{name: "longest reason", payload: "\x03\xE8" + strings.Repeat("r", CloseReasonBytesMax)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			frame := masked(Close, true, c.payload)
			for _, pieces := range [][][]byte{{frame}, bytewise(frame)} {
				var d Decoder
				events, reason := feed(t, &d, &Limits{}, pieces...)
				if reason != c.reason || reason == "" && (len(events) != 1 || events[0].payload != c.payload) {
					t.Fatalf("got %v %q, want %q", events, reason, c.reason)
				}
				if reason != "" && d.failed.Code != c.code {
					t.Errorf("code: got %d, want %d", d.failed.Code, c.code)
				}
			}
		})
	}
}

// TestWholeFrameAliasesInput: no copy for the common case, and the payload cannot be appended into what follows it.
func TestWholeFrameAliasesInput(t *testing.T) {
	buf := join(masked(Binary, true, "hello"), masked(Binary, true, "world"))
	second := bytes.Clone(buf[len(buf)/2:])
	var d Decoder
	m, n, ok, err := d.Next(&Limits{}, buf)
	if !ok || err != nil || n != len(buf)/2 || string(m.Payload) != "hello" {
		t.Fatal(m, n, ok, err)
	}
	if &m.Payload[0] != &buf[6] || cap(m.Payload) != len(m.Payload) {
		t.Error("the payload is a copy, or has room that belongs to the next frame")
	}
	if !bytes.Equal(buf[n:], second) {
		t.Error("the next frame was touched")
	}
	// The last frame, which ends where the input ends, too.
	if m, _, ok, _ = d.Next(&Limits{}, buf[n:]); !ok || &m.Payload[0] != &buf[n+6] || d.buf != nil {
		t.Error("the last frame was copied")
	}
}

func TestIdleReleaseReset(t *testing.T) {
	frame := masked(Text, false, "abc")
	var d Decoder
	for i := range frame {
		feed(t, &d, &Limits{}, frame[i:i+1])
		if d.Idle() {
			t.Fatalf("idle after %d bytes of a message", i+1)
		}
	}
	feed(t, &d, &Limits{}, masked(Ping, true, ""))
	if d.Idle() {
		t.Error("idle between the frames of a message")
	}
	events, _ := feed(t, &d, &Limits{}, masked(Continuation, true, "d"))
	if len(events) != 1 || events[0].payload != "abcd" || !d.Idle() {
		t.Errorf("got %v, idle %v", events, d.Idle())
	}
	if buf := d.Release(); len(buf) != 0 || cap(buf) < 4 || d.buf != nil {
		t.Errorf("released length %d, capacity %d", len(buf), cap(buf))
	}
	if d.Release() != nil {
		t.Error("a second buffer released")
	}
	feed(t, &d, &Limits{}, masked(Ping, true, "ping")[:8])
	if d.Idle() {
		t.Error("idle inside a control frame")
	}
	d.Reset()
	feed(t, &d, &Limits{}, frame)
	d.Reset()
	if events, reason := feed(t, &d, &Limits{}, masked(Text, true, "new")); !d.Idle() || reason != "" || events[0].payload != "new" {
		t.Errorf("after Reset: %v %q", events, reason)
	}
	if cap(d.buf) == 0 {
		t.Error("Reset dropped the buffer")
	}
}

// TestPeek gives at each byte of a stream what the message under way will come to.
func TestPeek(t *testing.T) {
	lim := &Limits{MessageBytesMax: 1000}
	first, ping := masked(Text, false, strings.Repeat("a", 200)), masked(Ping, true, "x")
	last := masked(Continuation, true, strings.Repeat("b", 30))
	var d Decoder
	check := func(buf []byte, want int, wantOK bool) {
		t.Helper()
		before := d
		total, ok := d.Peek(lim, buf)
		if total != want || ok != wantOK {
			t.Fatalf("got %d %v, want %d %v", total, ok, want, wantOK)
		}
		if d.headBytes != before.headBytes || d.remaining != before.remaining {
			t.Fatal("Peek consumed something")
		}
	}
	check(nil, 0, false)
	check(first[:7], 0, false)
	check(first, 200, true)
	feed(t, &d, lim, first[:3])
	check(first[3:5], 0, false)
	check(first[3:], 200, true)
	feed(t, &d, lim, first[3:20])
	check(nil, 200, true)
	feed(t, &d, lim, first[20:])
	check(nil, 0, false)
	check(ping, 0, false)
	check(last, 230, true)
	feed(t, &d, lim, ping[:6])
	check(ping[6:], 0, false)
	feed(t, &d, lim, ping[6:], last[:10])
	check(last[10:], 230, true)
	if events, _ := feed(t, &d, lim, last[10:]); len(events) != 1 || len(events[0].payload) != 230 {
		t.Fatal(events)
	}
	check(masked(Text, true, "next"), 4, true)
	huge := []byte{0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}
	check(huge, 1001, true)
	if total, ok := d.Peek(&Limits{}, huge); total != math.MaxInt || !ok {
		t.Errorf("without a bound: got %d %v", total, ok)
	}
}

// TestDecoderSize pins what a connection in the middle of a frame holds besides the bytes that arrived.
func TestDecoderSize(t *testing.T) {
	if size := unsafe.Sizeof(Decoder{}); size > 96 {
		t.Errorf("a Decoder has %d bytes, want at most 96", size)
	}
}
