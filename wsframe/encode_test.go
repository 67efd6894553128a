package wsframe

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// TestEncodeAgainstGobwas compares each frame with what the other implementation writes.
func TestEncodeAgainstGobwas(t *testing.T) {
	mask := [4]byte{1, 2, 0xFE, 0xFF}
	for _, size := range []int{0, 1, 15, 16, 17, 125, 126, 65535, 65536} {
		for _, op := range []Opcode{Continuation, Text, Binary, Close, Ping, Pong} {
			payload := bytes.Repeat([]byte("ab\x00"), size/3+1)[:size]
			want, err := ws.CompileFrame(ws.NewFrame(ws.OpCode(op), true, payload))
			if err != nil {
				t.Fatal(err)
			}
			got := AppendFrame([]byte("before"), op, payload)
			if !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Errorf("%v of %d bytes: header % x, want % x", op, size, got[6:min(len(got), 20)], want[:min(len(want), 14)])
			}
			if HeaderBytes(size)+size != len(want) {
				t.Errorf("HeaderBytes(%d): got %d", size, HeaderBytes(size))
			}
			for _, fin := range []bool{true, false} {
				frame := ws.MaskFrameWith(ws.NewFrame(ws.OpCode(op), fin, payload), mask)
				if want, err = ws.CompileFrame(frame); err != nil {
					t.Fatal(err)
				}
				if got := AppendMasked(nil, op, fin, payload, mask); !bytes.Equal(got, want) {
					t.Errorf("masked %v of %d bytes, fin %v differs", op, size, fin)
				}
			}
		}
	}
}

func TestAppendClose(t *testing.T) {
	cases := []struct {
		name   string
		code   CloseCode
		reason string
		want   string // payload
	}{
		{name: "with reason", code: CloseOverload, reason: "slow; retry-after=3", want: "\x03\xF5slow; retry-after=3"},
		{name: "no code", code: 0, reason: "dropped", want: ""},
		{name: "1005 is never sent", code: CloseNoStatus, reason: "dropped", want: ""},
		{name: "1006 is never sent", code: CloseAbnormal, reason: "x", want: "\x03\xF3x"},
		{name: "5000 is never sent", code: 5000, want: "\x03\xF3"},
		{name: "4408", code: CloseHeartbeatLost, want: "\x11\x38"},
		{name: "123 bytes", code: 1000, reason: strings.Repeat("r", 123), want: "\x03\xE8" + strings.Repeat("r", 123)},
		{name: "124 bytes", code: 1000, reason: strings.Repeat("r", 124), want: "\x03\xE8" + strings.Repeat("r", 123)},
		{name: "cut before a character", code: 1000, reason: strings.Repeat("r", 121) + "€", want: "\x03\xE8" + strings.Repeat("r", 121)},
		{name: "character that just fits", code: 1000, reason: strings.Repeat("r", 120) + "€€", want: "\x03\xE8" + strings.Repeat("r", 120) + "€"},
		{name: "not UTF-8", code: 1000, reason: "a\xFFb", want: "\x03\xE8a\uFFFDb"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := AppendClose(nil, c.code, c.reason)
			if want := AppendFrame(nil, Close, []byte(c.want)); !bytes.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			// A peer built on this package accepts it.
			var d Decoder
			if _, reason := feed(t, &d, &Limits{Client: true}, got); reason != "" {
				t.Errorf("the other side says %q", reason)
			}
		})
	}
	mixed := strings.Repeat("\xF0\x9F\x98\x80\xFF€", 30)
	for n := range len(mixed) + 1 {
		frame := AppendClose(nil, 1000, mixed[:n])
		if payload := frame[2:]; len(payload) > ControlBytesMax || !utf8.Valid(payload[2:]) {
			t.Fatalf("reason of %d bytes: payload % x", n, payload)
		}
	}
}

func TestFrameEnd(t *testing.T) {
	outbox := join(unmasked(Text, true, strings.Repeat("x", 300)), unmasked(Ping, true, ""), unmasked(Binary, true, strings.Repeat("y", 70000)))
	var ends []int
	for rest := outbox; len(rest) > 0; {
		n, ok := FrameEnd(rest)
		if !ok || n > len(rest) {
			t.Fatal(n, ok)
		}
		ends = append(ends, n)
		rest = rest[n:]
	}
	if want := []int{304, 2, 70010}; !slices.Equal(ends, want) {
		t.Errorf("got %v, want %v", ends, want)
	}
	if n, ok := FrameEnd(outbox[:4]); n != 304 || !ok {
		t.Errorf("header alone: got %d %v", n, ok)
	}
	for _, short := range []int{0, 1, 2, 3} {
		if n, ok := FrameEnd(outbox[:short]); n != 0 || ok {
			t.Errorf("%d bytes: got %d %v", short, n, ok)
		}
	}
	huge := []byte{0x82, 0x7F, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}
	if n, ok := FrameEnd(huge); n != math.MaxInt || !ok {
		t.Errorf("8 EiB: got %d %v", n, ok)
	}
	if n, ok := FrameEnd(masked(Text, true, "abc")); n != 9 || !ok {
		t.Errorf("masked: got %d %v", n, ok)
	}
}

