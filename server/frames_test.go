package server

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestEchoSizes: messages of every kind of length come back, whole, and one byte over the limit is too much.
func TestEchoSizes(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		for _, size := range []int{0, 1, 2, 7, 125, 126, 127, 1000, 4096, 32 << 10, 65535, 65536} {
			payload := randomText(size)
			p.send(wsframe.Text, payload)
			p.expect(wsframe.Text, payload)
			p.send(wsframe.Binary, payload)
			p.expect(wsframe.Binary, payload)
		}
		p.send(wsframe.Binary, randomText(65537))
		p.expectClose(wsframe.CloseTooBig)
		_ = p.Close()
		await(t, "it is counted", func() bool { return s.Stats().Closed["too_big"] == 1 })
	})
}

func randomText(size int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = 'a' + byte(rand.IntN(26))
	}
	return string(b)
}

// TestLargeMessages: with a higher limit a message may be larger than all buffers; without one, larger still.
func TestLargeMessages(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit int
		size  int
	}{
		{"a limit of 1 MiB", 1 << 20, 1 << 20},
		{"no limit", -1, 3 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				s := v.start(t, Config{MessageSizeLimit: tt.limit}, Echo{})
				p := s.dial(t, "/ws")
				payload := randomText(tt.size)
				p.send(wsframe.Binary, payload)
				p.expect(wsframe.Binary, payload)
				p.send(wsframe.Text, "next")
				p.expect(wsframe.Text, "next")
			})
		})
	}
}

// TestSplitFrames cuts a stream of frames at every kind of place.
func TestSplitFrames(t *testing.T) {
	var stream []byte
	var want []string
	for _, size := range []int{0, 3, 126, 300} {
		payload := randomText(size)
		stream = append(stream, masked(wsframe.Text, true, payload)...)
		want = append(want, payload)
	}
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		for _, piece := range []int{1, 2, 3, 7, 100} {
			for rest := stream; len(rest) > 0; {
				n := min(piece, len(rest))
				p.write(rest[:n])
				rest = rest[n:]
			}
			for _, payload := range want {
				p.expect(wsframe.Text, payload)
			}
		}
	})
}

// TestManyMessagesInOnePacket: more than one loan may serve come in one packet, and after it nothing that would be an event.
func TestManyMessagesInOnePacket(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		const messages = 5*loanMessagesMax + 7
		var packet []byte
		for i := range messages {
			packet = append(packet, masked(wsframe.Text, true, fmt.Sprint(i))...)
		}
		p.write(packet)
		for i := range messages {
			p.expect(wsframe.Text, fmt.Sprint(i))
		}
		await(t, "they are counted", func() bool {
			st := s.Stats()
			return st.MessagesIn == messages && st.MessagesOut == messages
		})
	})
}

// TestFragments with pings between them, which are answered at once.
func TestFragments(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		p.write(masked(wsframe.Text, false, "gr\xc3"))
		p.send(wsframe.Ping, "1")
		p.expect(wsframe.Pong, "1")
		p.write(masked(wsframe.Continuation, false, ""))
		p.write(masked(wsframe.Continuation, false, "\xbc\xc3"))
		p.send(wsframe.Ping, "")
		p.expect(wsframe.Pong, "")
		p.send(wsframe.Pong, "nobody asked")
		p.write(masked(wsframe.Continuation, true, "\x9fe"))
		p.expect(wsframe.Text, "grüße")
	})
}

