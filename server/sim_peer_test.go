package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// simPeer is a client: it speaks WebSocket over a simSocket, well or badly, and knows what it must be answered.
type simPeer struct {
	w    *simWorld
	id   int
	kind simKind
	from netip.AddrPort
	key  [16]byte
	sock *simSocket

	// Its manners.
	deaf    bool          // it never reads
	mute    bool          // it answers nothing
	rest    time.Duration // between two reads, at most
	gulp    int           // bytes of one read, at most
	crumb   int           // bytes of one write, at most
	text    bool          // it asked for text heartbeats
	deflate bool          // it asks for compression
	adopted bool          // it comes through Adopt, with its request read already
	late    bool          // its request comes at the last moment, or after it
	healthy bool          // it may never be expired, nor closed for its reading

	// What it does and sees.
	out       []byte // waits for room in the socket
	pushing   bool
	waking    bool
	in        []byte // of the response
	status    int
	upgraded  bool
	agreed    bool // messages may be compressed
	decoder   wsframe.Decoder
	sent      []simMessage // that the handler must get, in this order
	delivered int          // of sent
	pings     []string     // unanswered
	acks      int          // heartbeats unacknowledged
	beatsSeen int
	goal      int // messages to be echoed before it closes; -1: it closes by the clock
	echoed    int
	closeCode uint16 // that it sent; 0: none
	seenCode  uint16 // that it was sent
	seenClose bool
	gone      string // how it learned of the end: "eof", "reset", or "left" by its own will

	// What the application did with it.
	conn      Conn
	expect    []*simExpected // what it must be sent, in this order
	opened    bool
	ended     bool
	code      uint16 // that Handler.Close was told
	wanted    []uint16
	calmAt    time.Duration // when the handler last returned
	pressed   bool          // Send answered ErrBackpressure
	panicked  bool
	meddled   bool   // it was sent something besides its echoes
	dismissed uint16 // the code of Conn.Close
}

// simMessage is a message and its kind.
type simMessage struct {
	op   Op
	data string
}

// simExpected is a message that the application sent.
type simExpected struct {
	simMessage
	settled bool // Send has returned
	refused bool // with an error
}

func (p *simPeer) name() string { return fmt.Sprintf("peer %d (%s)", p.id, p.kind) }

func (p *simPeer) fault(format string, args ...any) {
	p.w.fault(p.name()+": "+format, args...)
}

// connect begins.
func (p *simPeer) connect() {
	k := p.w.kernel
	if p.adopted {
		p.sock = k.handOver(p.w.inMax, p.w.outMax, p.w.unix)
		p.sock.peerWakes, p.sock.lastByteAt, p.sock.lastByteLate = p.wake, k.clock, p.w.late
		fd, from, unix, head := p.sock.fd, p.from, p.w.unix, p.request()
		p.w.loop.post(task{kind: taskDo, do: func(l *loop) {
			p.sock.acceptedAt = k.clock
			l.admit(fd, from, unix, head)
		}})
		return
	}
	p.sock = k.connect(p.w.port, p.from, p.w.inMax, p.w.outMax, p.w.unix)
	p.sock.peerWakes = p.wake
	if p.sock.closed {
		p.gone = "reset"
		return
	}
	p.greet()
}

// write sends bytes, in crumbs.
func (p *simPeer) write(b []byte) {
	p.out = append(p.out, b...)
	p.push()
}

// push sends what it can of what waits.
func (p *simPeer) push() {
	if p.pushing || len(p.out) == 0 || p.gone != "" {
		return
	}
	n := min(len(p.out), 1+p.w.rand.IntN(p.crumb))
	n, err := p.sock.send(p.w.kernel, p.out[:n])
	if err != nil {
		p.out = nil
		return
	}
	if n > 0 {
		p.sock.lastByteLate = p.w.late
	}
	p.out = p.out[n:]
	if n > 0 && len(p.out) > 0 {
		p.pushing = true
		p.w.after(p.w.between(0, 300*time.Microsecond), p.name()+" goes on sending", func() { p.pushing = false; p.push() })
	}
}

// wake is the kernel's hint that something can be read or written.
func (p *simPeer) wake() {
	if p.waking || p.gone != "" {
		return
	}
	p.waking = true
	rest := p.rest
	if p.closeCode != 0 || p.seenClose {
		rest = min(rest, time.Millisecond)
	}
	p.w.after(p.w.between(0, rest), p.name()+" wakes", func() { p.waking = false; p.look() })
}

