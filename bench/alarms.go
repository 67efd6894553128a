package main

import (
	"time"

	"github.com/pulsewheel/pulsewheel/timingwheel"
)

const (
	// alarmTick is the grain of what a client times, in ns.
	alarmTick = int64(10 * time.Millisecond)
	// alarmSlots ticks are 655 s: farther ahead nothing can be timed.
	alarmSlots = 1 << 16
	// alarmHorizon is the longest time that a scenario may set an alarm ahead.
	alarmHorizon = 10 * time.Minute
	// alarmsPerTurn bounds what rings between two waits, so that a client that fell behind still reads.
	alarmsPerTurn = 1024
)

// alarms time what is to happen to connections, one alarm for each id at a time, on the goroutine that serves the client.
// An alarm never rings early, and at most a tick late unless the client is busy.
type alarms struct {
	wheel *timingwheel.Wheel
	now   int64 // of the turn under way
	ring  func(id int, at int64)
	fire  func(id uint32) // made once, so that a turn allocates nothing
}

// newAlarms has ring called with the id of each alarm and the client's clock. ring may set any alarm.
func newAlarms(now int64, ring func(id int, at int64)) *alarms {
	a := &alarms{wheel: timingwheel.New(alarmSlots), ring: ring}
	a.fire = func(id uint32) { a.ring(int(id), a.now) }
	a.wheel.Advance(now/alarmTick, 1, a.fire)
	return a
}

// set arms the alarm of an id for a time on the client's clock, or moves it there.
func (a *alarms) set(id int, at int64) { a.wheel.Schedule(uint32(id), (at+alarmTick-1)/alarmTick) }

// cancel disarms the alarm of an id.
func (a *alarms) cancel(id int) { a.wheel.Cancel(uint32(id)) }

// serve rings what is due, within a bound, and returns when to be called again.
func (a *alarms) serve(now int64) int64 {
	a.now = now
	a.wheel.Advance(now/alarmTick, alarmsPerTurn, a.fire)
	next, ok := a.wheel.Next()
	if !ok {
		return never
	}
	return next * alarmTick
}
