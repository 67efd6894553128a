package server

import (
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// sys is all that a loop and the holders of its loans ask of the operating system: the seam at which the simulation puts its own.
// read, write and writev may be called by whoever holds the descriptor's loan, wake by anybody, the rest by the loop.
type sys interface {
	now() time.Duration // monotonic, since the server began
	wait(events []poller.Event, deadline time.Duration) (int, error)
	wake()
	add(fd int, tok poller.Token) error
	addListener(fd int, tok poller.Token) error
	pauseListener(fd int, tok poller.Token, pause bool) error
	close() error

	accept(l acceptor, batch []poller.Accepted) (int, error)
	read(fd int, p []byte) (int, error)
	write(fd int, p []byte) (int, error)
	writev(fd int, bufs [][]byte) (int, error)
	peek(fd int) (int, error)
	unacknowledged(fd int) (segments int, sinceAck time.Duration, err error)
	setUserTimeout(fd int, d time.Duration) error
	closeWrite(fd int) error
	closeFD(fd int) error
	turnAway(fd int, answer func(request []byte) []byte)
}

// acceptor is a listening socket, as poller.Listener is.
type acceptor interface {
	FD() int
	Accept(batch []poller.Accepted) (int, error)
	Shed(answer func(request []byte) []byte) (bool, error)
	Close() error
}

// noDeadline is the deadline of a loop with nothing to wait for but events.
const noDeadline = time.Duration(-1)

// osSys is the real thing.
type osSys struct {
	poller *poller.Poller
	began  time.Time
	clock  func() time.Time
}

var _ sys = (*osSys)(nil)

func openSys(began time.Time, clock func() time.Time) (*osSys, error) {
	p, err := poller.Open()
	if err != nil {
		return nil, err
	}
	return &osSys{poller: p, began: began, clock: clock}, nil
}

func (o *osSys) now() time.Duration { return o.clock().Sub(o.began) }

func (o *osSys) wait(events []poller.Event, deadline time.Duration) (int, error) {
	if deadline == noDeadline {
		return o.poller.Wait(events, time.Time{})
	}
	return o.poller.Wait(events, o.began.Add(deadline))
}

// wake fails only when the loop is gone, which needs no waking.
func (o *osSys) wake() { _ = o.poller.Wake() }

// add registers a connection once for all it will ever be told: epoll_ctl is a system call, and edges of a writable socket that
// nobody waits for cost nothing (measured: no extra event for echo or heartbeats).
func (o *osSys) add(fd int, tok poller.Token) error {
	return o.poller.Add(fd, tok, poller.Readable|poller.Writable|poller.EdgeTriggered)
}

// addListener is level-triggered: a turn accepts a bounded number and is told again of the rest.
func (o *osSys) addListener(fd int, tok poller.Token) error {
	return o.poller.Add(fd, tok, poller.Readable)
}

func (o *osSys) pauseListener(fd int, tok poller.Token, pause bool) error {
	if pause {
		return o.poller.Modify(fd, tok, 0)
	}
	return o.poller.Modify(fd, tok, poller.Readable)
}

func (o *osSys) close() error { return o.poller.Close() }

func (o *osSys) accept(l acceptor, batch []poller.Accepted) (int, error) { return l.Accept(batch) }
func (o *osSys) read(fd int, p []byte) (int, error)                      { return poller.Read(fd, p) }

func (o *osSys) write(fd int, p []byte) (int, error) { return poller.Write(fd, p) }

func (o *osSys) writev(fd int, bufs [][]byte) (int, error)         { return poller.Writev(fd, bufs) }
func (o *osSys) peek(fd int) (int, error)                          { return poller.Peek(fd) }
func (o *osSys) unacknowledged(fd int) (int, time.Duration, error) { return poller.Unacknowledged(fd) }

func (o *osSys) setUserTimeout(fd int, d time.Duration) error { return poller.SetUserTimeout(fd, d) }

func (o *osSys) closeWrite(fd int) error                             { return poller.CloseWrite(fd) }
func (o *osSys) closeFD(fd int) error                                { return poller.Close(fd) }
func (o *osSys) turnAway(fd int, answer func(request []byte) []byte) { poller.TurnAway(fd, answer) }
