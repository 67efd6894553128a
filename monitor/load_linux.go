package monitor

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// systemLoad reads the 1-minute load average of the machine and the number of cores that it runs on. The load counts the
// whole machine, so the cores do too: runtime.NumCPU would tell only those that this process may use.
func systemLoad() (load float64, cores int, err error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	if load, err = strconv.ParseFloat(first, 64); err != nil {
		return 0, 0, fmt.Errorf("/proc/loadavg: %w", err)
	}
	online, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return load, runtime.NumCPU(), nil // a container may hide sysfs
	}
	if cores = countCores(strings.TrimSpace(string(online))); cores == 0 {
		cores = runtime.NumCPU()
	}
	return load, cores, nil
}

// countCores counts a kernel list of cores such as 0-3,8; 0 means that it can't be read.
func countCores(list string) (cores int) {
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.Atoi(low)
		last, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || last < first {
			return 0
		}
		cores += last - first + 1
	}
	return cores
}
