package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// childVariable makes a re-executed test binary a server instead, with the settings that stand in it: some things can't be done to
// a process that runs other tests, and a server that is stopped must not stop its clients.
const childVariable = "PULSEWHEEL_SERVER_CHILD"

// childSettings are what a test wants of the child.
type childSettings struct {
	InlineBatch int
	Interval    time.Duration
	Timeout     time.Duration
	Descriptors int // how many it may open beyond those that it begins with; 0: as many as it likes
	Limit       int // its descriptor limit from the beginning, which its connection limit follows then; 0: the limit that there is, and 10,000
	Loops       int
}

// childReport is what the child tells when it is asked: one line of JSON for each line that it reads.
type childReport struct {
	Addr       string
	Stats      Stats
	CPU        time.Duration
	Goroutines int
	Heap       uint64 // bytes that live
}

// runChild serves until its standard input ends.
func runChild(text string) error {
	var settings childSettings
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		return err
	}
	connections := 10_000
	if settings.Limit > 0 {
		connections = 0
		var limit syscall.Rlimit
		setLimit(&limit.Cur, settings.Limit)
		setLimit(&limit.Max, settings.Limit)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
	}
	s, err := New(Config{
		Listen: []string{"127.0.0.1:0"}, InlineBatch: settings.InlineBatch, HandlerInline: true, ConnectionLimit: connections, Loops: settings.Loops,
		HeartbeatInterval: settings.Interval, HeartbeatTimeout: settings.Timeout, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}, hooks{message: func(c Conn, op Op, data []byte) {
		sent := append([]byte(nil), data...)
		go func() { _ = c.Send(op, sent) }() // from another goroutine, as applications do
	}})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	<-s.Started()
	if settings.Descriptors > 0 {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		setLimit(&limit.Cur, len(openDescriptors())+settings.Descriptors)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		runtime.GC()
		runtime.GC() // what the first one finalised
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		report := childReport{Heap: memory.HeapAlloc, Addr: s.Addrs()[0].String(), Stats: s.Stats(), CPU: cpuTime(), Goroutines: len(foreignGoroutines())}
		if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
			return err
		}
	}
	return nil
}

// setLimit is an assignment to a field whose type is not the same on every system.
func setLimit[T int64 | uint64](field *T, n int) { *field = T(n) }

// cpuTime is what the process has used, in user and kernel mode.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// child is a server in a process of its own.
type child struct {
	*running // only the address and dial
	process  *os.Process
	ask      io.WriteCloser
	answers  *json.Decoder
}

// startChild starts one, to be ended with the test.
func startChild(t *testing.T, settings childSettings) *child {
	t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server's process: %v", err)
		}
	})
	c := &child{running: &running{t: t}, process: cmd.Process, ask: in, answers: json.NewDecoder(out)}
	c.addr = c.report(t).Addr
	return c
}

// report asks the child how it is.
func (c *child) report(t testing.TB) childReport {
	t.Helper()
	if _, err := fmt.Fprintln(c.ask, "report"); err != nil {
		t.Fatal(err)
	}
	var r childReport
	if err := c.answers.Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

// signal stops or continues the child.
func (c *child) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := c.process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
