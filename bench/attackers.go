package main

import (
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// readsAgainAfter is how much later than the server's bound for unsent bytes every second slow reader reads again: by
// then it has been sent its Close frame, which is there to be read for serverCloseTimeout.
const readsAgainAfter = time.Second

// attacker is the state of one hostile peer.
type attacker struct {
	kind  *kind
	least int64 // from when its limit counts at the earliest: the server may see it before we do, ns
	came  int64 // when its connect began
	mark  int64 // from when its limit counts for us
	due   int64 // when it is overdue; never if it may stay
	taken int   // bytes of the drip that are out
}

// attackers is the host of hostile peers: each comes, does as its kind does until the server ends it, and comes again.
type attackers struct {
	client *client
	alarms *alarms
	kinds  []*kind
	all    []attacker // per guest

	interval, timeout time.Duration // of the server
	opening           time.Duration // within which an upgrade must be complete
	grace             time.Duration // beyond a limit
	again             time.Duration // between a coming and the next one, if it has ended by then; 0: it does not come again
	stopped           bool

	here    int   // connecting, upgrading or open
	most    int   // of them at one time
	fewest  int   // of them since all have come
	allCome int64 // when that is, ns
	results map[string]*result
}

// result is what became of the peers of one kind, those of one process or of all.
type result struct {
	Begun   int
	Ends    map[string]int // how they ended, how often
	Wrong   map[string]int // the ends that were not wanted
	Early   int            // ended before the limit, where it is exact
	Overdue int            // not ended in time
	Longest int64          // from the mark to the end, ns
}

func newResult() *result { return &result{Ends: map[string]int{}, Wrong: map[string]int{}} }

func (r *result) add(other *result) {
	r.Begun += other.Begun
	r.Ends = joined(r.Ends, other.Ends)
	r.Wrong = joined(r.Wrong, other.Wrong)
	r.Early += other.Early
	r.Overdue += other.Overdue
	r.Longest = max(r.Longest, other.Longest)
}

// newAttackers has the hostile peers come from now on, evenly over the time given.
func newAttackers(c *client, o *options, gathering time.Duration) *attackers {
	a := &attackers{
		client: c, all: make([]attacker, o.guests), interval: o.interval, timeout: o.timeout, opening: o.openTimeout,
		grace: o.patience(0), again: o.again, fewest: o.guests, results: map[string]*result{},
	}
	for _, name := range o.kinds {
		a.kinds = append(a.kinds, kindNamed(name, c, o))
		a.results[name] = newResult()
	}
	now := c.clock()
	a.allCome = now + int64(gathering) + housekeeping
	a.alarms = newAlarms(now, a.ring)
	for i := range a.all {
		a.all[i].kind = a.kinds[i%len(a.kinds)]
		a.alarms.set(c.members+i, now+int64(gathering)/int64(len(a.all))*int64(i))
	}
	c.host, c.alarms = a, a.alarms
	return a
}

var _ host = (*attackers)(nil)

func (a *attackers) of(i int) *attacker { return &a.all[i-a.client.members] }

func (a *attackers) result(i int) *result { return a.results[a.of(i).kind.name] }

// ring is every timed turn of a peer: its coming, its next bytes, its end at the latest.
func (a *attackers) ring(i int, at int64) {
	p, k := a.of(i), &a.client.conns[i]
	switch {
	case k.phase == closed:
		a.come(i, at)
	case at < p.due:
		a.act(i, at)
	case k.phase != open && p.kind.headBytes == 0:
		a.client.end(i, errTimeout)
	case k.deaf:
		a.lookOnce(i, at)
	default:
		a.result(i).Overdue++
		a.leave(i, at)
	}
}

// lookOnce has a slow reader that seems to be still open read. The window of a socket that nobody reads from is shut, and a reset
// of the server may lie outside it: the kernel then learns of the end only at its next probe of the server's own window, which is
// the later the longer that has been shut. Reading opens the window, which is told to the server, whose kernel answers at once.
func (a *attackers) lookOnce(i int, at int64) {
	p, k := a.of(i), &a.client.conns[i]
	gen := k.gen
	p.due = at + int64(readsAgainAfter)
	a.client.listen(i)
	if k.gen == gen && k.phase != closed {
		a.next(i, at)
	}
}

// come begins a connection.
func (a *attackers) come(i int, at int64) {
	if a.stopped {
		return
	}
	a.client.traffic.Hostile++
	a.countHere(at)
	p := a.of(i)
	a.result(i).Begun++
	a.here++
	a.most = max(a.most, a.here)
	p.came, p.least, p.mark, p.due, p.taken = at, at, at, at+int64(a.opening), 0
	var o poller.ConnectOptions
	if p.kind.deaf {
		o.ReceiveBufferBytes, o.SendBufferBytes = slowBufferBytes, slowBufferBytes
	}
	a.alarms.set(i, p.due)
	a.client.connectGuest(i, o)
}

// from sets the mark from which the peer's limit counts.
func (a *attackers) from(p *attacker, at int64) {
	p.mark, p.due = at, never
	if p.kind.limit > 0 {
		p.due = at + int64(p.kind.limit+a.grace)
	}
}

// next arms the peer's alarm for what comes first.
func (a *attackers) next(i int, at int64) {
	p := a.of(i)
	due := p.due
	if p.kind.every > 0 {
		due = min(due, at+int64(p.kind.every))
	}
	if due == never {
		a.alarms.cancel(i)
		return
	}
	a.alarms.set(i, due)
}

func (a *attackers) connected(i int, at int64) []byte {
	p := a.of(i)
	if p.kind.headBytes == 0 {
		return a.client.request
	}
	a.from(p, at)
	a.next(i, at)
	return a.client.request[:p.kind.headBytes]
}

func (a *attackers) opened(i int, at int64) {
	p, k := a.of(i), &a.client.conns[i]
	k.mute, k.deaf = true, p.kind.deaf
	p.least = at // its bytes go out only now
	a.from(p, at)
	if a.stopped && p.due == never { // its upgrade took until the others of its kind had been sent home
		a.leave(i, at)
		return
	}
	a.next(i, at)
	if len(p.kind.first) > 0 {
		a.client.send(i, p.kind.first)
	}
}

// act sends what is next.
func (a *attackers) act(i int, at int64) {
	p, c := a.of(i), a.client
	k := &c.conns[i]
	gen := k.gen
	full := len(k.partial) > 0
	switch {
	case full && k.deaf && a.readsAgain(i) && at-p.mark > int64(a.timeout+a.interval+readsAgainAfter):
		c.listen(i)
	case full || (p.kind.deaf && !k.deaf):
	case p.kind.deaf:
		a.from(p, at)
		c.send(i, p.kind.burst)
	case p.taken < len(p.kind.drip):
		p.taken++
		c.send(i, p.kind.drip[p.taken-1:p.taken])
	case len(p.kind.burst) > 0:
		c.send(i, p.kind.burst)
	}
	if k.gen == gen && k.phase != closed {
		a.next(i, at)
	}
}

// readsAgain says whether a slow reader looks at last: every second one does.
func (a *attackers) readsAgain(i int) bool { return (i-a.client.members)/len(a.kinds)%2 == 0 }

func (a *attackers) pinged(int, int64) {}

// hungUp has a slow reader look how it was ended.
func (a *attackers) hungUp(i int, _ int64) { a.client.listen(i) }

func (a *attackers) ended(i int, was phase, why error, at int64) {
	p, r := a.of(i), a.result(i)
	end := describe(why)
	counted := was == open || p.kind.headBytes > 0 && was == upgrading
	took := at - p.mark
	switch {
	case !counted || !p.kind.wanted(why):
		r.Wrong[end]++
	case p.kind.exact && at-p.least < int64(p.kind.limit)-earlyBy:
		r.Early++
	}
	if counted {
		r.Longest = max(r.Longest, took)
	}
	a.gone(i, end, at)
}

// finish counts those as overdue that are still there when nobody waits any longer.
func (a *attackers) finish(now int64) {
	for n := range a.all {
		if i := a.client.members + n; a.client.conns[i].phase != closed {
			a.result(i).Overdue++
			a.leave(i, now)
		}
	}
}

// leave ends a peer from our side.
func (a *attackers) leave(i int, at int64) {
	a.client.shut(i, poller.Reset)
	a.gone(i, "still open", at)
}

// gone counts an end, and has the peer come again.
func (a *attackers) gone(i int, end string, at int64) {
	a.result(i).Ends[end]++
	a.here--
	a.countHere(at)
	if a.again > 0 && !a.stopped {
		a.alarms.set(i, max(at, a.of(i).came+int64(a.again)))
		return
	}
	a.alarms.cancel(i)
}

// countHere notes how few there are, while the attack is complete.
func (a *attackers) countHere(at int64) {
	if at >= a.allCome && !a.stopped {
		a.fewest = min(a.fewest, a.here)
	}
}

// stop lets nobody come any more, and sends those home that may stay.
func (a *attackers) stop(now int64) {
	a.countHere(now)
	a.stopped = true
	for n := range a.all {
		i := a.client.members + n
		if a.client.conns[i].phase != closed && a.all[n].due == never {
			a.leave(i, now)
		}
	}
}
