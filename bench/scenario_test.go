package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ownPID lets a scenario read memory and CPU of the test's own process, in which its server runs.
func ownPID() string { return strconv.Itoa(os.Getpid()) }

func TestEcho(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		peer peerOptions
		args []string
	}{
		{"closed loop", peerOptions{}, nil},
		{"split answer to the upgrade", peerOptions{splitHead: true}, nil},
		{"pipeline", peerOptions{}, []string{"--pipeline", "7"}},
		{"text", peerOptions{}, []string{"--text", "--size", "5"}},
		{"empty", peerOptions{}, []string{"--size", "0"}},
		{"larger than a read", peerOptions{}, []string{"--size", "300000", "--connections", "3"}},
		{"open loop", peerOptions{}, []string{"--rate", "2000"}},
		{"between pings", peerOptions{pingEvery: 10 * time.Millisecond}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, tt.peer)
			args := append([]string{"echo", "--target", p.url(), "--pid", ownPID(), "--connections", "20", "--duration", "600ms", "--settle", "50ms"}, tt.args...)
			o := bench(t, args...)
			if o.code != exitOK {
				t.Fatalf("exit %d: %s", o.code, o.stderr)
			}
			if n := o.number(t, "messages"); n < 20 {
				t.Errorf("%v messages, want 20 or more", n)
			}
			if cpu := o.number(t, "cpu_us_per_echo"); cpu <= 0 {
				t.Errorf("cpu_us_per_echo = %v", cpu)
			}
			l, reported := o.json["latency_us"].(map[string]any)
			if reported == o.withheld("latency_us") {
				t.Errorf("latency %v, withheld %v", l, o.json["withheld"])
			}
			if reported && (l["p50"].(float64) <= 0 || l["max"].(float64) < l["p50"].(float64)) {
				t.Errorf("latency %v", l)
			}
			if lost := o.number(t, "lost"); lost != 0 {
				t.Errorf("%v lost", lost)
			}
		})
	}
}

// TestOpenLoopKeepsThePlan: in an open loop as many messages go out as were planned, whatever the server does.
func TestOpenLoopKeepsThePlan(t *testing.T) {
	t.Parallel()
	p := startPeer(t, peerOptions{})
	// A process that gets no core for 300 ms at the end of the span lacks the answers of as long: a seventh of it.
	o := bench(t, "echo", "--target", p.url(), "--connections", "10", "--rate", "1000", "--duration", "2s", "--settle", "100ms")
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	if rate := o.number(t, "messages_per_second"); rate < 700 || rate > 1300 {
		t.Errorf("%v messages a second, want about 1000", rate)
	}
}

