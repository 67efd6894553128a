package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"sync/atomic"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

const (
	// eventsPerWait is the batch of one wait, as the server's.
	eventsPerWait = 256
	// readBytes bounds one read; the client has one buffer for all connections.
	readBytes = 64 * 1024
	// headBytesMax bounds the answer to an upgrade.
	headBytesMax = 16 * 1024
	// messageBytesMax bounds what a server may send in one message.
	messageBytesMax = 16 << 20
	// never is a deadline that does not come.
	never = math.MaxInt64
	// housekeeping is how often timeouts are looked for and progress is shown, in ns.
	housekeeping = int64(100 * time.Millisecond)
)

var (
	errHeadTooBig = errors.New("answer to the upgrade is too long")
	errTimeout    = errors.New("timed out")
)

// phase is where a connection stands: closed -> connecting -> upgrading -> open -> closed.
type phase uint8

const (
	closed phase = iota
	connecting
	upgrading
	open
)

// conn is one connection of the client: plain fields, no goroutine, no timer, no buffer while nothing is unfinished.
type conn struct {
	fd       int32
	phase    phase
	deaf     bool   // of a guest: what comes is not read
	mute     bool   // pings are not answered: of a guest, or of a member that has said goodbye
	asking   bool   // while upgrading: the socket didn't take the whole request, its rest is in partial
	gen      uint32 // raised when the slot is used anew, so that a stale event is told apart; upper half of the token
	openedAt int64  // ns on the client's clock: when connect began, then when the upgrade was complete
	decoder  wsframe.Decoder
	// partial is the answer to the upgrade as far as it came, and then what a full socket did not take.
	partial []byte
}

// hooks are what a scenario wants to hear of. Any may be nil; all run on the client's goroutine, at is its clock.
type hooks struct {
	opened  func(i int, at int64)
	ping    func(i int, at int64)
	message func(i int, m wsframe.Message, at int64) // data messages; replies go to client.reply
	lost    func(i int, at int64)
}

// client is the load: connections on one poller, served by the goroutine that calls run. The slots from members on are
// guests: connections that a scenario opens, ends and judges itself (guest.go). Nothing else is counted of them.
type client struct {
	// Immutable after newClient, but for hooks to host, which a scenario sets between two calls of run.
	hooks    hooks
	pacer    *pacer         // nil: nothing is sent on a plan
	alarms   *alarms        // nil: nothing is timed
	host     host           // of the guests; nil: there are none
	progress func(at int64) // ten times a second; nil: nobody looks
	clock    func() int64   // ns since base
	base     time.Time      // of the clock
	target   target         // where all connections go
	limits   wsframe.Limits // of what the server may send
	key      [16]byte       // one for all upgrades: the server cannot tell
	mask     [4]byte        // likewise; nobody between the two is to be protected from us
	request  []byte         // the same for all
	pong     []byte         // masked, empty
	timeout  int64          // ns for an open

	interrupted atomic.Bool // run is to return; set from any goroutine

	// Owned by the goroutine in run.
	poller  *poller.Poller
	events  []poller.Event
	buf     []byte // of every read
	out     []byte // replies of the event under way
	conns   []conn // never grows: members first, then guests
	members int
	window  int // opening at one time
	opens   opens
	keptAt  int64 // of the last housekeeping
	tally   tally
	traffic traffic // guests included

	// While the client's own lateness is probed (calibrate.go).
	late       *histogram // nil: it isn't
	probesFrom int64
	probes     int // planned
	probeDue   int64
}

// tally counts what became of the connections since the client was made.
type tally struct {
	Started  int // connects begun, retries included
	Opened   int // upgrades completed
	Failed   int // opens that did not complete
	Active   int // open now
	Lost     int // open connections that the server ended
	Failures map[string]int
	Losses   map[string]int
}

// clone is what the tally is now.
func (t *tally) clone() tally {
	c := *t
	c.Failures, c.Losses = maps.Clone(t.Failures), maps.Clone(t.Losses)
	return c
}

// add is for the tally of another process.
func (t *tally) add(other tally) {
	t.Started += other.Started
	t.Opened += other.Opened
	t.Failed += other.Failed
	t.Active += other.Active
	t.Lost += other.Lost
	t.Failures = joined(t.Failures, other.Failures)
	t.Losses = joined(t.Losses, other.Losses)
}

func newClient(o *options) (*client, error) {
	p, err := poller.Open()
	if err != nil {
		return nil, err
	}
	base := time.Now()
	c := &client{
		clock: func() int64 { return int64(time.Since(base)) }, base: base,
		target: o.target, window: o.opening, timeout: int64(o.openTimeout),
		limits: wsframe.Limits{Client: true, MessageBytesMax: messageBytesMax},
		poller: p, events: make([]poller.Event, eventsPerWait), buf: make([]byte, readBytes),
		conns: make([]conn, o.connections+o.guests), members: o.connections,
		tally: tally{Failures: map[string]int{}, Losses: map[string]int{}}, traffic: newTraffic(),
	}
	_, _ = rand.Read(c.key[:])  // never fails: the program would end
	_, _ = rand.Read(c.mask[:]) // likewise
	c.request = wsframe.AppendRequest(nil, o.target.host, o.target.path, c.key, nil)
	c.pong = c.frame(wsframe.Pong, nil)
	c.opens.rate = o.openRate
	return c, nil
}

