package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSeveralProcesses: a run whose connections are more than one process may hold comes to what a run of one comes to.
func TestSeveralProcesses(t *testing.T) {
	t.Parallel()
	beating := peerOptions{pingEvery: 800 * time.Millisecond} // missed half of it later, which is longer than a busy machine keeps a process waiting
	tests := []struct {
		name string
		peer peerOptions
		args []string
		want map[string]float64 // exactly
		most map[string]float64 // between half of it and it
	}{
		{
			"idle",
			peerOptions{},
			[]string{"idle", "--connections", "50", "--steps", "10,50", "--settle", "50ms", "--duration", "200ms", "--pid", ownPID()},
			map[string]float64{"connections": 50, "lost": 0},
			nil,
		},
		{
			"idle with echoes", peerOptions{}, []string{
				"idle", "--connections", "50", "--settle", "50ms", "--duration", "100ms", "--echo-once", "--echo-settle", "50ms",
			}, map[string]float64{"connections": 50}, nil,
		},
		{
			"heartbeat", beating, []string{
				"heartbeat", "--connections", "50", "--interval", "800ms", "--client-interval", "800ms", "--duration", "3200ms", "--settle", "50ms",
			}, map[string]float64{"connections": 50, "beats_missed": 0, "acks_missing": 0}, map[string]float64{"beats": 250, "acks": 250},
		},
		{
			"echo",
			peerOptions{},
			[]string{"echo", "--connections", "50", "--duration", "300ms", "--settle", "50ms", "--pid", ownPID()},
			map[string]float64{"connections": 50, "corrupt": 0, "unanswered": 0},
			nil,
		},
		{
			"paced",
			peerOptions{},
			[]string{"echo", "--connections", "50", "--rate", "1000", "--duration", "2s", "--settle", "50ms"},
			map[string]float64{"connections": 50, "unanswered": 0},
			map[string]float64{"messages_per_second": 1300},
		},
		{
			"storm",
			peerOptions{},
			[]string{"storm", "--connections", "50", "--settle", "20ms"},
			map[string]float64{"connections": 100, "reconnects": 50},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, tt.peer)
			o := bench(t, append(tt.args, "--target", p.url(), "--per-process", "20")...)
			if o.code != exitOK {
				t.Fatalf("exit %d: %s", o.code, o.stderr)
			}
			for key, want := range tt.want {
				if n := o.number(t, key); n != want {
					t.Errorf("%s = %v, want %v", key, n, want)
				}
			}
			for key, most := range tt.most {
				if n := o.number(t, key); n < most/2 || n > most {
					t.Errorf("%s = %v, want %v to %v", key, n, most/2, most)
				}
			}
		})
	}
}

// TestChurnInSeveralProcesses: the server's own counts are those of the visitors of all processes.
func TestChurnInSeveralProcesses(t *testing.T) {
	t.Parallel()
	args := calmChurn(t)
	o := bench(t, append(args, "--processes", "2")...)
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	if n := o.number(t, "visitors"); n < 50 || n > 200 { // they come until the slower process has come to the end as well
		t.Errorf("%v visitors, want 60 or some more", n)
	}
}

// TestSeveralProcessesFail: what befalls one process is the one line of the run.
func TestSeveralProcessesFail(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		peer peerOptions
		args []string
		code int
		want string
	}{
		{"killed midway", peerOptions{killAfter: 200}, nil, exitFailed, "40 connections were lost"},
		{"full", peerOptions{refuseAfter: 30}, nil, exitFailed, "10 connections could not be opened, mostly: answered 503"},
		{"echoes something else", peerOptions{corrupt: true}, nil, exitFailed, "came back changed"},
		{"forbidden", peerOptions{status: 403}, nil, exitUsage, "answered 403"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, tt.peer)
			o := bench(t, append([]string{
				"echo", "--target", p.url(), "--connections", "40", "--duration", "300ms", "--settle", "50ms", "--per-process", "15",
			}, tt.args...)...)
			if o.code != tt.code || !strings.Contains(o.lastOf(), tt.want) {
				t.Errorf("exit %d, %q; want exit %d and %q", o.code, o.stderr, tt.code, tt.want)
			}
		})
	}
}

// startHand starts a real hand of an echo on a peer and returns its process and its words.
func startHand(t *testing.T, p *peer) (*crew, func(point string)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := newCrew(1, func() {})
	t.Cleanup(c.end)
	if err := c.hire(self, handCommand, "0", "echo", "--target", p.url(), "--connections", "5", "--settle", "0s", "--duration", "1h"); err != nil {
		t.Fatal(err)
	}
	return c, func(point string) {
		t.Helper()
		for !c.at(point) {
			select {
			case a := <-c.news:
				if err := c.hear(a); err != nil {
					t.Fatal(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("the hand is not at %q", point)
			}
		}
	}
}

// TestHandKilledIsTold: a hand that dies is an error that says so, and nothing is waited for.
func TestHandKilledIsTold(t *testing.T) {
	t.Parallel()
	c, at := startHand(t, startPeer(t, peerOptions{}))
	at("opened")
	if err := c.hands[0].cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-c.news:
		if err := c.hear(a); !errors.Is(err, errCrew) || !strings.Contains(err.Error(), "killed") {
			t.Errorf("%v, want one that says it was killed", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("its end is not told")
	}
}

// TestHandEndsWithoutLeader: with the leader gone a hand ends by itself, in the middle of its work too.
func TestHandEndsWithoutLeader(t *testing.T) {
	p := startPeer(t, peerOptions{})
	c, at := startHand(t, p)
	at("opened")
	if err := c.hands[0].to.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-c.news:
		if !a.ended {
			t.Errorf("it went on: %+v", a.message)
		}
		_ = c.hear(a) // it is an error that the leader of a real hand would never see
	case <-time.After(10 * time.Second):
		t.Fatal("it lives on")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.accepted != 5 {
		t.Errorf("%d connections, want the hand's 5", p.accepted)
	}
}

// TestHandRefusesWrongCalls: it is not for people, and says so.
func TestHandRefusesWrongCalls(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "what bench calls itself"},
		{"no part", []string{"first", "echo"}, "no number of a part"},
		{"no scenario", []string{"0", "walk"}, "no scenario"},
		{"beyond the last", []string{"3", "echo", "--target", "ws://127.0.0.1:2/", "--connections", "4", "--per-process", "2"}, "there are 2 parts"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := runHand(tt.args, io.Discard, io.Discard); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want a wrong call: %q", err, tt.want)
			}
		})
	}
}

