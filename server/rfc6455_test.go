package server

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// The sections of RFC 6455 that a server keeps as a whole; those that the frame layer decides are in wsframe/rfc6455_*_test.go.

// TestRFC6455Section4_2_2NothingBeforeThe101: RFC 6455, 4.2.2: the response to the handshake is the first thing that a client gets, also where
// the server has something to say at once, and frames that came with the request are answered behind it.
func TestRFC6455Section4_2_2NothingBeforeThe101(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, hooks{
			open:    func(c Conn, _ *Request) { _ = c.Send(Text, []byte("welcome")) },
			message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) },
		})
		p := newPeer(t, connect(t, s.addr))
		p.write(append([]byte(upgradeRequest("/ws?heartbeat=text")), masked(wsframe.Text, true, "at once")...))
		p.readUpgrade() // fails on anything else
		if m := p.nextBut(); !bytes.HasPrefix(m.Payload, []byte(`{"type":"hello"`)) {
			t.Errorf("first came %q", m.Payload)
		}
		p.expect(wsframe.Text, "welcome")
		p.expect(wsframe.Text, "at once")
	})
}

// TestRFC6455Section5_5_1TheCodeIsEchoed: RFC 6455, 5.5.1: an endpoint that gets a Close frame and has not sent one must send one in answer, and
// typically echoes the status code; after it nothing more is sent.
func TestRFC6455Section5_5_1TheCodeIsEchoed(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		for _, code := range []wsframe.CloseCode{1000, 1001, 1003, 1011, 3000, 4999} {
			p := s.dial(t, "/ws")
			p.write(append(masked(wsframe.Close, true, string([]byte{byte(code >> 8), byte(code)})+"bye"), masked(wsframe.Text, true, "ignored")...))
			p.expectClose(code)
			_ = p.Close()
		}
		p := s.dial(t, "/ws")
		p.send(wsframe.Close, "")
		if m := p.nextBut(); m.Opcode != wsframe.Close || len(m.Payload) != 0 {
			t.Errorf("an empty Close was answered with %q", m.Payload)
		}
		p.expectEnd()
	})
}

// TestRFC6455Section5_5_3ThePongHoldsThePing: RFC 6455, 5.5.3: a Pong sent in response to a Ping must have identical application data.
func TestRFC6455Section5_5_3ThePongHoldsThePing(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{ControlRateLimit: -1}, Echo{})
		p := s.dial(t, "/ws")
		for _, payload := range []string{"", "x", "\x00\xff\xfe", strings.Repeat("p", wsframe.ControlBytesMax)} {
			p.send(wsframe.Ping, payload)
			p.expect(wsframe.Pong, payload)
		}
		p.send(wsframe.Pong, "unsolicited") // needs no answer
		p.send(wsframe.Text, "alive")
		p.expect(wsframe.Text, "alive")
	})
}

// TestRFC6455Section7_1_1TheServerClosesFirst: RFC 6455, 7.1.1: after both Close frames the server closes the TCP connection first.
func TestRFC6455Section7_1_1TheServerClosesFirst(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		p.send(wsframe.Close, "\x03\xe8")
		p.expectClose(1000) // and the end of the stream behind it, while ours is open
	})
}
