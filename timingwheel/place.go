package timingwheel

// Quietest returns the least populated of about probes ticks of the window from earliest to latest, of equal ones the latest.
// latest is always among them; the others are evenly spread, and not the same in the next call. A window with no more ticks than probes
// is looked at whole. The window is cut to the ticks that Schedule can arm; where earliest is then above latest, latest counts.
// A probe costs one read.
func (w *Wheel) Quietest(earliest, latest int64, probes int) int64 {
	return w.Place(earliest, latest, 0, probes-1)
}

// Place returns the latest tick found in the window from earliest to latest that has fewer than share timers: latest
// itself, else the latest of probes more that are evenly spread through the rest of the window, and not the same in the next
// call. Where none has room it is the least populated of those, of equal ones the latest. A window with no more than probes
// ticks besides latest is looked at whole. The window is cut as that of Quietest. In balance latest has room, and the
// cost is one read.
func (w *Wheel) Place(earliest, latest int64, share, probes int) int64 {
	latest = w.clamp(latest)
	earliest = min(w.clamp(earliest), latest)
	best, least := latest, w.population(latest)
	others := latest - earliest // ticks of the window below latest
	if least < share || others == 0 || probes < 1 {
		return best
	}

	// The ticks below latest are cut into probes equal parts, in fixed point; each is looked at in the same place, which moves from call
	// to call. Parts of one tick or less become single ticks, and all are looked at.
	step, place := uint64(1)<<probeShift, uint64(0)
	if int64(probes) < others {
		step = uint64(others) << probeShift / uint64(probes)
		place = uint64(w.turn>>(32-probeShift)) * step >> probeShift
		w.turn += turnStep
	}
	for end := uint64(others) << probeShift; place < end; place += step {
		tick := latest - 1 - int64(place>>probeShift)
		count := w.population(tick)
		if count < share {
			return tick
		}
		if count < least {
			best, least = tick, count
		}
	}
	return best
}

// population returns the number of timers in the slot of a tick that can be armed.
func (w *Wheel) population(tick int64) int { return int(w.slots[uint32(tick)&w.mask].count) }
