package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// asProgram in the environment makes the test binary stand for the program, or for a server to run it against, so that
// compare finds real processes to start.
const asProgram = "BENCH_TEST_AS_PROGRAM"

// testsAtOnce is how many of the tests that wait may do so together.
const testsAtOnce = 12

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		if err := os.Setenv(asProgram, "1"); err != nil { // for the processes that tests start, hands among them
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		// Most tests wait for a scenario's time to pass: as many at a time as there are cores would take minutes.
		flag.Parse()
		if err := flag.Set("test.parallel", strconv.Itoa(max(runtime.GOMAXPROCS(0), testsAtOnce))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		code := m.Run()
		if dir, err := productDir(); err == nil {
			_ = os.RemoveAll(dir)
		}
		os.Exit(code)
	}
	if len(os.Args) > 2 && os.Args[1] == "test-server" {
		p, err := listenPeer(os.Args[2], peerOptions{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		<-p.stopped // never: a signal ends it
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// productDir is where the server of this repository is built for the tests that need it, once.
var productDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "bench-test-") })

var buildProduct = sync.OnceValues(func() (string, error) {
	dir, err := productDir()
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "pulsewheel")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/pulsewheel").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

// product is the program of this repository's server.
func product(t *testing.T) string {
	t.Helper()
	program, err := buildProduct()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// outcome is what one call of the program left behind.
type outcome struct {
	code   int
	stdout string
	stderr string
	json   map[string]any
}

// bench runs the program with a JSON file.
func bench(t *testing.T, args ...string) outcome {
	t.Helper()
	file := filepath.Join(t.TempDir(), "result.json")
	var stdout, stderr bytes.Buffer
	o := outcome{code: run(append(args, "--json", file), &stdout, &stderr)}
	o.stdout, o.stderr = stdout.String(), stderr.String()
	if text, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(text, &o.json); err != nil {
			t.Fatalf("result is not JSON: %v\n%s", err, text)
		}
	}
	return o
}

// number is a figure of the result; a missing one fails the test.
func (o outcome) number(t *testing.T, key string) float64 {
	t.Helper()
	v, ok := o.json[key].(float64)
	if !ok {
		t.Fatalf("result has no figure %q: %v\n%s", key, o.json, o.stderr)
	}
	return v
}

// withheld says whether the result names the figure as one that would be the client's own. Where server and client are one
// process, as in most tests, or other tests run beside it, that is as right as the figure itself.
func (o outcome) withheld(key string) bool {
	list, _ := o.json["withheld"].([]any)
	return slices.Contains(list, any(key))
}

// lastOf is the line that says why the program failed.
func (o outcome) lastOf() string { return lastLine(o.stderr) }

func TestWrongCallsAreOneLineAndExitTwo(t *testing.T) {
	refused := "ws://" + freeAddress(t) + "/ws"
	live := startPeer(t, peerOptions{}).url()
	tests := []struct {
		name string
		args []string
		want string // part of the one line
	}{
		{"no such scenario", []string{"walk"}, `no scenario is called "walk"`},
		{"no target", []string{"echo"}, "--target is missing"},
		{"unknown flag", []string{"echo", "--speed", "9"}, "-speed"},
		{"not a number", []string{"echo", "--connections", "many"}, "connections"},
		{"stray argument", []string{"echo", "--target", refused, "fast"}, `unexpected argument "fast"`},
		{"https target", []string{"echo", "--target", "https://127.0.0.1/ws"}, "not ws://"},
		{"target without host", []string{"echo", "--target", "ws:///ws"}, "not ws://"},
		{"target that is no URL", []string{"echo", "--target", "ws://[::1"}, "not a URL"},
		{"nobody there", []string{"echo", "--target", refused}, "connection refused"},
		{"no connections", []string{"echo", "--target", refused, "--connections", "0"}, "--connections 0"},
		{"no duration", []string{"idle", "--target", refused, "--duration", "0s"}, "--duration 0s"},
		{"negative rate", []string{"storm", "--target", refused, "--rate", "-1"}, "--rate -1"},
		{"rate that is no number", []string{"echo", "--target", refused, "--rate", "NaN"}, "--rate NaN"},
		{"rate without end", []string{"echo", "--target", refused, "--rate", "Inf"}, "--rate +Inf"},
		{"rate of nothing", []string{"echo", "--target", refused, "--rate", "1e-300"}, "--rate 1e-300"},
		{"rate beyond the clock", []string{"storm", "--target", refused, "--rate", "1e300"}, "--rate 1e+300"},
		{"rate of a fleet", []string{"fleet", "--rate", "NaN"}, "--rate NaN"},
		{"bytes without end", []string{"fleet", "--bytes-most", "Inf"}, "--bytes-most +Inf"},
		{"size with rubbish", []string{"fleet", "--memory-reserve", "5xMiB"}, "not a size"},
		{"settling backwards", []string{"idle", "--target", refused, "--echo-settle", "-1s"}, "--echo-settle -1s"},
		{"late before its time", []string{"heartbeat", "--target", refused, "--late-after", "-1s"}, "--late-after -1s"},
		{"late before its time in a fleet", []string{"fleet", "--late-after", "-1s"}, "--late-after -1s"},
		{"broadcasts beyond the clock", []string{"broadcast", "--target", refused, "--admin", "http://127.0.0.1:1", "--every", "2000000h"}, "--every 2000000h"},
		{"waiting beyond the clock", []string{"broadcast", "--target", refused, "--admin", "http://127.0.0.1:1", "--within", "2000000h"}, "--within 2000000h"},
		{"opening beyond numbers", []string{"storm", "--target", refused, "--opening", "2000000000"}, "--opening 2000000000"},
		{"more hostile than numbers", []string{"hostile", "--target", refused, "--hostile", "2000000000"}, "--hostile 2000000000"},
		{"no rounds", []string{"compare", "--servers", "a=x {addr}", "--rounds", "0", "echo"}, "--rounds 0"},
		{"a path without a slash", []string{"compare", "--servers", "a=x {addr}", "--path", "ws", "echo"}, `--path "ws"`},
		{"duration beyond the clock", []string{"idle", "--target", refused, "--duration", "2000000h"}, "--duration 2000000h"},
		{"nowhere to write", []string{"idle", "--target", live, "--json", "/no/such/folder/x.json"}, "--json: open /no/such/folder/x.json"},
		{"a folder to write", []string{"fleet", "--json", os.TempDir()}, "is a directory"},
		{"nowhere to write a comparison", []string{"compare", "--json", "/no/such/x.json", "--servers", "a=x {addr}", "echo"}, "--json: open"},
		{"more than descriptors", []string{"idle", "--target", refused, "--connections", "2000000000"}, "ulimit -n"},
		{"system calls of nobody", []string{"echo", "--target", refused, "--syscalls"}, "--syscalls needs --pid"},
		{"no such process", []string{"echo", "--target", refused, "--pid", "2147483647"}, "process is gone"},
		{"mode unknown", []string{"heartbeat", "--target", refused, "--mode", "pong"}, `--mode "pong"`},
		{"steps falling", []string{"idle", "--target", refused, "--steps", "9,3"}, "rising list"},
		{"steps with rubbish", []string{"idle", "--target", refused, "--steps", "3,9x"}, "rising list"},
		{"pipeline in an open loop", []string{"echo", "--target", refused, "--rate", "9", "--pipeline", "2"}, "--pipeline"},
		{"message too big", []string{"echo", "--target", refused, "--size", "2000000"}, "--size 2000000"},
		{"silence shorter than two beats", []string{"churn", "--target", refused, "--interval", "4s"}, "--timeout 6s"},
		{"nobody comes", []string{"churn", "--target", refused, "--churn-rate", "0"}, "--churn-rate 0"},
		{"no number of visitors", []string{"churn", "--target", refused, "--churn-rate", "NaN"}, "--churn-rate NaN"},
		{"life without end", []string{"churn", "--target", refused, "--life", "1h"}, "--life 1h"},
		{"system calls of a churn", []string{"churn", "--target", refused, "--pid", "1", "--syscalls"}, "--syscalls belongs to"},
		{"admin that is no URL", []string{"churn", "--target", refused, "--admin", "8081"}, "--admin"},
		{"admin nobody listens on", []string{"churn", "--target", live, "--admin", "http" + strings.TrimSuffix(strings.TrimPrefix(refused, "ws"), "/ws")}, "connection refused"},
		{"kind unknown", []string{"hostile", "--target", refused, "--kinds", "drip,rude"}, `"rude" is none of`},
		{"hostile in a closed loop", []string{"hostile", "--target", refused, "--rate", "0"}, "--rate is to be above 0"},
		{"one healthy", []string{"hostile", "--target", refused, "--connections", "1"}, "--connections 1 is less than 2"},
		{"hostile beyond descriptors", []string{"hostile", "--target", refused, "--hostile", "1000000000", "--hostile-rate", "0"}, "beside them are more than"},
		{"hostile rate of nothing", []string{"hostile", "--target", refused, "--hostile-rate", "1e-9"}, "--hostile-rate 1e-09"},
		{"more at one time than there are", []string{"hostile", "--target", refused, "--hostile", "9", "--at-least", "10"}, "--at-least 10"},
		{"no factor", []string{"hostile", "--target", refused, "--factor", "-1"}, "--factor -1"},
		{"compare nothing", []string{"compare", "echo"}, "--servers wants"},
		{"compare without address", []string{"compare", "--servers", "a=/bin/true", "echo"}, "neither {addr} nor {port}"},
		{"compare with a target", []string{"compare", "--servers", "a=x {addr}", "echo", "--target=ws://x/"}, "--target is set by compare"},
		{"compare no program", []string{"compare", "--servers", "a=/no/such/program {addr}", "echo"}, "no such file"},
		{"compare one that ends", []string{"compare", "--servers", "a=/bin/false {addr}", "echo"}, "ended at once"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(tt.args, &stdout, &stderr)
			line := lastLine(stderr.String())
			if code != exitUsage || !strings.Contains(line, tt.want) || !strings.HasPrefix(line, "bench: ") {
				t.Errorf("exit %d, %q; want exit %d and %q", code, stderr.String(), exitUsage, tt.want)
			}
			if lines := strings.Count(strings.TrimSpace(stderr.String()), "\n"); lines > 0 && tt.args[0] != "compare" {
				t.Errorf("%d lines instead of one: %q", lines+1, stderr.String())
			}
		})
	}
}

// TestTooFewDescriptors: a limit that leaves no room is told before anything is opened; one that leaves some is met by more
// processes.
func TestTooFewDescriptors(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := startPeer(t, peerOptions{})
	tests := []struct {
		name, limit string
		connections string
		code        int
		want        string
	}{
		{"no room", "35", "30", exitUsage, "bench: wrong call: the limit of 35 descriptors leaves no room for connections: raise it (ulimit -n)"},
		{"room for a few", "52", "30", exitOK, "30 opened, 0 failed, 0 lost"},
		// Ten processes would do, if the first one needed nothing for the others.
		{"room for many hands", "240", "2000", exitOK, "2000 opened, 0 failed, 0 lost"},
		{"too many hands", "120", "5000", exitUsage, "5000 connections are more than 1024 processes hold with 80 each, the first one with less, by 4 for each of the others"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			load := exec.Command("sh", "-c", `ulimit -n "$1"; exec "$0" idle --target "$2" --connections "$3" --settle 0s --duration 50ms`, self, tt.limit, p.url(), tt.connections)
			out, err := load.CombinedOutput()
			if code := load.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), tt.want) {
				t.Errorf("exit %d (%v): %s; want exit %d and %q", code, err, out, tt.code, tt.want)
			}
		})
	}
}