// TestKilledLeaderLeavesNothing: whatever a leader started ends with it, even when it had no time to see to that.
func TestKilledLeaderLeavesNothing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := startPeer(t, peerOptions{})
	leader := exec.Command(self, "idle", "--target", p.url(), "--connections", "12", "--per-process", "5", "--duration", "1h", "--settle", "0s")
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "all are open", func() bool { return p.open() == 12 })
	if err := leader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = leader.Wait() // it was killed
	waitUntil(t, "the hands' connections are gone", func() bool { return p.open() == 0 })
}

// waitUntil looks until something has come about that nobody tells.
func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for begun := time.Now(); !done(); <-ticker.C {
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("not after 20 s: %s", what)
		}
	}
}

// TestPartsAreTheWhole: whatever the numbers, the parts add up, and none is more than a process holds.
func TestPartsAreTheWhole(t *testing.T) {
	tests := []struct {
		name     string
		scenario string
		o        options
		most     int
		want     int // processes
	}{
		{"one", "echo", options{connections: 100, processes: 1, opening: 10}, 1000, 1},
		{"just one", "echo", options{connections: 100, processes: 1, opening: 10}, 100, 1},
		{"one more", "echo", options{connections: 101, processes: 1, opening: 10, rate: 500}, 100, 2},
		{"asked for", "echo", options{connections: 101, processes: 5, opening: 3, rate: 500}, 100, 5},
		{"uneven", "echo", options{connections: 1000, processes: 1, opening: 7}, 333, 4},
		{
			"guests", "churn", options{
				connections: 1000, processes: 1, opening: 7, churnRate: 6000, life: time.Second, timeout: time.Second, interval: time.Second,
			}, 500, 3,
		},
		{"hostile", "hostile", options{connections: 1000, processes: 1, opening: 7, hostile: 700, hostileRate: 100, rate: 10}, 500, 4},
		{"hostile, more asked for", "hostile", options{connections: 1001, processes: 5, opening: 7, hostile: 700, hostileRate: 100, rate: 10}, 501, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sc, err := scenarioNamed(tt.scenario)
			if err != nil {
				t.Fatal(err)
			}
			if sc.prepare != nil {
				sc.prepare(&tt.o)
			}
			tt.o.perProcess = tt.most
			parts, err := sc.parts(&tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var connections, hostile, echoing int
			var rate, churnRate float64
			for i, p := range parts {
				if p.connections+p.guests > tt.most || p.connections+p.guests == 0 || p.opening < 1 || p.index != i {
					t.Errorf("part %d: %+v", i, p)
				}
				connections, hostile = connections+p.connections, hostile+p.hostile
				if p.echoing {
					echoing += p.connections
				}
				rate += p.rate
				churnRate += p.churnRate
			}
			if connections != tt.o.connections || hostile != tt.o.hostile || len(parts) != tt.want {
				t.Errorf("%d connections and %d hostile in %d parts, want %d, %d in %d", connections, hostile, len(parts), tt.o.connections, tt.o.hostile, tt.want)
			}
			if !near(rate, tt.o.rate) || !near(churnRate, tt.o.churnRate) {
				t.Errorf("rates %v, %v", rate, churnRate)
			}
			if hostile > 0 && echoing != connections/2 {
				t.Errorf("%d of %d connections echo, want half", echoing, connections)
			}
		})
	}
}

func near(a, b float64) bool { return a > b-1e-6 && a < b+1e-6 }

// TestMemoryIsAskedFor: a run that the machine has no memory for does not begin.
func TestMemoryIsAskedFor(t *testing.T) {
	o := &options{connections: 1 << 30}
	if err := checkMemory(o); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "lower --connections") {
		t.Errorf("%v, want a refusal", err)
	}
	if err := checkMemory(&options{connections: 1000}); err != nil {
		t.Errorf("1000 connections: %v", err)
	}
}

func TestLastWordsAreBounded(t *testing.T) {
	var w lastWords
	for i := range 1000 {
		if _, err := io.WriteString(&w, "line "+strconv.Itoa(i)+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.String(); len(got) > saidBytesMax || lastLine(got) != "line 999" {
		t.Errorf("%d bytes, ending in %q", len(got), lastLine(got))
	}
}