// frame encodes a masked frame, to be kept and sent often.
func (c *client) frame(op wsframe.Opcode, payload []byte) []byte {
	return wsframe.AppendMasked(nil, op, true, payload, c.mask)
}

// run serves the client until the deadline on its clock or until done says so, looked at after every batch of events. Once the client is
// interrupted it returns errInterrupted.
func (c *client) run(deadline int64, done func() bool) error {
	for {
		now := c.clock()
		if now-c.keptAt >= housekeeping {
			c.keptAt = now
			c.expireOpens(now)
			if c.progress != nil {
				c.progress(now)
			}
		}
		if c.late != nil {
			c.probe(now)
		}
		if c.interrupted.Load() {
			return errInterrupted
		}
		if now >= deadline || (done != nil && done()) {
			return nil
		}
		wake := min(deadline, c.keptAt+housekeeping)
		if c.late != nil {
			wake = min(wake, c.probeDue)
		}
		if c.pacer != nil {
			wake = min(wake, c.pacer.serve(c, now))
		}
		if c.alarms != nil {
			wake = min(wake, c.alarms.serve(now))
		}
		if err := c.startOpens(now); err != nil {
			return err
		}
		if c.opens.pacedUntil > now {
			wake = min(wake, c.opens.pacedUntil)
		}
		n, err := c.poller.Wait(c.events, c.base.Add(time.Duration(wake)))
		if err != nil {
			return err
		}
		for _, ev := range c.events[:n] {
			c.serve(ev)
		}
	}
}

func token(i int, gen uint32) poller.Token { return poller.Token(gen)<<32 | poller.Token(i) }

// serve handles one event. The connection may be another than the event's by now: then the event is stale.
func (c *client) serve(ev poller.Event) {
	i, gen := int(uint32(ev.Token)), uint32(ev.Token>>32)
	k := &c.conns[i]
	if k.gen != gen || k.phase == closed {
		return
	}
	if k.phase == connecting {
		c.connected(i, ev.Ready)
		return
	}
	if ev.Ready&poller.CanWrite != 0 && (k.phase == open || k.asking) && len(k.partial) > 0 {
		unsent := k.partial
		k.partial, k.asking = nil, false
		if !c.send(i, unsent) {
			return
		}
	}
	hangup := ev.Ready&poller.Hangup != 0
	switch {
	case k.deaf && hangup:
		c.host.hungUp(i, c.clock())
	case !k.deaf && ev.Ready&(poller.CanRead|poller.Hangup) != 0:
		c.receive(i, hangup)
	}
}

// receive reads what there is: one read, unless the buffer was too small or the peer has hung up. The replies to all of
// it go out in one write.
func (c *client) receive(i int, hangup bool) {
	k := &c.conns[i]
	gen := k.gen
	for {
		n, err := poller.Read(int(k.fd), c.buf)
		if errors.Is(err, poller.ErrWouldBlock) {
			return
		}
		if err != nil {
			c.end(i, err)
			return
		}
		c.traffic.BytesReceived += n
		c.out = c.out[:0]
		c.consume(i, c.buf[:n])
		if k.gen != gen || k.phase == closed {
			return
		}
		if len(c.out) > 0 && !c.send(i, c.out) {
			return
		}
		if n < len(c.buf) && !hangup {
			return
		}
	}
}

// consume takes bytes of connection i apart.
func (c *client) consume(i int, p []byte) {
	k := &c.conns[i]
	now := c.clock()
	if k.phase == upgrading {
		if p = c.upgraded(i, p, now); len(p) == 0 {
			return
		}
	}
	for len(p) > 0 {
		m, n, ok, err := k.decoder.Next(&c.limits, p)
		if err != nil {
			c.end(i, err)
			return
		}
		p = p[n:]
		if !ok {
			return
		}
		if !c.deliver(i, m, now) {
			return
		}
	}
}

// deliver hands one message on; false once the connection is closed.
func (c *client) deliver(i int, m wsframe.Message, now int64) bool {
	c.traffic.heard(m)
	if c.isGuest(i) {
		return c.deliverGuest(i, m, now)
	}
	if c.conns[i].mute { // it only waits for its end
		return c.deliverLast(i, m)
	}
	switch m.Opcode {
	case wsframe.Ping:
		c.answerPing(m.Payload)
		if c.hooks.ping != nil {
			c.hooks.ping(i, now)
		}
	case wsframe.Close:
		c.answerClose(i, m.Payload)
	case wsframe.Text, wsframe.Binary:
		if c.hooks.message != nil {
			c.hooks.message(i, m, now)
		}
	default: // a pong that nobody asked for is allowed (RFC 6455, section 5.5.3)
	}
	return c.conns[i].phase == open
}

