package wsframe

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// streams are legal and illegal sequences of frames, each small enough to be cut at every pair of positions.
func streams() []struct {
	name   string
	stream []byte
} {
	return []struct {
		name   string
		stream []byte
	}{
		{name: "empty text", stream: masked(Text, true, "")},
		{name: "text", stream: masked(Text, true, "héllo, wörld")},
		{name: "16-bit length", stream: masked(Binary, true, strings.Repeat("0123456789", 13))},
		{name: "three messages", stream: join(masked(Text, true, "a"), masked(Binary, true, "\xFF\x00"), masked(Text, true, "€"))},
		{name: "fragments", stream: join(masked(Text, false, "a€"[:2]), masked(Continuation, false, "a€"[2:3]), masked(Continuation, true, "a€"[3:]))},
		{name: "empty fragments", stream: join(masked(Text, false, ""), masked(Continuation, false, ""), masked(Continuation, true, "x"))},
		{name: "ping between fragments", stream: join(masked(Text, false, "ab"), masked(Ping, true, "ping"), masked(Continuation, true, "cd"))},
		{name: "two pings between", stream: join(masked(Binary, false, ""), masked(Ping, true, "1"), masked(Ping, true, ""), masked(Continuation, true, ""))},
		{name: "close between fragments", stream: join(masked(Text, false, "ab"), masked(Close, true, "\x03\xE9away"), masked(Continuation, true, "cd"))},
		{name: "control frames", stream: join(masked(Ping, true, "p"), masked(Pong, true, ""), masked(Close, true, ""))},
		{name: "bad text", stream: join(masked(Text, false, "ok"), masked(Continuation, true, "\xE2\x28\xA1"))},
		{name: "text cut short", stream: join(masked(Ping, true, ""), masked(Text, true, "\xE2\x82"))},
		{name: "bad close", stream: join(masked(Text, true, "x"), masked(Close, true, "\x03\xEE"))},
		{name: "interleaved messages", stream: join(masked(Text, false, "x"), masked(Binary, true, "y"))},
		{name: "reserved bit in the second frame", stream: join(masked(Text, true, "x"), []byte{0xC1, 0x80, 0, 0, 0, 0})},
		{name: "unmasked second frame", stream: join(masked(Text, true, "x"), unmasked(Text, true, "y"))},
		{name: "too big", stream: masked(Binary, true, strings.Repeat("x", 201))},
	}
}

// TestWholeVersusSplit cuts each stream at every position, at every pair of positions and between all bytes; what is
// decoded must not depend on it.
func TestWholeVersusSplit(t *testing.T) {
	lim := &Limits{MessageBytesMax: 200, FragmentsMax: 8, EmptyFragmentsMax: 4}
	for _, c := range streams() {
		t.Run(c.name, func(t *testing.T) {
			s := c.stream
			var d Decoder
			want, wantReason := feed(t, &d, lim, s)
			if len(want) == 0 && wantReason == "" {
				t.Fatal("the stream yields nothing, so the test shows nothing")
			}
			compare := func(name string, pieces ...[]byte) {
				t.Helper()
				var d Decoder
				got, reason := feed(t, &d, lim, pieces...)
				if reason != wantReason || !slices.Equal(got, want) {
					t.Fatalf("%s: got %v %q, want %v %q", name, got, reason, want, wantReason)
				}
			}
			compare("byte by byte", bytewise(s)...)
			for i := range len(s) + 1 {
				for j := i; j <= len(s); j++ {
					compare(fmt.Sprintf("cut at %d and %d", i, j), s[:i], s[i:j], s[j:])
				}
			}
		})
	}
}

// TestRequestSplit does the same for request heads: a head is complete with its last byte, not before.
func TestRequestSplit(t *testing.T) {
	lim := HeadLimits{Bytes: 8 << 10}
	for i := range len(browserHead) + 1 {
		scanned := 0
		if _, n, err := ParseHead([]byte(browserHead[:i]), &scanned, lim); err != nil || n != 0 && i < len(browserHead) {
			t.Fatalf("first %d bytes: %d %v", i, n, err)
		}
		h, n, err := ParseHead([]byte(browserHead), &scanned, lim)
		if err != nil || n != len(browserHead) || CheckUpgrade(&h) != nil {
			t.Fatalf("whole after the first %d bytes: %d %v", i, n, err)
		}
	}
	scanned := 0
	for i := 1; i <= len(browserHead); i++ {
		_, n, err := ParseHead([]byte(browserHead[:i]), &scanned, lim)
		if err != nil || (n != 0) != (i == len(browserHead)) {
			t.Fatalf("byte by byte, %d: %d %v", i, n, err)
		}
		if i < len(browserHead) && scanned < i-1 {
			t.Fatalf("after %d bytes only %d count as searched: a dripped head would cost its square", i, scanned)
		}
	}
}
