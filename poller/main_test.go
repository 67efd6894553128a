package poller

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// childVariable selects, in a re-executed test binary, what to do instead of
// the tests: things that would break other tests of the same process.
const childVariable = "PULSEWHEEL_POLLER_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "descriptors" {
		if err := exhaustDescriptors(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The runtime opens its own epoll descriptors with the first pipe.
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	_ = r.Close()
	_ = w.Close()
	before := openDescriptors()
	code := m.Run()
	if after := openDescriptors(); code == 0 && len(after) > len(before) {
		fmt.Fprintf(os.Stderr, "descriptors leaked: %d before, now\n%s\n", len(before), strings.Join(after, "\n"))
		code = 1
	}
	os.Exit(code)
}

// openDescriptors lists this process's descriptors with what they lead to;
// none where the system has no /proc.
func openDescriptors() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var list []string
	for _, entry := range entries {
		// The directory's own descriptor is closed by now and leads nowhere.
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil {
			list = append(list, entry.Name()+" -> "+target)
		}
	}
	return list
}
