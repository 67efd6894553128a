package server

// Where heartbeats go. Each has its slot on the wheel and keeps it; the choice is made when a connection opens, after traffic, and where a
// slot turns out to be crowded.

// opened arms the first heartbeat of a connection.
func (l *loop) opened(slot uint32) {
	r := l.table.at(slot)
	if r.load()&bitLive == 0 {
		return // it is closing already, and that has its own deadline
	}
	r.beatAt.Store(l.now.ms)
	l.first(slot, r)
}

// first arms the first heartbeat of a connection: as after traffic, unless a crowd is coming in, faster than its heartbeats would.
// Then the heartbeats of each interval are laid out evenly over the whole of it, by rank; ranks whose slots are crowded already are
// left out. Even in each interval is even for ever, whatever the intervals are. Three quarters of an interval can't be: the fourth would
// stay empty.
func (l *loop) first(slot uint32, r *record) {
	ticks := intervalTicks(l.stretched(r.interval.Load(), r.timeout.Load()))
	if ticks == 0 || ticks >= wheelSlots || !l.budget.rush(l.wheel.Now(), ticks) {
		l.placeAfterTraffic(slot, r)
		return
	}
	l.wheel.Schedule(slot, l.layOut(ticks, l.nowTick()+1, firstRanks))
}

// layOut is the next place in the layout of an interval, from a tick on and less than an interval later.
func (l *loop) layOut(ticks, soonest int64, ranks int) (at int64) {
	for range ranks {
		phase := int64(uint64(l.budget.rank(ticks)*fractionStep) * uint64(ticks) >> 32)
		at = soonest + (phase-soonest%ticks+ticks)%ticks
		if l.wheel.Count(at) <= l.share(at) { // one above is chance where intervals differ
			break
		}
	}
	return at
}

// place arms a heartbeat that may choose its slot: a first one, and one after traffic. It goes to the end of its interval
// if that slot has room, else to the one with most room from earliest on, so that crowds dissolve; in balance it is one
// look at one count. The expiry stays exact.
func (l *loop) place(slot uint32, r *record, earliest int64) {
	at, _ := l.spot(r, earliest)
	if at == 0 {
		l.wheel.Cancel(slot)
		return
	}
	l.wheel.Schedule(slot, at)
}

// spot is where place arms the timer, and whether there is room; 0: nowhere, for there is neither a heartbeat nor an expiry.
func (l *loop) spot(r *record, earliest int64) (at int64, room bool) {
	heard, timeout := r.heard.Load(), r.timeout.Load()
	interval := l.stretched(r.interval.Load(), timeout)
	if interval == 0 {
		return l.orExpiry(0, heard, timeout), true
	}
	// Never beyond a whole interval from where the wheel stands, which may be a tick behind the clock: the heartbeats that are due
	// in between come back a whole interval later, and their slots only look empty.
	soonest := l.nowTick() + 1
	at = max(min(l.tickAt(heard+interval), l.wheel.Now()+min(intervalTicks(interval), wheelSlots-1)), soonest)
	at, room = l.wheel.Place(min(max(earliest, soonest), at), at, slotProbes, l.shareOf)
	return l.orExpiry(at, heard, timeout), room
}

// orExpiry is the tick at which a heartbeat is due, or that of the expiry if it comes first. 0 is no heartbeat, or neither of both.
func (l *loop) orExpiry(at int64, heard, timeout uint32) int64 {
	if timeout == 0 {
		return at
	}
	expiry := l.tickAt(heard + timeout)
	if at == 0 {
		return expiry
	}
	return min(at, expiry)
}

// placeAfterTraffic leaves at least a quarter of the interval quiet: who is heard from is not beaten.
func (l *loop) placeAfterTraffic(slot uint32, r *record) {
	l.place(slot, r, l.quarterAfter(r))
}

func (l *loop) quarterAfter(r *record) int64 { return l.tickAt(r.heard.Load() + r.interval.Load()/4) }

// rearm arms what comes next after a heartbeat: the next one a whole interval later, or the expiry. A slot that is crowded, as after
// a message to all that everybody answered at once, gives its surplus to earlier ones with room, or is laid out anew; in balance nothing
// moves. Where intervals differ there is no balance for long, since each repeats in its own time: there it is levelled. before is the tick of the heartbeat before.
func (l *loop) rearm(slot uint32, r *record, before int64) {
	heard, timeout := r.heard.Load(), r.timeout.Load()
	interval := l.stretched(r.interval.Load(), timeout)
	at := int64(0)
	if interval != 0 {
		// From the tick that fired and not from now, which is a little later: heartbeats keep their interval to the tick.
		// Behind time it is never armed for what is past already: one heartbeat, not one for each interval missed.
		now, ticks := l.wheel.Now(), intervalTicks(interval)
		at = max(now+ticks, l.nowTick()+1)
		switch {
		case ticks >= wheelSlots:
		case l.budget.lays(now, before, ticks):
			if chosen := l.layOut(ticks, now+1, 1); chosen > now+min(ticks/rearmLeast, ticksPerSecond) {
				at = chosen
			}
		case !l.budget.alike(ticks):
			at = l.level(max(now+ticks/rearmLeast, l.nowTick()+1), at)
		case l.wheel.Count(at) >= l.share(at):
			if earlier, room := l.gap(max(now+ticks/rearmLeast, l.nowTick()+1), at-1); room {
				at = earlier
			}
		}
	}
	if at = l.orExpiry(at, heard, timeout); at != 0 {
		l.wheel.Schedule(slot, at)
	}
}

// gap finds a tick with room between two ticks: from where the search before ended, else among the last ones. The surplus of a crowd comes tick
// by tick, and so fills what the crowd left empty in the same order; what is left over at last mostly has its gap close by.
func (l *loop) gap(from, to int64) (at int64, room bool) {
	at = l.budget.gap
	if at < from || at > to {
		at = from
	}
	for end := min(at+gapScan, to+1); at < end; at++ {
		if l.wheel.Count(at) < l.share(at) {
			l.budget.gap = at
			return at, true
		}
	}
	l.budget.gap = at
	for at = to; at >= from && at > to-gapScan; at-- {
		if l.wheel.Count(at) < l.share(at) {
			return at, true
		}
	}
	return 0, false
}

// level is the emptiest of the last ticks between two, measured by what each should hold, or the last one, unless that is fuller by levelLeast
// heartbeats. A smaller gain isn't worth a heartbeat that comes early, by at most gapScan ticks.
func (l *loop) level(from, to int64) (at int64) {
	surplus := func(at int64) int64 { return int64(l.wheel.Count(at))<<32 - int64(l.load(at)) }
	at = to
	least := surplus(to)
	if least < 0 {
		return to
	}
	least -= levelLeast << 32
	for x := to - 1; x >= from && x > to-gapScan; x-- {
		if s := surplus(x); s < least {
			at, least = x, s
		}
	}
	return at
}
