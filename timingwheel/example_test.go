package timingwheel_test

import (
	"fmt"

	"github.com/pulsewheel/pulsewheel/timingwheel"
)

// A caller with its own clock: here a tick is whatever the loop counts.
func Example() {
	wheel := timingwheel.New(1024)
	names := []string{"handshake", "heartbeat", "retry"}
	wheel.Schedule(0, 5)
	wheel.Schedule(1, 10)
	wheel.Schedule(2, 7)
	wheel.Cancel(2)

	for wheel.Now() < 30 {
		next, ok := wheel.Next()
		if !ok {
			break
		}
		// A real caller sleeps until tick next, asks its clock for the tick afterwards, and calls again when 256 have fired.
		wheel.Advance(next, 256, func(id uint32) {
			fmt.Println(wheel.Now(), names[id])
			if id == 1 {
				wheel.Schedule(id, wheel.Now()+10)
			}
		})
	}
	// Output:
	// 5 handshake
	// 10 heartbeat
	// 20 heartbeat
	// 30 heartbeat
}

// Deadlines further away than a revolution are clamped: look again when the timer fires.
func ExampleWheel_Schedule() {
	wheel := timingwheel.New(64)
	const deadline = 150
	fire := func(id uint32) {
		if wheel.Now() < deadline {
			fmt.Println("look again at", wheel.Schedule(id, deadline))
			return
		}
		fmt.Println("due at", wheel.Now())
	}
	fmt.Println("look again at", wheel.Schedule(0, deadline))
	wheel.Advance(200, 10, fire)
	// Output:
	// look again at 63
	// look again at 126
	// look again at 150
	// due at 150
}

// A crowd that arrives at one instant is spread over the interval by the counts of the slots.
func ExampleWheel_Place() {
	wheel := timingwheel.New(64)
	const interval = 5
	for id := range uint32(10) {
		share := func(int64) int { return wheel.Len()/interval + 1 }
		tick, _ := wheel.Place(wheel.Now()+1, wheel.Now()+interval, 8, share)
		wheel.Schedule(id, tick)
	}
	for tick := int64(1); tick <= interval; tick++ {
		fmt.Println(tick, wheel.Count(tick))
	}
	// Output:
	// 1 2
	// 2 2
	// 3 2
	// 4 2
	// 5 2
}
