package main

import (
	"strings"
	"testing"
	"time"
)

// churnArgs is a small churn against a peer with the times of guarded.
func churnArgs(p *peer, more ...string) []string {
	return append([]string{
		"churn", "--target", p.url(), "--connections", "20", "--churn-rate", "6000", "--duration", "600ms", "--life", "200ms", "--settle", "100ms",
		"--interval", "200ms", "--timeout", "500ms", "--slack", "700ms", "--open-timeout", "1s",
	}, more...)
}

// calmChurn is a churn in which a beat is missed only when it is later than a busy machine keeps a process waiting.
func calmChurn(t *testing.T) (args []string) {
	t.Helper()
	g := guarded()
	g.silenceTimeout = 2 * time.Second
	p := startPeer(t, peerOptions{pingEvery: 800 * time.Millisecond, guard: g})
	return churnArgs(p, "--admin", p.admin(t), "--interval", "800ms", "--timeout", "2s", "--slack", "1s")
}

func TestChurn(t *testing.T) {
	t.Parallel()
	args := calmChurn(t)
	o := bench(t, args...) // memory of a peer in this process says nothing: TestPulsewheelHolds
	if o.code != exitOK {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	sum := 0.0
	for _, way := range []string{"fin", "rst", "silence"} {
		sum += o.number(t, "vanished_by_"+way)
	}
	want := 100 * o.number(t, "duration_seconds") // of the real span: on a busy machine it is a little longer than asked for
	if n := o.number(t, "visitors"); n != sum || n < want-10 || n > want+10 {
		t.Errorf("%v visitors, want about %v, of which %v vanished", n, want, sum)
	}
	for _, way := range []string{"fin", "rst", "silence"} {
		if n := o.number(t, "vanished_by_"+way); n < sum/3-5 || n > sum/3+5 {
			t.Errorf("%v of %v vanished by %s, want a third", n, sum, way)
		}
	}
	if n := o.number(t, "server_closed_expired"); n != o.number(t, "vanished_by_silence") {
		t.Errorf("%v expired", n)
	}
	if most := o.number(t, "server_active_most"); most <= 20 {
		t.Errorf("%v connections at most: the visitors were not seen", most)
	}
	if _, ok := o.json["expired_behind_timeout_max_us"]; ok == o.withheld("expired_behind_timeout_max_us") {
		t.Errorf("expiry is there: %v, withheld %v", ok, o.json["withheld"])
	}
	for _, key := range []string{"back_after_seconds", "server_heap_objects_after", "server_goroutines_before", "beats"} {
		o.number(t, key)
	}
	if n := o.number(t, "connections"); n != 20 {
		t.Errorf("%v connections, want the 20 that were held", n)
	}
}

// TestChurnFindsFaults: each promise that a server may break is found by the check that is there for it.
func TestChurnFindsFaults(t *testing.T) {
	with := func(change func(*guard)) peerOptions {
		o := peerOptions{pingEvery: 200 * time.Millisecond, guard: guarded()}
		change(&o.guard)
		return o
	}
	tests := []struct {
		name string
		peer peerOptions
		args []string
		want string
	}{
		{"holds the silent", with(func(g *guard) { g.silenceTimeout = 0 }), nil, "silent ones were not ended within"},
		{"too late", with(func(g *guard) { g.silenceTimeout = 1500 * time.Millisecond }), nil, "silent ones were not ended within"},
		{"too early", with(func(g *guard) { g.silenceTimeout = 300 * time.Millisecond }), nil, "silent ones were ended before 500ms"},
		{"ends those that stand", with(func(g *guard) { g.evictAt = 9 }), nil, "20 connections were lost, mostly: end of stream"},
		{"lets in no visitors", peerOptions{pingEvery: 200 * time.Millisecond, guard: guarded(), refuseAfter: 20}, nil, "visitors could not be opened, mostly: answered 503"},
		{"no beats", peerOptions{}, nil, "no beat in 600ms"},
		{"beats stop", with(func(g *guard) { g.noBeatsFrom, g.silenceTimeout = 30, 0 }), nil, "beats were missed"},
		{"counts wrongly", with(func(g *guard) { g.miscount = true }), []string{"--admin"}, "the server counts"},
		{"keeps descriptors", with(func(g *guard) { g.leak = true }), []string{"--pid", ownPID()}, "the server is not back"},
		{"killed midway", with(func(g *guard) { g.killAt = 40 }), nil, "20 connections were lost"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(strings.Join(tt.args, " "), "--pid") { // descriptors of this process are counted there
				t.Parallel()
			}
			p := startPeer(t, tt.peer)
			args := tt.args
			if len(args) == 1 {
				args = append(args, p.admin(t))
			}
			o := bench(t, churnArgs(p, args...)...)
			if o.code != exitFailed || !strings.Contains(o.lastOf(), tt.want) {
				t.Errorf("exit %d, %q; want exit %d and %q", o.code, o.stderr, exitFailed, tt.want)
			}
		})
	}
}

// TestVisitorsKeepThePlan: arrivals follow the plan made beforehand, however late the client is.
func TestVisitorsKeepThePlan(t *testing.T) {
	o := &options{guests: 3, churnRate: 60, life: time.Second, timeout: time.Second}
	c := standingClient(3)
	c.members = 0
	c.target.address, c.clock = "nowhere", func() int64 { return 0 } // no address, so no connect succeeds
	v := newVisitors(c, o)
	v.arrive(int64(2500 * time.Millisecond))
	if v.Begun != 3 || total(v.Failures) != 3 || v.Unplaced != 0 {
		t.Errorf("%d begun, %v failed, %d without a slot; want 3, 3, 0", v.Begun, v.Failures, v.Unplaced)
	}
	v.free = nil
	v.arrive(int64(4500 * time.Millisecond))
	if v.Begun != 5 || v.Unplaced != 2 {
		t.Errorf("%d begun, %d without a slot; want 5 and 2", v.Begun, v.Unplaced)
	}
	v.stop()
	v.arrive(int64(time.Minute))
	if v.Begun != 5 {
		t.Errorf("%d begun after the end, want 5", v.Begun)
	}
}
