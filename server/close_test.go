package server

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestPeerCloses: the peer's code and reason come back, and the handler is told of them.
func TestPeerCloses(t *testing.T) {
	tests := []struct {
		name    string
		payload string
		code    wsframe.CloseCode
		reason  string
	}{
		{"no code", "", wsframe.CloseNoStatus, ""},
		{"normal", "\x03\xe8", 1000, ""},
		{"normal with a reason", "\x03\xe8bye", 1000, "bye"},
		{"going away", "\x03\xe9", 1001, ""},
		{"of an application", "\x0f\xa0" + strings.Repeat("r", 123), 4000, strings.Repeat("r", 123)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				h, opens, messages, closes := reporter()
				s := v.start(t, Config{}, h)
				p := s.dial(t, "/ws")
				c := receive(t, "Open", opens)
				// All in one packet: what follows the Close is not looked at (RFC 6455, 5.5.1).
				packet := append(masked(wsframe.Text, true, "before"), masked(wsframe.Close, true, tt.payload)...)
				packet = append(packet, masked(wsframe.Text, true, "after")...)
				p.write(append(packet, masked(wsframe.Ping, true, "after")...))
				if reason := p.expectClose(tt.code); reason != tt.reason {
					t.Errorf("reason %q, want %q", reason, tt.reason)
				}
				p.write(masked(wsframe.Text, true, "even later"))
				_ = p.Close()
				if got := receive(t, "Close", closes); got != (ended{uint16(tt.code), tt.reason}) {
					t.Errorf("the handler was told %v", got)
				}
				if got := receive(t, "the message before", messages); got != "text before" || len(messages) != 0 {
					t.Errorf("delivered %q and %d more", got, len(messages))
				}
				if err := c.Send(Text, nil); !errors.Is(err, ErrClosed) {
					t.Errorf("Send: %v, want ErrClosed", err)
				}
				await(t, "it is counted", func() bool { return s.Stats().Closed["client"] == 1 && s.Stats().Active == 0 })
			})
		})
	}
}

// TestServerCloses: what was sent before comes first, then the Close frame, then the end of the stream.
func TestServerCloses(t *testing.T) {
	tests := []struct {
		name   string
		code   uint16
		reason string
		sent   wsframe.CloseCode
		text   string
	}{
		{"normal", 1000, "bye", 1000, "bye"},
		{"of an application", 4999, "", 4999, ""},
		{"a long reason is cut at a character", 4000, strings.Repeat("ü", 100), 4000, strings.Repeat("ü", 61)},
		{"no code", 0, "never seen", wsframe.CloseNoStatus, ""},
		{"a code that may not be sent", 1006, "x", wsframe.CloseInternal, "x"},
		{"no code at all", 7, "x", wsframe.CloseInternal, "x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				h, opens, _, closes := reporter()
				s := v.start(t, Config{}, h)
				p := s.dial(t, "/ws")
				c := receive(t, "Open", opens)
				if err := c.Send(Text, []byte("last words")); err != nil {
					t.Fatal(err)
				}
				c.Close(tt.code, tt.reason)
				c.Close(4321, "the first counts")
				if err := c.Send(Text, []byte("too late")); !errors.Is(err, ErrClosed) {
					t.Errorf("Send: %v, want ErrClosed", err)
				}
				p.expect(wsframe.Text, "last words")
				if reason := p.expectClose(tt.sent); reason != tt.text {
					t.Errorf("reason %q, want %q", reason, tt.text)
				}
				p.send(wsframe.Close, "")
				_ = p.Close()
				if got := receive(t, "Close", closes); got.code != uint16(tt.sent) || got.reason != tt.reason {
					t.Errorf("the handler was told %v", got)
				}
				await(t, "it is counted", func() bool { return s.Stats().Closed["application"] == 1 })
			})
		})
	}
}

