package server

import (
	"bytes"
	"compress/flate"
	"fmt"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// offer is a line of a request that asks for compression.
func offer(params string) string { return "Sec-WebSocket-Extensions: permessage-deflate" + params }

// deflated is the payload of a compressed message as RFC 7692, section 7.2.1 makes it, by the standard library.
func deflated(t testing.TB, data string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// compressed is a masked frame with the bit that says so.
func compressed(op wsframe.Opcode, fin bool, payload []byte) []byte {
	frame := masked(op, fin, string(payload))
	frame[0] |= 0x40
	return frame
}

// dialDeflate opens a connection that agreed on compression.
func (s *running) dialDeflate(t testing.TB, params string) *peer {
	t.Helper()
	p := s.dial(t, "/ws", offer(params))
	if !strings.Contains(p.response, "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover") {
		t.Fatalf("%q was answered %q", params, p.response)
	}
	p.limits.Deflate = true
	return p
}

// inflate returns the next message and whether it was compressed.
func (p *peer) inflate() (text string, was bool) {
	p.t.Helper()
	m := p.nextBut()
	was = m.Compressed
	var x wsframe.Inflater
	m, err := x.Inflate(&p.limits, m)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(m.Payload), was
}

// TestCompression: what is agreed on is used in both directions: whole messages and fragmented ones, long ones compressed in the answer, short ones
// not; control frames between; plain ones too; and nothing of it is kept of an idle connection.
func TestCompression(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{Compression: true}, Echo{})
		for _, params := range []string{"", "; client_max_window_bits", "; server_max_window_bits=10", "; server_max_window_bits=8; client_max_window_bits=9", "; server_no_context_takeover; client_no_context_takeover"} {
			p := s.dialDeflate(t, params)
			long := strings.Repeat("the same again and again, ", 1000)
			for round := range 3 {
				text := fmt.Sprint(round) + long
				p.write(compressed(wsframe.Text, true, deflated(t, text)))
				if got, was := p.inflate(); got != text || !was {
					t.Fatalf("%q: got %d bytes, compressed %v", params, len(got), was)
				}
			}
			p.write(compressed(wsframe.Text, true, deflated(t, "short")))
			if got, was := p.inflate(); got != "short" || was {
				t.Errorf("got %q, compressed %v", got, was)
			}
			p.send(wsframe.Text, long) // a peer need not compress
			if got, _ := p.inflate(); got != long {
				t.Errorf("got %d bytes of a plain message", len(got))
			}
			noise := randomText(5000)
			p.write(compressed(wsframe.Binary, true, deflated(t, noise)))
			if got, _ := p.inflate(); got != noise {
				t.Errorf("got %d bytes of noise", len(got))
			}
			d := deflated(t, long)
			p.write(compressed(wsframe.Text, false, d[:10]))
			p.send(wsframe.Ping, "between")
			p.expect(wsframe.Pong, "between")
			p.write(masked(wsframe.Continuation, false, ""))
			p.write(masked(wsframe.Continuation, true, string(d[10:])))
			if got, was := p.inflate(); got != long || !was {
				t.Errorf("got %d bytes of fragments, compressed %v", len(got), was)
			}
			p.write(compressed(wsframe.Text, true, []byte{0})) // RFC 7692, 7.2.3.6: an empty message
			if got, _ := p.inflate(); got != "" {
				t.Errorf("got %q of an empty message", got)
			}
		}
		await(t, "nothing is kept", func() bool { return s.sidesKept() == 0 })
	})
}

// TestCompressionIsAsked: nobody gets it who did not ask, nobody where it is off, and an offer that can't be taken is declined.
func TestCompressionIsAsked(t *testing.T) {
	off, on := start(t, Config{}, Echo{}), start(t, Config{Compression: true}, Echo{})
	for _, tt := range []struct {
		name  string
		s     *running
		lines []string
	}{
		{"off", off, []string{offer("")}},
		{"not asked", on, nil},
		{"another extension", on, []string{"Sec-WebSocket-Extensions: x-webkit-deflate-frame"}},
		{"a window that deflate doesn't have", on, []string{offer("; server_max_window_bits=7")}},
		{"an unknown parameter", on, []string{offer("; level=9")}},
	} {
		p := tt.s.dial(t, "/ws", tt.lines...)
		if strings.Contains(p.response, "Extensions") {
			t.Errorf("%s: answered %q", tt.name, p.response)
		}
		long := strings.Repeat("x", 1000)
		p.send(wsframe.Text, long)
		p.expect(wsframe.Text, long)
		p.write(compressed(wsframe.Text, true, deflated(t, "x")))
		p.expectClose(wsframe.CloseProtocol)
	}
}

