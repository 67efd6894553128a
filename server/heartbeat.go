package server

import (
	"encoding/binary"
	"errors"
	"io"
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

// beatShare is what a connection adds to the heartbeats of a tick, with 32 bits of fraction.
func beatShare(interval uint32) uint64 {
	if interval == 0 {
		return 0
	}
	return uint64(tickMillis) << 32 / uint64(interval)
}

// opened arms the first heartbeat of a connection.
func (l *loop) opened(slot uint32) {
	r := l.table.at(slot)
	if r.load()&bitLive == 0 {
		return // it is closing already, and that has its own deadline
	}
	r.beatAt.Store(l.now.ms)
	l.place(slot, r, l.wheel.Now()+1)
}

// place arms a heartbeat that may choose its slot: the first one, and one after traffic. It goes to the end of its interval
// if that slot holds no more than its share, else to the least populated slot from earliest on, so that crowds dissolve; in balance it is one
// look at one count. The expiry stays exact.
func (l *loop) place(slot uint32, r *record, earliest int64) {
	heard, interval, timeout := r.heard.Load(), r.interval.Load(), r.timeout.Load()
	if interval == 0 {
		if timeout == 0 {
			l.wheel.Cancel(slot)
			return
		}
		l.wheel.Schedule(slot, l.tickAt(heard+timeout))
		return
	}
	// Never beyond a whole interval from where the wheel stands, which may be a tick behind the clock: the heartbeats that are due
	// in between come back a whole interval later, and their slots only look empty.
	soonest := l.nowTick() + 1
	at := max(min(l.tickAt(heard+interval), l.wheel.Now()+min(intervalTicks(interval), wheelSlots-1)), soonest)
	if share := int(l.beatLoad>>32) + 1; l.wheel.Count(at) >= share {
		at = l.wheel.Quietest(min(max(earliest, soonest), at), at, slotProbes)
	}
	if timeout != 0 {
		at = min(at, l.tickAt(heard+timeout))
	}
	l.wheel.Schedule(slot, at)
}

// placeAfterTraffic leaves at least a quarter of the interval quiet: who is heard from is not beaten.
func (l *loop) placeAfterTraffic(slot uint32, r *record) {
	l.place(slot, r, l.tickAt(r.heard.Load()+r.interval.Load()/4))
}

// rearm arms what comes next after a heartbeat: the next one a whole interval later, or the expiry.
func (l *loop) rearm(slot uint32, r *record) {
	heard, interval, timeout := r.heard.Load(), r.interval.Load(), r.timeout.Load()
	at := int64(0)
	if interval != 0 {
		// From the tick that fired and not from now, which is a little later: heartbeats keep their interval to the tick.
		// Behind time it is never armed for what is past already: one heartbeat, not one for each interval missed.
		at = max(l.wheel.Now()+intervalTicks(interval), l.nowTick()+1)
	}
	if timeout != 0 {
		if expiry := l.tickAt(heard + timeout); at == 0 || expiry < at {
			at = expiry
		}
	}
	if at != 0 {
		l.wheel.Schedule(slot, at)
	}
}

// fireTimers advances the wheel to now, at most firesPerTurn at a time: the rest follows in the next turn, behind the I/O.
func (l *loop) fireTimers() {
	l.owner.check()
	now := l.nowTick()
	next, ok := l.wheel.Next()
	if !ok || next > now {
		l.wheel.Advance(now, 1, l.fire)
		return
	}
	l.lateness.observe(uint32(min(l.now.micros-uint64(time.Duration(next)*tick/time.Microsecond), 1<<31)))
	l.wheel.Advance(now, firesPerTurn, l.fire)
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
	heard, interval, timeout := r.heard.Load(), r.interval.Load(), r.timeout.Load()
	silence := l.now.ms - heard
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
		r.beatAt.Store(l.now.ms)
		l.placeAfterTraffic(slot, r)
	case interval > horizonMillis && min(silence, l.now.ms-r.beatAt.Load())+tickMillis < interval:
		l.placeAfterTraffic(slot, r) // its deadline was beyond the wheel
	default:
		l.beat(slot, r)
	}
}