// TestStallAtTheEnd: what a server keeps waiting beyond the end of the span is in the latency of the span.
func TestStallAtTheEnd(t *testing.T) {
	t.Parallel()
	const stall = 1500 * time.Millisecond
	for _, tt := range []struct {
		name string
		args []string
		at   int // messages
	}{
		{"open loop", []string{"--rate", "200", "--connections", "10"}, 200}, // after a second
		{"closed loop", []string{"--connections", "1", "--size", "100"}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, peerOptions{stallAfter: tt.at, stallFor: stall})
			args := append([]string{"echo", "--target", p.url(), "--duration", "1200ms", "--settle", "0s"}, tt.args...)
			o := bench(t, args...)
			if o.code != exitOK {
				t.Fatalf("exit %d: %s", o.code, o.stderr)
			}
			l, reported := o.json["latency_us"].(map[string]any)
			if reported == o.withheld("latency_us") {
				t.Fatalf("latency %v, withheld %v", l, o.json["withheld"])
			}
			if reported && l["max"].(float64) < 1000*float64(stall.Milliseconds()-200) {
				t.Errorf("%v after a stall of %v", l, stall)
			}
		})
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	// A beat counts as missed half an interval after it was due: longer than a busy machine keeps a process waiting.
	const beatEvery = 800 * time.Millisecond
	tests := []struct {
		name string
		peer peerOptions
		args []string
	}{
		{"ping", peerOptions{pingEvery: beatEvery}, nil},
		{"text", peerOptions{pingEvery: beatEvery, textBeats: true}, []string{"--mode", "text"}},
		{"both directions", peerOptions{pingEvery: beatEvery}, []string{"--client-interval", beatEvery.String()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, tt.peer)
			args := append([]string{
				"heartbeat", "--target", p.url(), "--pid", ownPID(), "--connections", "20", "--interval", beatEvery.String(),
				"--duration", "3200ms", "--settle", "50ms",
			}, tt.args...)
			o := bench(t, args...)
			if o.code != exitOK {
				t.Fatalf("exit %d: %s", o.code, o.stderr)
			}
			if n := o.number(t, "beats"); n < 60 || n > 100 {
				t.Errorf("%v beats, want about 80", n)
			}
			if cpu := o.number(t, "cpu_us_per_beat"); cpu <= 0 {
				t.Errorf("cpu_us_per_beat = %v", cpu)
			}
			if strings.Contains(strings.Join(tt.args, " "), "client") {
				if n := o.number(t, "acks"); n < 60 || n > 100 {
					t.Errorf("%v acks, want about 80", n)
				}
			}
		})
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	p := startPeer(t, peerOptions{})
	o := bench(t, "idle", "--target", p.url(), "--pid", ownPID(), "--steps", "10,200", "--echo-once", "--echo-settle", "50ms",
		"--settle", "50ms", "--duration", "100ms")
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	for _, key := range []string{"rss_bytes_at_10", "rss_bytes_at_200", "bytes_per_connection", "bytes_per_connection_after_echo", "pings_answered"} {
		o.number(t, key)
	}
	if _, ok := o.json["opens_per_second"]; ok == o.withheld("opens_per_second") {
		t.Errorf("opens_per_second is there: %v, withheld %v", ok, o.json["withheld"])
	}
	if n := o.number(t, "connections"); n != 200 {
		t.Errorf("%v connections, want 200", n)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.messages != 200 {
		t.Errorf("the server saw %d messages, want one on each of 200 connections", p.messages)
	}
}

func TestIdleAnswersPings(t *testing.T) {
	t.Parallel()
	p := startPeer(t, peerOptions{pingEvery: 20 * time.Millisecond})
	o := bench(t, "idle", "--target", p.url(), "--connections", "9", "--settle", "0s", "--duration", "600ms")
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	if n := o.number(t, "pings_answered"); n < 9 {
		t.Errorf("%v pings answered, want several on each of 9 connections", n)
	}
}

func TestStorm(t *testing.T) {
	t.Parallel()
	p := startPeer(t, peerOptions{})
	o := bench(t, "storm", "--target", p.url(), "--pid", ownPID(), "--connections", "150", "--settle", "20ms")
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	if n := o.number(t, "reconnects"); n != 150 {
		t.Errorf("%v reconnects, want 150", n)
	}
	if n := o.number(t, "connections"); n != 300 {
		t.Errorf("%v connections, want 300", n)
	}
	if cpu := o.number(t, "cpu_us_per_open"); cpu <= 0 {
		t.Errorf("cpu_us_per_open = %v", cpu)
	}
}

// TestSourcesAreUsed: a peer sees the address that was asked for, and one that this host lacks is one line.
func TestSourcesAreUsed(t *testing.T) {
	t.Parallel()
	p := startPeer(t, peerOptions{})
	args := []string{"idle", "--target", p.url(), "--connections", "3", "--settle", "0s", "--duration", "500ms", "--sources"}
	if o := bench(t, append(args, "127.9.8.7")...); o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	p.mu.Lock()
	if !strings.HasPrefix(p.latest, "127.9.8.7:") {
		t.Errorf("connected from %s", p.latest)
	}
	p.mu.Unlock()
	if o := bench(t, append(args, "192.0.2.1")...); o.code != exitUsage || !strings.Contains(o.lastOf(), "cannot assign requested address") {
		t.Errorf("exit %d: %s", o.code, o.stderr)
	}
}

