package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// sourcesTried bounds the loopback addresses tried for one connection when ports run out.
const sourcesTried = 8

// opens is the state of opening connections: slots [next, want) are still to be begun.
type opens struct {
	next, want int
	pending    int // begun, neither open nor failed
	sources    int // connections begun in the life of the client: chooses the source address

	rate       float64 // opens a second; 0 unbounded
	pacedFrom  int64   // when the pace began, ns
	paced      int     // begun since then
	pacedUntil int64   // when the next may begin, if the pace holds it back

	queue []opening // in the order begun, so the first is the first to time out
	took  *histogram
}

// opening is one entry of the queue of what may time out; it is stale if the slot has moved on.
type opening struct {
	slot int
	gen  uint32
	at   int64
}

// openTo opens connections until n slots have been tried and returns when each is open or has failed.
// The first open to fail for want of the server is the caller's to judge, from the tally.
func (c *client) openTo(n int) error {
	c.opens.want = n
	c.opens.pacedFrom, c.opens.paced = c.clock(), 0
	return c.run(never, func() bool { return c.opens.next >= c.opens.want && c.opens.pending == 0 })
}

// startOpens begins connections as far as window and rate allow.
func (c *client) startOpens(now int64) error {
	o := &c.opens
	o.pacedUntil = 0
	for o.next < o.want && o.pending < c.window {
		if o.rate > 0 {
			due := o.pacedFrom + int64(float64(o.paced)*1e9/o.rate)
			if due > now {
				o.pacedUntil = due
				return nil
			}
		}
		i := o.next
		o.next++
		o.paced++
		if err := c.connect(i); err != nil {
			return err
		}
	}
	return nil
}

// connect begins connection i. A refusal is counted; an error is returned only for what would befall all others too.
func (c *client) connect(i int) error {
	k := &c.conns[i]
	if k.phase != closed {
		return nil
	}
	now := c.clock()
	fd, err := c.dial(poller.ConnectOptions{})
	c.tally.Started++
	if errors.Is(err, poller.ErrDescriptors) {
		return fmt.Errorf("%w: out of descriptors after %d connections: raise the limit (ulimit -n) or lower --connections", errUsage, c.tally.Active)
	}
	if err != nil {
		c.tally.Failed++
		c.tally.Failures[describe(err)]++
		return nil
	}
	c.opens.pending++
	c.opens.queue = append(c.opens.queue, opening{slot: i, gen: k.gen + 1, at: now})
	c.begin(i, fd, now)
	return nil
}

// begin gives slot i a socket that is connecting.
func (c *client) begin(i, fd int, now int64) {
	k := &c.conns[i]
	k.gen++
	k.fd, k.phase, k.openedAt = int32(fd), connecting, now
	if err := c.poller.Add(fd, token(i, k.gen), poller.Readable|poller.Writable|poller.EdgeTriggered); err != nil {
		c.end(i, err)
	}
}

// dial begins a connect from the source address whose turn it is, and from the next ones if its ports are used up.
func (c *client) dial(o poller.ConnectOptions) (fd int, err error) {
	for range sourcesTried {
		o.Source = c.target.source(c.opens.sources)
		fd, err = poller.Connect(c.target.address, o)
		if !c.target.loopback && len(c.target.sources) == 0 || !portsExhausted(err) {
			c.opens.sources++
			return fd, err
		}
		c.opens.sources += portsPerSource - c.opens.sources%portsPerSource
	}
	return fd, err
}

// connected sends the request once the kernel says how the connect went.
func (c *client) connected(i int, ready poller.Readiness) {
	k := &c.conns[i]
	if err := poller.SocketError(int(k.fd)); err != nil {
		c.end(i, err)
		return
	}
	if ready&poller.CanWrite == 0 {
		return
	}
	k.phase = upgrading
	request := c.request
	if c.isGuest(i) {
		request = c.host.connected(i, c.clock())
	}
	if !c.send(i, request) { // an empty socket buffer takes it whole
		return
	}
	if ready&poller.Hangup != 0 { // it won't be told again
		c.receive(i, true)
	}
}

// upgraded reads the answer to the upgrade and returns the frames behind it.
func (c *client) upgraded(i int, p []byte, now int64) (rest []byte) {
	k := &c.conns[i]
	if k.asking { // the server has made up its mind before it knew all
		k.partial, k.asking = nil, false
	}
	if len(k.partial) > 0 {
		p = append(k.partial, p...)
	}
	n, status, err := wsframe.CheckResponse(p, c.key)
	switch {
	case err != nil:
		c.end(i, err)
		return nil
	case n == 0 && len(p) > headBytesMax:
		c.end(i, errHeadTooBig)
		return nil
	case n == 0:
		k.partial = append([]byte(nil), p...)
		return nil
	case status != 101:
		c.end(i, &statusError{status})
		return nil
	}
	k.partial = nil
	k.phase = open
	c.traffic.Opened++
	if c.opens.took != nil {
		c.opens.took.record(now - k.openedAt)
	}
	k.openedAt = now
	if c.isGuest(i) {
		c.host.opened(i, now)
		if k.phase != open {
			return nil
		}
		return p[n:]
	}
	c.opens.pending--
	c.tally.Opened++
	c.tally.Active++
	if c.hooks.opened != nil {
		c.hooks.opened(i, now)
	}
	return p[n:]
}

// expireOpens fails the opens that took too long.
func (c *client) expireOpens(now int64) {
	q := c.opens.queue
	for len(q) > 0 {
		k := &c.conns[q[0].slot]
		waiting := k.gen == q[0].gen && (k.phase == connecting || k.phase == upgrading)
		if waiting && now-q[0].at < c.timeout {
			break
		}
		if waiting {
			c.end(q[0].slot, errTimeout)
		}
		q = q[1:]
	}
	if len(q) == 0 {
		q = c.opens.queue[:0] // the array is used again
	}
	c.opens.queue = q
}

// restartOpens lets openTo begin at the first slot again; all connections must be closed.
func (c *client) restartOpens(window int) {
	c.opens.next, c.window = 0, window
}

// reach opens one connection and says plainly why it cannot be had: nothing is measured against a target out of reach.
func (c *client) reach() error {
	rate := c.opens.rate
	c.opens.rate = 0
	defer func() { c.opens.rate = rate }()
	if err := c.openTo(1); err != nil {
		return err
	}
	if c.tally.Active == 1 || c.tally.Opened == 1 {
		return nil
	}
	for reason := range c.tally.Failures {
		return fmt.Errorf("%w: %s: %s", errUsage, c.target.url, reason)
	}
	return fmt.Errorf("%w: %s: lost right after the upgrade", errUsage, c.target.url)
}

// portsExhausted tells that the source address has no port left towards the target.
func portsExhausted(err error) bool { return errors.Is(err, syscall.EADDRNOTAVAIL) }
