//go:build !race

// The race detector allocates on its own, so these counts hold only without it.

package wsframe

import (
	"strings"
	"testing"
)

// TestAllocations proves what doc.go claims: nothing is allocated for whole frames, for a message in parts once the
// buffer is there, for encoding, for refusing, and for judging a request.
func TestAllocations(t *testing.T) {
	lim := benchLimits()
	text := AppendMasked(nil, Text, true, []byte(strings.Repeat("a", 1000)), [4]byte{})
	ping := AppendMasked(nil, Ping, true, []byte("12345678"), [4]byte{})
	closing := AppendMasked(nil, Close, true, []byte("\x03\xE8bye"), [4]byte{})
	unmaskedFrame := AppendFrame(nil, Text, []byte("x"))
	payload := make([]byte, 200)
	dst := make([]byte, 0, 4096)
	head := []byte(browserHead)
	ipv6 := []byte(request("GET /ws HTTP/1.1", with("Host", "Host: [2001:db8:1234:5678:9abc:def0:1234:5678]:8080")...))
	refused := []byte("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n")
	var d Decoder
	decode := func(pieces ...[]byte) func() {
		return func() {
			for i, piece := range pieces {
				if _, _, ok, err := d.Next(lim, piece); ok != (i == len(pieces)-1) || err != nil {
					t.Fatal(ok, err)
				}
			}
		}
	}
	upgrade := func(buf []byte, status int) func() {
		return func() {
			scanned := 0
			h, n, err := ParseHead(buf, &scanned, HeadLimits{Bytes: 8 << 10, LineBytes: 4 << 10, Headers: 64})
			if n != len(buf) || err != nil {
				t.Fatal(n, err)
			}
			r := CheckUpgrade(&h)
			if (r != nil) != (status != 0) {
				t.Fatal(r)
			}
			if r != nil {
				dst = AppendRefusal(dst[:0], r)
			}
		}
	}
	var x Inflater
	var c Deflater
	compressed := []byte(deflated(t, "an answer of a server that is not long"))
	long := sample("json", 2000, 1)
	cases := []struct {
		name string
		run  func()
	}{
		{name: "inflate", run: func() {
			if _, err := x.Inflate(lim, Message{Opcode: Text, Compressed: true, Payload: compressed}); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "deflate", run: func() { dst = c.Append(dst[:0], WindowBitsMax, Text, long) }},
		{name: "deflate with a small window", run: func() { dst = c.Append(dst[:0], WindowBitsMin, Text, long) }},
		{name: "decode text", run: decode(text)},
		{name: "decode ping", run: decode(ping)},
		{name: "decode close", run: decode(closing)},
		{name: "decode in parts", run: decode(text[:3], text[3:50], text[50:])},
		{name: "decode error", run: func() {
			var d Decoder
			if _, _, _, err := d.Next(lim, unmaskedFrame); err == nil {
				t.Fatal("unmasked frame accepted")
			}
		}},
		{name: "peek", run: func() { d.Peek(lim, text) }},
		{name: "frame", run: func() { dst = AppendFrame(dst[:0], Binary, payload) }},
		{name: "masked", run: func() { dst = AppendMasked(dst[:0], Binary, true, payload, benchMask) }},
		{name: "close", run: func() { dst = AppendClose(dst[:0], CloseRestart, "drain; retry-after=12") }},
		{name: "head of a browser", run: upgrade(head, 0)},
		{name: "head with IPv6", run: upgrade(ipv6, 0)},
	}
	for _, c := range cases {
		if n := testing.AllocsPerRun(100, c.run); n != 0 {
			t.Errorf("%s: %v allocations, want 0", c.name, n)
		}
	}
	// The body gets its newline by concatenation.
	if n := testing.AllocsPerRun(100, upgrade(refused, 426)); n > 1 {
		t.Errorf("refusal: %v allocations, want at most 1", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		scanned := 0
		h, _, _ := ParseHead(head, &scanned, HeadLimits{})
		dst, _ = AppendUpgrade(dst[:0], &h, Accept{})
	}); n > 2 {
		t.Errorf("upgrade: %v allocations, want at most 2, none of which stays", n)
	}
}