// TestCloseCodes goes through all 65,536 codes against the ranges of RFC 6455, section 7.4, and the IANA registry.
func TestCloseCodes(t *testing.T) {
	ranges := [][2]int{{1000, 1003}, {1007, 1014}, {3000, 4999}}
	for code := range 1 << 16 {
		want := slices.ContainsFunc(ranges, func(r [2]int) bool { return r[0] <= code && code <= r[1] })
		if got := CloseCode(code).Sendable(); got != want {
			t.Errorf("%d: got %v, want %v", code, got, want)
		}
	}
}

func TestParseClose(t *testing.T) {
	cases := []struct {
		name    string
		payload string
		code    CloseCode
		reason  string
		fails   bool
	}{
		{name: "empty", code: CloseNoStatus},
		{name: "code alone", payload: "\x03\xE9", code: CloseGoingAway},
		{name: "with reason", payload: "\x11\x33kicked", code: CloseKicked, reason: "kicked"},
		{name: "one byte", payload: "\x03", code: CloseProtocol, fails: true},
		{name: "invalid code is answered with 1002", payload: "\x03\xEDx", code: CloseProtocol, fails: true},
		{name: "invalid UTF-8 is answered with 1007", payload: "\x03\xE8\xFF", code: CloseInvalidUTF8, fails: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			code, reason, err := ParseClose([]byte(c.payload))
			if code != c.code || reason != c.reason || (err != nil) != c.fails {
				t.Errorf("got %d %q %v, want %d %q", code, reason, err, c.code, c.reason)
			}
		})
	}
}

func TestOpcodeNames(t *testing.T) {
	names := map[Opcode]string{Continuation: "continuation", Text: "text", Binary: "binary", Close: "close", Ping: "ping", Pong: "pong", 3: "reserved", 15: "reserved"}
	for op, want := range names {
		if op.String() != want {
			t.Errorf("%d: got %q, want %q", op, op, want)
		}
		if op.IsControl() != (op >= 8) {
			t.Errorf("%v: IsControl %v", op, op.IsControl())
		}
	}
}

// TestReasonsAreLabels: reasons go into Close frames and metrics, so they are short lower-case slugs, each used once.
func TestReasonsAreLabels(t *testing.T) {
	seen := map[string]bool{}
	check := func(reason string) {
		if seen[reason] || len(reason) == 0 || len(reason) > 32 || strings.Trim(reason, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
			t.Errorf("%q is no label, or is used twice", reason)
		}
		seen[reason] = true
	}
	for _, e := range []*ProtocolError{
		errReservedBits, errReservedOpcode, errUnmaskedFrame, errMaskedFrame, errControlFragment, errControlLength, errNoMessage,
		errMessageOpen, errLengthTopBit, errLengthNotMinimal, errCloseLength, errCloseCode, errCloseUTF8, errTextUTF8,
		errMessageTooBig, errFragments, errEmptyFragments,
	} {
		check(e.Reason)
		if !strings.Contains(e.Error(), e.Reason) || !e.Code.Sendable() {
			t.Errorf("%v with code %d", e, e.Code)
		}
	}
	for _, r := range []*Refusal{
		errHeadBytes, errHeadLine, errHeadHeaders, errHeadTLS, errHeadRequestLine, errHeadVersion, errHeadTarget, errHeadBareLF,
		errHeadBareCR, errHeadFold, errHeadField, errHeadValue, errHeadNoHost, errHeadHostTwice, errHeadHost, errUpgradeMethod,
		errUpgradeHTTP10, errUpgradeBody, errUpgradeMissing, errUpgradeDropped, errUpgradeConnection, errUpgradeVersion,
		errUpgradeNoVersion, errUpgradeNoKey, errUpgradeKey, errUpgradeTwice, errUpgradeProtocolTwice,
	} {
		check(r.Reason)
		if r.Text == "" || strings.ContainsAny(r.Text, "\r\n") || !strings.Contains(r.Error(), r.Reason) {
			t.Errorf("%v: text %q", r, r.Text)
		}
	}
}
