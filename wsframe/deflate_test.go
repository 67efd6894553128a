package wsframe

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestDeflaterRoundTrip compresses all kinds of data with all windows and checks what a client would: that the frame is
// well formed and no longer than a plain one, that it inflates to the same bytes, and that no match reaches farther back
// than was agreed.
func TestDeflaterRoundTrip(t *testing.T) {
	var c Deflater
	payloads := map[string][]byte{
		"empty":           nil,
		"short":           []byte("short"),
		"below the least": bytes.Repeat([]byte("a"), CompressBytesMin-1),
		"the least":       bytes.Repeat([]byte("a"), CompressBytesMin),
		"distant repeats": bytes.Repeat(sample("noise", 5000, 1), 30),
	}
	for _, like := range []string{"json", "html", "prose", "image", "noise"} {
		for _, size := range []int{128, 129, 300, 1000, 5000, 65535, 65536, 100_000} {
			payloads[like+" "+strings.Repeat("i", len(like)+size/1000)] = sample(like, size, size)
		}
	}
	for name, payload := range payloads {
		for d := Deflate(WindowBitsMin); d <= WindowBitsMax; d++ {
			frame := c.Append([]byte("before"), d, Binary, payload)
			frame, ok := bytes.CutPrefix(frame, []byte("before"))
			if !ok || len(frame) > HeaderBytes(len(payload))+len(payload) {
				t.Fatalf("%s, %d bits: %d bytes became a frame of %d", name, d, len(payload), len(frame))
			}
			compressed := frame[0]&bitCompressed != 0
			if compressed && len(payload) < CompressBytesMin {
				t.Errorf("%s: compressed", name)
			}
			if strings.HasPrefix(name, "the least") && !compressed {
				t.Errorf("%s: not compressed", name)
			}
			if compressed {
				body := frame[len(AppendHeader(nil, Binary, true, frameLength(t, frame))):]
				if far := farthestMatch(t, append(slices.Clone(body), syncTail+finalTail...)); far > 1<<d {
					t.Errorf("%s: a match %d bytes back, agreed are %d", name, far, 1<<d)
				}
			}
			events, reason := inflateAll(t, &Limits{Client: true, Deflate: true}, frame)
			if reason != "" || len(events) != 1 || events[0].payload != string(payload) || events[0].op != Binary {
				t.Fatalf("%s, %d bits: got %v %q", name, d, events, reason)
			}
		}
	}
}

// TestDeflaterLeavesPlain: without an agreement, below the least size and without gain a message goes out as it is.
func TestDeflaterLeavesPlain(t *testing.T) {
	var c Deflater
	noise := sample("noise", 3000, 7)
	for _, tt := range []struct {
		name    string
		d       Deflate
		payload []byte
	}{
		{name: "not agreed", payload: bytes.Repeat([]byte("a"), 1000)},
		{name: "short", d: WindowBitsMax, payload: bytes.Repeat([]byte("a"), CompressBytesMin-1)},
		{name: "noise", d: WindowBitsMax, payload: noise},
		{name: "noise in a small window", d: WindowBitsMin, payload: noise},
	} {
		if got, want := c.Append(nil, tt.d, Text, tt.payload), AppendFrame(nil, Text, tt.payload); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want the plain frame of %d", tt.name, len(got), len(want))
		}
	}
	// And the compressor that gave up is as good as new.
	if frame := c.Append(nil, WindowBitsMax, Text, bytes.Repeat([]byte("a"), 1000)); frame[0]&bitCompressed == 0 || len(frame) > 50 {
		t.Errorf("after noise: a frame of %d bytes", len(frame))
	}
}

// TestDeflaterIsShared: any number of goroutines compress at a time.
func TestDeflaterIsShared(t *testing.T) {
	var c Deflater
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				d := Deflate(WindowBitsMin + (g+i)%8)
				payload := sample("json", 1000+i, g)
				frame := c.Append(nil, d, Text, payload)
				events, reason := inflateAll(t, &Limits{Client: true, Deflate: true}, frame)
				if reason != "" || len(events) != 1 || events[0].payload != string(payload) {
					t.Errorf("goroutine %d, message %d: %v %q", g, i, events, reason)
				}
			}
		})
	}
	wg.Wait()
}

// farthestMatch decodes a deflate stream (RFC 1951) bit by bit, slowly, and returns the longest distance in it. The
// libraries don't tell.
func farthestMatch(t testing.TB, stream []byte) (far int) {
	t.Helper()
	r := &bitReader{t: t, p: stream}
	for last := false; !last; {
		last = r.bits(1) == 1
		switch r.bits(2) {
		case 0:
			r.at = (r.at + 7) &^ 7
			n := r.bits(16)
			r.at += 16 + 8*n
		case 1:
			lengths := slices.Concat(slices.Repeat([]int{8}, 144), slices.Repeat([]int{9}, 112), slices.Repeat([]int{7}, 24), slices.Repeat([]int{8}, 8))
			far = max(far, r.block(codeOf(lengths), codeOf(slices.Repeat([]int{5}, 30))))
		case 2:
			far = max(far, r.dynamic())
		default:
			t.Fatal("reserved block")
		}
	}
	return far
}

type bitReader struct {
	t  testing.TB
	p  []byte
	at int
}

func (r *bitReader) bits(n int) (v int) {
	for i := range n {
		if r.at/8 >= len(r.p) {
			r.t.Fatal("the stream ends inside a block")
		}
		v |= int(r.p[r.at/8]>>(r.at%8)&1) << i
		r.at++
	}
	return v
}

// code maps a code's length and bits to its symbol.
type code map[[2]int]int

func codeOf(lengths []int) code {
	c, next := code{}, 0
	for length := 1; length <= 15; length++ {
		next <<= 1
		for symbol, l := range lengths {
			if l == length {
				c[[2]int{length, next}] = symbol
				next++
			}
		}
	}
	return c
}

func (r *bitReader) symbol(c code) int {
	v := 0
	for length := 1; length <= 15; length++ {
		v = v<<1 | r.bits(1)
		if symbol, ok := c[[2]int{length, v}]; ok {
			return symbol
		}
	}
	r.t.Fatal("no such code")
	return 0
}

func (r *bitReader) dynamic() int {
	literals, distances, order := r.bits(5)+257, r.bits(5)+1, r.bits(4)+4
	lengths := make([]int, 19)
	for _, i := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:order] {
		lengths[i] = r.bits(3)
	}
	c := codeOf(lengths)
	var all []int
	for len(all) < literals+distances {
		switch s := r.symbol(c); s {
		case 16:
			all = append(all, slices.Repeat(all[len(all)-1:], 3+r.bits(2))...)
		case 17:
			all = append(all, make([]int, 3+r.bits(3))...)
		case 18:
			all = append(all, make([]int, 11+r.bits(7))...)
		default:
			all = append(all, s)
		}
	}
	return r.block(codeOf(all[:literals]), codeOf(all[literals:]))
}

func (r *bitReader) block(literals, distances code) (far int) {
	for {
		s := r.symbol(literals)
		switch {
		case s < 256:
			continue
		case s == 256:
			return far
		case s >= 265 && s < 285:
			r.bits((s - 261) / 4)
		}
		d := r.symbol(distances)
		if d < 4 {
			far = max(far, d+1)
			continue
		}
		extra := d/2 - 1
		far = max(far, (2+d%2)<<extra+1+r.bits(extra))
	}
}
