package server

import (
	"errors"
	"fmt"
	"strings"
)

// simApp is the application of the simulation: a Handler that checks the order of its calls and what it is given, echoes, sleeps
// if it may, and now and then panics; and goroutines that send, close and ask at any moment.
type simApp struct{ *simWorld }

var _ Handler = simApp{}

// peerOf finds the peer behind a connection, even before Open told of it.
func (w *simWorld) peerOf(c Conn) *simPeer {
	if p := w.byConn[c]; p != nil {
		return p
	}
	r := w.loop.table.find(tokenSlot(c.token))
	if r == nil || r.load().generation() != tokenGeneration(c.token) || r.fd < 0 {
		return nil
	}
	for _, p := range w.peers {
		if p.sock != nil && p.sock == w.kernel.sockets[r.fd] {
			return p
		}
	}
	return nil
}

// Open checks that it is the first call.
func (a simApp) Open(c Conn, r *Request) {
	a.point()
	var id int
	if _, err := fmt.Sscanf(r.RawQuery, "peer=%d", &id); err != nil {
		a.fault("Open with query %q: %v", r.RawQuery, err)
		return
	}
	p := a.peers[id]
	if p.opened {
		p.fault("opened twice")
	}
	if known := a.byConn[c]; known != nil {
		p.fault("has the handle of %s", known.name())
	}
	p.opened, p.conn = true, c
	a.byConn[c] = p
	a.known = append(a.known, c)
	c.SetValue(p)
	if !a.unix && r.RemoteAddr != p.from {
		p.fault("comes from %v, want %v", r.RemoteAddr, p.from)
	}
	if a.chance(200) {
		_ = a.send(c, p, Text, "S welcome")
	}
	a.dawdle()
	p.calmAt = a.kernel.clock
}

// Message checks that it is the next message, and echoes it.
func (a simApp) Message(c Conn, op Op, data []byte) {
	a.got++
	p := a.byConn[c]
	if p == nil || !p.opened || p.ended {
		a.fault("a message %.40q of a connection that is not open", data)
		return
	}
	m := simMessage{op, string(data)}
	switch {
	case p.delivered >= len(p.sent):
		p.fault("the handler got %.40q, which was not sent", data)
		return
	case p.sent[p.delivered] != m:
		p.fault("message %d is %.40q (%d bytes), want %.40q (%d bytes)", p.delivered, m.data, len(m.data), p.sent[p.delivered].data, len(p.sent[p.delivered].data))
	}
	p.delivered++
	at := p.delivered
	a.point()
	if err := a.send(c, p, op, m.data); errors.Is(err, ErrBackpressure) && a.inline && !p.meddled {
		p.fault("its echo was refused, though it was read only as far as there was room")
	}
	a.dawdle()
	p.calmAt = a.kernel.clock
	switch {
	case string(data) != m.data:
		p.fault("the data of a message changed under the handler")
	case p.delivered != at || p.ended:
		p.fault("the handler was called while it ran")
	}
	if a.chance(a.panicking) {
		a.panics++
		p.panicked = true
		panic("the application's own fault")
	}
}

// Close checks that it is the last call.
func (a simApp) Close(c Conn, code uint16, _ string) {
	p := a.byConn[c]
	if p == nil || p.ended {
		a.fault("Close of a connection that is not open")
		return
	}
	p.ended, p.code = true, code
	if c.Value() != p {
		p.fault("its value is %v at its end", c.Value())
	}
	a.point()
	if err := c.Send(Text, []byte("too late")); !errors.Is(err, ErrClosed) {
		p.fault("Send from Close: %v", err)
	}
	if a.chance(100) && len(a.known) > 0 {
		other := a.known[a.rand.IntN(len(a.known))]
		_ = a.send(other, a.byConn[other], Text, "S somebody left")
	}
	a.note("%s ended with %d", p.name(), code)
}

// dawdle is what handlers do that may block.
func (w *simWorld) dawdle() {
	if !w.inline && w.chance(w.dawdling) {
		w.sleep(w.between(0, w.nap))
	}
}

// send sends, and remembers what the peer must get.
func (w *simWorld) send(c Conn, p *simPeer, op Op, data string) error {
	e := &simExpected{simMessage: simMessage{op, data}}
	if p != nil {
		p.expect = append(p.expect, e)
	}
	if data != "" && data[0] == 'S' && p != nil {
		p.meddled = true
	}
	err := c.Send(op, []byte(data))
	w.settle(p, e, err)
	return err
}

// settle books the answer of Send.
func (w *simWorld) settle(p *simPeer, e *simExpected, err error) {
	e.settled = true
	switch {
	case err == nil:
		w.sent++
		if e.refused {
			p.fault("%.40q was taken, and others overtook it", e.data)
		}
		return
	case errors.Is(err, ErrBackpressure):
		p.pressed = true
	case !errors.Is(err, ErrClosed):
		w.fault("Send: %v", err)
	}
	e.refused = true
}

// meddle is another goroutine of the application.
func (w *simWorld) meddle() {
	if len(w.known) == 0 {
		return
	}
	c := w.known[w.rand.IntN(len(w.known))]
	p := w.byConn[c]
	switch w.rand.IntN(10) {
	case 0, 1:
		prepared, err := Prepare(Binary, []byte("S to all"))
		if err != nil {
			w.fault("Prepare: %v", err)
			return
		}
		for c := range w.server.Conns() {
			p := w.peerOf(c)
			e := &simExpected{simMessage: simMessage{Binary, "S to all"}}
			if p != nil {
				p.expect, p.meddled = append(p.expect, e), true
			}
			w.settle(p, e, c.SendPrepared(prepared))
		}
	case 2:
		if info, ok := c.Info(); ok != (c.ID() != "") && w.current == nil {
			w.fault("Info %v, %v", info, ok)
		}
		if value := c.Value(); value != nil && value != p {
			p.fault("its value is %v", value)
		}
		c.SetValue(p)
	case 3:
		if w.chance(500) || p.ended {
			return
		}
		p.dismissed = uint16(4000 + p.id)
		c.Close(p.dismissed, "dismissed")
	default:
		for n := range 1 + w.rand.IntN(3) {
			_ = w.send(c, p, Text, fmt.Sprintf("S %d %s", n, strings.Repeat("s", w.rand.IntN(w.messageMax))))
		}
	}
}

// upgrade is Config.Upgrade.
func (w *simWorld) upgrade(r *Request) (Accept, error) {
	w.point()
	w.dawdle()
	if w.chance(50) {
		return Accept{}, &RefusalError{Status: 403, Body: "not today"}
	}
	if w.chance(20) {
		w.panics++
		panic("the application's own fault")
	}
	return Accept{User: "somebody"}, nil
}
