package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestServerKilledMidway: a server that is killed in the measured span is one clear line, and no figure of a span without an end.
func TestServerKilledMidway(t *testing.T) {
	t.Parallel()
	for _, withPid := range []bool{true, false} {
		t.Run("pid "+strconv.FormatBool(withPid), func(t *testing.T) {
			t.Parallel()
			server, common := startProduct(t)
			var args []string
			for i := 0; i < len(common); i += 2 { // its counters can't be asked for any more
				if name := common[i]; name != "--admin" && (name != "--pid" || withPid) {
					args = append(args, common[i], common[i+1])
				}
			}
			a := newAdmin("http://" + server.admin)
			killed := make(chan error)
			go func() { // when all are connected, and have been told so: a pong is counted in a turn of the loop after that
				pongs := -1
				for {
					all, err := a.counters()
					n := all[`heartbeats_received_total{mode="pong"}`]
					if err != nil || pongs >= 0 && n > pongs {
						killed <- errors.Join(err, server.cmd.Process.Signal(syscall.SIGKILL))
						return
					}
					if pongs < 0 && all["connections"] >= 100 {
						pongs = n
					}
				}
			}()
			o := bench(t, append([]string{"heartbeat", "--interval", "1s", "--duration", "1m"}, args...)...)
			if err := <-killed; err != nil {
				t.Fatal(err)
			}
			if o.code != exitFailed || !strings.Contains(o.lastOf(), "100 connections were lost") || strings.Count(o.lastOf(), "\n") > 0 {
				t.Errorf("exit %d, %q", o.code, o.stderr)
			}
			text, err := json.Marshal(o.json)
			if err != nil {
				t.Fatal(err)
			}
			for _, figure := range []string{"duration_seconds", "beats_per_second", "cpu_us_per_beat"} {
				if n, ok := o.json[figure].(float64); ok && (withPid || n < 0) {
					t.Errorf("%s is %v: %s", figure, n, text)
				}
			}
			if strings.Contains(o.stdout, "measured  -") || withPid && strings.Contains(o.stdout, "measured") {
				t.Errorf("a span without an end was reported:\n%s", o.stdout)
			}
		})
	}
}

// TestEchoOfTextBesideHeartbeats: what the server says of its own is no echo, and its heartbeat is answered.
func TestEchoOfTextBesideHeartbeats(t *testing.T) {
	t.Parallel()
	_, common := startProduct(t, "--heartbeat-mode", "text")
	// A message a connection in 5 s: the server asks four times meanwhile, and would end a connection that does not answer.
	o := bench(t, append([]string{"echo", "--text", "--rate", "20", "--duration", "4s"}, common...)...)
	if o.code != exitOK {
		t.Fatalf("exit %d: %s\n%s", o.code, o.stderr, o.stdout)
	}
	if n := o.number(t, "messages"); n < 60 || n > 100 {
		t.Errorf("%v messages came back, want 80", n)
	}
}

// TestObservedBar: a bar that does not hold fails the run.
func TestObservedBar(t *testing.T) {
	t.Parallel()
	_, common := startProduct(t)
	o := bench(t, append([]string{"observed", "--interval", "1s", "--late-after", "500ms", "--pairs", "1", "--duration", "2500ms", "--cpu-most", "1ns"}, common...)...)
	if o.code != exitFailed || !strings.Contains(o.lastOf(), "being observed costs") {
		t.Errorf("exit %d: %q", o.code, o.stderr)
	}
}

// TestInterrupted: Ctrl-C ends a scenario, with its hands, in one line.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, processes := range []string{"1", "3"} {
		t.Run(processes+" processes", func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, peerOptions{})
			load := exec.Command(self, "idle", "--target", p.url(), "--connections", "12", "--processes", processes, "--settle", "0s", "--duration", "1h")
			var said bytes.Buffer
			load.Stderr = &said
			if err := load.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = load.Process.Kill() }) // fails only if it has ended
			waitUntil(t, "all are open", func() bool { return p.open() == 12 })
			if err := load.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			_ = load.Wait() // its exit code is looked at
			if code := load.ProcessState.ExitCode(); code != exitFailed || said.String() != "bench: interrupted\n" {
				t.Errorf("exit %d: %q", code, said.String())
			}
			waitUntil(t, "nobody is left", func() bool { return p.open() == 0 })
		})
	}
}
