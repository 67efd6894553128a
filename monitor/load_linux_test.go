package monitor

import "testing"

func TestSystemLoad(t *testing.T) {
	load, cores, err := systemLoad()
	if err != nil || load < 0 || cores < 1 {
		t.Errorf("load %v of %d cores, %v", load, cores, err)
	}
}

func TestCountCores(t *testing.T) {
	tests := []struct {
		name, list string
		want       int
	}{
		{"one", "0", 1},
		{"range", "0-3", 4},
		{"gaps", "0-1,4,6-7", 5},
		{"empty", "", 0},
		{"backwards", "3-1", 0},
		{"text", "a-b", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := countCores(test.list); got != test.want {
				t.Errorf("%q: %d, want %d", test.list, got, test.want)
			}
		})
	}
}
