package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// hostileArgs is a small attack on a peer with the times of guarded. The echo's latency is not judged: the peer is in the
// process of the healthy ones.
func hostileArgs(p *peer, kinds string, more ...string) []string {
	args := []string{
		"hostile", "--target", p.url(), "--connections", "10", "--rate", "100", "--hostile", "18", "--hostile-rate", "0", "--again", "100ms",
		"--duration", "800ms", "--settle", "100ms", "--interval", "200ms", "--timeout", "500ms", "--handshake-timeout", "300ms",
		"--slack", "700ms", "--open-timeout", "1s", "--factor", "0",
		"--stand-back=false", // other tests keep the cores busy
	}
	if kinds != "" {
		args = append(args, "--kinds", kinds)
	}
	return append(args, more...)
}

// calmHostile is an attack in which a beat is missed only when it is later than a busy machine keeps a process waiting.
func calmHostile(t *testing.T, kinds string, more ...string) []string {
	t.Helper()
	g := guarded()
	g.silenceTimeout = 2 * time.Second
	p := startPeer(t, peerOptions{pingEvery: 800 * time.Millisecond, guard: g})
	return hostileArgs(p, kinds, append([]string{
		"--admin", p.admin(t), "--interval", "800ms", "--timeout", "2s", "--duration", "1700ms", "--slack", "1500ms", "--open-timeout", "3s",
	}, more...)...)
}

// ends is how one kind ended, by the result.
func (o outcome) ends(t *testing.T, kind string) map[string]any {
	t.Helper()
	all, _ := o.json["ends"].(map[string]any)
	ends, ok := all[kind].(map[string]any)
	if !ok {
		t.Fatalf("no ends of %s: %v", kind, o.json["ends"])
	}
	return ends
}

func TestHostile(t *testing.T) {
	t.Parallel()
	tests := []struct{ kind, end string }{
		{"half-head", "answered 408"},
		{"drip-head", "answered 408"},
		{"half-header", "close 4408 "},
		{"half-frame", "close 4408 "},
		{"tiny-frames", "close 1008 "},
		{"ping-flood", "close 1008 "},
		{"oversized", "close 1009 "},
	}
	var kinds []string
	for _, tt := range tests {
		kinds = append(kinds, tt.kind)
	}
	o := bench(t, calmHostile(t, strings.Join(kinds, ","))...)
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	for _, tt := range tests {
		found := 0.0
		for end, n := range o.ends(t, tt.kind) {
			if strings.HasPrefix(end, strings.TrimSpace(tt.end)) {
				found += n.(float64)
			}
		}
		begun := o.number(t, strings.ReplaceAll(tt.kind, "-", "_")+"_begun")
		if found != begun || begun < 2 {
			t.Errorf("%s: %v of %v ended by %s: %v", tt.kind, found, begun, tt.end, o.ends(t, tt.kind))
		}
	}
	if n := o.number(t, "server_closed_policy"); n < 4 {
		t.Errorf("%v closed for policy", n)
	}
	if n := o.number(t, "oversized_begun"); n <= 3 {
		t.Errorf("%v oversized: they did not come again", n)
	}
}

// TestHostileAtOneTime: those whose end takes longer than --again are there all the time, also while they come one after another.
func TestHostileAtOneTime(t *testing.T) {
	t.Parallel()
	o := bench(t, calmHostile(t, "half-frame,half-header", "--hostile-rate", "36", "--at-least", "16")...)
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	if most, least := o.number(t, "hostile_most"), o.number(t, "hostile_least"); most != 18 || least < 16 || least > most {
		t.Errorf("%v at one time, %v at least, of 18", most, least)
	}
	if s := o.number(t, "duration_seconds"); s < 2.2 {
		t.Errorf("%v s under attack, want half a second for their coming and 1.7 s", s)
	}
}

