package timingwheel

import "testing"

// FuzzWheel lets the input decide every choice of the rig: which operation, on which id, for which tick, and what fire does.
func FuzzWheel(f *testing.F) {
	f.Fuzz(func(t *testing.T, input []byte) {
		const stepsMax = 2000 // bounds the time of one input
		choose := func(n int) int {
			value := 0
			for span := 1; span < n && len(input) > 0; span <<= 8 {
				value = value<<8 | int(input[0])
				input = input[1:]
			}
			return value % n
		}
		r := newRig(t, 8<<choose(6), choose)
		for range stepsMax {
			if len(input) == 0 {
				return
			}
			r.step()
		}
	})
}
