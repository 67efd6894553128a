package server

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain runs the tests, or in a re-executed binary a server that they stop, starve and measure from outside. At the end it
// fails the run if a goroutine or a descriptor outlives the tests.
func TestMain(m *testing.M) {
	if settings := os.Getenv(childVariable); settings != "" {
		if err := runChild(settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Most of these tests wait for a time to pass and cost nothing meanwhile: more of them than cores may run at once.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("6")
	}
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		os.Exit(m.Run()) // the fuzzing engine has goroutines of its own
	}
	openRuntimeDescriptors()
	goroutines, descriptors := len(foreignGoroutines()), len(openDescriptors())
	code := m.Run()
	if left := leftOver(func() []string { return foreignGoroutines() }, goroutines); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines leaked, %d at the start, now:\n%s\n", goroutines, left)
		code = 1
	}
	if left := leftOver(openDescriptors, descriptors); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "descriptors leaked, %d at the start, now:\n%s\n", descriptors, left)
		code = 1
	}
	os.Exit(code)
}

// openRuntimeDescriptors has the runtime open those of its own poller, which it keeps.
func openRuntimeDescriptors() {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	_ = r.Close()
	_ = w.Close()
}

// leftOver gives what is counted some seconds to come down, and lists it if it doesn't: goroutines end in their own time after
// they were told to.
func leftOver(list func() []string, most int) string {
	deadline := time.After(5 * time.Second)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		now := list()
		if len(now) <= most {
			return ""
		}
		select {
		case <-look.C:
		case <-deadline:
			return strings.Join(now, "\n")
		}
	}
}

// foreignGoroutines are the stacks of all goroutines but the caller's.
func foreignGoroutines() []string {
	all := make([]byte, 4<<20)
	all = all[:runtime.Stack(all, true)]
	return strings.Split(string(all), "\n\n")[1:]
}

// openDescriptors lists this process's descriptors with what they lead to; none where the system has no /proc.
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
