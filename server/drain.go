package server

import (
	"strconv"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// drain is a loop's share of a shutdown: its connections are told to go, so many a second, and when to come back.
type drain struct {
	active bool
	began  time.Duration // real time
	rate   float64       // connections a second
	told   int
	cursor uint32 // slots below it were told
}

// startDrain begins to close the loop's connections (1012) at its share of the rate.
func (l *loop) startDrain(rate float64) {
	l.closeListeners()
	l.drain = drain{active: true, began: l.clock.read, rate: rate}
}

// drainSome closes as many connections as are due.
func (l *loop) drainSome() {
	d := &l.drain
	if !d.active {
		return
	}
	due := int((l.clock.read-d.began).Seconds()*d.rate) + 1
	for d.told < due && d.cursor < l.table.slots.Load() {
		slot := d.cursor
		d.cursor++
		r := l.table.at(slot)
		if w := r.load(); w&bitLive == 0 || r.fd < 0 {
			continue
		}
		d.told++
		slots := l.server.retrySlots.Add(1) - 1
		reason := "restart; retry-after=" + strconv.FormatUint(slots/uint64(l.server.cfg.ReconnectRate), 10)
		l.evict(slot, r, ending{cause: CauseDrain, code: wsframe.CloseRestart, reason: reason})
	}
	if d.cursor >= l.table.slots.Load() {
		d.cursor = 0 // who was upgraded meanwhile is told in the next round
	}
}

// closeAll ends everything at once, for good.
func (l *loop) closeAll() {
	l.over = true
	l.closeListeners()
	for slot := range l.table.slots.Load() {
		r := l.table.at(slot)
		w := r.load()
		switch {
		case r.fd < 0 || w.generation() == 0:
		case w&bitLinger != 0:
			l.finish(slot)
		default:
			l.evict(slot, r, ending{cause: CauseShutdown, reject: rejectDraining, code: wsframe.CloseRestart, reason: "restart"})
		}
	}
}
