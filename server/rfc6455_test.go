package server

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// The sections of RFC 6455 that a server keeps as a whole; those that the frame layer decides are in wsframe/rfc6455_*_test.go. testdata/rfc6455.txt
// lists every rule that binds a server, with its tests.

// TestRFC6455ListIsComplete: each rule of the list has tests named after its section, and each test named after a section stands in the list.
func TestRFC6455ListIsComplete(t *testing.T) {
	list, err := os.ReadFile("testdata/rfc6455.txt")
	if err != nil {
		t.Fatal(err)
	}
	there, listed := testNames(t), map[string]bool{}
	rules := 0
	for line := range strings.Lines(string(list)) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if strings.HasPrefix(line, "#") || len(fields) != 3 {
			continue
		}
		rules++
		section := "TestRFC6455Section" + strings.ReplaceAll(strings.TrimSpace(fields[0]), ".", "_")
		for name := range strings.FieldsSeq(fields[2]) {
			if !there[name] {
				t.Errorf("%s is listed and isn't there", name)
			}
			if !strings.HasPrefix(name, section) {
				t.Errorf("%s is not named after %s", name, fields[0])
			}
			listed[name] = true
		}
	}
	for name := range there {
		if strings.HasPrefix(name, "TestRFC6455Section") && !listed[name] {
			t.Errorf("%s is not in the list", name)
		}
	}
	if rules < 40 {
		t.Errorf("only %d rules", rules)
	}
}

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

// TestRFC6455Section1_4DataAfterCloseIgnored: RFC 6455, 1.4: after receiving a Close frame a peer discards any further data. 5.5.2: neither is a Ping
// answered that comes then.
func TestRFC6455Section1_4DataAfterCloseIgnored(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, opens, messages, closes := reporter()
		s := v.start(t, Config{}, h)
		p := s.dial(t, "/ws")
		c := receive(t, "Open", opens)
		behind := append(masked(wsframe.Ping, true, "late"), masked(wsframe.Text, true, "late")...)
		behind = append(behind, 0xff, 0xff, 0xff) // no frame at all
		p.write(append(masked(wsframe.Close, true, "\x03\xe8"), behind...))
		p.expectClose(1000)
		p.write(behind)
		_ = p.Close()
		if got := receive(t, "Close", closes); got != (ended{code: 1000}) || len(messages) != 0 {
			t.Errorf("told %v and %d messages", got, len(messages))
		}
		if err := c.Send(Text, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Send: %v", err)
		}
	})
}

// TestRFC6455Section4_2_2UnknownResourceAborts: RFC 6455, 4.2.2, item 4: if the requested service is not available, the server MUST send an appropriate
// HTTP error code (such as 404) and abort the handshake.
func TestRFC6455Section4_2_2UnknownResourceAborts(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		for _, target := range []string{"/", "/other", "/ws/", "/WS", "/ws%20"} {
			if r := roundTrip(t, s.addr, upgradeRequest(target)); r.status != "404 Not Found" || strings.Contains(r.header, "Sec-WebSocket") {
				t.Errorf("%s: %s%s", target, r.status, r.header)
			}
		}
		if n := s.Stats().Total; n != 0 {
			t.Errorf("%d were upgraded", n)
		}
	})
}

// TestRFC6455Section4_2_2OriginRefused: RFC 6455, 4.2.2, item 4: if the server does not wish to accept the origin, it MUST return an appropriate HTTP
// error code (such as 403) and abort the handshake.
func TestRFC6455Section4_2_2OriginRefused(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{AllowedOrigins: []string{"https://good.example"}}, Echo{})
		for _, origin := range []string{"https://evil.example", "http://good.example", "https://good.example:444", "null", ""} {
			r := roundTrip(t, s.addr, upgradeRequest("/ws", "Origin: "+origin))
			if r.status != "403 Forbidden" || strings.Contains(r.header, "Sec-WebSocket") {
				t.Errorf("%q: %s%s", origin, r.status, r.header)
			}
		}
		s.dial(t, "/ws", "Origin: https://good.example")
	})
}

// TestRFC6455Section4_2_2SubprotocolOffered: RFC 6455, 4.2.2, item 5: the chosen subprotocol MUST be derived from the client's handshake, and where
// none is chosen the server MUST NOT send the field; extensions not listed by the client MUST NOT be listed.
func TestRFC6455Section4_2_2SubprotocolOffered(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{Compression: true, Upgrade: func(r *Request) (Accept, error) {
			_, choice, _ := strings.Cut(r.RawQuery, "=")
			return Accept{Protocol: choice}, nil
		}}, Echo{})
		const offer = "Sec-WebSocket-Protocol: chat, superchat"
		if p := s.dial(t, "/ws?p=superchat", offer); strings.Count(p.response, "\r\nSec-WebSocket-Protocol: superchat\r\n") != 1 {
			t.Errorf("answered %q", p.response)
		}
		for _, p := range []*peer{s.dial(t, "/ws", offer), s.dial(t, "/ws")} {
			if strings.Contains(p.response, "Sec-WebSocket-Protocol") || strings.Contains(p.response, "Sec-WebSocket-Extensions") {
				t.Errorf("answered %q", p.response)
			}
		}
		// What the application chooses beyond the offer is its error: the handshake fails, and the client sees no choice.
		if r := roundTrip(t, s.addr, upgradeRequest("/ws?p=other", offer)); r.status != "500 Internal Server Error" || strings.Contains(r.header, "Sec-WebSocket") {
			t.Errorf("%s%s", r.status, r.header)
		}
	})
}

