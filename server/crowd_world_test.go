package server

import (
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// crowd is a simulated operating system for one question: when does a loop send its heartbeats, if a million peers come, answer, go and
// come back? It has no faults and no interleavings, those are simWorld's; a peer is 32 bytes, so that a million of them fit. Time passes
// only while the loop waits.
type crowd struct {
	t     testing.TB
	rand  *rand.Rand
	loop  *loop
	clock time.Duration
	woken bool
	cost  time.Duration // of a write
	until time.Duration // of the run

	peers    []crowdPeer // by descriptor
	free     []int32
	arriving []crowdArrival // who waits in the backlog
	kinds    []crowdKind
	agenda   [][]crowdEvent // by millisecond, modulo its length
	first    int64          // the first millisecond that may hold something
	due      []crowdEvent   // of the clock's millisecond
	later    []crowdArrival // by time: connections to come

	beats   []int // by 100 ms
	closed  int   // with a Close frame from the server
	upgrade int
}

// crowdBin is the bin in which heartbeats are counted.
const crowdBin = 100 * time.Millisecond

// crowdAgendaMillis bounds how far ahead a peer may plan.
const crowdAgendaMillis = 1 << 12

// crowdKind is what a peer asks for: one request head for all of its kind.
type crowdKind struct{ head []byte }

// crowdPeer is the other end of a connection.
type crowdPeer struct {
	tok     poller.Token
	ping    [pingBytes]byte
	kind    uint8
	greeted bool
	gone    bool
	pong    bool // an answer is to be read
	says    bool // and a message
	mute    bool // it answers nothing
}

type crowdArrival struct {
	at   time.Duration
	kind uint8
	mute bool
}

type crowdEvent struct {
	fd  int32
	do  crowdDeed
	run uint32 // generation of the connection that is meant
}

type crowdDeed uint8

const (
	crowdAnswers crowdDeed = iota
	crowdSays
	crowdLeaves
)

// crowdRoundTrip is how long a peer takes to answer.
const crowdRoundTrip = 40 * time.Millisecond

func newCrowd(t testing.TB, cfg Config, queries ...string) *crowd {
	t.Helper()
	c := &crowd{t: t, rand: rand.New(rand.NewPCG(1, 2)), agenda: make([][]crowdEvent, crowdAgendaMillis), peers: make([]crowdPeer, 1)}
	for _, query := range append(queries, "")[:max(1, len(queries))] {
		c.kinds = append(c.kinds, crowdKind{wsframe.AppendRequest(nil, "example.org", "/ws"+query, [16]byte{}, nil)})
	}
	cfg.Listen, cfg.ConnectionLimit, cfg.HandlerInline, cfg.Loops = []string{"none"}, math.MaxInt32, true, 1
	cfg.Logger, cfg.NodeName = slog.New(slog.DiscardHandler), "crowd"
	s, err := New(cfg, discard{})
	if err != nil {
		t.Fatal(err)
	}
	s.inlineBatch = math.MaxInt
	s.began = time.Unix(0, 0)
	s.clock = func() time.Time { return s.began.Add(c.clock) }
	c.loop = newLoop(s, 0, c)
	s.loops = []*loop{c.loop}
	if err := c.loop.listen(crowdPort{}, false); err != nil {
		t.Fatal(err)
	}
	s.state.Store(stateServing)
	close(s.started)
	c.loop.owner.take()
	c.loop.clock.start(0)
	return c
}

// come has n peers connect, evenly over a span from now.
func (c *crowd) come(n int, over time.Duration, kind int) {
	for i := range n {
		c.later = append(c.later, crowdArrival{at: c.clock + time.Duration(i)*over/time.Duration(n), kind: uint8(kind)})
	}
	slices.SortStableFunc(c.later, func(a, b crowdArrival) int { return int(a.at - b.at) })
}

// all calls do for each peer that is there.
func (c *crowd) all(do func(fd int32, p *crowdPeer)) {
	for fd := range c.peers {
		if p := &c.peers[fd]; p.greeted && !p.gone {
			do(int32(fd), p)
		}
	}
}

// leave has a random half of the peers hang up within a span.
func (c *crowd) leaveHalf(over time.Duration) (left int) {
	c.all(func(fd int32, _ *crowdPeer) {
		if c.rand.IntN(2) == 0 {
			left++
			c.plan(time.Duration(c.rand.Int64N(int64(over))), fd, crowdLeaves)
		}
	})
	return left
}

// broadcast has every peer say something within a span, as after a message to all.
func (c *crowd) broadcast(over time.Duration) {
	c.all(func(fd int32, _ *crowdPeer) { c.plan(time.Duration(c.rand.Int64N(int64(over))), fd, crowdSays) })
}

func (c *crowd) plan(after time.Duration, fd int32, do crowdDeed) {
	ms := int64((c.clock + after + time.Millisecond - 1) / time.Millisecond)
	ms = max(ms, c.first)
	if ms-c.first >= crowdAgendaMillis {
		c.t.Fatalf("a peer plans %v ahead", after)
	}
	at := &c.agenda[ms%crowdAgendaMillis]
	*at = append(*at, crowdEvent{fd: fd, do: do, run: tokenGeneration(c.peers[fd].tok)})
}

// run turns the loop until a time.
func (c *crowd) run(until time.Duration) {
	c.until = until
	for c.clock < until {
		if err := c.loop.turn(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// stretch is what the loop makes of an interval, as a factor.
func (c *crowd) stretch() float64 { return float64(c.loop.stretched(10_000, 0)) / 10_000 }

func (c *crowd) bin() int { return int(c.clock / crowdBin) }

// flatness says how far, in percent of their mean, the beats per 100 ms of a time go below and above it.
func (c *crowd) flatness(from, to time.Duration) (mean, below, above float64) {
	bins := c.beats[from/crowdBin : to/crowdBin]
	least, most, sum := bins[0], bins[0], 0
	for _, n := range bins {
		least, most, sum = min(least, n), max(most, n), sum+n
	}
	mean = float64(sum) / float64(len(bins))
	return mean, 100 - 100*float64(least)/mean, 100*float64(most)/mean - 100
}

// ---- sys ----

func (c *crowd) now() time.Duration { return c.clock }
func (c *crowd) wake()              { c.woken = true }

// wait lets time pass until something happens or the deadline comes.
func (c *crowd) wait(events []poller.Event, deadline time.Duration) (int, error) {
	for {
		n := c.happen(events)
		if n > 0 || c.woken {
			c.woken = false
			return n, nil
		}
		next := time.Duration(c.first) * time.Millisecond
		if deadline == noDeadline {
			deadline = c.until
		}
		if deadline <= next {
			c.clock = max(c.clock, deadline)
			c.count(0)
			return 0, nil
		}
		c.clock = max(c.clock, next)
	}
}

// happen reports what has happened by now.
func (c *crowd) happen(events []poller.Event) (n int) {
	for len(c.later) > 0 && c.later[0].at <= c.clock {
		c.arriving = append(c.arriving, c.later[0])
		c.later = c.later[1:]
	}
	if len(c.arriving) > 0 {
		events[n] = poller.Event{Token: c.loop.listeners[0].token, Ready: poller.CanRead}
		n++
	}
	for n < len(events) {
		if len(c.due) == 0 {
			if time.Duration(c.first)*time.Millisecond > c.clock {
				break
			}
			at := &c.agenda[c.first%crowdAgendaMillis]
			c.due = append(c.due[:0], *at...)
			*at = (*at)[:0]
			c.first++
			continue
		}
		e := c.due[len(c.due)-1]
		c.due = c.due[:len(c.due)-1]
		p := &c.peers[e.fd]
		if p.gone || tokenGeneration(p.tok) != e.run {
			continue
		}
		ready := poller.CanRead
		switch e.do {
		case crowdAnswers:
			p.pong = true
		case crowdSays:
			p.says = true
		case crowdLeaves:
			p.gone = true
			ready |= poller.Hangup
		}
		events[n] = poller.Event{Token: p.tok, Ready: ready}
		n++
	}
	return n
}

func (c *crowd) add(fd int, tok poller.Token) error {
	c.peers[fd].tok = tok
	return nil
}

func (c *crowd) addListener(int, poller.Token) error         { return nil }
func (c *crowd) pauseListener(int, poller.Token, bool) error { return nil }
func (c *crowd) close() error                                { return nil }

func (c *crowd) accept(_ acceptor, batch []poller.Accepted) (int, error) {
	n := min(len(batch), len(c.arriving))
	for i, a := range c.arriving[:n] {
		fd := int32(len(c.peers))
		if last := len(c.free) - 1; last >= 0 {
			fd, c.free = c.free[last], c.free[:last]
		} else {
			c.peers = append(c.peers, crowdPeer{})
		}
		c.peers[fd] = crowdPeer{kind: a.kind, mute: a.mute}
		batch[i] = poller.Accepted{FD: int(fd), Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(fd >> 16), byte(fd >> 8), byte(fd)}), 1)}
	}
	c.arriving = c.arriving[:copy(c.arriving, c.arriving[n:])]
	return n, nil
}

func (c *crowd) read(fd int, buf []byte) (int, error) {
	p := &c.peers[fd]
	switch {
	case !p.greeted:
		p.greeted = true
		return copy(buf, c.kinds[p.kind].head), nil
	case p.gone:
		return 0, io.EOF
	case p.says:
		p.says = false
		return copy(buf, wsframe.AppendMasked(buf[:0], wsframe.Binary, true, []byte("got it"), [4]byte{})), nil
	case p.pong:
		p.pong = false
		return copy(buf, wsframe.AppendMasked(buf[:0], wsframe.Pong, true, p.ping[:], [4]byte{})), nil
	default:
		return 0, poller.ErrWouldBlock
	}
}

func (c *crowd) write(fd int, b []byte) (int, error) {
	p := &c.peers[fd]
	c.clock += c.cost
	switch b[0] {
	case 'H':
		c.upgrade++
	case 0x80 | byte(wsframe.Ping):
		copy(p.ping[:], b[2:])
		c.count(1)
		if !p.mute {
			c.plan(crowdRoundTrip, int32(fd), crowdAnswers)
		}
	case 0x80 | byte(wsframe.Close):
		c.closed++
	default:
		c.t.Fatalf("descriptor %d was sent %q", fd, b)
	}
	return len(b), nil
}

// count adds heartbeats to the bin of the moment.
func (c *crowd) count(n int) {
	for len(c.beats) <= c.bin() {
		c.beats = append(c.beats, 0)
	}
	c.beats[c.bin()] += n
}

func (c *crowd) writev(fd int, bufs [][]byte) (int, error) {
	return c.write(fd, slices.Concat(bufs...))
}
func (c *crowd) peek(int) (int, error) { return 0, poller.ErrWouldBlock }
func (c *crowd) closeWrite(int) error  { return nil }

func (c *crowd) unacknowledged(int) (int, time.Duration, error) { return 0, 0, nil }
func (c *crowd) setUserTimeout(int, time.Duration) error        { return nil }

func (c *crowd) turnAway(int, func([]byte) []byte) {}

func (c *crowd) closeFD(fd int) error {
	p := &c.peers[fd]
	*p = crowdPeer{gone: true}
	c.free = append(c.free, int32(fd))
	return nil
}

// crowdPort is the listener; whom it accepts is the crowd's.
type crowdPort struct{}

func (crowdPort) FD() int                                { return 0 }
func (crowdPort) Accept([]poller.Accepted) (int, error)  { return 0, nil }
func (crowdPort) Shed(func([]byte) []byte) (bool, error) { return false, nil }
func (crowdPort) Close() error                           { return nil }
