package timingwheel

import (
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"
)

func mustPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	f()
}

func never(id uint32) { panic(fmt.Sprintf("timer %d fired", id)) }

// drain advances to now in calls of limit and returns the ids in the order fired.
func drain(w *Wheel, now int64, limit int) []uint32 {
	var ids []uint32
	for w.Advance(now, limit, func(id uint32) { ids = append(ids, id) }) == limit {
	}
	return ids
}

func TestBugsOfTheCallerPanic(t *testing.T) {
	w := New(8)
	for _, test := range []struct {
		name string
		call func()
	}{
		{"no slots", func() { New(0) }},
		{"too few slots", func() { New(4) }},
		{"slots not a power of two", func() { New(24) }},
		{"too many slots", func() { New(1 << 21) }},
		{"negative slots", func() { New(-8) }},
		{"limit 0", func() { w.Advance(1, 0, never) }},
		{"a tick beyond 1<<62", func() { w.Advance(math.MaxInt64, 1, never) }},
		{"too many ids", func() { w.Grow(1 << 32) }},
		{"the reserved id", func() { w.Schedule(math.MaxUint32, 1) }},
	} {
		t.Run(test.name, func(t *testing.T) { mustPanic(t, test.call) })
	}
	if w.Now() != 0 || w.Len() != 0 || len(w.pages) != 0 {
		t.Errorf("a refused call left now %d, %d timers, %d pages", w.Now(), w.Len(), len(w.pages))
	}
}

func TestScheduleClamps(t *testing.T) {
	const slots, now = 64, 1000
	for _, test := range []struct {
		name     string
		deadline int64
		want     int64
	}{
		{"far past", math.MinInt64, now + 1},
		{"past", now - 1, now + 1},
		{"now", now, now + 1},
		{"next", now + 1, now + 1},
		{"within", now + 17, now + 17},
		{"last of the revolution", now + slots - 1, now + slots - 1},
		{"a revolution", now + slots, now + slots - 1},
		{"far future", math.MaxInt64, now + slots - 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := New(slots)
			w.Advance(now, 1, never)
			if got := w.Schedule(5, test.deadline); got != test.want {
				t.Errorf("Schedule(%d) = %d, want %d", test.deadline, got, test.want)
			}
			if got, ok := w.Deadline(5); got != test.want || !ok {
				t.Errorf("Deadline = %d, %v, want %d", got, ok, test.want)
			}
			if got := w.Count(test.want); got != 1 {
				t.Errorf("Count = %d", got)
			}
			w.Advance(test.want-1, 1, never)
			if got := drain(w, test.want, 9); !slices.Equal(got, []uint32{5}) {
				t.Errorf("at %d fired %v", test.want, got)
			}
		})
	}
}

func TestLastTick(t *testing.T) {
	w := New(8)
	w.Advance(tickMax, 1, never)
	if got := w.Schedule(0, math.MaxInt64); got != tickMax+7 {
		t.Errorf("Schedule = %d, want %d", got, int64(tickMax+7))
	}
	if got, ok := w.Next(); got != tickMax+7 || !ok {
		t.Errorf("Next = %d, %v", got, ok)
	}
}

func TestUnknownIDs(t *testing.T) {
	w := New(8)
	for _, id := range []uint32{0, 4095, 4096, math.MaxUint32} {
		if _, ok := w.Deadline(id); ok || w.Cancel(id) {
			t.Errorf("id %d is armed in an empty wheel", id)
		}
	}
	if len(w.pages) != 0 {
		t.Errorf("asking allocated %d pages", len(w.pages))
	}
	if _, ok := w.Next(); ok {
		t.Error("an empty wheel has a next tick")
	}
}

func TestFiringOrder(t *testing.T) {
	w := New(256)
	for id, deadline := range []int64{90, 30, 90, 5, 255, 90} {
		w.Schedule(uint32(id), deadline)
	}
	want := []uint32{3, 1, 5, 2, 0, 4}
	if got := drain(w, 1000, 100); !slices.Equal(got, want) {
		t.Errorf("fired %v, want %v", got, want)
	}
	if w.Now() != 1000 || w.Len() != 0 {
		t.Errorf("now %d, %d timers", w.Now(), w.Len())
	}
}

func TestLimitLeavesTheRestDue(t *testing.T) {
	w := New(64)
	for id := range uint32(10) {
		w.Schedule(id, 20)
	}
	w.Schedule(10, 21)
	var fired []uint32
	fire := func(id uint32) { fired = append(fired, id) }
	if got := w.Advance(50, 4, fire); got != 4 {
		t.Fatalf("Advance = %d, want 4", got)
	}
	// The rest of tick 20 stays due, countable and cancellable, while new timers go behind it.
	next, _ := w.Next()
	if w.Now() != 20 || next != 20 || w.Count(20) != 6 {
		t.Fatalf("now %d, next %d, %d left at 20", w.Now(), next, w.Count(20))
	}
	if tick := w.Schedule(11, 20); tick != 21 {
		t.Errorf("armed for %d while 20 fires, want 21", tick)
	}
	if tick, ok := w.Deadline(0); tick != 20 || !ok || !w.Cancel(0) {
		t.Errorf("left over timer: deadline %d, %v", tick, ok)
	}
	if tick := w.Schedule(1, 1000); tick != 20+63 {
		t.Errorf("left over timer moved to %d, want %d", tick, 20+63)
	}
	if got := w.Advance(19, 100, never); got != 0 {
		t.Errorf("Advance to the past fired %d", got)
	}
	fired = append(fired, drain(w, 50, 1)...)
	if want := []uint32{9, 8, 7, 6, 5, 4, 3, 2, 11, 10}; !slices.Equal(fired, want) {
		t.Errorf("fired %v, want %v", fired, want)
	}
	if w.Now() != 50 || w.Len() != 1 {
		t.Errorf("now %d, %d timers", w.Now(), w.Len())
	}
}

