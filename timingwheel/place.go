package timingwheel

// Place finds where in the window from earliest to latest one more timer fits best, and whether it has room there: a tick has room that
// holds fewer timers than share(tick). That is latest, if it has room; else the tick that is least above its share, or farthest
// below it, among latest and probes more that are evenly spread through the rest of the window, and not the same in the next call; of equal ones
// the latest.
//
// A window with no more than probes ticks besides latest is looked at whole. The window is cut to the ticks that Schedule can
// arm; where earliest is then above latest, latest counts. A probe costs one read and one call of share; in balance latest has room, and that is all.
func (w *Wheel) Place(earliest, latest int64, probes int, share func(tick int64) int) (tick int64, room bool) {
	latest = w.clamp(latest)
	earliest = min(w.clamp(earliest), latest)
	best, least := latest, w.population(latest)-share(latest)
	others := latest - earliest // ticks of the window below latest
	if least < 0 || others == 0 || probes < 1 {
		return best, least < 0
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
		if above := w.population(tick) - share(tick); above < least {
			best, least = tick, above
		}
	}
	return best, least < 0
}

// population returns the number of timers in the slot of a tick that can be armed.
func (w *Wheel) population(tick int64) int { return int(w.slots[uint32(tick)&w.mask].count) }