// look reads once.
func (p *simPeer) look() {
	if p.gone != "" {
		return
	}
	p.push()
	if p.deaf {
		return
	}
	buf := make([]byte, 1+p.w.rand.IntN(p.gulp))
	n, err := p.sock.recv(p.w.kernel, buf)
	switch {
	case n > 0:
		p.receive(buf[:n])
		p.wake()
	case errors.Is(err, poller.ErrWouldBlock):
	case errors.Is(err, io.EOF):
		p.leave("eof")
	default:
		p.gone = "reset"
	}
}

// leave closes the peer's socket.
func (p *simPeer) leave(how string) {
	if p.gone != "" {
		return
	}
	p.gone = how
	p.out = nil
	if !p.sock.fin {
		p.sock.closeByPeer(p.w.kernel)
	}
}

// receive takes bytes of the server.
func (p *simPeer) receive(b []byte) {
	if !p.upgraded {
		p.in = append(p.in, b...)
		n, status, err := wsframe.CheckResponse(p.in, p.key)
		if err != nil {
			p.fault("response %q: %v", p.in, err)
			p.in = nil
			return
		}
		if p.status = status; n == 0 || status != 101 {
			return
		}
		p.upgraded = true
		p.agreed = bytes.Contains(p.in[:n], []byte("permessage-deflate"))
		if p.agreed != (p.deflate && p.w.compression) {
			p.fault("compression is agreed on: %v, it asked: %v, the server has it: %v", p.agreed, p.deflate, p.w.compression)
		}
		b, p.in = p.in[n:], nil
		p.begin()
	}
	lim := wsframe.Limits{Client: true, Deflate: p.agreed}
	for len(b) > 0 {
		m, n, ok, err := p.decoder.Next(&lim, b)
		if err != nil {
			p.fault("was sent nonsense: %v, at %q", err, b[:min(len(b), 40)])
			p.leave("left")
			return
		}
		if b = b[n:]; !ok {
			return
		}
		if p.seenClose {
			p.fault("a frame %v after the Close frame", m.Opcode)
		}
		if m, err = p.w.inflater.Inflate(&lim, m); err != nil {
			p.fault("was sent what can't be inflated: %v", err)
			return
		}
		p.frame(m)
	}
}

// frame is one message or control frame of the server.
func (p *simPeer) frame(m wsframe.Message) {
	switch m.Opcode {
	case wsframe.Ping:
		p.beatsSeen++
		p.answer(wsframe.Pong, string(m.Payload))
	case wsframe.Pong:
		if len(p.pings) == 0 || p.pings[0] != string(m.Payload) {
			p.fault("pong %q, want one of %q", m.Payload, p.pings)
			return
		}
		p.pings = p.pings[1:]
	case wsframe.Close:
		code, _, err := wsframe.ParseClose(m.Payload)
		if err != nil {
			p.fault("Close frame: %v", err)
		}
		p.seenClose, p.seenCode = true, uint16(code)
		p.w.after(p.w.between(0, 20*time.Millisecond), p.name()+" ends its stream", func() {
			if p.gone == "" && !p.sock.fin && !p.mute {
				p.out = nil
				p.sock.endStream(p.w.kernel)
			}
		})
	default:
		p.message(simMessage{Op(m.Opcode), string(m.Payload)})
	}
}

// answer is what a live peer says to a heartbeat.
func (p *simPeer) answer(op wsframe.Opcode, payload string) {
	if p.mute {
		return
	}
	p.w.after(p.w.between(0, 60*time.Millisecond), p.name()+" answers a heartbeat", func() {
		if p.closeCode == 0 {
			p.write(wsframe.AppendMasked(nil, op, true, []byte(payload), p.mask()))
		}
	})
}

func (p *simPeer) mask() (mask [4]byte) {
	for i := range mask {
		mask[i] = byte(p.w.rand.Uint32())
	}
	return mask
}