// TestFewestSinceAllCame: what left before is not counted, what left since is, and who comes back ends that.
func TestFewestSinceAllCame(t *testing.T) {
	a := &attackers{fewest: 9, allCome: 100}
	for _, step := range []struct {
		at   int64
		here int
		want int
	}{{99, 1, 9}, {100, 8, 8}, {101, 6, 6}, {102, 9, 6}} {
		a.here = step.here
		if a.countHere(step.at); a.fewest != step.want {
			t.Errorf("fewest %d at %d, want %d", a.fewest, step.at, step.want)
		}
	}
	a.here = 0
	a.stop(103)
	if a.here = 0; a.fewest != 0 {
		t.Errorf("fewest %d, want none: that was so when it was stopped", a.fewest)
	}
}

// TestHostileFindsFaults: each promise that a server may break is found by the check that is there for it.
func TestHostileFindsFaults(t *testing.T) {
	with := func(change func(*guard)) peerOptions {
		o := peerOptions{pingEvery: 200 * time.Millisecond, guard: guarded()}
		change(&o.guard)
		return o
	}
	tests := []struct {
		name  string
		peer  peerOptions
		kinds string
		args  []string
		want  string
	}{
		{"waits for heads", with(func(g *guard) { g.handshakeTimeout = 0 }), "half-head", nil, "half-head: 18 were still open"},
		{"no time for heads", with(func(g *guard) { g.handshakeTimeout = 100 * time.Millisecond }), "half-head", nil, "were ended before 300ms"},
		{"waits for frames", with(func(g *guard) { g.silenceTimeout = 0 }), "half-frame", nil, "half-frame: 18 were still open"},
		{"waits for headers", with(func(g *guard) { g.silenceTimeout = 0 }), "half-header", nil, "half-header: 18 were still open"},
		{"answers 1009 with a reset", with(func(g *guard) { g.rude = true }), "oversized", nil, "(close 1009), mostly: connection reset by peer"},
		{"bears any length", with(func(g *guard) { g.messageBytes = 0 }), "oversized", []string{"--timeout", "500ms"}, "oversized: "},
		{"bears pings", with(func(g *guard) { g.pings, g.silenceTimeout = 0, 0 }), "ping-flood", nil, "ping-flood: 18 were still open"},
		{"bears fragments", with(func(g *guard) { g.fragments, g.messageBytes, g.silenceTimeout = 0, 0, 0 }), "tiny-frames", nil, "tiny-frames: 18 were still open"},
		{"takes a drip for dead", with(func(*guard) {}), "drip", []string{"--duration", "1500ms", "--timeout", "3s"}, "mostly: close 4408"},
		{"echoes late", with(func(g *guard) { g.slowFrom = 15 }), "half-frame", []string{"--factor", "3", "--rate", "10"}, "the echo's p99"}, // or it can't be judged here: TestHostileFactor
		{"stops beating", with(func(g *guard) { g.noBeatsFrom, g.silenceTimeout = 15, 0 }), "oversized", nil, "beats were missed under attack"},
		{"ends the healthy", with(func(g *guard) { g.evictAt = 3 }), "oversized", nil, "connections were lost"},
		{"does not echo", peerOptions{pingEvery: 200 * time.Millisecond, guard: guarded(), mute: true}, "half-frame", nil, "no message came back"},
		{"holds descriptors", with(func(g *guard) { g.leak = true }), "half-frame", []string{"--pid", ownPID()}, "descriptors, before it were"},
		{"none stays", with(func(*guard) {}), "oversized", []string{"--at-least", "10"}, "at one moment only"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(strings.Join(tt.args, " "), "--pid") { // descriptors of this process are counted there
				t.Parallel()
			}
			p := startPeer(t, tt.peer)
			o := bench(t, hostileArgs(p, tt.kinds, tt.args...)...)
			if o.code != exitFailed || !strings.Contains(o.lastOf(), tt.want) {
				t.Errorf("exit %d, %q; want exit %d and %q", o.code, o.stderr, exitFailed, tt.want)
			}
		})
	}
}