func TestHelpExitsZero(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"all", []string{"help"}, "heartbeat"},
		{"scenario", []string{"echo", "--help"}, "-pipeline"},
		{"compare", []string{"compare", "--help"}, "-servers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := run(tt.args, &out, &out); code != exitOK || !strings.Contains(out.String(), tt.want) {
				t.Errorf("exit %d, %q; want %d and %q", code, out.String(), exitOK, tt.want)
			}
		})
	}
}

func TestCompareRunsServersInRotation(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	server := self + " test-server {addr}"
	o := bench(t, "compare", "--rounds", "2", "--servers", "a="+server+",b="+server)
	if o.code != exitUsage {
		t.Fatalf("exit %d without a scenario, want %d", o.code, exitUsage)
	}
	file := filepath.Join(t.TempDir(), "compared.json")
	var stdout, stderr bytes.Buffer
	code := run([]string{
		"compare", "--control", "--rounds", "2", "--json", file, "--servers", "a=" + server + ",b=" + server,
		"echo", "--connections", "5", "--duration", "100ms", "--settle", "0s",
	}, &stdout, &stderr)
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Servers map[string]map[string]spread `json:"servers"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if n := len(got.Servers[name]["cpu_us_per_echo"].Values); n != 2 {
			t.Errorf("%s: %d values of cpu_us_per_echo, want 2", name, n)
		}
		if n := got.Servers[name]["connections"].Median; n != 5 {
			t.Errorf("%s: %v connections, want 5", name, n)
		}
	}
	again := 0
	var order []string
	for line := range strings.Lines(stderr.String()) {
		if strings.HasPrefix(line, "  again, ") {
			again++
			continue
		}
		order = append(order, strings.TrimSpace(line))
	}
	want := []string{"round 1 of 2: a", "round 1 of 2: b", "round 1 of 2: a-again", "round 2 of 2: a", "round 2 of 2: a-again", "round 2 of 2: b"}
	if !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	if again > len(want)*repeatsMost {
		t.Errorf("%d turns were repeated", again)
	}
	if !strings.Contains(stdout.String(), "latency us p50") {
		t.Errorf("no table: %q", stdout.String())
	}
}
