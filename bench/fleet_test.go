package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pulsewheel/pulsewheel/poller"
)

// fleetArgs is a small fleet of this repository's server: four pairs.
func fleetArgs(t *testing.T, more ...string) []string {
	t.Helper()
	return append([]string{
		"fleet", "--server", product(t), "--connections", "110", "--per-process", "30", "--interval", "400ms", "--duration", "1200ms", "--settle", "100ms",
	}, more...)
}

func TestFleet(t *testing.T) {
	// A beat is missed half an interval after it was due: longer than a busy machine keeps a process waiting.
	o := bench(t, fleetArgs(t, "--interval", "1s", "--duration", "3s")...)
	if o.code != exitOK {
		t.Fatalf("exit %d: %s\n%s", o.code, o.stderr, o.stdout)
	}
	for key, want := range map[string]float64{
		"servers": 4, "connections": 110, "held": 110, "failed": 0, "lost": 0, "beats_missed": 0, "expired_falsely": 0,
	} {
		if n := o.number(t, key); n != want {
			t.Errorf("%s = %v, want %v", key, n, want)
		}
	}
	if n := o.number(t, "beats"); n < 280 || n > 400 {
		t.Errorf("%v beats, want about 330", n)
	}
	for _, key := range []string{"bytes_per_connection", "bytes_per_connection_since_start", "anonymous_bytes_per_connection", "client_bytes_per_connection", "cpu_us_per_beat", "server_cores"} {
		o.number(t, key)
	}
	if rss := o.json["server"].(map[string]any)["rss_bytes"].(float64); rss < 4<<20 {
		t.Errorf("%v bytes resident of four servers", rss)
	}
	if left := fleetProcesses(t, product(t)); left != nil {
		t.Errorf("still running: %v", left)
	}
}

// fleetProcesses are the processes of a program.
func fleetProcesses(t *testing.T, program string) (pids []int) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if target, err := os.Readlink(name); err == nil && target == program {
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids) // the first was started first
	return pids
}

// TestFleetFindsFaults: what goes wrong is one line, and nothing is left running.
func TestFleetFindsFaults(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no such server", []string{"--server", "/no/such/server"}, exitUsage, "no such file"},
		{"a server that refuses", []string{"--server-args", "--no-such-option"}, exitUsage, "server without connections: wrong call: it ended at once"},
		{"a server that takes no heartbeats", []string{"--server", self}, exitUsage, "it ended at once"},
		{"no memory", []string{"--memory-reserve", "1000000GiB"}, exitUsage, "not one pair: memory"},
		{"full servers", []string{"--server-args", "--connection-limit 20"}, exitFailed, "connections could not be opened, mostly: answered 503"},
		{"no beats", []string{"--server-args", "--heartbeat-mode none"}, exitFailed, "no beat in"},
		{"argument", []string{"now"}, exitUsage, `unexpected argument "now"`},
		{"no connections", []string{"--connections", "0"}, exitUsage, "--connections 0"},
		{"too many pairs", []string{"--connections", "1000000000"}, exitUsage, "ulimit -n"},
		{"interval too short", []string{"--interval", "1ms"}, exitUsage, "--interval 1ms"},
		{"not a size", []string{"--memory-reserve", "much"}, exitUsage, "not a size"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := bench(t, fleetArgs(t, tt.args...)...)
			if o.code != tt.code || !strings.Contains(o.lastOf(), tt.want) {
				t.Errorf("exit %d, %q; want exit %d and %q", o.code, o.stderr, tt.code, tt.want)
			}
			if left := fleetProcesses(t, product(t)); left != nil {
				t.Errorf("still running: %v", left)
			}
		})
	}
}

// TestFleetShort: a fleet that memory stops holds what there is memory for, says what stopped it, and fails.
func TestFleetShort(t *testing.T) {
	r := &report{}
	f := &fleet{o: &fleetOptions{connections: 1000, reserve: 1 << 30}, report: r, held: 400, stopped: "memory: so much"}
	f.judge(&tally{Opened: 400, Active: 400}, &beatCounts{Beats: 7}, span{to: 1}, 0, 100)
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "1000 connections were asked for, 400 are what this machine holds; memory") {
		t.Errorf("%q", r.Problems)
	}
	r.Problems = nil
	f.stopped, f.o.bytesMost = "", 150
	f.judge(&tally{Opened: 400, Active: 400}, &beatCounts{Beats: 7}, span{to: 1}, 0, 150)
	f.judge(&tally{Opened: 400, Active: 400}, &beatCounts{Beats: 7}, span{to: 1}, 0, 152)
	if want := "the servers' memory rose by 152 bytes a connection, more than 150"; len(r.Problems) != 1 || r.Problems[0] != want {
		t.Errorf("%q, want %q", r.Problems, want)
	}
	r.Problems = nil
	f.judge(&tally{Opened: 400, Active: 399, Lost: 1, Losses: map[string]int{"close 4408 heartbeat-timeout": 1}}, &beatCounts{Beats: 7}, span{to: 1}, 1, 100)
	if got := strings.Join(r.Problems, "; "); !strings.Contains(got, "1 connections were lost, mostly: close 4408") || !strings.Contains(got, "1 connections were expired though they answered") {
		t.Errorf("%q", got)
	}
}

