package server

import (
	"encoding/binary"
	"errors"
	"runtime/debug"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/pool"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// delivery is work for a handler that may block. It holds values and copies only, nothing of the connection: the loan is free
// meanwhile, so that writes, heartbeats and expiry go on. BUSY keeps further input back, which makes the order.
type delivery struct {
	kind    deliveryKind
	buf     []byte   // deliverMessages: the gathered messages
	request *Request // deliverUpgrade, deliverOpen
	code    uint16   // deliverClose
	reason  string
}

type deliveryKind uint8

const (
	deliverUpgrade deliveryKind = iota
	deliverOpen
	deliverMessages
	deliverClose
)

// verdict is what Config.Upgrade said.
type verdict struct {
	accept   Accept
	err      error
	panicked bool
}

// gatheredHead is the op and the length before each gathered message.
const gatheredHead = 1 + 4

func appendGathered(b *buffers, buf []byte, op Op, payload []byte) []byte {
	buf = b.extend(buf, len(buf)+gatheredHead+len(payload))
	buf = binary.BigEndian.AppendUint32(append(buf, byte(op)), uint32(len(payload)))
	return append(buf, payload...)
}

// submit gives a delivery of the connection under way to the handler pool and makes the connection busy. If the pool is saturated the
// delivery waits with the connection, and the loop offers it again: nothing is dropped, and nobody waits for the pool.
func (x *runner) submit(d delivery) {
	x.r.set(bitBusy) // before the handler can be done
	x.halted = true
	if !x.loop.offer(x.slot, x.r, d) {
		x.loop.tell(x, task{kind: taskParked, slot: x.slot})
	}
}

// offer gives a delivery to the handler pool, behind those of the connection that wait already. false: it waits.
func (l *loop) offer(slot uint32, r *record, d delivery) bool {
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s := shard.ofLocked(r); s == nil || len(s.waiting) == 0 {
		tok := makeToken(l.index, slot, r.load().generation())
		if err := l.server.handlers.Submit(tok, d); !errors.Is(err, pool.ErrSaturated) {
			return true // a closed pool ends with the server: its connections are gone
		}
	}
	s := shard.ensureLocked(r)
	s.waiting = append(s.waiting, d)
	return false
}

// offerAgain gives the oldest waiting deliveries of a connection to the pool. true: none is left.
func (l *loop) offerAgain(slot uint32) bool {
	r := l.table.at(slot)
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	s := shard.ofLocked(r)
	if s == nil {
		return true
	}
	tok := makeToken(l.index, slot, r.load().generation())
	for len(s.waiting) > 0 {
		if err := l.server.handlers.Submit(tok, s.waiting[0]); errors.Is(err, pool.ErrSaturated) {
			return false
		}
		s.waiting = s.waiting[1:]
	}
	s.waiting = nil
	return true
}

// runDelivery is what a worker of the handler pool does.
func (s *Server) runDelivery(_ int, tok poller.Token, d delivery) {
	l := s.loops[tokenLoop(tok)]
	slot, generation := tokenSlot(tok), tokenGeneration(tok)
	r := l.table.at(slot)
	c := Conn{server: s, token: tok}
	switch d.kind {
	case deliverUpgrade:
		v := s.judge(d.request)
		shard := l.sides.shard(slot)
		shard.mu.Lock()
		if r.load().generation() == generation {
			shard.ensureLocked(r).verdict = &v
		}
		shard.mu.Unlock()
		r.stepIf(generation, func(w word) (word, bool) { return w | bitIn, false }) // something to look at
	case deliverOpen:
		s.contained(c, func() { s.handler.Open(c, d.request) })
	case deliverMessages:
		s.contained(c, func() { s.messages(c, d.buf) })
		l.buffers.put(d.buf)
	case deliverClose:
		s.contained(c, func() { s.handler.Close(c, d.code, d.reason) })
		l.post(task{kind: taskFree, slot: slot, generation: generation})
		return
	}
	if r.stepIf(generation, word.idle) {
		l.post(task{kind: taskRunnable, slot: slot})
	}
}

// messages calls the handler for each gathered message.
func (s *Server) messages(c Conn, buf []byte) {
	for len(buf) > 0 {
		op, length := Op(buf[0]), int(binary.BigEndian.Uint32(buf[1:]))
		s.handler.Message(c, op, buf[gatheredHead:gatheredHead+length:gatheredHead+length])
		buf = buf[gatheredHead+length:]
	}
}

// contained runs a call of a handler on the handler pool; its panic ends the handler's connection and nothing else.
func (s *Server) contained(c Conn, call func()) {
	defer func() {
		if value := recover(); value != nil {
			s.handlerPanics.Add(1)
			s.panicked(value, debug.Stack())
			c.conclude(ending{cause: CausePanic, code: wsframe.CloseInternal, reason: "internal"})
		}
	}()
	call()
}

// judge asks Config.Upgrade.
func (s *Server) judge(request *Request) (v verdict) {
	defer func() {
		if value := recover(); value != nil {
			s.handlerPanics.Add(1)
			s.panicked(value, debug.Stack())
			v = verdict{panicked: true}
		}
	}()
	v.accept, v.err = s.cfg.Upgrade(request)
	return v
}

// panicked logs a contained panic, at most a few a second: a peer may be able to cause it.
func (s *Server) panicked(value any, stack []byte) {
	if s.panicLog.allow(s.since()) {
		s.log.Error("handler panicked", "panic", value, "stack", string(stack))
	}
}
