//go:build !race && !invariants

package server

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// The race detector and the ownership checks allocate by themselves, so these run without them.

// TestEchoAllocatesNothing: from the event to the write, a message costs no allocation, whole or in two halves.
func TestEchoAllocatesNothing(t *testing.T) {
	for _, tt := range []struct {
		name    string
		op      wsframe.Opcode
		payload int
	}{
		{"small text", wsframe.Text, 20},
		{"binary", wsframe.Binary, 128},
		{"large", wsframe.Binary, 10_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, q := newQuietLoop(Config{})
			slot := l.upgraded(7)
			frame := masked(tt.op, true, randomText(tt.payload))
			want := 0
			echo := func() {
				q.input = frame
				l.readable(slot)
				want += wsframe.HeaderBytes(tt.payload) + tt.payload
			}
			if n := testing.AllocsPerRun(1000, echo); n != 0 {
				t.Errorf("%v allocations a message", n)
			}
			halves := func() {
				q.input = frame[:len(frame)/2]
				l.readable(slot)
				q.input = frame[len(frame)/2:]
				l.readable(slot)
				want += wsframe.HeaderBytes(tt.payload) + tt.payload
			}
			if n := testing.AllocsPerRun(1000, halves); n != 0 {
				t.Errorf("%v allocations a message in two halves", n)
			}
			if q.written != want {
				t.Errorf("%d bytes were written, want %d", q.written, want)
			}
			if l.table.at(slot).side.Load() != 0 {
				t.Error("an idle connection has an entry in the side table")
			}
		})
	}
}

// TestHeartbeatAllocatesNothing: firing the timer, the heartbeat, its answer, arming the next.
func TestHeartbeatAllocatesNothing(t *testing.T) {
	ack := masked(wsframe.Text, true, `{"type":"heartbeat_ack"}`)
	pong := wsframe.AppendMasked(nil, wsframe.Pong, true, make([]byte, pingBytes), [4]byte{}) // a mask of zeros changes nothing
	for _, tt := range []struct {
		name   string
		mode   HeartbeatMode
		bytes  int // of a heartbeat
		answer func(at uint32) []byte
	}{
		{"ping", HeartbeatPing, 2 + pingBytes, func(at uint32) []byte {
			binary.BigEndian.PutUint32(pong[len(pong)-pingBytes:], at)
			return pong
		}},
		{"text", HeartbeatText, 22, func(uint32) []byte { return ack }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, q := newQuietLoop(Config{HeartbeatMode: tt.mode, HeartbeatInterval: 100 * time.Millisecond, HeartbeatTimeout: time.Second})
			slot := l.upgraded(7)
			beats := 0
			if n := testing.AllocsPerRun(1000, func() {
				for before := q.written; q.written == before; {
					q.at += tick
					l.now = newMoment(q.at)
					l.connMillis.Store(l.now.ms)
					l.fireTimers()
				}
				beats++
				q.input = tt.answer(l.table.at(slot).beatAt.Load())
				l.readable(slot)
			}); n != 0 {
				t.Errorf("%v allocations a heartbeat", n)
			}
			if q.written != beats*tt.bytes {
				t.Errorf("%d bytes were written for %d heartbeats, want %d", q.written, beats, beats*tt.bytes)
			}
			var sum Histogram
			l.runner.public.rtt.addTo(&sum)
			observed := uint64(0)
			for _, n := range sum.Counts {
				observed += n
			}
			if observed != uint64(beats) {
				t.Errorf("%d round trips of %d answers", observed, beats)
			}
		})
	}
}

// TestTimerAllocatesNothing: the operations of the loop on its wheel.
func TestTimerAllocatesNothing(t *testing.T) {
	l, q := newQuietLoop(Config{})
	slot := l.upgraded(7)
	r := l.table.at(slot)
	if n := testing.AllocsPerRun(1000, func() {
		q.at += time.Millisecond
		l.now = newMoment(q.at)
		l.placeAfterTraffic(slot, r)
		l.rearm(slot, r, l.wheel.Now())
		l.wheel.Cancel(slot)
		l.fireTimers()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
