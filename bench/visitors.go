package main

import (
	"io"
	"math/rand/v2"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// earlyBy is how much before its timeout a silent connection may be ended without being called early: the server
// counts in milliseconds, and its clock and ours are read at different moments.
const earlyBy = int64(5 * time.Millisecond)

// way is how a guest vanishes.
type way uint8

const (
	byFIN way = iota
	byRST
	bySilence
	ways
)

func (w way) String() string { return [ways]string{"fin", "rst", "silence"}[w] }

// visitors is the host of connections that come, live a random time and vanish: by FIN, by RST, silently, in turn.
type visitors struct {
	client   *client
	alarms   *alarms
	random   *rand.Rand
	life     int64   // the longest, ns
	timeout  int64   // of the server, ns
	patience int64   // within which it must have noticed a silent one, ns
	opening  int64   // within which an open must be complete, ns
	gap      float64 // between two arrivals, ns
	arrival  int     // id of the alarm of arrivals; the others are the slots'

	from    int64 // of the plan of arrivals
	stopped bool
	free    []int
	ways    []way   // per guest
	spoke   []int64 // per guest: when it last sent something
	living  int     // connecting, upgrading or open and not silent
	silent  int     // held unread
	lastAt  int64   // when the last one vanished

	visits
}

// visits is what became of the visitors, those of one process or of all.
type visits struct {
	Begun    int
	Vanished [ways]int
	Failures map[string]int // why guests could not be opened
	Losses   map[string]int // how guests were ended before they vanished
	Unplaced int            // arrivals for which no slot was free
	Early    int            // silent ones ended before their timeout
	Late     int            // ended more than two ticks after it, as seen from here
	Overdue  int            // silent ones not ended in time
	Expiry   *histogram     // how long after their timeout the silent ones were ended
}

func (v *visits) add(other *visits) {
	v.Begun += other.Begun
	for w, n := range other.Vanished {
		v.Vanished[w] += n
	}
	v.Failures = joined(v.Failures, other.Failures)
	v.Losses = joined(v.Losses, other.Losses)
	v.Unplaced += other.Unplaced
	v.Early += other.Early
	v.Late += other.Late
	v.Overdue += other.Overdue
	v.Expiry.merge(other.Expiry)
}

func newVisitors(c *client, o *options) *visitors {
	v := &visitors{
		client: c, random: rand.New(rand.NewPCG(1, uint64(o.index))), // the same lives in every run
		life: int64(o.life), timeout: int64(o.timeout), patience: int64(o.patience(o.timeout)), opening: int64(o.openTimeout),
		gap: 60e9 / o.churnRate, arrival: len(c.conns), from: c.clock(),
		ways: make([]way, o.guests), spoke: make([]int64, o.guests),
		visits: visits{Failures: map[string]int{}, Losses: map[string]int{}, Expiry: newHistogram()},
	}
	for i := len(c.conns) - 1; i >= c.members; i-- {
		v.free = append(v.free, i)
	}
	v.alarms = newAlarms(v.from, v.ring)
	v.alarms.set(v.arrival, v.from)
	c.host, c.alarms = v, v.alarms
	return v
}

var _ host = (*visitors)(nil)

// ring is every timed turn: arrivals, the end of a life, the end of a silence, an open that takes too long.
func (v *visitors) ring(id int, at int64) {
	if id == v.arrival {
		v.arrive(at)
		return
	}
	k := &v.client.conns[id]
	switch {
	case k.phase == closed:
	case k.phase != open:
		v.client.end(id, errTimeout)
	case k.deaf: // its patience is over, and the server still holds it
		v.Overdue++
		v.silenceEnds(id)
	default:
		v.vanish(id, at)
	}
}

// arrive begins the guests that are due by the plan.
func (v *visitors) arrive(now int64) {
	if v.stopped {
		return
	}
	for ; v.due() <= now; v.Begun++ {
		if len(v.free) == 0 {
			v.Unplaced++
			continue
		}
		i := v.free[len(v.free)-1]
		v.free = v.free[:len(v.free)-1]
		v.ways[i-v.client.members] = way(v.Begun % int(ways))
		v.living++
		v.alarms.set(i, now+v.opening)
		v.client.connectGuest(i, poller.ConnectOptions{})
	}
	v.alarms.set(v.arrival, v.due())
}

// due is when the next guest is to arrive.
func (v *visitors) due() int64 { return v.from + int64(float64(v.Begun)*v.gap) }

func (v *visitors) connected(i int, at int64) []byte {
	v.spoke[i-v.client.members] = at
	return v.client.request
}

func (v *visitors) opened(i int, at int64) {
	v.alarms.set(i, at+1+v.random.Int64N(v.life))
}

func (v *visitors) pinged(i int, at int64) { v.spoke[i-v.client.members] = at }

// vanish ends a guest's life in its way.
func (v *visitors) vanish(i int, at int64) {
	w := v.ways[i-v.client.members]
	v.Vanished[w]++
	v.living--
	v.lastAt = at
	switch w {
	case byFIN:
		v.client.shut(i, poller.Close)
	case byRST:
		v.client.shut(i, poller.Reset)
	default:
		v.client.conns[i].deaf = true
		v.silent++
		v.alarms.set(i, max(at, v.spoke[i-v.client.members]+v.patience))
		return
	}
	v.leave(i)
}

// hungUp is how the server's end of a silent guest shows.
func (v *visitors) hungUp(i int, at int64) {
	late := at - v.spoke[i-v.client.members] - v.timeout
	if late < -earlyBy {
		v.Early++
	}
	if late > 2*int64(serverTick) {
		v.Late++
	}
	v.Expiry.record(late)
	v.silenceEnds(i)
}

func (v *visitors) silenceEnds(i int) {
	v.silent--
	if v.client.readRest(i) {
		v.client.traffic.Closed[endSilent]++
	} else {
		v.client.traffic.ended(open, io.EOF)
	}
	v.client.release(i, poller.Reset)
	v.leave(i)
}

// ended is a guest that could not be opened, or one that the server ended while it behaved.
func (v *visitors) ended(i int, was phase, why error, at int64) {
	v.living--
	v.lastAt = at
	if was == open {
		v.Losses[describe(why)]++
	} else {
		v.Failures[describe(why)]++
	}
	v.leave(i)
}

// stop lets nobody new arrive.
func (v *visitors) stop() {
	v.stopped = true
	v.alarms.cancel(v.arrival)
}

func (v *visitors) leave(i int) {
	v.alarms.cancel(i)
	v.free = append(v.free, i)
}
