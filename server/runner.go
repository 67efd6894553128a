package server

import (
	"errors"
	"io"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// runner is whoever serves loans: a loop, or one of the decoder workers. It owns the one read buffer that all its loans share, so
// that an idle connection has none. Loop and workers run this same code.
type runner struct {
	// Immutable.
	server *Server
	kind   count      // countBatchesLoop or countBatchesPool
	public *published // where the tally goes

	// Owned by the runner's goroutine, for the loan under way.
	loop     *loop
	slot     uint32
	r        *record
	now      moment // of the batch
	bytes    int    // read in this loan
	messages int    // and frames decoded
	expanded int    // bytes that compressed messages became
	halted   bool   // input must stop here: the rest is left
	pause    uint64 // µs for which input must wait
	out      []byte // replies, to go out with the outbox in one write
	gathered []byte // messages for a handler that may block

	// Owned by the runner's goroutine, for ever.
	buf      []byte
	bufs     [2][]byte
	decoder  wsframe.Decoder
	upgrader wsframe.Upgrader
	inflater wsframe.Inflater // costs nothing until the first compressed message
	tally    tally
}

// moment is a time of the loop's clock, in the units of the record.
type moment struct {
	ms     uint32 // wraps after 49 days: only differences count
	micros uint64
}

func newMoment(at time.Duration) moment {
	return moment{ms: uint32(at / time.Millisecond), micros: uint64(at / time.Microsecond)}
}

func newRunner(s *Server, kind count) *runner {
	return &runner{
		server: s, kind: kind, public: new(published),
		buf: make([]byte, readBytes), out: make([]byte, 0, 512),
	}
}

// batch serves loans for a loop, then publishes what it counted.
func (x *runner) batch(l *loop, now moment, slots []uint32) {
	x.loop, x.now = l, now
	expanded := 0
	for _, slot := range slots {
		if expanded >= batchExpandedMax && l.table.at(slot).deflate() != 0 {
			l.tell(x, task{kind: taskRunnable, slot: slot}) // the loan goes along; who sends plainly doesn't wait
			continue
		}
		x.serve(slot)
		expanded += x.expanded
	}
	x.tally[x.kind]++
}

// publish makes the counts visible. The loop does it once a turn.
func (x *runner) publish() { x.tally.publish(x.public) }

// serve is the holder's part of a loan: read, decode, handle, write, until nothing is owed or the budget is spent.
func (x *runner) serve(slot uint32) {
	r := x.loop.table.at(slot)
	x.slot, x.r = slot, r
	x.bytes, x.messages, x.pause, x.expanded = 0, 0, 0, 0
	for round := 0; ; round++ {
		if r.load()&bitClose != 0 {
			x.loop.tell(x, task{kind: taskClosing, slot: slot}) // the loan goes along
			return
		}
		if x.bytes >= loanBytesMax || x.expanded >= loanBytesMax || x.messages >= loanMessagesMax || round > loanMessagesMax {
			x.loop.tell(x, task{kind: taskRunnable, slot: slot}) // the loan goes along
			return
		}
		taken := r.take()
		x.halted = false
		if taken&bitsInput != 0 {
			if x.mustWait() {
				r.set(taken & bitsInput)
			} else {
				x.input(taken)
			}
		}
		x.flush()
		if r.side.Load() != 0 {
			x.loop.sides.trim(slot, r, x.now.micros)
		}
		if x.pause > 0 && r.load()&bitClose == 0 {
			x.loop.tell(x, task{kind: taskSlowed, slot: slot, interval: uint32(x.pause/1000) + 1}) // the loan goes along
			return
		}
		if r.step(word.release) {
			return
		}
	}
}

// input reads and consumes until the socket is empty or something says stop. What is not consumed is left in the side table,
// and the bits that were taken are raised again for whoever goes on.
func (x *runner) input(taken word) {
	r := x.r
	have := 0
	if s := x.loop.sides.of(x.slot, r); s != nil && len(s.left) > 0 {
		have = copy(x.buf, s.left)
		x.loop.buffers.put(s.left)
		s.left = nil
	}
	if p := r.phase(); have > 0 && (p != phaseHandshake || r.flag(flagAdopted)) || p == phaseUpgrade {
		used := x.consume(x.buf[:have])
		if x.halted {
			x.leave(x.buf[used:have], taken)
			return
		}
		have = copy(x.buf, x.buf[used:have])
	}
	toTheEnd := taken&bitHup != 0 || r.flag(flagUnix)
	for {
		n, err := x.loop.sys.read(int(r.fd), x.buf[have:])
		if err != nil {
			x.keep(x.buf[:have])
			if !errors.Is(err, poller.ErrWouldBlock) {
				x.gone(err)
			}
			return
		}
		short := have+n < len(x.buf)
		x.bytes += n
		have += n
		used := x.consume(x.buf[:have])
		if x.halted {
			x.leave(x.buf[used:have], taken)
			return
		}
		have = copy(x.buf, x.buf[used:have])
		if short && !toTheEnd {
			x.keep(x.buf[:have])
			return
		}
		if x.bytes >= loanBytesMax {
			x.leave(x.buf[:have], taken)
			return
		}
	}
}

// consume uses up what it can of data: the request head, then frames.
func (x *runner) consume(data []byte) (used int) {
	switch x.r.phase() {
	case phaseHandshake:
		used = x.handshake(data)
	case phaseUpgrade:
		used = x.verdict(data)
	default:
	}
	if x.r.phase() == phaseOpen && !x.halted {
		n := x.decode(data[used:])
		x.tally[countBytesIn] += uint64(n)
		used += n
	}
	return used
}

// keep saves input that waits for more of its kind from the peer: half a head.
func (x *runner) keep(rest []byte) {
	if len(rest) > 0 {
		s := x.loop.sides.ensure(x.slot, x.r)
		s.left = append(x.loop.buffers.get(len(rest)), rest...)
	}
}

// leave saves input that could be consumed now, and raises its work again: a debt of the next holder.
func (x *runner) leave(rest []byte, taken word) {
	if x.r.load()&bitClose != 0 {
		return // nobody will look at it
	}
	x.keep(rest)
	x.r.set(bitIn | taken&bitHup)
}

// gone ends a connection that failed underneath.
func (x *runner) gone(err error) {
	e := ending{cause: CauseReset, code: wsframe.CloseAbnormal, reason: "reset"}
	switch {
	case errors.Is(err, io.EOF):
		e.cause, e.reason = CauseEnd, "end-of-stream"
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		e.cause, e.reason = CauseUnreachable, "unreachable" // the kernel gave up, by TCP_USER_TIMEOUT
	}
	x.r.setFlag(flagPeerGone)
	x.end(e)
}

// end begins the end of the connection whose loan the runner holds. Of several endings the first counts.
func (x *runner) end(e ending) {
	x.loop.conclude(x.slot, x.r, e)
	x.halted = true
}

// decode takes frames out of data until it is used up, or until input must stop.
func (x *runner) decode(data []byte) (used int) {
	policy := x.server.policy.Load()
	limits := policy.limits
	if x.r.deflate() != 0 {
		limits = policy.deflateLimits
	}
	if s := x.loop.sides.of(x.slot, x.r); s != nil {
		x.decoder, s.decoder = s.decoder, wsframe.Decoder{}
		if s.limits != nil {
			limits = s.limits
		}
	}
	for used < len(data) {
		if x.r.load()&bitClose != 0 {
			x.halted, used = true, len(data) // whatever follows a Close frame is not looked at (RFC 6455, 5.5.1)
			break
		}
		if x.messages >= loanMessagesMax || x.expanded >= loanBytesMax || !x.room(limits, data[used:]) {
			x.halted = true
			break
		}
		m, n, ok, err := x.decoder.Next(limits, data[used:])
		used += n
		if err != nil {
			x.violated(err)
			used = len(data)
			break
		}
		if !ok {
			break
		}
		x.messages++
		if m.Compressed {
			x.inflated(limits, m)
		} else {
			x.message(m)
		}
		if x.pause > 0 {
			x.halted = true
			break
		}
	}
	if x.decoder.Idle() {
		if buf := x.decoder.Release(); buf != nil {
			x.server.assembly.put(buf)
		}
	} else {
		s := x.loop.sides.ensure(x.slot, x.r)
		s.decoder, x.decoder = x.decoder, wsframe.Decoder{}
	}
	if len(x.gathered) > 0 {
		x.repliesFirst()
		x.submit(delivery{kind: deliverMessages, buf: x.gathered})
		x.gathered = nil
	}
	return used
}

// violated answers a breach of the protocol with its Close frame.
func (x *runner) violated(err error) {
	e := ending{cause: CauseProtocol, code: wsframe.CloseProtocol, reason: "protocol"}
	if perr, ok := errors.AsType[*wsframe.ProtocolError](err); ok {
		e.code, e.reason = perr.Code, perr.Reason
	}
	switch e.code {
	case wsframe.CloseInvalidUTF8:
		e.cause = CauseEncoding
	case wsframe.CloseTooBig:
		e.cause = CauseTooBig
	case wsframe.ClosePolicy:
		e.cause = CausePolicy
	default:
	}
	x.end(e)
}

// inflated serves a compressed message. No window is kept: the next message begins anew.
func (x *runner) inflated(limits *wsframe.Limits, m wsframe.Message) {
	limit := limits.MessageBytesMax
	m, err := x.inflater.Inflate(limits, m)
	if err != nil {
		x.expanded += limit // at most, and it ends the connection
		x.violated(err)
	} else {
		x.expanded += len(m.Payload)
		x.message(m)
	}
	if buf := x.inflater.Release(); buf != nil {
		x.server.assembly.put(buf)
	}
}

// finBit of a frame's first byte says that it ends its message (RFC 6455, section 5.2).
const finBit = 0x80

// room says whether the message at the beginning of data may be served: what it may add to the outbox must fit, and so must the answers to
// what is gathered for the handler. Who pipelines and reads is slowed by this, and never closed.
func (x *runner) room(limits *wsframe.Limits, data []byte) bool {
	bound := x.server.policy.Load().maxBackpressure
	unsent := int(x.r.unsent.Load())
	if unsent+len(x.gathered)+len(x.out) == 0 || bound < 0 {
		return true
	}
	need := 0
	if total, ok := x.decoder.Peek(limits, data); ok {
		if !x.decoder.Idle() || data[0]&finBit == 0 {
			// It may go on in frames that nobody has seen yet; without a limit it may become anything.
			most := limits.MessageBytesMax
			if most == 0 {
				most = bound
			}
			total = max(total, most)
		}
		need = wsframe.HeaderBytes(total) + min(total, bound) // beyond the bound it needs an empty outbox, however long it is
	}
	fits := func() bool {
		unsent = int(x.r.unsent.Load())
		all := unsent + len(x.gathered) + len(x.out)
		return all == 0 || unsent <= bound/2 && all+need <= bound
	}
	if fits() {
		return true
	}
	x.flush()
	if fits() {
		return true
	}
	if unsent > 0 {
		x.r.set(bitStopped)
	} // else only what is gathered stands in the way: it goes to the handler, and the connection is busy
	return false
}

// message serves one message or control frame.
func (x *runner) message(m wsframe.Message) {
	if x.r.flag(flagAnswered) {
		x.r.clearFlag(flagAnswered) // this message is more than the answer, or answered sets it again
	}
	switch m.Opcode {
	case wsframe.Ping:
		x.tally[countPingsIn]++
		if x.controlAllowed() {
			x.out = wsframe.AppendFrame(x.out, wsframe.Pong, m.Payload)
		}
	case wsframe.Pong:
		x.tally[countPongsIn]++
		if !x.answered(m.Payload) { // the answer that the server asked for is no flood
			x.controlAllowed()
		}
	case wsframe.Close:
		code, reason, err := wsframe.ParseClose(m.Payload)
		if err != nil {
			x.violated(err)
			return
		}
		x.end(ending{cause: CauseClient, code: code, reason: reason})
	default:
		x.meter()
		if m.Opcode == wsframe.Text && x.server.cfg.JSONHeartbeats != JSONHeartbeatsOff && x.jsonBeat(m.Payload) {
			return
		}
		x.tally[countMessagesIn]++
		x.deliver(Op(m.Opcode), m.Payload)
	}
}

// meter counts a data message against the peer's rate (GCRA: a second's worth at once, then one every 1/limit s). Beyond it the
// message is served all the same, and the peer waits for the next one: by TCP's own flow control, once its and our buffers are full.
func (x *runner) meter() {
	step := x.server.policy.Load().messageStep
	if step == 0 {
		return
	}
	s := x.loop.sides.ensure(x.slot, x.r)
	s.paidAt = max(s.paidAt, x.now.micros) + step
	x.owe(s)
}

// mustWait says whether what a peer has sent isn't to be read yet.
func (x *runner) mustWait() bool {
	if x.r.side.Load() != 0 && x.server.policy.Load().messageStep != 0 {
		x.owe(x.loop.sides.of(x.slot, x.r))
	}
	return x.pause > 0
}

// owe sets the pause that a peer owes.
func (x *runner) owe(s *side) {
	x.pause = 0
	if ahead := s.paidAt - min(s.paidAt, x.now.micros); ahead > messageBurstMicros {
		x.pause = ahead - messageBurstMicros
	}
}

// deliver hands a message to the handler: here, if it never blocks, else as a copy to the handler pool at the end of the batch.
func (x *runner) deliver(op Op, payload []byte) {
	if x.server.inline {
		x.handle(op, payload)
		return
	}
	x.gathered = appendGathered(x.loop.buffers, x.gathered, op, payload)
}

// repliesFirst sends the pongs and acknowledgements that came before a message, if there are any: what the handler sends goes to the outbox,
// which goes out in front of replies, and answers keep the order of what they answer.
func (x *runner) repliesFirst() {
	if len(x.out) > 0 {
		x.flush()
	}
}

// handle calls an inline handler; its panic ends this connection and nothing else.
func (x *runner) handle(op Op, payload []byte) {
	x.repliesFirst()
	defer x.contain()
	x.server.handler.Message(x.conn(), op, payload)
}

// contain is deferred around every call of an inline handler.
func (x *runner) contain() {
	if value := recover(); value != nil {
		x.tally[countPanics]++
		x.server.panicked(value, debug.Stack())
		x.end(ending{cause: CausePanic, code: wsframe.CloseInternal, reason: "internal"})
	}
}

// conn is the handle of the connection under way.
func (x *runner) conn() Conn {
	return Conn{server: x.server, token: makeToken(x.loop.index, x.slot, x.r.load().generation())}
}
