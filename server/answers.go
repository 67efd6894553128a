package server

import (
	"encoding/binary"
	"math"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

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
	sentMicros := binary.BigEndian.Uint16(payload[4:])
	if sentMicros > 999 {
		return true // made up: it says when within a millisecond
	}
	r.clearFlag(flagBeatOut)
	r.setFlag(flagAnswered)
	trip := uint64(x.now.ms-r.beatAt.Load())*1000 + x.now.micros%1000
	x.roundTrip(uint32(trip - min(trip, uint64(sentMicros))))
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
		x.acknowledged(ts)
		return true
	default:
		return false
	}
}

// acknowledged takes the acknowledgement of a text heartbeat. Where the heartbeat said when it was sent, a ts that comes back tells the round trip to
// the µs, and another ts nothing: it is an old one's, or made up. Without one it is the time since the heartbeat, in ms.
func (x *runner) acknowledged(ts []byte) {
	r := x.r
	if !r.flag(flagBeatOut) {
		return
	}
	micros := uint64(x.now.ms-r.beatAt.Load()) * 1000
	if r.flag(flagStamped) && ts != nil {
		sentAt, ok := wholeNumber(ts)
		if !ok || uint32(sentAt/1000) != r.beatAt.Load() || sentAt > x.now.micros {
			return
		}
		micros = x.now.micros - sentAt
	}
	r.clearFlag(flagBeatOut)
	r.setFlag(flagAnswered)
	x.roundTrip(uint32(min(micros, math.MaxUint32)))
}

// wholeNumber reads digits that fit 64 bits for sure.
func wholeNumber(text []byte) (n uint64, ok bool) {
	for _, c := range text {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, 0 < len(text) && len(text) < 20
}
