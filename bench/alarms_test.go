package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestAlarmsRingOnceAndNeverEarly: whatever the steps in which they are served, each alarm rings once, not before its time
// and in the first step that is a tick behind it or later.
func TestAlarmsRingOnceAndNeverEarly(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const from, alarmed = int64(7e9), 500
	due, rang := make([]int64, alarmed), make([]int, alarmed)
	a := newAlarms(from, func(id int, at int64) {
		rang[id]++
		if at < due[id] {
			t.Errorf("alarm %d rang %v early", id, time.Duration(due[id]-at))
		}
	})
	for id := range due {
		due[id] = from + 1 + random.Int64N(int64(30*time.Second))
		a.set(id, due[id])
	}
	for now := from; now < from+int64(31*time.Second); now += 1 + random.Int64N(int64(50*time.Millisecond)) {
		a.serve(now)
		for id := range due {
			if late := now - due[id]; late >= alarmTick && rang[id] != 1 {
				t.Fatalf("alarm %d rang %d times %v after its time", id, rang[id], time.Duration(late))
			}
		}
	}
	if next := a.serve(from + int64(time.Minute)); next != never {
		t.Errorf("next at %d with no alarm left", next)
	}
}

func TestAlarmsMoveAndCancel(t *testing.T) {
	var rang []int
	a := newAlarms(0, func(id int, _ int64) { rang = append(rang, id) })
	a.set(1, 100*alarmTick)
	a.set(1, 10*alarmTick)
	a.set(2, 20*alarmTick)
	a.set(3, 30*alarmTick)
	a.cancel(2)
	if next := a.serve(0); next != 10*alarmTick {
		t.Errorf("next at %d, want %d", next, 10*alarmTick)
	}
	a.serve(200 * alarmTick)
	if len(rang) != 2 || rang[0] != 1 || rang[1] != 3 {
		t.Errorf("rang %v, want 1 and 3", rang)
	}
}

func TestAlarmsTurnIsBounded(t *testing.T) {
	n := 0
	a := newAlarms(0, func(int, int64) { n++ })
	for id := range alarmsPerTurn + 5 {
		a.set(id, alarmTick)
	}
	if next := a.serve(alarmTick); n != alarmsPerTurn || next > alarmTick {
		t.Errorf("%d rang, next at %d; want %d and no parking", n, next, alarmsPerTurn)
	}
	if a.serve(alarmTick); n != alarmsPerTurn+5 {
		t.Errorf("%d rang, want all", n)
	}
}

// TestAlarmsAllocateNothing: garbage of the client would show as latency of the server.
func TestAlarmsAllocateNothing(t *testing.T) {
	var a *alarms
	now := int64(0)
	a = newAlarms(0, func(id int, at int64) { a.set(id, at+alarmTick) })
	a.set(0, alarmTick)
	if n := testing.AllocsPerRun(1000, func() {
		now += alarmTick
		a.serve(now)
	}); n != 0 {
		t.Errorf("%v allocations an alarm", n)
	}
}