// TestRFC6455Section5_4AnswersKeepTheirOrder: RFC 6455, 5.4: an endpoint must handle control frames in the middle of a message; 5.5.2: it answers a
// Ping as soon as practical. So a Pong leaves before the answer to a message that ended after the Ping, also if all came in one packet.
func TestRFC6455Section5_4AnswersKeepTheirOrder(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		var packet []byte
		for _, frame := range [][]byte{
			masked(wsframe.Text, true, "one"), masked(wsframe.Ping, true, "p1"), masked(wsframe.Text, false, "tw"), masked(wsframe.Ping, true, "p2"),
			masked(wsframe.Continuation, true, "o"), masked(wsframe.Text, true, `{"type":"heartbeat"}`), masked(wsframe.Text, true, "three"),
		} {
			packet = append(packet, frame...)
		}
		p.write(packet)
		p.expect(wsframe.Text, "one")
		p.expect(wsframe.Pong, "p1")
		p.expect(wsframe.Pong, "p2")
		p.expect(wsframe.Text, "two")
		p.expect(wsframe.Text, `{"type":"heartbeat_ack"}`)
		p.expect(wsframe.Text, "three")
	})
}

// TestRFC6455Section5_5_1NothingSentAfterClose: RFC 6455, 5.5.1: the application MUST NOT send any more data frames after sending a Close frame. What
// is sent, prepared or broadcast then is refused, and the peer sees the end of the stream behind the Close.
func TestRFC6455Section5_5_1NothingSentAfterClose(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, opens, _, _ := reporter()
		s := v.start(t, Config{}, h)
		p := s.dial(t, "/ws")
		c := receive(t, "Open", opens)
		prepared, err := Prepare(Text, []byte("late"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close(4000, "done")
		if err := c.Send(Text, []byte("late")); !errors.Is(err, ErrClosed) {
			t.Errorf("Send: %v", err)
		}
		if err := c.SendPrepared(prepared); !errors.Is(err, ErrClosed) {
			t.Errorf("SendPrepared: %v", err)
		}
		if n, err := s.Broadcast(Text, []byte("late")); n != 0 || err != nil {
			t.Errorf("Broadcast reached %d, %v", n, err)
		}
		_, _ = p.Write(masked(wsframe.Ping, true, "late"))
		p.expectClose(4000)
	})
}

// TestRFC6455Section5_5_2PingIsAnswered: RFC 6455, 5.5.2: upon receipt of a Ping an endpoint MUST send a Pong, unless it already received a Close.
func TestRFC6455Section5_5_2PingIsAnswered(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		s := v.start(t, Config{}, Echo{})
		p := s.dial(t, "/ws")
		for _, before := range []string{"", string(masked(wsframe.Text, false, "half")), string(masked(wsframe.Continuation, false, ""))} {
			p.write(append([]byte(before), masked(wsframe.Ping, true, "p")...))
			p.expect(wsframe.Pong, "p")
		}
		p.write(append(masked(wsframe.Close, true, "\x03\xe8"), masked(wsframe.Ping, true, "late")...))
		p.expectClose(1000)
	})
}

// TestRFC6455Section7_1_1CleanClose: RFC 6455, 7.1.1: TCP is closed cleanly. A peer that goes on sending for a while sees the Close frame and the end of
// the stream, not a reset that destroys them.
func TestRFC6455Section7_1_1CleanClose(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, opens, _, _ := reporter()
		s := v.start(t, Config{}, h)
		p := s.dial(t, "/ws")
		receive(t, "Open", opens).Close(4000, "done")
		for range 50 {
			p.write(masked(wsframe.Binary, true, strings.Repeat("x", 10_000)))
		}
		p.expectClose(4000)
		_ = p.Close()
		await(t, "it is gone", func() bool { return s.Stats().Closed["application"] == 1 })
	})
}

