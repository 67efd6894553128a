package doctor

import "testing"

func BenchmarkExamine(b *testing.B) {
	h := hostOf(2_000_000, goodHost())
	b.ReportAllocs()
	for b.Loop() {
		if IsShort(Examine(h, 1_000_000)) {
			b.Fatal("short")
		}
	}
}
