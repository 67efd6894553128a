package wsframe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

// Each MUST of RFC 6455, sections 5, 7 and 8 has a test named after section and rule: here as far as a layer can decide it
// that sees frames and no connection, in server/rfc6455_test.go for the rest. The list of all rules with their tests is
// server/testdata/rfc6455.txt, and a test there checks it.

// fails checks that the stream is refused with that code, whether it comes whole or byte by byte, and that nothing is
// decoded afterwards.
func fails(t *testing.T, code CloseCode, stream []byte) {
	t.Helper()
	for _, pieces := range [][][]byte{{stream}, bytewise(stream)} {
		var d Decoder
		if _, reason := feed(t, &d, &Limits{}, pieces...); reason == "" || d.failed.Code != code {
			t.Errorf("% x in %d pieces: got %q, want code %d", stream[:min(len(stream), 20)], len(pieces), reason, code)
		}
		if _, n, ok, err := d.Next(&Limits{}, masked(Ping, true, "")); n != 0 || ok || err == nil {
			t.Errorf("% x: decoded on after the failure", stream[:min(len(stream), 20)])
		}
	}
}

// decodes checks what a stream becomes, whole and byte by byte.
func decodes(t *testing.T, stream []byte, want ...event) {
	t.Helper()
	for _, pieces := range [][][]byte{{stream}, bytewise(stream)} {
		var d Decoder
		if got, reason := feed(t, &d, &Limits{}, pieces...); reason != "" || !slices.Equal(got, want) {
			t.Errorf("in %d pieces: got %v %q, want %v", len(pieces), got, reason, want)
		}
	}
}

// The server MUST close the connection upon receiving a frame that is not masked; it may send 1002.
func TestRFC6455Section5_1UnmaskedFrameFails(t *testing.T) {
	for _, op := range []Opcode{Text, Binary, Close, Ping, Pong} {
		fails(t, CloseProtocol, unmasked(op, true, ""))
	}
	fails(t, CloseProtocol, join(masked(Text, false, "a"), unmasked(Continuation, true, "b")))
}

// A server MUST NOT mask any frames that it sends to the client.
func TestRFC6455Section5_1ServerFramesAreNotMasked(t *testing.T) {
	var c Deflater
	for _, frame := range [][]byte{
		AppendFrame(nil, Text, []byte("a")), AppendHeader(nil, Binary, false, 70000), AppendClose(nil, CloseNormal, "a"),
		c.Append(nil, WindowBitsMax, Text, bytes.Repeat([]byte("a"), 200)),
	} {
		if frame[1]&bitMask != 0 {
			t.Errorf("% x", frame[:2])
		}
	}
}

// A client MUST close a connection if it detects a masked frame.
func TestRFC6455Section5_1MaskedFrameFailsAClient(t *testing.T) {
	var d Decoder
	if _, reason := feed(t, &d, &Limits{Client: true}, masked(Text, true, "a")); reason != "masked-frame" {
		t.Errorf("got %q", reason)
	}
}

// RSV1, RSV2, RSV3 MUST be 0 unless an extension is negotiated that defines meanings for non-zero values.
func TestRFC6455Section5_2ReservedBitsFail(t *testing.T) {
	for rsv := byte(1); rsv < 8; rsv++ {
		for _, op := range []Opcode{Text, Binary, Close, Ping, Pong} {
			frame := masked(op, true, "")
			frame[0] |= rsv << 4
			fails(t, CloseProtocol, frame)
		}
	}
}

// If an unknown opcode is received, the receiving endpoint MUST fail the connection.
func TestRFC6455Section5_2UnknownOpcodesFail(t *testing.T) {
	for _, op := range []Opcode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		fails(t, CloseProtocol, masked(op, true, ""))
		fails(t, CloseProtocol, join(masked(Text, false, "a"), masked(op, true, "")))
	}
}

// In all cases, the minimal number of bytes MUST be used to encode the length.
func TestRFC6455Section5_2LongLengthsFail(t *testing.T) {
	for _, length := range []string{"\xFE\x00\x00", "\xFE\x00\x7D", "\xFF\x00\x00\x00\x00\x00\x00\x00\x7D", "\xFF\x00\x00\x00\x00\x00\x00\xFF\xFF"} {
		fails(t, CloseProtocol, []byte("\x82"+length+"\x00\x00\x00\x00"))
	}
	for _, size := range []int{0, 125, 126, 65535, 65536} {
		frame := AppendFrame(nil, Binary, make([]byte, size))
		if want := HeaderBytes(size) + size; len(frame) != want {
			t.Errorf("%d bytes are sent in %d, want %d", size, len(frame), want)
		}
	}
}