// beat writes a heartbeat: one system call by the loop itself. A connection that is lent is being heard from; one that is blocked has a
// heartbeat or more unsent: a second one behind it would tell nothing.
func (l *loop) beat(slot uint32, r *record) {
	if !r.step(func(w word) (word, bool) {
		if w&bitBlocked != 0 {
			return w, false
		}
		return w.borrow()
	}) {
		if r.load()&bitBlocked != 0 {
			l.rearm(slot, r)
		} else {
			l.wheel.Schedule(slot, l.wheel.Now()+2)
		}
		return
	}
	x := l.borrowRunner(slot, r)
	r.beatAt.Store(l.now.ms)
	r.clearFlag(flagAnswered)
	r.setFlag(flagBeatOut)
	if r.mode() == HeartbeatText {
		x.out = append(x.out, l.server.textBeat...)
		x.tally[countBeatsText]++
	} else {
		x.out = append(x.out, l.server.pingLead...)
		x.out = binary.BigEndian.AppendUint32(x.out, l.now.ms)
		x.out = binary.BigEndian.AppendUint16(x.out, uint16(l.now.micros%1000))
		x.tally[countBeatsPing]++
	}
	x.flush()
	l.rearm(slot, r)
	l.giveBack(slot, r)
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
	e := endExpired()
	if r.load()&bitBlocked != 0 {
		e = endSlowConsumer()
	}
	if errors.Is(err, io.EOF) {
		r.setFlag(flagPeerGone)
		e = ending{cause: CauseEnd, code: wsframe.CloseAbnormal, reason: "end-of-stream"}
	}
	l.conclude(slot, r, e)
	l.beginClosing(slot)
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
	if !r.step(word.release) {
		l.ring = append(l.ring, slot)
	}
	return l.now.ms-since >= timeout
}

// answered takes the answer to a ping: its payload tells which one. false: a wrong or repeated one, nothing but a sign of life.
func (x *runner) answered(payload []byte) bool {
	r := x.r
	if len(payload) != pingBytes {
		return false
	}
	if sentAt := binary.BigEndian.Uint32(payload); !r.flag(flagBeatOut) || sentAt != r.beatAt.Load() {
		// An older one tells no round trip, but is no flood either: while a handler is busy the answers of many intervals gather.
		return int32(r.beatAt.Load()-sentAt) > 0
	}
	r.clearFlag(flagBeatOut)
	r.setFlag(flagAnswered)
	trip := uint64(x.now.ms-r.beatAt.Load())*1000 + x.now.micros%1000
	x.roundTrip(uint32(trip - min(trip, uint64(binary.BigEndian.Uint16(payload[4:])))))
	return true
}

// roundTrip smooths a round trip as RFC 6298, section 2, does: in the record, in units of 100 µs.
func (x *runner) roundTrip(micros uint32) {
	x.public.rtt.observe(micros)
	sample := min(micros/100, 0xffff)
	old := x.r.rtt.Load()
	srtt, variation := old>>16, old&0xffff
	if old == 0 {
		srtt, variation = sample, sample/2
	} else {
		difference := srtt - sample
		if sample > srtt {
			difference = sample - srtt
		}
		variation = (3*variation + difference + 2) / 4
		srtt = (7*srtt + sample + 4) / 8
	}
	x.r.rtt.Store(max(1, srtt)<<16 | variation)
}

// jsonBeat serves the heartbeat messages of clients that can't see ping frames; true: the message goes no further.
func (x *runner) jsonBeat(payload []byte) bool {
	kind, ts := parseJSONBeat(payload)
	switch {
	case kind == beat:
		x.tally[countTextsIn]++
		var ack [jsonHeartbeatBytesMax]byte
		x.out = wsframe.AppendFrame(x.out, wsframe.Text, appendBeatAck(ack[:0], ts))
		return x.server.cfg.JSONHeartbeats == JSONHeartbeatsEdge
	case kind == beatAck && x.r.mode() == HeartbeatText:
		x.tally[countAcksIn]++
		if x.r.flag(flagBeatOut) {
			x.r.clearFlag(flagBeatOut)
			x.r.setFlag(flagAnswered)
			x.roundTrip((x.now.ms - x.r.beatAt.Load()) * 1000)
		}
		return true
	default:
		return false
	}
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

func endExpired() ending {
	return ending{cause: CauseExpired, code: wsframe.CloseHeartbeatLost, reason: "heartbeat-timeout"}
}

func endSlowConsumer() ending {
	return ending{cause: CauseSlowConsumer, code: wsframe.CloseOverload, reason: "slow-consumer"}
}

func endHandshakeTimeout() ending {
	return ending{reject: rejectTimeout, reply: wsframe.AppendRefusal(nil, &wsframe.Refusal{Status: 408, Text: "the request did not arrive in time"})}
}
