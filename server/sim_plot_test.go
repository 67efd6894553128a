package server

import (
	"fmt"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// simKind is what a peer is up to.
type simKind int

const (
	simEcho      simKind = iota // sends messages, waits for all echoes, closes
	simIdle                     // does nothing but answer heartbeats
	simBeat                     // sends heartbeat messages of its own
	simSlow                     // pipelines a lot and reads it slowly
	simFlood                    // sends hundreds of messages at once
	simDrip                     // a frame byte by byte
	simHurry                    // messages, Close frame and junk in one write
	simSilent                   // reads and never says a word
	simVanish                   // is not there any more
	simDeaf                     // floods and never reads
	simHalfFrame                // stops inside a frame
	simFin                      // ends its stream without a Close frame
	simReset                    // resets
	simAbandon                  // close(2), whatever is under way
	simHalfHead                 // stops inside the request
	simBad                      // breaks the protocol
	simBurst                    // too many pings
	simHealth                   // asks for /healthz
	simLost                     // asks for another path
	simKinds
)

func (k simKind) String() string {
	return [simKinds]string{
		"echo", "idle", "beat", "slow", "flood", "drip", "hurry", "silent", "vanish", "deaf", "half frame", "fin", "reset", "abandon",
		"half head", "bad", "burst", "health", "lost",
	}[k]
}

// manners sets a peer up for its kind.
func (p *simPeer) manners() {
	w := p.w
	p.goal = -1
	p.rest, p.gulp, p.crumb = 2*time.Millisecond, 200+w.rand.IntN(5000), 1+w.rand.IntN(8000)
	p.text = w.chance(200)
	if w.chance(250) {
		p.rest, p.gulp = 200*time.Millisecond, 40_000 // it lives far away
	}
	p.adopted = w.chance(100) && p.kind < simReset
	p.late = w.chance(100)
	p.deflate = w.chance(500)
	abnormal := uint16(1006)
	if w.mode == HeartbeatNone && !p.text {
		p.wanted = append(p.wanted, 4408) // it is quiet at times, and nobody asks whether it is there
	}
	switch p.kind {
	case simEcho, simIdle, simFlood:
		p.healthy = w.mode != HeartbeatNone || p.text
	case simBeat, simDrip:
		p.healthy = true
	case simSlow:
		p.healthy, p.rest, p.gulp = w.mode != HeartbeatNone || p.text, 40*time.Millisecond, 1500
	case simHurry:
		p.wanted = append(p.wanted, abnormal) // what it sends behind its Close frame may turn into a reset
		if w.dawdling > 0 {
			p.wanted = append(p.wanted, 4408) // it says no more, and the handler may take longer than the timeout
		}
	case simSilent, simHalfFrame:
		p.mute, p.wanted = true, append(p.wanted, 4408)
	case simVanish, simDeaf:
		p.mute, p.deaf, p.wanted = true, true, append(p.wanted, 4408)
		p.crumb = 8000
	case simFin, simReset, simAbandon:
		p.wanted = append(p.wanted, abnormal)
	case simBurst:
		p.wanted = append(p.wanted, 1008)
	default: // the others are no WebSocket, or end as their bytes deserve
	}
	if w.lag > simLag { // decoders that take longer than the timeout are nobody's promise
		p.healthy, p.wanted = false, append(p.wanted, 4408)
	}
}

// request is the head of the upgrade request, or of another.
func (p *simPeer) request() []byte {
	w := p.w
	path := fmt.Sprintf("/ws?peer=%d", p.id)
	switch {
	case p.kind == simHealth:
		path = "/healthz"
	case p.kind == simLost:
		path = "/elsewhere"
	case p.text:
		path += "&heartbeat=text"
	}
	for i := range p.key {
		p.key[i] = byte(w.rand.Uint32())
	}
	fields := [][2]string{{"User-Agent", strings.Repeat("x", w.rand.IntN(100))}}
	if p.deflate {
		offer := "permessage-deflate"
		if w.chance(500) {
			offer = fmt.Sprint(offer, "; server_max_window_bits=", 8+w.rand.IntN(8))
		}
		fields = append(fields, [2]string{"Sec-WebSocket-Extensions", offer})
	}
	return wsframe.AppendRequest(nil, "example.org", path, p.key, fields)
}

// greet sends the request.
func (p *simPeer) greet() {
	w := p.w
	head := p.request()
	switch {
	case p.kind == simHalfHead:
		head = head[:w.rand.IntN(len(head))]
	case p.kind == simHurry && w.chance(500):
		head = append(head, p.haste()...) // frames in the packet of the head
	}
	if p.late {
		w.after(w.handshake-w.between(0, 10*time.Millisecond), p.name()+" sends its request late", func() { p.write(head) })
	} else {
		p.write(head)
	}
	if p.kind == simReset || p.kind == simAbandon {
		p.vanishSome(w.between(0, 2*w.timeout))
	}
}

// vanishSome is the end of a peer that doesn't close.
func (p *simPeer) vanishSome(after time.Duration) {
	p.w.after(after, p.name()+" goes away", func() {
		switch {
		case p.gone != "":
		case p.kind == simReset:
			p.gone, p.out = "left", nil
			p.sock.resetByPeer(p.w.kernel)
		case p.kind == simFin:
			p.out = p.out[:0]
			p.sock.endStream(p.w.kernel)
		default:
			p.leave("left")
		}
	})
}

// begin is what the peer does once it is a WebSocket.
func (p *simPeer) begin() {
	w := p.w
	switch p.kind {
	case simEcho:
		p.goal = 1 + w.rand.IntN(12)
		for range p.goal {
			p.sayAfter(w.between(0, 600*time.Millisecond), w.messageMax)
		}
	case simIdle, simBeat:
		life := w.between(0, 4*w.timeout)
		if p.kind == simBeat {
			for at := time.Duration(0); at < life; at += w.between(w.interval/4, w.interval) {
				w.after(at, p.name()+" beats", p.beat)
			}
		}
		w.after(life, p.name()+" says bye", p.bye)
	case simSlow:
		p.goal = 5 + w.rand.IntN(15)
		for range p.goal {
			p.say(p.random(w.messageMax))
		}
	case simFlood:
		p.goal = 100 + w.rand.IntN(150)
		for range p.goal {
			p.say(p.random(40))
		}
	case simDrip:
		p.drip()
	case simHurry:
		if p.closeCode == 0 {
			p.write(p.haste())
		}
	case simSilent, simVanish:
	case simDeaf:
		for range 40 {
			p.say(p.random(w.messageMax))
		}
	case simHalfFrame:
		m := p.encode(p.random(w.messageMax), false)
		p.write(m[:w.rand.IntN(len(m))])
	case simFin:
		for range w.rand.IntN(100) {
			p.say(p.random(100))
		}
		p.vanishSome(w.between(0, w.between(0, []time.Duration{3 * time.Millisecond, w.timeout}[w.rand.IntN(2)])))
	case simReset, simAbandon:
		for range w.rand.IntN(20) {
			p.say(p.random(w.messageMax))
		}
	case simBad:
		p.offend()
	case simBurst:
		for range 3 * simControlRate {
			p.write(p.appendPing(nil))
		}
	default: // the others never get here
	}
}

func (p *simPeer) sayAfter(d time.Duration, bytesMax int) {
	p.w.after(d, p.name()+" says something", func() {
		if p.closeCode == 0 && !p.seenClose && p.gone == "" {
			p.say(p.random(bytesMax))
		}
	})
}

func (p *simPeer) beat() {
	if p.closeCode == 0 && !p.seenClose && p.gone == "" {
		p.acks++
		p.write(wsframe.AppendMasked(nil, wsframe.Text, true, []byte(`{"type": "heartbeat"}`), p.mask()))
	}
}

// drip sends a frame byte by byte, each within the timeout of the one before.
func (p *simPeer) drip() {
	p.mute = true
	m := simMessage{Binary, "E" + strings.Repeat("d", 3+p.w.rand.IntN(6))}
	p.sent = append(p.sent, m)
	b := wsframe.AppendMasked(nil, wsframe.Binary, true, []byte(m.data), p.mask())
	at := time.Duration(0)
	for i := range b {
		p.w.after(at, p.name()+" drips", func() { p.write(b[i : i+1]) })
		at += p.w.between(p.w.timeout/3, p.w.timeout*2/3)
	}
	p.w.after(at, p.name()+" says bye", p.bye)
}

// haste is messages, a Close frame and what nobody may look at.
func (p *simPeer) haste() (b []byte) {
	for range p.w.rand.IntN(5) {
		m := p.random(300)
		p.sent = append(p.sent, m)
		b = append(b, p.encode(m, false)...)
	}
	p.closeCode = uint16(3000 + p.id)
	b = wsframe.AppendMasked(b, wsframe.Close, true, []byte{byte(p.closeCode >> 8), byte(p.closeCode)}, p.mask())
	return append(b, strings.Repeat("junk", p.w.rand.IntN([]int{10, 100_000}[p.w.rand.IntN(2)]))...)
}

// offend breaks the protocol, and expects to be told so.
func (p *simPeer) offend() {
	mask := p.mask()
	switch p.w.rand.IntN(5) {
	case 0: // not masked
		p.wanted = append(p.wanted, 1002)
		p.write(wsframe.AppendFrame(nil, wsframe.Text, []byte("hello")))
	case 1: // a reserved bit, or what can't be inflated
		code := uint16(1002)
		if p.agreed {
			code = 1007
		}
		p.wanted = append(p.wanted, code)
		b := wsframe.AppendMasked(nil, wsframe.Text, true, []byte("hello"), mask)
		b[0] |= 0x40
		p.write(b)
	case 2:
		p.wanted = append(p.wanted, 1007)
		p.write(wsframe.AppendMasked(nil, wsframe.Text, true, []byte{'a', 0xff, 'b'}, mask))
	case 3:
		p.wanted = append(p.wanted, 1009)
		p.write(wsframe.AppendMasked(nil, wsframe.Binary, true, make([]byte, p.w.messageMax+1), mask))
	default: // a continuation of nothing
		p.wanted = append(p.wanted, 1002)
		p.write(wsframe.AppendMasked(nil, wsframe.Continuation, true, []byte("hello"), mask))
	}
}