// TestPeerVanishes: an end of the stream and a reset without a Close frame, in whatever state.
func TestPeerVanishes(t *testing.T) {
	half := string(masked(wsframe.Text, true, "half a message"))[:9]
	for _, tt := range []struct {
		name  string
		sent  string
		reset bool
		want  ended
		cause string
	}{
		{"end of stream", "", false, ended{1006, "end-of-stream"}, "end"},
		{"end of stream behind a message", string(masked(wsframe.Text, true, "last")), false, ended{1006, "end-of-stream"}, "end"},
		{"end of stream in a frame", half, false, ended{1006, "end-of-stream"}, "end"},
		{"reset", "", true, ended{1006, "reset"}, "reset"},
		{"reset in a frame", half, true, ended{1006, "reset"}, "reset"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, variants(), func(t *testing.T, v variant) {
				h, opens, messages, closes := reporter()
				s := v.start(t, Config{}, h)
				p := s.dial(t, "/ws")
				receive(t, "Open", opens)
				p.write([]byte(tt.sent))
				if tt.reset {
					await(t, "the bytes arrived", func() bool { return s.Stats().BytesIn == uint64(len(tt.sent)) })
					p.reset()
				} else {
					_ = p.Close()
				}
				if got := receive(t, "Close", closes); got != tt.want {
					t.Errorf("the handler was told %v, want %v", got, tt.want)
				}
				if want := strings.Contains(tt.name, "behind a message"); len(messages) == 1 != want {
					t.Errorf("%d messages delivered", len(messages))
				}
				await(t, "it is counted", func() bool { return s.Stats().Closed[tt.cause] == 1 })
			})
		})
	}
}

// TestHalfClosedPeer: who ends its direction has ended the connection, but still gets what was owed.
func TestHalfClosedPeer(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		p.send(wsframe.Text, "last words")
		if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.expect(wsframe.Text, "last words")
		p.expectEnd()
		await(t, "it is counted", func() bool { return s.Stats().Closed["end"] == 1 })
	})
}

// TestPeerThatNeverCloses: after our Close frame a peer has 5 s to go, however much it still says.
func TestPeerThatNeverCloses(t *testing.T) {
	t.Parallel()
	each(t, variants()[1:3], func(t *testing.T, v variant) {
		h, opens, messages, closes := reporter()
		s := v.start(t, Config{}, h)
		p := s.dial(t, "/ws")
		c := receive(t, "Open", opens)
		began := time.Now()
		c.Close(4000, "go")
		p.expectClose(4000)
		talk := time.NewTicker(50 * time.Millisecond)
		defer talk.Stop()
		var got ended
		for got == (ended{}) {
			select {
			case got = <-closes:
			case <-talk.C:
				_, _ = p.Write(masked(wsframe.Text, true, "I stay")) // fails at the end
			case <-time.After(patience):
				t.Fatal("it may stay")
			}
		}
		if took := time.Since(began); took < closeTimeout || took > closeTimeout+2*tick+slack {
			t.Errorf("it was gone after %v, want %v", took, closeTimeout)
		}
		if got != (ended{4000, "go"}) || len(messages) != 0 {
			t.Errorf("told %v and %d messages", got, len(messages))
		}
		// The peer sees it too.
		_ = p.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, p); err == nil {
			_, err = p.Write([]byte("x"))
			for i := 0; err == nil && i < 100; i++ {
				_, err = p.Write([]byte("x"))
			}
			if err == nil {
				t.Error("the descriptor is still open")
			}
		}
	})
}

// TestCloseFromTheHandler: Close inside Open and inside Message, with more messages behind it in the same packet.
func TestCloseFromTheHandler(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		messages := make(chan string, 100)
		s := v.start(t, Config{}, hooks{
			open: func(c Conn, r *Request) {
				if r.RawQuery != "" {
					c.Close(4001, "in Open")
				}
			},
			message: func(c Conn, _ Op, data []byte) {
				messages <- string(data)
				_ = c.Send(Text, data)
				c.Close(4002, "in Message")
			},
		})
		if reason := s.dial(t, "/ws?close").expectClose(4001); reason != "in Open" {
			t.Errorf("reason %q", reason)
		}
		p := s.dial(t, "/ws")
		p.send(wsframe.Text, "one")
		p.expect(wsframe.Text, "one")
		if reason := p.expectClose(4002); reason != "in Message" {
			t.Errorf("reason %q", reason)
		}
		q := s.dial(t, "/ws")
		q.write(append(masked(wsframe.Text, true, "two"), masked(wsframe.Text, true, "three")...))
		q.expect(wsframe.Text, "two")
		q.expectClose(4002)
		if v.inline && len(messages) != 2 {
			t.Errorf("%d messages delivered, want 2: none behind its own Close", len(messages))
		}
	})
}