// TestViolations: each is answered with its code, and counted under its cause.
func TestViolations(t *testing.T) {
	raw := func(digits string) string {
		b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	frame := func(op wsframe.Opcode, fin bool, payload string) string { return string(masked(op, fin, payload)) }
	tests := []struct {
		name  string
		sent  string
		code  wsframe.CloseCode
		cause string
	}{
		{"reserved bit 1", raw("c1 80 00000000"), 1002, "protocol"},
		{"reserved bit 2", raw("a1 80 00000000"), 1002, "protocol"},
		{"reserved bit 3", raw("91 80 00000000"), 1002, "protocol"},
		{"reserved opcode", raw("83 80 00000000"), 1002, "protocol"},
		{"reserved control opcode", raw("8b 80 00000000"), 1002, "protocol"},
		{"not masked", raw("81 01 61"), 1002, "protocol"},
		{"fragmented ping", frame(wsframe.Ping, false, ""), 1002, "protocol"},
		{"long ping", frame(wsframe.Ping, true, strings.Repeat("x", 126)), 1002, "protocol"},
		{"continuation of nothing", frame(wsframe.Continuation, true, "x"), 1002, "protocol"},
		{"message in a message", frame(wsframe.Text, false, "x") + frame(wsframe.Text, true, "x"), 1002, "protocol"},
		{"length not minimal", raw("82 fe 0001 00000000 61"), 1002, "protocol"},
		{"a length beyond all", raw("82 ff 8000000000000000 00000000"), 1002, "protocol"},
		{"a length beyond the limit", raw("82 ff 7fffffffffffffff 00000000"), 1009, "too_big"},
		{"fragments beyond the limit", frame(wsframe.Text, false, randomText(40_000)) + frame(wsframe.Continuation, false, randomText(40_000)), 1009, "too_big"},
		{"text that is not UTF-8", frame(wsframe.Text, true, "a\xffb"), 1007, "encoding"},
		{"text cut inside a character", frame(wsframe.Text, true, "\xc3"), 1007, "encoding"},
		{"not UTF-8 in a fragment", frame(wsframe.Text, false, "ok")[:8] + frame(wsframe.Continuation, false, "\xf5"), 1007, "encoding"},
		{"too many fragments", frame(wsframe.Text, false, "x") + strings.Repeat(frame(wsframe.Continuation, false, "x"), 20), 1008, "policy"},
		{"too many empty fragments", frame(wsframe.Text, false, "x") + strings.Repeat(frame(wsframe.Continuation, false, ""), emptyFragmentsMax+1), 1008, "policy"},
		{"close of one byte", frame(wsframe.Close, true, "\x03"), 1002, "protocol"},
		{"close with a code nobody may send", frame(wsframe.Close, true, "\x03\xed"), 1002, "protocol"},
		{"close with a reason that is not UTF-8", frame(wsframe.Close, true, "\x03\xe8\xff"), 1007, "encoding"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				fragments := 16
				if strings.Contains(tt.name, "empty") {
					fragments = -1
				}
				h, _, messages, closes := reporter()
				s := v.start(t, Config{MaxFragments: fragments}, h)
				p := s.dial(t, "/ws")
				p.send(wsframe.Text, "before")
				p.write([]byte(tt.sent + frame(wsframe.Text, true, "after")))
				reason := p.expectClose(tt.code)
				if reason == "" || strings.Trim(reason, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
					t.Errorf("reason %q is no slug", reason)
				}
				_ = p.Close()
				if got := receive(t, "Close", closes); got != (ended{uint16(tt.code), reason}) {
					t.Errorf("the handler was told %v, the peer %d %q", got, tt.code, reason)
				}
				if got := receive(t, "the message before", messages); got != "text before" || len(messages) != 0 {
					t.Errorf("delivered %q and %d more", got, len(messages))
				}
				await(t, "it is counted", func() bool { return s.Stats().Closed[tt.cause] == 1 })
			})
		})
	}
}

// TestControlFlood: more pings or pongs a second than permitted end with 1008; as many as permitted don't.
func TestControlFlood(t *testing.T) {
	for _, op := range []wsframe.Opcode{wsframe.Ping, wsframe.Pong} {
		t.Run(op.String(), func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				const limit = 10
				s := v.start(t, Config{ControlRateLimit: limit}, Echo{})
				p := s.dial(t, "/ws")
				p.write([]byte(strings.Repeat(string(masked(op, true, "x")), limit)))
				if op == wsframe.Ping {
					for range limit {
						p.expect(wsframe.Pong, "x")
					}
				}
				p.send(wsframe.Text, "still here")
				p.expect(wsframe.Text, "still here")
				p.write([]byte(strings.Repeat(string(masked(op, true, "x")), 20*limit)))
				for {
					m := p.next()
					if m.Opcode == wsframe.Close {
						if code, reason, _ := wsframe.ParseClose(m.Payload); code != wsframe.ClosePolicy || reason != "control-rate" {
							t.Errorf("closed with %d %q", code, reason)
						}
						break
					}
				}
				_ = p.Close()
				await(t, "it is counted", func() bool { return s.Stats().Closed["policy"] == 1 })

				free := v.start(t, Config{ControlRateLimit: -1}, Echo{}).dial(t, "/ws")
				free.write([]byte(strings.Repeat(string(masked(op, true, "x")), 20*limit)))
				free.send(wsframe.Text, "still here")
				for m := free.next(); string(m.Payload) != "still here"; m = free.next() {
					if m.Opcode != wsframe.Pong {
						t.Fatalf("got %v %q", m.Opcode, m.Payload)
					}
				}
			})
		})
	}
}