// TestRFC6455Section7_1_2CloseIsStarted: RFC 6455, 7.1.2: to start the closing handshake an endpoint MUST send a Close frame with the code and reason
// given. The peer's answer ends the connection, and its own code changes nothing.
func TestRFC6455Section7_1_2CloseIsStarted(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, opens, _, closes := reporter()
		s := v.start(t, Config{}, h)
		for _, code := range []uint16{1000, 1001, 1011, 3000, 4999} {
			p := s.dial(t, "/ws")
			receive(t, "Open", opens).Close(code, "because")
			if reason := p.expectClose(wsframe.CloseCode(code)); reason != "because" {
				t.Errorf("%d: reason %q", code, reason)
			}
			p.send(wsframe.Close, "\x03\xe9")
			_ = p.Close()
			if got := receive(t, "Close", closes); got != (ended{code, "because"}) {
				t.Errorf("told %v", got)
			}
		}
	})
}

// TestRFC6455Section7_1_5CodesAreTold: RFC 6455, 7.1.5: the connection's close code is that of the first Close frame received, 1005 for one without, and
// 1006 where none came. 7.1.6: its reason is that of the frame, else empty.
func TestRFC6455Section7_1_5CodesAreTold(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, opens, _, closes := reporter()
		s := v.start(t, Config{}, h)
		for _, tt := range []struct {
			sent string
			code uint16
			text string
		}{
			{string(masked(wsframe.Close, true, "\x0f\xa0why")) + string(masked(wsframe.Close, true, "\x03\xe8")), 4000, "why"},
			{string(masked(wsframe.Close, true, "\x03\xe8")), 1000, ""},
			{string(masked(wsframe.Close, true, "")), 1005, ""},
			{string(masked(wsframe.Text, false, "half")), 1006, "end-of-stream"},
		} {
			p := s.dial(t, "/ws")
			receive(t, "Open", opens)
			p.write([]byte(tt.sent))
			_ = p.Close()
			if got := receive(t, "Close", closes); got != (ended{tt.code, tt.text}) {
				t.Errorf("told %v, want %d %q", got, tt.code, tt.text)
			}
		}
	})
}

// TestRFC6455Section7_1_7FailedConnection: RFC 6455, 7.1.7: who fails the connection sends a Close frame with a status code, then closes, and MUST NOT
// go on to process data, a Close frame of the peer included.
func TestRFC6455Section7_1_7FailedConnection(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, _, messages, closes := reporter()
		s := v.start(t, Config{}, h)
		behind := append(masked(wsframe.Text, true, "late"), masked(wsframe.Ping, true, "late")...)
		behind = append(behind, masked(wsframe.Close, true, "\x03\xe8")...)
		p := s.dial(t, "/ws")
		p.write(append([]byte{0x83, 0x80, 0, 0, 0, 0}, behind...)) // a reserved opcode
		p.expectClose(wsframe.CloseProtocol)
		p.write(behind)
		_ = p.Close()
		if got := receive(t, "Close", closes); got.code != 1002 || len(messages) != 0 {
			t.Errorf("told %v and %d messages", got, len(messages))
		}
		await(t, "it is counted", func() bool { return s.Stats().Closed["protocol"] == 1 })
	})
}

// TestRFC6455Section7_4_1CodesNeverSent: RFC 6455, 7.4.1: 1005, 1006 and 1015 MUST NOT be set as a status code in a Close frame; 1004 is reserved. Where an
// application asks for one, or for a number that is no code, 1011 is sent, or nothing for 1005.
func TestRFC6455Section7_4_1CodesNeverSent(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, opens, _, _ := reporter()
		s := v.start(t, Config{}, h)
		for code, want := range map[uint16]wsframe.CloseCode{1005: wsframe.CloseNoStatus, 1004: 1011, 1006: 1011, 1015: 1011, 999: 1011, 2999: 1011, 5000: 1011, 65535: 1011} {
			p := s.dial(t, "/ws")
			receive(t, "Open", opens).Close(code, "")
			p.expectClose(want)
			_ = p.Close()
		}
	})
}

// TestRFC6455Section8_1NotUTF8Fails: RFC 6455, 8.1: who finds that text is not UTF-8 MUST fail the connection; here before the message is complete,
// since no byte that may follow can mend it. 5.6: nothing that isn't UTF-8 is sent as text.
func TestRFC6455Section8_1NotUTF8Fails(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		h, opens, messages, _ := reporter()
		s := v.start(t, Config{}, h)
		for _, sent := range [][]byte{
			masked(wsframe.Text, true, "ok\xff and what never comes")[:9],
			masked(wsframe.Text, false, "ok\xed\xa0"),
			append(masked(wsframe.Text, false, "\xce"), masked(wsframe.Continuation, true, "a")...),
		} {
			p := s.dial(t, "/ws")
			p.write(sent)
			p.expectClose(wsframe.CloseInvalidUTF8)
			if err := receive(t, "Open", opens).Send(Text, []byte("\xff")); err == nil || len(messages) != 0 {
				t.Errorf("Send: %v, and %d messages were delivered", err, len(messages))
			}
			_ = p.Close()
		}
	})
}
