package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestProcessAccount(t *testing.T) {
	p := process{pid: os.Getpid()}
	before, err := p.usage()
	if err != nil {
		t.Fatal(err)
	}
	rss, err := p.rss()
	if err != nil || rss < 1<<20 {
		t.Fatalf("resident %d bytes, %v", rss, err)
	}
	own, err := ownUsage()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for spent := time.Duration(0); spent < 150*time.Millisecond; sum++ { // of CPU: the clock goes on without a core as well
		now, err := ownUsage()
		if err != nil {
			t.Fatal(err)
		}
		spent = own.cpu(now)
	}
	after, err := p.usage()
	if err != nil {
		t.Fatal(err)
	}
	ownAfter, err := ownUsage()
	if err != nil {
		t.Fatal(err)
	}
	fromOutside, fromInside := before.cpu(after), own.cpu(ownAfter)
	if fromOutside <= 0 || fromInside <= 0 {
		t.Fatalf("after %d turns: %v by /proc, %v by getrusage", sum, fromOutside, fromInside)
	}
	if difference := (fromOutside - fromInside).Abs(); difference > 60*time.Millisecond {
		t.Errorf("%v by /proc, %v by getrusage", fromOutside, fromInside)
	}
}

// TestProcessGone: neither a process that is gone nor one that only waits to be reaped has an account.
func TestProcessGone(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := process{pid: cmd.Process.Pid}
	if _, err := p.rss(); err != nil {
		t.Fatalf("alive: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.rss(); !errors.Is(err, errProcessGone) {
		t.Errorf("rss: %v, want %v", err, errProcessGone)
	}
	if _, err := p.usage(); !errors.Is(err, errProcessGone) {
		t.Errorf("usage: %v, want %v", err, errProcessGone)
	}
}

func TestUsageFallsBackOnTicks(t *testing.T) {
	tests := []struct {
		name          string
		before, after usage
		want          time.Duration
	}{
		{"exact", usage{exact: 5 * time.Millisecond}, usage{exact: 12 * time.Millisecond, ticks: 10 * time.Millisecond}, 7 * time.Millisecond},
		{
			"a thread ended",
			usage{exact: 500 * time.Millisecond, ticks: 500 * time.Millisecond},
			usage{exact: 100 * time.Millisecond, ticks: 900 * time.Millisecond},
			400 * time.Millisecond,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.before.cpu(tt.after); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestParsePerf(t *testing.T) {
	tests := []struct {
		name   string
		output string
		want   int64
		err    string
	}{
		{"counted", "Events disabled\n12345,,raw_syscalls:sys_enter,7,100.00,,\n", 12345, ""},
		{"not counted", "<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n", 0, "<not counted>"},
		{"refused", "Error:\nNo permission to enable raw_syscalls:sys_enter event.\n", 0, "no figure"},
		{"nothing", "", 0, "no figure"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parsePerf(tt.output)
			if got != tt.want || (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%d, %v; want %d, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestCounter: where perf may count, it counts at least the calls made here; where it may not, the error says so.
func TestCounter(t *testing.T) {
	const calls = 5000
	c, err := newCounter(os.Getpid())
	if err == nil {
		err = c.command("enable")
	}
	if err != nil {
		if !errors.Is(err, errPerf) {
			t.Fatalf("%v is not %v", err, errPerf)
		}
		return
	}
	for range calls {
		syscall.Getppid()
	}
	if err := c.command("disable"); err != nil {
		t.Fatal(err)
	}
	n, err := c.finish()
	if err != nil || n < calls || n > 100*calls {
		t.Errorf("%d calls counted, %v; %d were made", n, err, calls)
	}
}

func TestCounterWithoutPerf(t *testing.T) {
	t.Setenv("PATH", "")
	if _, err := newCounter(os.Getpid()); !errors.Is(err, errPerf) || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("%v", err)
	}
}

func TestCounterOfNobody(t *testing.T) {
	c, err := newCounter(1<<31 - 1)
	if err == nil {
		err = c.command("enable")
	}
	if !errors.Is(err, errPerf) {
		t.Errorf("%v, want %v", err, errPerf)
	}
}