// The most significant bit of a 64-bit length MUST be 0.
func TestRFC6455Section5_2LengthTopBitFails(t *testing.T) {
	fails(t, CloseProtocol, []byte("\x82\xFF\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	fails(t, CloseProtocol, []byte("\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x00\x00\x00\x00"))
}

// Octet i of the payload is XORed with octet i modulo 4 of the key.
func TestRFC6455Section5_3Unmasking(t *testing.T) {
	decodes(t, []byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), event{Text, "Hello", 1})
	payload := strings.Repeat("0123456789", 20)
	frame := AppendMasked(nil, Binary, true, []byte(payload), [4]byte{1, 2, 3, 4})
	for i := range payload {
		if want := payload[i] ^ byte(i%4+1); frame[len(frame)-len(payload)+i] != want {
			t.Fatalf("octet %d: got %d, want %d", i, frame[len(frame)-len(payload)+i], want)
		}
	}
	decodes(t, frame, event{Binary, payload, 1})
}

// Clients and servers MUST support receiving both fragmented and unfragmented messages; fragments MUST be delivered in
// the order sent, and all are of the type that the first one has.
func TestRFC6455Section5_4FragmentedMessages(t *testing.T) {
	decodes(t, join(masked(Binary, false, "a"), masked(Continuation, false, ""), masked(Continuation, false, "bc"), masked(Continuation, true, "d"),
		masked(Text, true, "whole")), event{Binary, "abcd", 4}, event{Text, "whole", 1})
}

// The fragments of one message MUST NOT be interleaved between the fragments of another message.
func TestRFC6455Section5_4InterleavedMessagesFail(t *testing.T) {
	for _, second := range []Opcode{Text, Binary} {
		for _, fin := range []bool{false, true} {
			fails(t, CloseProtocol, join(masked(Text, false, "a"), masked(second, fin, "b")))
		}
	}
}

func TestRFC6455Section5_4ContinuationOfNothingFails(t *testing.T) {
	fails(t, CloseProtocol, masked(Continuation, true, "a"))
	fails(t, CloseProtocol, masked(Continuation, false, "a"))
	fails(t, CloseProtocol, join(masked(Text, false, "a"), masked(Continuation, true, "b"), masked(Continuation, true, "c")))
}

// An endpoint MUST be capable of handling control frames in the middle of a fragmented message.
func TestRFC6455Section5_4ControlFramesBetweenFragments(t *testing.T) {
	decodes(t, join(masked(Text, false, "a"), masked(Ping, true, "p"), masked(Pong, true, "q"), masked(Continuation, true, "b")),
		event{Ping, "p", 1}, event{Pong, "q", 1}, event{Text, "ab", 2})
}

// All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented.
func TestRFC6455Section5_5LongControlFramesFail(t *testing.T) {
	for _, op := range []Opcode{Close, Ping, Pong} {
		fails(t, CloseProtocol, masked(op, true, "\x03\xE8"+strings.Repeat("x", 124)))
		fails(t, CloseProtocol, masked(op, true, "\x03\xE8"+strings.Repeat("x", 70000))[:HeaderBytesMax])
		decodes(t, masked(op, true, "\x03\xE8"+strings.Repeat("x", 123)), event{op, "\x03\xE8" + strings.Repeat("x", 123), 1})
	}
}

func TestRFC6455Section5_5FragmentedControlFramesFail(t *testing.T) {
	for _, op := range []Opcode{Close, Ping, Pong} {
		fails(t, CloseProtocol, masked(op, false, ""))
		fails(t, CloseProtocol, join(masked(Text, false, "a"), masked(op, false, "")))
	}
}

// If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer.
func TestRFC6455Section5_5_1CloseOfOneByteFails(t *testing.T) {
	for _, payload := range []string{"\x00", "\x03", "a"} {
		fails(t, CloseProtocol, masked(Close, true, payload))
	}
	decodes(t, masked(Close, true, ""), event{Close, "", 1})
}

// Following the 2-byte integer, the body MAY contain UTF-8-encoded data.
func TestRFC6455Section5_5_1CloseReasonNotUTF8Fails(t *testing.T) {
	for _, reason := range []string{"\xFF", "ok\xC3", "\xED\xA0\x80", "\xC0\x80", "\xF4\x90\x80\x80"} {
		fails(t, CloseInvalidUTF8, masked(Close, true, "\x03\xE8"+reason))
	}
}

// A Pong frame sent in response to a Ping frame must have identical application data: the payload comes out as it was.
func TestRFC6455Section5_5_3PongCarriesThePayload(t *testing.T) {
	for _, payload := range []string{"", "a", "\x00\xFF", strings.Repeat("\xFE", 125)} {
		var d Decoder
		m, _, ok, err := d.Next(&Limits{}, masked(Ping, true, payload))
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if pong := AppendFrame(nil, Pong, m.Payload); !bytes.Equal(pong, unmasked(Pong, true, payload)) {
			t.Errorf("%q: got % x", payload, pong)
		}
	}
}

// The whole message MUST contain valid UTF-8, while a frame of it might include a part of a character.
func TestRFC6455Section5_6CharactersAcrossFrames(t *testing.T) {
	decodes(t, join(masked(Text, false, "\xE2"), masked(Continuation, false, "\x82"), masked(Continuation, true, "\xAC")), event{Text, "€", 3})
	fails(t, CloseInvalidUTF8, join(masked(Text, false, "\xE2"), masked(Continuation, true, "\x82")))
}

// An endpoint MUST NOT continue to attempt to process data from the remote endpoint after being instructed to fail the
// connection.
func TestRFC6455Section7_1_7NothingDecodedAfterFailure(t *testing.T) {
	var d Decoder
	lim := &Limits{}
	_, _, _, first := d.Next(lim, []byte{0xF1, 0x80, 0, 0, 0, 0})
	for _, buf := range [][]byte{nil, masked(Text, true, "a"), masked(Close, true, "\x03\xE8")} {
		if m, n, ok, err := d.Next(lim, buf); ok || n != 0 || m.Payload != nil || !errors.Is(err, first) {
			t.Errorf("got %v %d %v %v", m, n, ok, err)
		}
	}
	if d.Idle() {
		t.Error("idle, so it might be dropped and the connection decoded anew")
	}
}

// 1005, 1006 and 1015 MUST NOT be set as a status code in a Close control frame by an endpoint; 1004 is reserved.
func TestRFC6455Section7_4_1ReservedCodesAreNeverSent(t *testing.T) {
	for _, code := range []CloseCode{1004, CloseNoStatus, CloseAbnormal, 1015} {
		if got := AppendClose(nil, code, "reason"); len(got) > 2 && binary.BigEndian.Uint16(got[2:]) == uint16(code) {
			t.Errorf("%d was sent: % x", code, got)
		}
		fails(t, CloseProtocol, masked(Close, true, string(binary.BigEndian.AppendUint16(nil, uint16(code)))))
	}
}

// 0 to 999 are not used, 1000 to 2999 are for the protocol and what is registered, 3000 to 4999 for libraries and
// applications. Every code is judged.
func TestRFC6455Section7_4_2Codes(t *testing.T) {
	for code := range 1 << 16 {
		valid := code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006 || code >= 3000 && code <= 4999
		var d Decoder
		_, reason := feed(t, &d, &Limits{}, masked(Close, true, string(binary.BigEndian.AppendUint16(nil, uint16(code)))))
		if (reason == "") != valid || !valid && d.failed.Code != CloseProtocol {
			t.Errorf("%d: got %q", code, reason)
		}
	}
}

// When an endpoint is to interpret a byte stream as UTF-8 but finds that it is not, it MUST fail the connection; here
// with the first byte that makes it impossible, also inside a frame that has not arrived yet.
func TestRFC6455Section8_1InvalidUTF8FailsAtOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		stream []byte
		by     int // bytes of stream that suffice
	}{
		{name: "inside a frame", stream: masked(Text, true, "ok\xFF and much that never needs to come"), by: 9},
		{name: "inside a fragment", stream: masked(Text, false, "ok\xC0"), by: 9},
		{name: "second fragment", stream: join(masked(Text, false, "\xE2\x82"), masked(Continuation, true, "a and more")), by: 15},
		{name: "after a ping in a character", stream: join(masked(Text, false, "\xF4"), masked(Ping, true, "x"), masked(Continuation, false, "\x90")), by: 21},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Decoder
			for i := range c.stream {
				_, reason := feed(t, &d, &Limits{}, c.stream[i:i+1])
				if reason == "" {
					continue
				}
				if reason != "text-not-utf8" || d.failed.Code != CloseInvalidUTF8 {
					t.Errorf("byte %d: got %q", i+1, reason)
				}
				if i+1 != c.by {
					t.Errorf("failed with byte %d, want %d", i+1, c.by)
				}
				return
			}
			t.Error("never failed")
		})
	}
}
