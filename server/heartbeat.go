package server

import (
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// Timers are lazy: traffic only changes heard, and the timer finds out when it fires. A connection's one timer is first the deadline
// of its handshake, then its heartbeat or expiry, whichever comes first, and last the deadline of its closing.

const tickMillis = uint32(tick / time.Millisecond)

// horizonMillis is how far the wheel reaches; a later deadline is looked at again on the way.
const horizonMillis = (wheelSlots - 1) * tickMillis

// pingBytes is the payload of our pings: when it was sent, in connection time (ms, then the µs within it), so that the answer tells the round trip.
const pingBytes = 4 + 2

// tickAfter is the first tick that is no sooner than so much connection time from now.
func (l *loop) tickAfter(d time.Duration) int64 {
	at := time.Duration(l.now.micros)*time.Microsecond + d
	return int64((at + tick - 1) / tick)
}

// nowTick is the tick under way.
func (l *loop) nowTick() int64 { return int64(time.Duration(l.now.micros) * time.Microsecond / tick) }

// tickAt is tickAfter for a point of connection time in record units.
func (l *loop) tickAt(ms uint32) int64 {
	return l.tickAfter(max(0, time.Duration(int32(ms-l.now.ms))*time.Millisecond))
}

// intervalTicks is an interval in whole ticks, rounded up.
func intervalTicks(interval uint32) int64 { return int64((interval + tickMillis - 1) / tickMillis) }

// fireTimers advances the wheel to now, at most firesOnTime at a time: the rest follows in the next turn, behind the I/O, so that a message doesn't
// wait for all the heartbeats of a tick. A loop that is behind its time does more at once: if that takes too long, it is a stall, and expires nobody.
func (l *loop) fireTimers() {
	l.owner.check()
	now := l.nowTick()
	next, ok := l.wheel.Next()
	if !ok || next > now {
		l.wheel.Advance(now, 1, l.fire)
		return
	}
	late := uint32(min(l.now.micros-uint64(time.Duration(next)*tick/time.Microsecond), 1<<31))
	l.lateness.observe(late)
	l.budget.late(late)
	most := firesOnTime
	if late > uint32(firesBehindAfter/time.Microsecond) {
		most = firesBehind
	}
	l.wheel.Advance(now, most, l.fire)
}

// timer is what a connection's timer does when it fires.
func (l *loop) timer(slot uint32) {
	r := l.table.at(slot)
	w := r.load()
	switch {
	case w&bitLinger != 0:
		l.finish(slot) // the deadline of the closing
	case w&bitClose != 0:
		// Its holder passes it on, and the closing arms its own deadline.
	case w&(bitLive|bitHeld) == bitHeld:
		l.wheel.Schedule(slot, l.wheel.Now()+1) // its holder may be about to upgrade it
	case w&bitLive == 0:
		l.evict(slot, r, endHandshakeTimeout())
	default:
		l.beatOrExpire(slot, r)
	}
}

// beatOrExpire decides for an open connection: quiet for its interval, a heartbeat; silent for its timeout, the end.
func (l *loop) beatOrExpire(slot uint32, r *record) {
	heard, timeout := r.heard.Load(), r.timeout.Load()
	interval := l.stretched(r.interval.Load(), timeout)
	silence := l.silence(r)
	switch {
	case timeout != 0 && silence >= timeout:
		l.lastLook(slot, r)
	case r.load()&bitBlocked != 0 && l.stuck(slot, r, timeout):
		l.evict(slot, r, endSlowConsumer())
	case interval == 0:
		l.placeAfterTraffic(slot, r)
	case int32(heard-r.beatAt.Load()) > int32(tickMillis) && silence+tickMillis < interval && !r.flag(flagAnswered):
		// Traffic since the last heartbeat, and not only its answer: an answer, however long it took, leaves the heartbeat on its own slot,
		// so that the schedule stays as even as it was laid out. One tick of tolerance is for answers that are not recognised as such.
		l.afterTraffic(slot, r, silence)
	case interval > horizonMillis && min(silence, l.now.ms-r.beatAt.Load())+tickMillis < interval:
		l.placeAfterTraffic(slot, r) // its deadline was beyond the wheel
	case r.flag(flagBusy) && silence+tickMillis < interval:
		// Its slot came early, for want of room; who talks in every interval gets no heartbeat for that.
		l.wheel.Schedule(slot, l.orExpiry(l.tickAt(heard+interval), heard, timeout))
	default:
		l.beat(slot, r, true)
	}
}

// afterTraffic puts the heartbeat off. Where a whole crowd was heard from at once, all of them would put it off to the same slots; then
// those keep theirs, this once, that were quiet until now and have been for a quarter of the interval.
//
//	quiet ─traffic─▶ put off once ─traffic─▶ busy      (and busy ─traffic─▶ busy)
//	any of them ─heartbeat─▶ quiet, but put off once if there was traffic before it
func (l *loop) afterTraffic(slot uint32, r *record, silence uint32) {
	at, room := l.spot(r, l.quarterAfter(r))
	quiet := r.flag(flagQuiet)
	if !room {
		l.budget.turnedAway(l.wheel.Now(), intervalTicks(r.interval.Load()))
	}
	if !room && quiet && silence >= r.interval.Load()/4 {
		l.beat(slot, r, false)
		return
	}
	// A connection that is lent is being heard from right now, and the next firing finds that out.
	if (quiet || !r.flag(flagBusy)) && r.step(word.borrow) {
		if quiet {
			r.clearFlag(flagQuiet)
		} else {
			r.setFlag(flagBusy)
		}
		l.giveBack(slot, r)
	}
	r.beatAt.Store(l.now.ms)
	l.wheel.Schedule(slot, at)
}

// beat writes a heartbeat: one system call by the loop itself. A connection that is lent is being heard from; one that is blocked has a
// heartbeat or more unsent: a second one behind it would tell nothing. quiet: there was no traffic before it.
func (l *loop) beat(slot uint32, r *record, quiet bool) {
	if !r.step(func(w word) (word, bool) {
		if w&bitBlocked != 0 {
			return w, false
		}
		return w.borrow()
	}) {
		if r.load()&bitBlocked != 0 {
			l.rearm(slot, r, l.wheel.Now())
		} else {
			l.wheel.Schedule(slot, l.wheel.Now()+2)
		}
		return
	}
	x := l.borrowRunner(slot, r)
	before := l.wheel.Now() - int64((l.now.ms-r.beatAt.Load())/tickMillis)
	r.beatAt.Store(l.now.ms)
	r.clearFlag(flagAnswered | flagBusy | flagQuiet)
	r.setFlag(flagBeatOut)
	if quiet {
		r.setFlag(flagQuiet)
	}
	if r.mode() == HeartbeatText {
		x.out = l.appendTextBeat(x.out, r)
		x.tally[countBeatsText]++
	} else {
		x.out = append(x.out, l.server.pingLead...)
		x.out = binary.BigEndian.AppendUint32(x.out, l.now.ms)
		x.out = binary.BigEndian.AppendUint16(x.out, uint16(l.now.micros%1000))
		x.tally[countBeatsPing]++
	}
	x.flush()
	if r.side.Load() != 0 {
		l.sides.trim(slot, r, l.now.micros)
	}
	l.rearm(slot, r, before)
	l.giveBack(slot, r)
}

// appendTextBeat appends a text heartbeat. To who asked for them it says when it was sent, in µs: the acknowledgement with the same ts tells
// the round trip.
func (l *loop) appendTextBeat(dst []byte, r *record) []byte {
	if !r.flag(flagStamped) {
		return append(dst, l.server.textBeat...)
	}
	const most = len(`{"type":"heartbeat","ts":}`) + len("18446744073709551615")
	var text [most]byte
	message := append(text[:0], `{"type":"heartbeat","ts":`...)
	message = strconv.AppendUint(message, l.now.micros, 10)
	message = append(message, '}')
	return wsframe.AppendFrame(dst, wsframe.Text, message)
}

// giveBack returns a loan that the loop borrowed; work that came meanwhile is served in the next turn.
func (l *loop) giveBack(slot uint32, r *record) {
	if !r.step(word.release) {
		l.ring = append(l.ring, slot)
	}
}

// lastLook is taken before a connection is expired: bytes in the socket mean alive, whatever became of their event.
func (l *loop) lastLook(slot uint32, r *record) {
	if !r.step(word.borrow) {
		l.wheel.Schedule(slot, l.wheel.Now()+1) // it is being read
		return
	}
	n, err := l.sys.peek(int(r.fd))
	if n > 0 {
		r.heard.Store(l.now.ms)
		r.set(bitIn)
		l.placeAfterTraffic(slot, r)
		l.giveBack(slot, r)
		return
	}
	e := l.silent(r)
	if errors.Is(err, io.EOF) {
		r.setFlag(flagPeerGone)
		e = ending{cause: CauseEnd, code: wsframe.CloseAbnormal, reason: "end-of-stream"}
	}
	l.conclude(slot, r, e)
	l.beginClosing(slot)
}

// silent tells what kind of silence a connection ends for, as far as the kernel and the clock know.
func (l *loop) silent(r *record) ending {
	e := ending{cause: CauseExpired, code: wsframe.CloseHeartbeatLost, reason: "heartbeat-timeout"}
	blocked := r.load()&bitBlocked != 0
	// An error or a Unix socket says nothing. A peer that doesn't read keeps acknowledging what probes its closed window.
	segments, sinceAck, err := l.sys.unacknowledged(int(r.fd))
	unreachable := err == nil && segments > 0 && (!blocked || sinceAck >= time.Duration(r.timeout.Load())*time.Millisecond/2)
	switch {
	case unreachable:
		e.cause = CauseUnreachable
	case blocked:
		e = endSlowConsumer()
	case l.stoodStillIn(l.silence(r)):
		e.cause = CauseStalled
	}
	return e
}

// stoodStillIn says whether the loop stood still within a silence, in ms. The silence was counted in whole ms at both ends, so the time since the
// stall is cut to whole ms as well: else a stall in the turn that heard the peer would seem to lie before the silence, every other time.
func (l *loop) stoodStillIn(silence uint32) bool {
	return l.stalled != 0 && (l.now.micros-l.stalled)/1000 <= uint64(silence)
}

// stuck says whether a blocked socket took nothing for the timeout.
func (l *loop) stuck(slot uint32, r *record, timeout uint32) bool {
	if timeout == 0 || !r.step(word.borrow) {
		return false
	}
	s := l.sides.of(slot, r)
	since := l.now.ms
	if s != nil {
		since = s.progressAt
	}
	l.giveBack(slot, r)
	return l.now.ms-since >= timeout
}

// controlAllowed meters the ping and pong frames of one peer (GCRA: a burst of the limit, then one every 1/limit s). Over the
// limit the connection ends.
func (x *runner) controlAllowed() bool {
	limit := x.server.policy.Load().controlRateLimit
	if limit < 0 {
		return true
	}
	now := uint32(x.now.micros * controlUnits / 1e6)
	step := uint32(max(1, controlUnits/limit))
	ahead := int32(x.r.controlAt - now)
	if ahead < 0 || ahead > controlUnits {
		ahead = 0 // paid off; or left from long ago, and the counter went round meanwhile
	}
	if uint32(ahead)+step > max(controlUnits, step) {
		x.end(ending{cause: CausePolicy, code: wsframe.ClosePolicy, reason: "control-rate"})
		return false
	}
	x.r.controlAt = now + uint32(ahead) + step
	return true
}

// controlUnits of controlAt make a second.
const controlUnits = 1 << 16

func endSlowConsumer() ending {
	return ending{cause: CauseSlowConsumer, code: wsframe.CloseOverload, reason: "slow-consumer"}
}

func endHandshakeTimeout() ending {
	return ending{reject: rejectTimeout, reply: wsframe.AppendRefusal(nil, &wsframe.Refusal{Status: 408, Text: "the request did not arrive in time"})}
}
