package server

import (
	"bytes"
	"errors"
	"runtime/debug"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// Closing is a state with a deadline. Whoever notices that a connection must end says so with conclude; the loan then goes to the
// loop, which alone closes: the Close frame after what is unsent, half-close, drain, close(2). Closing with unread input would
// turn into a reset that destroys the Close frame and the echoes in flight.
//
//	open ─conclude─▶ CLOSE ─loop takes the loan─▶ flush ─all sent─▶ drain ─end of stream─▶ gone ─end of turn─▶ free
//	                                              └──── deadline, error, or the peer is gone ────▲

// conclude records why a connection ends; the first ending counts. The caller holds the loan, or passes it on if closing lends it.
func (l *loop) conclude(slot uint32, r *record, e ending) {
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s := shard.ensureLocked(r); s.end == nil {
		s.end = &e
	}
	r.step(word.closing)
}

// conclude ends a connection from any goroutine, unless it is gone or going already.
func (c Conn) conclude(e ending) {
	l, r := c.find()
	if r == nil {
		return
	}
	slot, generation := tokenSlot(c.token), tokenGeneration(c.token)
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	if w := r.load(); w.generation() != generation || w&bitLive == 0 {
		shard.mu.Unlock()
		return
	}
	shard.ensureLocked(r).end = &e
	lent := r.step(word.closing)
	shard.mu.Unlock()
	if lent {
		l.post(task{kind: taskClosing, slot: slot})
	}
}

// evict ends a connection for the loop's own reasons. Whoever has the loan passes it on.
func (l *loop) evict(slot uint32, r *record, e ending) {
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	if s := shard.ensureLocked(r); s.end == nil {
		s.end = &e
	}
	lent := r.step(word.closing)
	shard.mu.Unlock()
	if lent {
		l.beginClosing(slot)
	}
}

// beginClosing takes the loan of a connection for good.
func (l *loop) beginClosing(slot uint32) {
	l.owner.check()
	r := l.table.at(slot)
	r.set(bitLinger)
	r.clear(bitClose | bitLive | bitStopped)
	s := l.sides.ensure(slot, r)
	e := l.ending(slot, r)
	if r.flag(flagPeerGone) {
		l.finish(slot)
		return
	}
	if e.cause == CauseSlowConsumer && l.server.slowLog.allow(l.clock.read) {
		l.server.log.Info("slow consumer closed", "id", connID(r.id.Load()), "address", l.remoteAddr(slot, r), "unsent", r.unsent.Load())
	}
	x := l.borrowRunner(slot, r)
	opened := r.phase() == phaseOpen
	if opened {
		if e.cause == CauseSlowConsumer || e.cause.expiry() || e.cause == CauseShutdown {
			l.discardUnsent(slot, r, s)
		}
		var frame [2 + wsframe.ControlBytesMax]byte
		l.appendLast(slot, r, s, wsframe.AppendClose(frame[:0], e.code, e.reason))
	} else {
		l.appendLast(slot, r, s, e.reply)
	}
	l.wheel.Schedule(slot, l.tickAfter(closeTimeout))
	if e.cause.expiry() || e.cause == CauseShutdown || l.over {
		// Nobody is expected to answer. What the socket takes goes out; the kernel delivers it after close(2).
		x.flush()
		l.finish(slot)
		return
	}
	r.setPhase(phaseFlush)
	l.continueClosing(slot)
}

// appendLast adds the last bytes that the peer is sent, behind all that was sent before.
func (l *loop) appendLast(slot uint32, r *record, s *side, last []byte) {
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	s.pending = l.buffers.appendTo(s.pending, last)
	r.unsent.Add(uint32(len(last)))
}

// discardUnsent drops whole messages that were not begun, where the peer doesn't read them anyway; the frame under way is
// finished, since a Close frame can't come inside another.
func (l *loop) discardUnsent(slot uint32, r *record, s *side) {
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s.pending != nil {
		l.buffers.put(s.pending)
		s.pending = nil
	}
	end := 0
	if response := []byte("HTTP/"); bytes.HasPrefix(s.sending, response) {
		end = bytes.Index(s.sending, []byte("\r\n\r\n")) + len("\r\n\r\n") // the response to the upgrade must go out in any case
	}
	for end < s.sent {
		n, ok := wsframe.FrameEnd(s.sending[end:])
		if !ok {
			break
		}
		end += n
	}
	s.sending = s.sending[:min(end, len(s.sending))]
	if s.sent == len(s.sending) && s.sending != nil {
		l.buffers.put(s.sending)
		s.sending, s.sent = nil, 0
	}
	r.unsent.Store(uint32(len(s.sending) - s.sent))
}

// continueClosing goes on when the socket tells something.
func (l *loop) continueClosing(slot uint32) {
	r := l.table.at(slot)
	if r.load()&bitLinger == 0 {
		return // it went meanwhile
	}
	x := l.borrowRunner(slot, r)
	r.clear(bitsWork)
	if r.phase() == phaseFlush {
		x.flush()
		if r.flag(flagPeerGone) {
			l.finish(slot)
			return
		}
		if r.load()&bitBlocked != 0 {
			return
		}
		if err := l.sys.closeWrite(int(r.fd)); err != nil {
			l.finish(slot)
			return
		}
		r.setPhase(phaseDrain)
	}
	if r.phase() == phaseDrain {
		l.drainInput(slot, r)
	}
}

// drainInput reads and drops what the peer still says.
func (l *loop) drainInput(slot uint32, r *record) {
	for dropped := 0; dropped < loanBytesMax; {
		n, err := l.sys.read(int(r.fd), l.runner.buf)
		switch {
		case errors.Is(err, poller.ErrWouldBlock):
			return
		case err != nil:
			l.finish(slot)
			return
		}
		dropped += n
	}
	l.lingering = append(l.lingering, slot) // again in the next turn
}

// finish ends a connection whose loan the loop has. close(2) waits for the end of the turn, when no event of this batch can be
// meant for it any more.
func (l *loop) finish(slot uint32) {
	l.owner.check()
	r := l.table.at(slot)
	if r.phase() == phaseGone {
		return
	}
	r.setPhase(phaseGone)
	l.wheel.Cancel(slot)
	l.gone = append(l.gone, slot)
}

// reap closes what finished in this turn, tells the handlers and frees the slots.
func (l *loop) reap() {
	for _, slot := range l.gone {
		r := l.table.at(slot)
		_ = l.sys.closeFD(int(r.fd)) // nothing can be done about an error of close(2), and the descriptor is gone all the same
		r.fd = -1
		e := l.ending(slot, r)
		l.server.leave(l, slot, r)
		if !r.flag(flagOpened) {
			l.runner.tally[countRejected+count(e.rejected())]++
			l.handshakes.Add(-1)
			l.server.countHandshake(l, slot, r, -1)
			l.free(slot)
			continue
		}
		l.budget.leave(r.interval.Load())
		l.active.Add(-1)
		l.runner.tally[countClosed+count(e.cause)]++
		l.observeEnd(r, e.cause)
		code := e.code
		if code == 0 {
			code = wsframe.CloseNoStatus
		}
		l.tellClosed(slot, r, uint16(code), e.reason)
	}
	clear(l.gone)
	l.gone = l.gone[:0]
}

// tellClosed calls the handler's Close, last of all, and frees the slot behind it.
func (l *loop) tellClosed(slot uint32, r *record, code uint16, reason string) {
	if l.server.inline {
		l.borrowRunner(slot, r).handleClose(code, reason)
		l.free(slot)
		return
	}
	if !l.offer(slot, r, delivery{kind: deliverClose, code: code, reason: reason}) {
		l.parked = append(l.parked, slot)
	}
}

// free gives the slot back. The generation is raised first: whoever still has a Conn or a verdict for the slot can then put nothing
// more into a side table entry that the next connection would find.
func (l *loop) free(slot uint32) {
	r := l.table.at(slot)
	l.table.release(slot)
	l.sides.drop(slot, r)
	for _, field := range [...]interface{ Store(uint32) }{&r.unsent, &r.interval, &r.timeout, &r.rtt, &r.about, &r.peer} {
		field.Store(0)
	}
	r.id.Store(0)
}

// ending reads why a connection ends.
func (l *loop) ending(slot uint32, r *record) ending {
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s := shard.ofLocked(r); s != nil && s.end != nil {
		return *s.end
	}
	return ending{}
}

// rejected is the reason label of a handshake that ended so.
func (e ending) rejected() rejection {
	if e.reject == rejectNone {
		return rejectGone
	}
	return e.reject
}

// handleClose tells an inline handler of the end.
func (x *runner) handleClose(code uint16, reason string) {
	defer func() {
		if value := recover(); value != nil {
			x.tally[countPanics]++
			x.server.panicked(value, debug.Stack())
		}
	}()
	x.server.handler.Close(x.conn(), code, reason)
}