func TestOpenRateIsKept(t *testing.T) {
	t.Parallel()
	p := startPeer(t, peerOptions{})
	began := time.Now()
	o := bench(t, "idle", "--target", p.url(), "--connections", "60", "--rate", "200", "--settle", "0s", "--duration", "10ms")
	if took := time.Since(began); o.code != exitOK || took < 280*time.Millisecond {
		t.Errorf("exit %d, 60 opens at 200 a second took %v", o.code, took)
	}
}

// wrongAccept is the answer to somebody else's upgrade.
const wrongAccept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

func TestFailuresAreOneLine(t *testing.T) {
	t.Parallel()
	echo := []string{"echo", "--connections", "5", "--duration", "100ms", "--settle", "0s", "--open-timeout", "3s"}
	beat := []string{"heartbeat", "--connections", "5", "--interval", "50ms", "--duration", "200ms", "--settle", "0s"}
	tests := []struct {
		name string
		peer peerOptions
		args []string
		code int
		want string
	}{
		{"forbidden", peerOptions{status: 403}, echo, exitUsage, "answered 403"},
		{"wrong path", peerOptions{status: 404}, echo, exitUsage, "answered 404"},
		{"not HTTP", peerOptions{answer: "220 mail ready\r\n\r\n"}, echo, exitUsage, "malformed response"},
		{"wrong accept", peerOptions{answer: wrongAccept}, echo, exitUsage, "does not accept"},
		{"closed before the answer", peerOptions{answer: "HTTP/1.1 101 "}, echo, exitUsage, "end of stream"},
		{"closed after the upgrade", peerOptions{closeFirst: true}, echo, exitFailed, "close 1012 restart"},
		{"full", peerOptions{refuseAfter: 3}, echo, exitFailed, "2 connections could not be opened, mostly: answered 503"},
		{"does not echo", peerOptions{mute: true}, append(echo, "--connections", "1"), exitFailed, "no message came back"},
		{"echoes something else", peerOptions{corrupt: true}, echo, exitFailed, "came back changed"},
		{"killed midway", peerOptions{killAfter: 50}, echo, exitFailed, "5 connections were lost"},
		{"no beats", peerOptions{}, beat, exitFailed, "no beat in 200ms"},
		{"beats too rare", peerOptions{pingEvery: 150 * time.Millisecond}, beat, exitFailed, "beats were missed"},
		{"no acknowledgements", peerOptions{pingEvery: 50 * time.Millisecond, noAcks: true}, append(beat, "--client-interval", "50ms"), exitFailed, "not acknowledged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, tt.peer)
			o := bench(t, append(append([]string(nil), tt.args...), "--target", p.url())...)
			if o.code != tt.code || !strings.Contains(o.lastOf(), tt.want) {
				t.Errorf("exit %d, %q; want exit %d and %q", o.code, o.stderr, tt.code, tt.want)
			}
			if lines := strings.Count(strings.TrimSpace(o.stderr), "\n"); lines > 0 && !strings.Contains(o.stderr, "%") {
				t.Errorf("more than one line: %q", o.stderr)
			}
		})
	}
}

// TestSilentTargetTimesOut: a target that takes the connection and never answers is out of reach.
func TestSilentTargetTimesOut(t *testing.T) {
	t.Parallel()
	p := startPeer(t, peerOptions{answer: "HTTP/1.1 "})
	p.mu.Lock() // the peer's goroutines stop before they answer
	began := time.Now()
	o := bench(t, "echo", "--target", p.url(), "--connections", "2", "--open-timeout", "200ms")
	p.mu.Unlock()
	if o.code != exitUsage || !strings.Contains(o.lastOf(), "timed out") || time.Since(began) > 5*time.Second {
		t.Errorf("exit %d after %v: %q", o.code, time.Since(began), o.stderr)
	}
}