// TestCompressedAttacks: each ends with its code, and costs no more than a message may.
func TestCompressedAttacks(t *testing.T) {
	const limit = 10_000
	bomb := deflated(t, strings.Repeat("\x00", 50<<20))
	for _, tt := range []struct {
		name string
		sent []byte
		code wsframe.CloseCode
	}{
		{"a bomb", compressed(wsframe.Binary, true, bomb[:min(len(bomb), 5000)]), wsframe.CloseTooBig},
		{"a byte beyond the limit", compressed(wsframe.Binary, true, deflated(t, strings.Repeat("a", limit+1))), wsframe.CloseTooBig},
		{"far too many compressed bytes", compressed(wsframe.Binary, true, make([]byte, 2*limit)), wsframe.CloseTooBig},
		{"no deflate", compressed(wsframe.Binary, true, []byte("\xff\xff\xff\xff")), wsframe.CloseInvalidUTF8},
		{"cut in the middle", compressed(wsframe.Binary, true, deflated(t, randomText(500))[:100]), wsframe.CloseInvalidUTF8},
		{"text that is not UTF-8", compressed(wsframe.Text, true, deflated(t, "a\xff")), wsframe.CloseInvalidUTF8},
		{"a context that was not agreed on", compressed(wsframe.Binary, true, []byte{0x02, 0x43, 0x00}), wsframe.CloseInvalidUTF8},
		{"a compressed ping", compressed(wsframe.Ping, true, deflated(t, "x")), wsframe.CloseProtocol},
		{"a compressed continuation", append(compressed(wsframe.Text, false, deflated(t, "x")), compressed(wsframe.Continuation, true, nil)...), wsframe.CloseProtocol},
		{"reserved bit 2", func() []byte { f := masked(wsframe.Text, true, "x"); f[0] |= 0x60; return f }(), wsframe.CloseProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, runners(), func(t *testing.T, v variant) {
				s := v.start(t, Config{Compression: true, MessageSizeLimit: limit, MaxBackpressure: 8 * limit}, Echo{})
				ok := s.dialDeflate(t, "")
				p := s.dialDeflate(t, "")
				p.write(tt.sent)
				p.expectClose(tt.code)
				full := strings.Repeat("a", limit)
				ok.write(compressed(wsframe.Binary, true, deflated(t, full)))
				if got, _ := ok.inflate(); got != full {
					t.Errorf("a message at the limit came back with %d bytes", len(got))
				}
			})
		})
	}
}

// TestPreparedForAll: one message to connections with every agreement there is. Who inflates with the largest window would not notice a frame that is
// wrong for a smaller one, so the frames are compared with those that are right.
func TestPreparedForAll(t *testing.T) {
	s := start(t, Config{Compression: true, HandlerInline: true}, Echo{})
	plain := s.dial(t, "/ws")
	var peers []*peer
	for bits := wsframe.WindowBitsMax; bits >= wsframe.WindowBitsMin; bits-- { // the smallest is not the first that the message is compressed for
		peers = append(peers, s.dialDeflate(t, fmt.Sprintf("; server_max_window_bits=%d", bits)))
	}
	peers = append(peers, s.dialDeflate(t, ""))
	await(t, "all are there", func() bool { return s.open() == len(peers)+1 })
	long := strings.Repeat(strings.Repeat("to all of you, ", 50)+randomText(1000), 20) // repeats within and beyond the smallest window
	if n, err := s.Broadcast(Text, []byte(long)); n != len(peers)+1 || err != nil {
		t.Fatalf("reached %d, %v", n, err)
	}
	plain.expect(wsframe.Text, long)
	var c wsframe.Deflater
	smallest := c.Append(nil, wsframe.WindowBitsMin, wsframe.Text, []byte(long))
	largest := c.Append(nil, wsframe.WindowBitsMax, wsframe.Text, []byte(long))
	if bytes.Equal(smallest, largest) {
		t.Fatal("the window makes no difference to this message")
	}
	for i, p := range peers {
		want := smallest
		if i == 0 || i == len(peers)-1 {
			want = largest
		}
		m := p.nextBut()
		if frame := wsframe.AppendFrame(nil, wsframe.Text, m.Payload); !m.Compressed || !bytes.Equal(frame[1:], want[1:]) {
			t.Errorf("peer %d got %d bytes, compressed %v, which are not right for its window", i, len(m.Payload), m.Compressed)
		}
		var x wsframe.Inflater
		if m, err := x.Inflate(&p.limits, m); err != nil || string(m.Payload) != long {
			t.Errorf("peer %d got a message of %d bytes, %v", i, len(m.Payload), err)
		}
	}
}
