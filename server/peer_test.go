package server

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// peer is the other end: a WebSocket client that does just what the test tells it, right or wrong.
type peer struct {
	net.Conn
	t        testing.TB
	limits   wsframe.Limits
	decoder  wsframe.Decoder
	in       []byte // read, not yet decoded
	response string // head of the 101
}

// dial upgrades a connection to the server's path, which may carry a query, with more header lines if wanted.
func (s *running) dial(t testing.TB, target string, lines ...string) *peer {
	t.Helper()
	p := newPeer(t, connect(t, s.addr))
	p.write([]byte(upgradeRequest(target, lines...)))
	p.readUpgrade()
	return p
}

func newPeer(t testing.TB, c net.Conn) *peer {
	return &peer{Conn: c, t: t, limits: wsframe.Limits{Client: true}}
}

// readUpgrade reads the 101. What follows it stays to be decoded.
func (p *peer) readUpgrade() {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		n, status, err := wsframe.CheckResponse(p.in, sampleKey())
		switch {
		case err != nil || n > 0 && status != 101:
			p.t.Fatalf("upgrade: status %d, %v, from %q", status, err, p.in)
		case n > 0:
			p.response, p.in = string(p.in[:n]), p.in[n:]
			return
		}
		if err := p.fill(deadline); err != nil {
			p.t.Fatalf("upgrade: %v after %q", err, p.in)
		}
	}
}

// sampleKey is the key of RFC 6455, section 1.3, which upgradeRequest sends.
func sampleKey() [16]byte { return [16]byte([]byte("the sample nonce")) }

// fill reads more input.
func (p *peer) fill(deadline time.Time) error {
	_ = p.SetReadDeadline(deadline)
	p.in = append(make([]byte, 0, len(p.in)+32<<10), p.in...)
	n, err := p.Read(p.in[len(p.in):cap(p.in)])
	p.in = p.in[:len(p.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// write sends bytes as they are.
func (p *peer) write(b []byte) {
	p.t.Helper()
	_ = p.SetWriteDeadline(time.Now().Add(2 * patience))
	if _, err := p.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// send sends a message or a control frame.
func (p *peer) send(op wsframe.Opcode, payload string) {
	p.t.Helper()
	p.write(masked(op, true, payload))
}

// masked is a frame as a client sends it.
func masked(op wsframe.Opcode, fin bool, payload string) []byte {
	n := rand.Uint32()
	return wsframe.AppendMasked(nil, op, fin, []byte(payload), [4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// read returns the next message or control frame, or why there is none by the deadline.
func (p *peer) read(deadline time.Time) (wsframe.Message, error) {
	for {
		m, n, ok, err := p.decoder.Next(&p.limits, p.in)
		p.in = p.in[n:]
		if err != nil {
			return m, err
		}
		if ok {
			m.Payload = bytes.Clone(m.Payload)
			return m, nil
		}
		if err := p.fill(deadline); err != nil {
			return m, err
		}
	}
}

// next is read for what must come.
func (p *peer) next() wsframe.Message {
	p.t.Helper()
	m, err := p.read(time.Now().Add(patience))
	if err != nil {
		p.t.Fatalf("read: %v", err)
	}
	return m
}

// nextBut answers pings and returns the next other frame.
func (p *peer) nextBut() wsframe.Message {
	p.t.Helper()
	for {
		m := p.next()
		if m.Opcode != wsframe.Ping {
			return m
		}
		p.send(wsframe.Pong, string(m.Payload))
	}
}

// expect reads the next frame, pings aside, and compares it.
func (p *peer) expect(op wsframe.Opcode, payload string) {
	p.t.Helper()
	m := p.nextBut()
	if m.Opcode != op || string(m.Payload) != payload {
		p.t.Fatalf("got %v of %d bytes %.100q, want %v of %d bytes %.100q", m.Opcode, len(m.Payload), m.Payload, op, len(payload), payload)
	}
}

// expectClose reads the Close frame, which must be the next one, and the end of the stream behind it.
func (p *peer) expectClose(code wsframe.CloseCode) (reason string) {
	p.t.Helper()
	m := p.nextBut()
	if m.Opcode != wsframe.Close {
		p.t.Fatalf("got %v %.100q, want a Close with %d", m.Opcode, m.Payload, code)
	}
	got, reason, err := wsframe.ParseClose(m.Payload)
	if err != nil || got != code {
		p.t.Fatalf("got a Close with %d %q (%v), want %d", got, reason, err, code)
	}
	p.expectEnd()
	return reason
}

// expectEnd reads the end of the stream.
func (p *peer) expectEnd() {
	p.t.Helper()
	if m, err := p.read(time.Now().Add(patience)); !errors.Is(err, io.EOF) {
		p.t.Fatalf("got %v %.100q and error %v, want the end of the stream", m.Opcode, m.Payload, err)
	}
}

// quiet fails if anything comes within d.
func (p *peer) quiet(d time.Duration) {
	p.t.Helper()
	m, err := p.read(time.Now().Add(d))
	var late net.Error
	if !errors.As(err, &late) || !late.Timeout() {
		p.t.Fatalf("got %v %.100q and error %v, want %v of silence", m.Opcode, m.Payload, err, d)
	}
}

// answer reads and answers pings until the connection ends, as a client that only wants to stay alive does. It tells the
// Close code, or 1006.
func (p *peer) answer() wsframe.CloseCode {
	for {
		m, err := p.read(time.Now().Add(10 * patience))
		switch {
		case err != nil:
			return wsframe.CloseAbnormal
		case m.Opcode == wsframe.Close:
			code, _, _ := wsframe.ParseClose(m.Payload)
			return code
		case m.Opcode == wsframe.Ping:
			if _, err := p.Write(masked(wsframe.Pong, true, string(m.Payload))); err != nil {
				return wsframe.CloseAbnormal
			}
		}
	}
}

// reset ends the connection with an RST.
func (p *peer) reset() {
	if c, ok := p.Conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = p.Close()
}