func TestFireMayDoAnything(t *testing.T) {
	w := New(64)
	w.Schedule(0, 10) // re-arms itself for every tick
	w.Schedule(1, 12) // cancelled by 2, which fires before it
	w.Schedule(2, 12)
	w.Schedule(3, 13) // arms 4 for a tick that is due already
	var log []string
	fire := func(id uint32) {
		log = append(log, fmt.Sprint(id, "@", w.Now()))
		if _, armed := w.Deadline(id); armed || w.Cancel(id) {
			t.Errorf("timer %d is armed while it fires", id)
		}
		switch id {
		case 0:
			w.Schedule(0, w.Now())
		case 2:
			w.Cancel(1)
		case 3:
			w.Schedule(4, 0)
		}
	}
	w.Advance(15, 100, fire)
	want := []string{"0@10", "0@11", "0@12", "2@12", "0@13", "3@13", "4@14", "0@14", "0@15"}
	if !slices.Equal(log, want) {
		t.Errorf("fired %v, want %v", log, want)
	}
	checkInvariants(t, w)
}

// A panic of fire leaves a wheel that can be used on: the timer that fired is gone, all others are as they were.
func TestPanicInFireLeavesTheWheelWhole(t *testing.T) {
	w := New(64)
	for id := range uint32(3) {
		w.Schedule(id, 5)
	}
	mustPanic(t, func() { w.Advance(9, 100, never) })
	checkInvariants(t, w)
	if got := drain(w, 9, 100); !slices.Equal(got, []uint32{1, 0}) {
		t.Errorf("fired %v after the panic, want [1 0]", got)
	}
}

// A jump of any length costs what it fires, not what it skips: the jump here would take centuries tick by tick.
func TestHugeJump(t *testing.T) {
	w := New(1 << 20)
	for id := range uint32(100) {
		w.Schedule(id, int64(id)*10_000+1)
	}
	ids := drain(w, tickMax, 7)
	if len(ids) != 100 || !slices.IsSorted(ids) || w.Now() != tickMax {
		t.Errorf("fired %d timers, sorted %v, now %d", len(ids), slices.IsSorted(ids), w.Now())
	}
}

func TestNextCrossesEveryBorder(t *testing.T) {
	const slots = 1 << 13 // two summary words
	for _, now := range []int64{0, 1, 63, 64, 4095, 4096, slots - 1, slots, 3*slots - 65} {
		for _, ahead := range []int64{1, 2, 62, 63, 64, 65, 127, 128, 4095, 4096, 4097, slots - 2, slots - 1} {
			w := New(slots)
			w.Advance(now, 1, never)
			w.Schedule(9, now+ahead)
			if got, ok := w.Next(); got != now+ahead || !ok {
				t.Errorf("at %d, armed for %d: Next = %d, %v", now, now+ahead, got, ok)
			}
		}
	}
}

// A timer is 12 bytes and a slot 8, without pointers, and growing costs nothing else but 8 bytes a page of 4,096.
func TestBytesPerTimer(t *testing.T) {
	if size := reflect.TypeFor[timer]().Size(); size != 12 {
		t.Errorf("a timer has %d bytes, want 12", size)
	}
	if size := reflect.TypeFor[slot]().Size(); size != 8 {
		t.Errorf("a slot has %d bytes, want 8", size)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[timer](), reflect.TypeFor[slot]()} {
		for field := range typ.Fields() {
			if kind := field.Type.Kind(); kind != reflect.Uint32 {
				t.Errorf("%v.%s is a %v", typ, field.Name, kind)
			}
		}
	}

	const ids = 1 << 20
	w := New(8)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.Grow(ids)
	runtime.ReadMemStats(&after)
	perTimer := float64(after.TotalAlloc-before.TotalAlloc) / ids
	t.Logf("%.3f bytes a timer", perTimer)
	if perTimer < 12 || perTimer > 12.1 {
		t.Errorf("%.3f bytes allocated a timer, want 12 and a little", perTimer)
	}
}

func TestGrow(t *testing.T) {
	w := New(8)
	w.Grow(-1)
	w.Grow(0)
	if len(w.pages) != 0 {
		t.Errorf("%d pages for no id", len(w.pages))
	}
	w.Schedule(7, 3)
	w.Grow(3*pageTimers + 1)
	w.Grow(1)
	if tick, ok := w.Deadline(7); tick != 3 || !ok || len(w.pages) != 4 {
		t.Errorf("after Grow: deadline %d, %v, %d pages", tick, ok, len(w.pages))
	}
}

func TestNoAllocation(t *testing.T) {
	const ids, interval = 10_000, 1250
	w := New(32_768)
	w.Grow(ids)
	id := uint32(0)
	fire := func(id uint32) { w.Schedule(id, w.Now()+interval) }
	share := func(tick int64) int { return int(tick & 1) }
	for _, test := range []struct {
		name string
		call func()
	}{
		{"schedule", func() { id = (id + 1) % ids; w.Schedule(id, w.Now()+int64(id)%interval) }},
		{"place", func() {
			tick, _ := w.Place(w.Now(), w.Now()+interval, 16, share)
			w.Schedule(1, tick)
		}},
		{"fire and re-arm", func() { w.Advance(w.Now()+10, ids, fire) }},
		{"cancel", func() { id = (id + 1) % ids; w.Cancel(id) }},
		{"next", func() { w.Next() }},
	} {
		if got := testing.AllocsPerRun(2*ids, test.call); got != 0 {
			t.Errorf("%s allocates %v times", test.name, got)
		}
	}
}
