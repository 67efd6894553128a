package monitor

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// boundedListener lets no more than so many connections exist at once. One more takes the place of the one that has been without a request
// for longest: kept alive, or slow to send its request, or slow to take its answer. Who is being answered stays, and what is answered
// for long (events, charts, profiles, scrapes) is bounded so that places are left. So a crowd of silent clients can't keep a probe out.
type boundedListener struct {
	// Immutable after newBoundedListener.
	net.Listener
	most    int
	closed  chan struct{}
	close   func() error
	changed chan struct{} // holds one word: a place may have become free

	// Shared; mu guards, the fields of the connections too.
	mu    sync.Mutex
	conns map[*boundedConn]struct{}
}

func newBoundedListener(l net.Listener, connections int) *boundedListener {
	b := &boundedListener{
		Listener: l, most: connections, closed: make(chan struct{}), changed: make(chan struct{}, 1), conns: make(map[*boundedConn]struct{}, connections),
	}
	b.close = sync.OnceValue(func() error {
		close(b.closed)
		return l.Close()
	})
	return b
}

// Accept takes one connection more than the bound, at most, out of the kernel's backlog: the one that waits for a place.
func (b *boundedListener) Accept() (net.Conn, error) {
	inner, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &boundedConn{Conn: inner, listener: b}
	for {
		wait, ok := b.admit(c)
		if ok {
			return c, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-b.changed:
		case <-timer.C:
		case <-b.closed:
			timer.Stop()
			_ = inner.Close() // Nobody will answer it.
			return nil, net.ErrClosed
		}
		timer.Stop()
	}
}

func (b *boundedListener) Close() error { return b.close() }

// admit gives a connection a place, if need be that of another; else it tells when to ask again.
func (b *boundedListener) admit(c *boundedConn) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := clock()
	if len(b.conns) >= b.most {
		victim, since := b.idlestLocked(now)
		if victim == nil {
			return stalledAfter, false
		}
		if age := now.Sub(since); age < idleGrace {
			return idleGrace - age, false
		}
		delete(b.conns, victim)
		_ = victim.Conn.Close() // It had nothing to say.
	}
	c.since = now
	b.conns[c] = struct{}{}
	return 0, true
}

// idlestLocked is the connection that has been without a request for longest; nil: all are being answered.
func (b *boundedListener) idlestLocked(now time.Time) (idlest *boundedConn, since time.Time) {
	for c := range b.conns {
		at := c.since
		switch {
		case c.writes > 0 && now.Sub(c.writeSince) >= stalledAfter:
			at = c.writeSince
		case c.busy > 0:
			continue
		}
		if idlest == nil || at.Before(since) {
			idlest, since = c, at
		}
	}
	return idlest, since
}

// clock is that of idle times: decisions about the peers of this listener alone.
func clock() time.Time {
	return time.Now() //nolint:forbidigo // connections of people and scrapers, which no test needs to simulate
}

// boundedConn gives its place back when it is closed, and knows whether it may lose it before.
type boundedConn struct {
	net.Conn
	listener *boundedListener

	// Guarded by the listener's mu.
	busy       int       // above 0: its request is being answered, or it was taken over
	since      time.Time // when it came, its last request began, or the last answer ended
	writes     int       // under way
	writeSince time.Time // when the first of them began
}

func (c *boundedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	err := c.Conn.Close()
	c.listener.tell()
	return err
}

// Write notes for how long the peer doesn't take what it asked for.
func (c *boundedConn) Write(p []byte) (int, error) {
	b := c.listener
	b.mu.Lock()
	if c.writes++; c.writes == 1 {
		c.writeSince = clock()
	}
	b.mu.Unlock()
	n, err := c.Conn.Write(p)
	b.mu.Lock()
	c.writes--
	b.mu.Unlock()
	return n, err
}

// begin keeps the connection its place until as many calls of end.
func (c *boundedConn) begin() {
	c.listener.mu.Lock()
	c.busy++
	c.since = clock()
	c.listener.mu.Unlock()
}

func (c *boundedConn) end() {
	c.listener.mu.Lock()
	c.busy--
	c.since = clock()
	c.listener.mu.Unlock()
	c.listener.tell()
}

// awaitBody counts the request as not there yet while its body is read. The time goes on from where the request began, so
// that a byte now and then gains nothing.
func (c *boundedConn) awaitBody(reads bool) {
	c.listener.mu.Lock()
	if reads {
		c.busy--
	} else {
		c.busy++
	}
	c.listener.mu.Unlock()
	if reads {
		c.listener.tell()
	}
}

func (b *boundedListener) tell() {
	select {
	case b.changed <- struct{}{}:
	default: // it is told already
	}
}

// connKey is the key of a request's boundedConn in its context.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// keepsPlace has each connection keep its place while its request is answered.
func keepsPlace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*boundedConn); ok {
			c.begin()
			defer c.end()
			if r.Body != nil && r.Body != http.NoBody {
				r.Body = &awaitedBody{ReadCloser: r.Body, conn: c}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// keepTaken has a connection that was taken over, as the charts do, keep its place until it is closed.
func keepTaken(c net.Conn, state http.ConnState) {
	if bounded, ok := c.(*boundedConn); ok && state == http.StateHijacked {
		bounded.begin()
	}
}

// awaitedBody is a body that may come slowly.
type awaitedBody struct {
	io.ReadCloser
	conn *boundedConn
}

func (a *awaitedBody) Read(p []byte) (int, error) {
	a.conn.awaitBody(true)
	defer a.conn.awaitBody(false)
	return a.ReadCloser.Read(p)
}

// atMost answers so many requests at once, and refuses others.
func atMost(requests int, reason string, next http.HandlerFunc) http.HandlerFunc {
	places := make(chan struct{}, requests)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			next(w, r)
		default:
			refuseFull(w, r, reason)
		}
	}
}

// refuseFull answers that all places of a kind are taken, and ends the connection: it would hold one of those of the listener.
func refuseFull(w http.ResponseWriter, r *http.Request, reason string) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Retry-After", retryAfterSeconds)
	refuse(w, r, http.StatusServiceUnavailable, "too_many", reason)
}