// message is a data message: a part of the server's own protocol, or the next one that the application sent.
func (p *simPeer) message(m simMessage) {
	switch {
	case strings.HasPrefix(m.data, `{"type":"heartbeat"`) && (p.text == strings.Contains(m.data, `"ts":`)):
		p.beatsSeen++
		ack := `{"type":"heartbeat_ack"}`
		if p.text && p.w.chance(700) {
			ack = strings.Replace(m.data, "heartbeat", "heartbeat_ack", 1)
		}
		p.answer(wsframe.Text, ack)
		return
	case m.data == `{"type":"heartbeat_ack"}`:
		if p.acks--; p.acks < 0 {
			p.fault("an acknowledgement too many")
		}
		return
	case bytes.HasPrefix([]byte(m.data), []byte(`{"type":"hello"`)):
		if !p.text {
			p.fault("hello without having asked")
		}
		return
	}
	for i, e := range p.expect {
		if e.simMessage == m && !e.refused {
			p.expect = p.expect[i+1:]
			if m.data == "" || m.data[0] == 'E' {
				p.echoed++
				p.finishIfDone()
			}
			return
		}
		if e.settled && !e.refused {
			p.fault("message %.40q (%d bytes), want %.40q (%d bytes)", m.data, len(m.data), e.data, len(e.data))
			p.expect = p.expect[i+1:]
			return
		}
		e.refused = true // it was overtaken, so it must be refused
	}
	p.fault("message %.40q (%d bytes), which nobody sent", m.data, len(m.data))
}

// say sends a message, perhaps in fragments with a ping between them, and expects the handler to get it.
func (p *simPeer) say(m simMessage) {
	p.sent = append(p.sent, m)
	p.write(p.encode(m, p.w.chance(300)))
}

// encode makes a message's frames, compressed if that was agreed on and at times.
func (p *simPeer) encode(m simMessage, fragments bool) []byte {
	data, first := m.data, byte(0)
	if p.agreed && p.w.chance(600) {
		data, first = p.w.squeeze(m)
	}
	b := p.frames(wsframe.Opcode(m.op), data, fragments)
	b[0] |= first
	return b
}

// squeeze compresses a payload, and returns with it the bit that says so; a short one stays as it is.
func (w *simWorld) squeeze(m simMessage) (payload string, bit byte) {
	const largest = 15 // bits of window
	frame := w.deflater.Append(nil, largest, wsframe.Opcode(m.op), []byte(m.data))
	header := map[byte]int{126: 4, 127: 10}[frame[1]]
	return string(frame[max(2, header):]), frame[0] & 0x40
}

func (p *simPeer) frames(op wsframe.Opcode, data string, fragments bool) []byte {
	if !fragments {
		return wsframe.AppendMasked(nil, op, true, []byte(data), p.mask())
	}
	var b []byte
	for rest := data; ; op = wsframe.Continuation {
		n := p.w.rand.IntN(len(rest) + 1)
		if fin := n == len(rest) || len(b) > 20*1024; fin {
			return wsframe.AppendMasked(b, op, true, []byte(rest), p.mask())
		}
		n = max(1, n)
		b = wsframe.AppendMasked(b, op, false, []byte(rest[:n]), p.mask())
		rest = rest[n:]
		if p.w.chance(200) && len(p.pings) < 4 {
			b = p.appendPing(b)
		}
	}
}

func (p *simPeer) appendPing(b []byte) []byte {
	payload := fmt.Sprint("ping ", p.w.rand.IntN(1000))
	p.pings = append(p.pings, payload)
	return wsframe.AppendMasked(b, wsframe.Ping, true, []byte(payload), p.mask())
}

// random is a message to be echoed.
func (p *simPeer) random(bytesMax int) simMessage {
	bytesMax = min(bytesMax, p.w.messageMax)
	n := p.w.rand.IntN(bytesMax + 1)
	if p.w.chance(700) {
		n = p.w.rand.IntN(min(bytesMax, 200) + 1)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(p.w.rand.Uint32()%26)
	}
	if n > 0 {
		b[0] = 'E'
	}
	return simMessage{Op(1 + p.w.rand.IntN(2)), string(b)}
}

// bye sends a Close frame.
func (p *simPeer) bye() {
	if p.closeCode != 0 || p.seenClose || p.gone != "" {
		return
	}
	p.closeCode = uint16(3000 + p.id)
	p.write(wsframe.AppendMasked(nil, wsframe.Close, true, []byte{byte(p.closeCode >> 8), byte(p.closeCode), 'b', 'y', 'e'}, p.mask()))
}