// answerPing adds the pong to the one write that answers the event under way.
func (c *client) answerPing(payload []byte) {
	c.traffic.Pongs++
	if len(payload) == 0 {
		c.out = append(c.out, c.pong...)
		return
	}
	c.out = wsframe.AppendMasked(c.out, wsframe.Pong, true, payload, c.mask)
}

// answerClose sends the server's Close frame back and ends the connection.
func (c *client) answerClose(i int, payload []byte) {
	code, reason, _ := wsframe.ParseClose(payload) // the decoder has checked it
	sent := c.traffic.BytesSent
	c.send(i, c.frame(wsframe.Close, payload))
	c.traffic.BytesSent = sent // a server that has said Close only waits for the end: it does not look at frames any more
	c.end(i, &closeError{code: code, reason: reason})
}

// deliverLast is deliver for a member that has said goodbye.
func (c *client) deliverLast(i int, m wsframe.Message) bool {
	if m.Opcode != wsframe.Close {
		return true
	}
	code, _, _ := wsframe.ParseClose(m.Payload) // the decoder has checked it
	why := endGoodbye
	if code != wsframe.CloseNormal { // the server was about to end it itself
		why = endOf(code)
	}
	c.traffic.Closed[why]++
	c.release(i, poller.Close)
	return false
}

// reply adds to the one write that answers the event under way. For hooks only.
func (c *client) reply(frame []byte) { c.out = append(c.out, frame...) }

// send writes now; what a full socket does not take is kept until it is writable. False if the connection was lost.
func (c *client) send(i int, p []byte) bool {
	k := &c.conns[i]
	if k.phase == closed {
		return false
	}
	if len(k.partial) > 0 {
		k.partial = append(k.partial, p...)
		return true
	}
	for len(p) > 0 {
		n, err := poller.Write(int(k.fd), p)
		if errors.Is(err, poller.ErrWouldBlock) { // only now is there an edge to wait for
			k.partial, k.asking = append([]byte(nil), p...), k.phase != open
			return true
		}
		if err != nil {
			c.end(i, err)
			return false
		}
		if k.phase == open { // else it is the request
			c.traffic.BytesSent += n
		}
		p = p[n:]
	}
	return true
}

// end is the one place where a connection ends that the scenario did not close: an open that failed or a loss.
func (c *client) end(i int, why error) {
	k := &c.conns[i]
	if k.phase == closed {
		return
	}
	was := k.phase
	c.traffic.ended(was, why)
	c.release(i, poller.Close)
	if c.isGuest(i) {
		c.host.ended(i, was, why, c.clock())
		return
	}
	reason := describe(why)
	if was != open {
		c.tally.Failed++
		c.tally.Failures[reason]++
		return
	}
	c.tally.Lost++
	c.tally.Losses[reason]++
	if c.hooks.lost != nil {
		c.hooks.lost(i, c.clock())
	}
}

// closeError is a Close frame of the server.
type closeError struct {
	code   wsframe.CloseCode
	reason string
}

func (e *closeError) Error() string { return fmt.Sprintf("close %d %s", e.code, e.reason) }

// statusError is an answer to the upgrade other than 101.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("answered %d", e.status) }

// describe makes a cause one line of a count of causes.
func describe(why error) string {
	var perr *wsframe.ProtocolError
	switch {
	case errors.Is(why, io.EOF):
		return "end of stream"
	case errors.As(why, &perr):
		return "protocol error of the server: " + perr.Reason
	}
	return why.Error()
}

// shut ends a connection from our side, without a word to the server.
func (c *client) shut(i int, how func(fd int) error) {
	if was := c.conns[i].phase; was != closed {
		c.traffic.cut(was)
	}
	c.release(i, how)
}

// release gives the slot's descriptor back and leaves the slot ready for another.
func (c *client) release(i int, how func(fd int) error) {
	k := &c.conns[i]
	switch {
	case k.phase == closed:
		return
	case c.isGuest(i): // not counted
	case k.phase == open:
		c.tally.Active--
	default:
		c.opens.pending--
	}
	_ = how(int(k.fd)) // the connection is gone for us whatever the kernel says
	k.phase, k.partial, k.deaf, k.mute, k.asking = closed, nil, false, false, false
	k.decoder = wsframe.Decoder{}
}

// drop ends all connections at once, in the way given (poller.Close or poller.Reset).
func (c *client) drop(how func(fd int) error) {
	for i := range c.conns {
		c.shut(i, how)
	}
}

// close ends everything. Connections are reset: tens of thousands of sockets in TIME_WAIT would stand in the way of
// the next run.
func (c *client) close() error {
	c.drop(poller.Reset)
	return c.poller.Close()
}

// isOpen says whether connection i can be sent to.
func (c *client) isOpen(i int) bool { return c.conns[i].phase == open }