// TestHostileFactor: the median of the pairs' factors is what counts, and none counts where the client was late itself.
func TestHostileFactor(t *testing.T) {
	tests := []struct {
		name     string
		attacked []int         // p99 of each pair in ms; before it is 10
		quiet    time.Duration // how late the client was before
		late     time.Duration // and under attack
		factor   float64
		want     string // of the problems; empty: none
	}{
		{"one bad pair of three", []int{15, 90, 12}, 0, 0, 2, ""},
		{"two bad pairs of three", []int{35, 90, 12}, 0, 0, 2, "under attack is 3.5"},
		{"not judged", []int{90}, 0, 0, 0, ""},
		{"client late before", []int{15}, 6 * time.Millisecond, 0, 2, "can't be judged"},
		{"client late under attack", []int{35}, 0, 20 * time.Millisecond, 2, "can't be judged"},
		{"an upper bound that holds", []int{15}, 0, 20 * time.Millisecond, 2, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spanOf := func(late time.Duration) span {
				h := newHistogram()
				h.record(int64(late))
				return span{to: int64(time.Second), client: clientUse{Late: h}}
			}
			with := func(ms int) calm {
				h := newHistogram()
				h.record(int64(ms) * int64(time.Millisecond))
				return calm{Latency: h, Beats: 1, Messages: 1}
			}
			f := hostileFound{}
			for _, ms := range tt.attacked {
				f.Before, f.Attacked = append(f.Before, with(10)), append(f.Attacked, with(ms))
			}
			s := &session{whole: &options{factor: tt.factor, interval: time.Second}, report: &report{}}
			f.fill(s, spanOf(tt.quiet), spanOf(tt.late))
			if got := strings.Join(s.report.Problems, "; "); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("problems %q, want %q", got, tt.want)
			}
		})
	}
}

// TestStandBack: a process that is to stand back runs at SCHED_IDLE, and where it can't the report says so.
func TestStandBack(t *testing.T) {
	const policyField, schedIdle = 41, "5" // proc_pid_stat(5), sched.h
	s := &session{report: &report{}}
	words := append(s.yield(), "cat", "/proc/self/stat")
	text, err := exec.Command(words[0], words[1:]...).Output()
	if err != nil {
		t.Fatal(err)
	}
	idle, told := strings.Fields(string(text))[policyField-1] == schedIdle, len(s.report.Notes) == 1
	if idle == told {
		t.Errorf("it stands back: %v; the report says that it can't: %v", idle, told)
	}
	t.Setenv("PATH", "")
	if words := s.yield(); words != nil || len(s.report.Notes) == 0 {
		t.Errorf("%q without chrt, notes %q", words, s.report.Notes)
	}
}

// freeAddress is a loopback address that nobody listens on right now.
func freeAddress(t *testing.T) string {
	t.Helper()
	p, err := listenPeer("127.0.0.1:0", peerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	address := p.listener.Addr().String()
	p.kill()
	p.running.Wait()
	return address
}

// TestSlowReadersAreSeenToTheEnd: a reader that never reads learns of its end by the reset, one that reads again by the
// Close frame; a peer that resets shows the first.
func TestSlowReadersAreSeenToTheEnd(t *testing.T) {
	t.Parallel()
	o := bench(t, calmHostile(t, "slow-reader", "--hostile", "4", "--again", "0s", "--duration", "2s")...)
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	if n := o.ends(t, "slow-reader")["connection reset by peer"]; n != 4.0 {
		t.Errorf("ends %v, want 4 resets", o.ends(t, "slow-reader"))
	}
}

func TestKindList(t *testing.T) {
	var l kindList
	if err := l.Set("drip,half-head"); err != nil || l.String() != "drip,half-head" {
		t.Errorf("%q, %v", l.String(), err)
	}
	if err := l.Set("drip,nice"); err == nil || !strings.Contains(err.Error(), `"nice"`) {
		t.Errorf("taken: nice (%v)", err)
	}
	for _, name := range kindNames() {
		k := kindNamed(name, &client{request: []byte("GET / HTTP/1.1\r\n\r\n")}, &options{timeout: time.Second, handshakeTimeout: time.Second})
		if k.headBytes == 0 && len(k.first)+len(k.burst)+len(k.drip) == 0 {
			t.Errorf("%s does nothing", name)
		}
	}
}