// runningFleet is a fleet in a process of its own, with all its connections.
func runningFleet(t *testing.T) (leader *exec.Cmd, said *bytes.Buffer, program string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(product(t))
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(t.TempDir(), "server") // a name of its own, to be told from other tests' servers
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	leader = exec.Command(self, fleetArgs(t, "--server", program, "--duration", "1h")...)
	said = &bytes.Buffer{}
	leader.Stderr = said
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = leader.Process.Kill() }) // fails only if it has ended
	waitUntil(t, "five servers run", func() bool { return len(fleetProcesses(t, program)) == 5 })
	return leader, said, program
}

// TestFleetInterrupted: Ctrl-C ends everything that was started.
func TestFleetInterrupted(t *testing.T) {
	t.Parallel()
	leader, said, program := runningFleet(t)
	if err := leader.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	wantFleetEnds(t, leader, said, program, "bench: interrupted")
}

// TestFleetServerKilled: a server that dies midway is named, and ends the run.
func TestFleetServerKilled(t *testing.T) {
	t.Parallel()
	leader, said, program := runningFleet(t)
	if err := syscall.Kill(fleetProcesses(t, program)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantFleetEnds(t, leader, said, program, "ended midway")
}

// wantFleetEnds: it fails, says why, and leaves nothing behind.
func wantFleetEnds(t *testing.T, leader *exec.Cmd, said *bytes.Buffer, program, why string) {
	t.Helper()
	_ = leader.Wait() // its exit code is looked at
	if code := leader.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(lastLine(said.String()), why) {
		t.Errorf("exit %d: %q", code, said.String())
	}
	if left := fleetProcesses(t, program); left != nil {
		t.Errorf("still running: %v", left)
	}
}

// TestFleetKilled: nothing outlives a leader that had no time to end it.
func TestFleetKilled(t *testing.T) {
	t.Parallel()
	leader, _, program := runningFleet(t)
	if err := leader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = leader.Wait() // it was killed
	waitUntil(t, "all servers have ended", func() bool { return fleetProcesses(t, program) == nil })
}

func TestByteSize(t *testing.T) {
	tests := []struct {
		name, text string
		want       byteSize
		ok         bool
	}{
		{"mebibytes", "512MiB", 512 << 20, true},
		{"gibibytes", "2GiB", 2 << 30, true},
		{"kibibytes", "4096KiB", 4 << 20, true},
		{"no unit", "12", 0, false},
		{"negative", "-1MiB", 0, false},
		{"words", "muchMiB", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b byteSize
			if err := b.Set(tt.text); (err == nil) != tt.ok || b != tt.want {
				t.Errorf("%d, %v; want %d", b, err, tt.want)
			}
		})
	}
}

// TestMemoryOfAProcess: what is read of a process is what it has.
func TestMemoryOfAProcess(t *testing.T) {
	const more = 32 << 20
	p := process{pid: os.Getpid()}
	_, before, err := p.memory()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := syscall.Mmap(-1, 0, more, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(taken) //nolint:errcheck // the test ends
	for i := range taken {
		taken[i] = 1
	}
	resident, after, err := p.memory()
	if err != nil {
		t.Fatal(err)
	}
	if after-before < more/2 || resident < after { // what else the process does meanwhile may give memory back
		t.Errorf("%d anonymous bytes of %d resident after %d more than %d", after, resident, more, before)
	}
	if _, _, err := (process{pid: 1<<31 - 1}).memory(); err == nil {
		t.Error("memory of nobody")
	}
	if n, err := memoryAvailable(); err != nil || n < 1<<20 {
		t.Errorf("%d bytes available, %v", n, err)
	}
}

// TestServersOfAFleetHaveTheirDescriptors: a server takes as many connections as a fleet gives it, however many cores and so loops there are.
func TestServersOfAFleetHaveTheirDescriptors(t *testing.T) {
	descriptors, err := poller.DescriptorLimit()
	if err != nil {
		t.Fatal(err)
	}
	for _, cores := range []int{1, 2, 32, 384} {
		running, _ := startProduct(t, "--loops", strconv.Itoa(max(1, cores/2)))
		body, err := newAdmin("http://" + running.admin).get("/metrics")
		if err != nil {
			t.Fatal(err)
		}
		limit := parseMetrics(body, countersPrefix)["connections_limit"]
		if share := int(descriptors) - serverSpare(cores); limit == 0 || share > limit {
			t.Errorf("%d cores: a share of %v connections for a server that takes %v", cores, share, limit)
		}
	}
}