// finishIfDone closes when everything came back.
func (p *simPeer) finishIfDone() {
	if p.goal >= 0 && p.echoed >= p.goal {
		p.w.after(p.w.between(0, 300*time.Millisecond), p.name()+" says bye", p.bye)
	}
}

// judge says what was wrong with the peer's life, once it is over.
func (p *simPeer) judge() {
	w := p.w
	if p.opened != p.ended {
		p.fault("opened %v, ended %v", p.opened, p.ended)
	}
	if !p.opened {
		p.judgeRefused()
		return
	}
	if p.sock.unwatched {
		return
	}
	allowed := append([]uint16{p.closeCode, p.dismissed}, p.wanted...)
	if w.drains {
		allowed = append(allowed, 1012)
	}
	if p.pressed || slices.Contains(allowed, 4408) { // of who is silent while its socket is full, both are true
		allowed = append(allowed, 1013)
	}
	if p.panicked {
		allowed = append(allowed, 1011)
	}
	if !slices.Contains(allowed, p.code) || p.code == 0 {
		p.fault("ended with %d, allowed are %v", p.code, allowed)
	}
	if p.code == 4408 {
		p.judgeExpiry()
	}
	if life := p.sock.closedAt - p.sock.acceptedAt; p.beatsSeen > 2+int(4*life/w.interval) {
		p.fault("got %d heartbeats in %v", p.beatsSeen, life)
	}
	if p.seenClose && p.seenCode != p.code {
		p.fault("was sent the close code %d, the handler was told %d", p.seenCode, p.code)
	}
	if p.code == p.closeCode && p.gone == "eof" && !w.forced {
		p.judgeOutput()
	}
	told := p.dismissed != 0 && p.code == p.dismissed || p.code == 1012
	quick := p.healthy && p.kind != simSlow && w.outMax > 2000 // to read what is unsent before the closing is forced
	if told && quick && !w.forced && p.gone == "eof" && !p.seenClose {
		p.fault("ended with %d and never saw a Close frame", p.code)
	}
}

// judgeOutput: who closed in good order was sent everything that Send took before.
func (p *simPeer) judgeOutput() {
	for _, e := range p.expect {
		if !e.refused {
			p.fault("never got %.40q (%d bytes)", e.data, len(e.data))
		}
	}
	if !p.seenClose {
		p.fault("its Close frame was not answered")
	}
	if p.delivered != len(p.sent) && !p.panicked {
		p.fault("the handler got %d of %d messages", p.delivered, len(p.sent))
	}
	if len(p.pings) > 0 || p.acks > 0 {
		p.fault("%d pings and %d heartbeats were not answered", len(p.pings), p.acks)
	}
}

// judgeExpiry: silence ends a connection at its timeout, at most two ticks later.
func (p *simPeer) judgeExpiry() {
	w, s := p.w, p.sock
	if p.healthy {
		p.fault("it was expired %v after its last byte", s.closedAt-s.lastByteAt)
	}
	// Bytes that the server has not yet read, since the handler is busy, speak for their peer; so does any other edge, such as
	// room in a socket that was full.
	heard := max(s.lastByteAt, s.acceptedAt)
	least, most := w.timeout-2*time.Millisecond, w.timeout+2*tick+(w.late-s.lastByteLate)+w.slack
	if s.closedAt-heard < least || s.closedAt-max(heard, s.stirredAt, s.lastReadAt, p.calmAt) > most && !p.deaf {
		p.fault("was expired after %v of silence (%v since anything stirred), want %v to %v", s.closedAt-heard, s.closedAt-s.stirredAt, least, most)
	}
}

// judgeRefused: who didn't become a WebSocket.
func (p *simPeer) judgeRefused() {
	if p.kind == simHalfHead && p.sock.acceptedAt != 0 && p.sock.firstWriteAt != 0 && !p.w.drains {
		took := p.sock.firstWriteAt - p.sock.acceptedAt
		if most := p.w.handshake + 2*tick + p.w.late + p.w.slack; took < p.w.handshake-2*time.Millisecond || took > most {
			p.fault("half a head was answered after %v", took)
		}
	}
	if p.upgraded {
		p.fault("upgraded without Open")
	}
}
