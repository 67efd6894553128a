package server

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

var crowdCSV = flag.String("crowd-csv", "", "write the heartbeats per 100 ms of TestCrowd to a file")

// TestCrowd is the flat budget, in its hardest hour: 18,000 peers within two seconds, half of them gone and back, a message to all that
// everybody answers within 100 ms. From the moment that all are there, and two intervals after the message, no 100 ms have more or less than
// a tenth of the mean. Where intervals are mixed much is left to chance, so that several courses are looked at.
func TestCrowd(t *testing.T) {
	var columns string
	for _, tt := range []struct {
		name    string
		queries []string
		longest time.Duration
		courses uint64
	}{
		{"25 s", nil, 25 * time.Second, 1},
		{"5 s", []string{"?heartbeat_interval=5s"}, 5 * time.Second, 1},
		{"10, 25 and 60 s", []string{"?heartbeat_interval=10s", "", "?heartbeat_interval=60s"}, 60 * time.Second, 4},
		{"7, 30 and 45 s", []string{"?heartbeat_interval=7s", "?heartbeat_interval=30s", "?heartbeat_interval=45s"}, 45 * time.Second, 4},
	} {
		for course := range tt.courses {
			t.Run(fmt.Sprintf("%s/%d", tt.name, course), func(t *testing.T) {
				beats := crowdCourse(t, course, tt.longest, tt.queries)
				if course == 0 {
					columns += csv(tt.name, beats)
				}
			})
		}
	}
	if *crowdCSV != "" {
		if err := os.WriteFile(*crowdCSV, []byte(columns), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// crowdCourse is one course of TestCrowd: peers of as many kinds as there are queries. It returns all heartbeats per 100 ms.
func crowdCourse(t *testing.T, course uint64, longest time.Duration, queries []string) (beats []int) {
	const peers, within = 18_000, 10 // percent
	c := newCrowd(t, Config{}, queries...)
	c.rand = rand.New(rand.NewPCG(1, 2+course))
	check := func(what string) {
		t.Helper()
		for i := range 3 {
			from := c.clock.Truncate(crowdBin) + crowdBin
			c.run(from + longest + crowdBin)
			mean, below, above := c.flatness(from, from+longest)
			t.Logf("%s, interval %d: %.1f beats per 100 ms, -%.1f %% to +%.1f %%", what, i+1, mean, below, above)
			if below > within || above > within {
				t.Errorf("%s, interval %d: not within %d %%", what, i+1, within)
			}
		}
	}
	kinds := max(1, len(queries))
	come := func(n int) {
		for kind := range kinds {
			c.come(n/kinds, 2*time.Second, kind)
		}
		c.run(c.clock + 2*time.Second)
	}
	come(peers)
	check("arrived")

	left := c.leaveHalf(time.Second)
	c.run(c.clock + time.Second)
	come(left)
	check("half of them returned")

	c.broadcast(100 * time.Millisecond)
	c.run(c.clock + 2*longest)
	check("after a message to all")
	if c.closed > 0 {
		t.Errorf("%d peers were closed", c.closed)
	}
	return c.beats
}

// TestMillion: a million peers on one loop come within twenty seconds, are beaten for two intervals, and go. The schedule is as flat as that of
// a few, nobody is closed, and nothing of them is left: no timer, no share of the budget, no slot.
func TestMillion(t *testing.T) {
	peers := 1_000_000
	if checkedBuild() {
		peers = 100_000 // in checked builds, which take ten times as long
	}
	const interval, arrival = 60 * time.Second, 20 * time.Second
	c := newCrowd(t, Config{HeartbeatInterval: interval, HeartbeatTimeout: 3 * interval})
	c.come(peers, arrival, 0)
	c.run(arrival + crowdBin)
	if n := c.loop.active.Load(); n != int64(peers) {
		t.Fatalf("%d of %d peers are there", n, peers)
	}
	for i := range 2 {
		from := c.clock.Truncate(crowdBin) + crowdBin
		c.run(from + interval + crowdBin)
		mean, below, above := c.flatness(from, from+interval)
		t.Logf("interval %d: %.0f beats per 100 ms, -%.1f %% to +%.1f %%", i+1, mean, below, above)
		if below > 10 || above > 10 || math.Abs(mean/float64(peers)*float64(interval/crowdBin)-1) > 0.02 {
			t.Errorf("interval %d: %.0f beats per 100 ms, -%.1f %% to +%.1f %%, want %d to a tenth", i+1, mean, below, above, peers/int(interval/crowdBin))
		}
	}
	c.all(func(fd int32, _ *crowdPeer) {
		c.plan(time.Duration(c.rand.Int64N(int64(4*time.Second))), fd, crowdLeaves)
	})
	c.run(c.clock + 5*time.Second)
	l := c.loop
	if l.active.Load() != 0 || l.wheel.Len() != 0 || l.table.used != 0 || l.budget.shares != [intervalClasses + 1]uint64{} || c.closed != 0 {
		t.Errorf("%d connections, %d timers, %d slots are left, %d were closed by the server", l.active.Load(), l.wheel.Len(), l.table.used, c.closed)
	}
}

// TestBusyPeersAreNotBeaten: peers that say something within every interval get no heartbeat, however many of them there are.
func TestBusyPeersAreNotBeaten(t *testing.T) {
	const interval, peers, chats = 10 * time.Second, 5000, 30
	c := newCrowd(t, Config{HeartbeatInterval: interval})
	c.come(peers, 100*time.Millisecond, 0)
	c.run(200 * time.Millisecond)
	for range chats {
		c.broadcast(4 * time.Second)
		c.run(c.clock + 4*time.Second)
	}
	beats := 0
	for _, n := range c.beats[2*interval/crowdBin:] { // a first one may come before the first word
		beats += n
	}
	if beats > peers*8/100 { // of eight whole intervals one in a hundred
		t.Errorf("%d heartbeats in %v to %d peers that talk all the time", beats, c.clock-2*interval, peers)
	}
}

// TestRegularTalkersAreNotBeaten: peers that say something at fixed times, up to just under their interval, get no heartbeat, not even where
// all slots are full of others like them.
func TestRegularTalkersAreNotBeaten(t *testing.T) {
	const interval = 4 * time.Second
	for _, every := range []time.Duration{interval / 4, interval / 2, interval * 3 / 4, interval * 9 / 10} {
		for _, peers := range []int{50, 1000, 10_000} {
			c := newCrowd(t, Config{HeartbeatInterval: interval})
			c.come(peers, every/2, 0)
			c.run(every)
			const rounds = 40
			for range rounds {
				c.all(func(fd int32, _ *crowdPeer) { c.plan(time.Duration(uint32(fd)*fractionStep)*every>>32, fd, crowdSays) })
				c.run(c.clock + every)
			}
			beats := 0
			for _, n := range c.beats[rounds*every/2/crowdBin:] { // until then it shows who talks
				beats += n
			}
			if beats > peers/100 {
				t.Errorf("%d heartbeats to %d peers that say something every %v of %v", beats, peers, every, interval)
			}
		}
	}
}

// TestOverloadStretches: a loop that can't write all heartbeats in time puts them off, at most twofold, and takes it back when it
// can. Nobody is expired for it.
func TestOverloadStretches(t *testing.T) {
	const interval, peers = 5 * time.Second, 20_000 // 4,000 a second
	c := newCrowd(t, Config{HeartbeatInterval: interval, HeartbeatTimeout: 4 * interval, HeartbeatMin: interval})
	c.come(peers, 2*time.Second, 0)
	c.run(2 * interval)
	if n := c.stretch(); n != 1 {
		t.Errorf("intervals are stretched by %v where nothing is late", n)
	}

	c.cost = 350 * time.Microsecond // of a write: 1.4 s of work a second
	c.run(c.clock + 60*time.Second)
	if n := c.stretch(); n < 1.3 || n > 2 {
		t.Errorf("intervals are stretched by %v under 1.4 times the load that can be done", n)
	}
	from := c.clock.Truncate(crowdBin) + crowdBin
	c.run(from + 10*time.Second)
	if rate, _, _ := c.flatness(from, from+9*time.Second); rate > 0.1/c.cost.Seconds() || rate < 0.06/c.cost.Seconds() {
		t.Errorf("%.0f beats per 100 ms, of %.0f that can be done", rate, 0.1/c.cost.Seconds())
	}

	c.cost = 2 * time.Millisecond // more than twice of what can be done
	c.run(c.clock + 30*time.Second)
	if n := c.stretch(); n != 2 {
		t.Errorf("intervals are stretched by %v, at most 2", n)
	}

	c.cost = 0
	c.run(c.clock + 60*time.Second)
	if n := c.stretch(); n != 1 {
		t.Errorf("intervals are still stretched by %v", n)
	}
	from = c.clock.Truncate(crowdBin) + crowdBin
	c.run(from + interval)
	if rate, _, _ := c.flatness(from, from+interval-crowdBin); math.Abs(rate/(0.1*peers/interval.Seconds())-1) > 0.02 {
		t.Errorf("%.0f beats per 100 ms", rate)
	}
	if c.closed != 0 || c.loop.active.Load() != peers {
		t.Errorf("%d peers were closed, %d are left", c.closed, c.loop.active.Load())
	}
}

// TestStretchKeepsTheTimeout: however long an interval is stretched, half of the timeout is left for an answer.
func TestStretchKeepsTheTimeout(t *testing.T) {
	l, _ := newQuietLoop(Config{})
	l.budget.stretch.Store(stretchMost)
	for _, tt := range []struct{ interval, timeout, want uint32 }{
		{25_000, 75_000, 37_500},
		{25_000, 50_000, 25_000},
		{25_000, 200_000, 50_000},
		{25_000, 0, 50_000},
		{0, 75_000, 0},
	} {
		if got := l.stretched(tt.interval, tt.timeout); got != tt.want {
			t.Errorf("an interval of %d ms with a timeout of %d ms becomes %d, want %d", tt.interval, tt.timeout, got, tt.want)
		}
	}
}

// csv is a series: its name, then a line for each 100 ms.
func csv(name string, bins []int) (text string) {
	for i, n := range bins {
		text += fmt.Sprintf("%q,%.1f,%d\n", name, float64(i)*crowdBin.Seconds(), n)
	}
	return text
}
