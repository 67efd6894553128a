package poller

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// EventsPerWaitMax is the most events one Wait reports, however long the
// slice it is given. It bounds the turn of a loop: 256 events at some 5 µs each
// are about a millisecond, after which timers and posted tasks get theirs.
const EventsPerWaitMax = 256

// The errors that a caller acts upon. Every other failure is the kernel's own
// errno, bare from the calls of the hot path and inside an *os.SyscallError
// from the others; both answer errors.Is(err, syscall.E...). Most of the texts are
// read as the reason at the end of a line, so they don't name the package.
var (
	// ErrClosed: the poller or the listener has been closed.
	ErrClosed = errors.New("poller: closed")
	// ErrWouldBlock: nothing to read, or no room to write, until the next edge.
	ErrWouldBlock = errors.New("operation would block")
	// ErrDescriptors: the process (EMFILE) or the system (ENFILE) has no descriptor left.
	ErrDescriptors = errors.New("out of descriptors")
	// ErrInUse: somebody listens on that address already.
	ErrInUse = errors.New("address in use")
	// ErrNotSocket: the path of a Unix socket is taken by a file of another kind.
	ErrNotSocket = errors.New("path is not a socket")
	// ErrAddress: the text is no address that can be listened on or connected to.
	ErrAddress = errors.New("bad address")
)

// backend is what an operating system provides; poller_epoll.go and
// poller_kqueue.go implement it, in this order. It only translates: checks,
// wake-up states and errors that name the caller's mistake live in Poller.
type backend interface {
	// add registers fd. The kernel's refusal (EEXIST, EPERM, ENOSPC) is returned
	// as an *os.SyscallError. Readiness that holds already is reported once.
	add(fd int, tok Token, in Interest) error
	// modify replaces token and interest, and reports again what holds already.
	modify(fd int, tok Token, in Interest) error
	// remove forgets fd. Closing the last descriptor of a socket does so too.
	remove(fd int) error
	// wait fills dst and sleeps at most until deadline (zero: for ever). It asks
	// wakeup.park before it sleeps, never returns EINTR, and allocates nothing.
	// (0, nil) means that the deadline has passed or a wake-up came.
	wait(dst []Event, deadline time.Time) (int, error)
	// wake ends a sleep, at once or the next one; from any goroutine until close.
	wake() error
	// close releases the queue and its helpers.
	close() error
}

// Poller tells which descriptors are ready. It belongs to one goroutine; only
// Wake may be called from others. See the package comment for its rules.
type Poller struct {
	// Immutable after Open.
	backend backend

	// Shared; mu guards backend.wake against backend.close, so that a late Wake
	// cannot write to a descriptor that has become somebody else's.
	mu sync.Mutex

	// Atomic.
	closed atomic.Bool
	wakeup wakeup
}

// Open creates a poller. It holds four descriptors on Linux (epoll twice, timer,
// wake-up) and one with kqueue, all close-on-exec.
func Open() (*Poller, error) {
	return openWith(openBackend)
}

// openWith lets the tests run every backend through the same Poller.
func openWith(open func(*wakeup) (backend, error)) (*Poller, error) {
	p := new(Poller)
	b, err := open(&p.wakeup)
	if err != nil {
		return nil, fmt.Errorf("poller: open: %w", err)
	}
	p.backend = b
	return p, nil
}

// Add registers fd, which must be non-blocking, under tok. What holds already
// (unread bytes, room to write) is reported by the next Wait. A descriptor
// already registered is a mistake: on Linux the error answers
// errors.Is(err, syscall.EEXIST), kqueue replaces the registration.
func (p *Poller) Add(fd int, tok Token, in Interest) error {
	if err := p.check(tok, in); err != nil {
		return err
	}
	return p.backend.add(fd, tok, in)
}

// Modify replaces the token and the interest of a registered descriptor and
// reports anew what holds already. With in == 0 the descriptor stays registered
// and silent (on Linux except for errors of the socket): how a listener pauses.
func (p *Poller) Modify(fd int, tok Token, in Interest) error {
	if err := p.check(tok, in); err != nil {
		return err
	}
	return p.backend.modify(fd, tok, in)
}

// Remove forgets fd; an unregistered one answers errors.Is(err, syscall.ENOENT).
// It is needed only if the socket lives on (a duplicate of the descriptor here
// or in another process): the last close removes a registration by itself.
// Events of fd already returned by Wait are the caller's to drop, by its token.
func (p *Poller) Remove(fd int) error {
	if p.closed.Load() {
		return ErrClosed
	}
	return p.backend.remove(fd)
}

// Wait fills events, which must not be empty, with what is ready and returns how
// many, at most EventsPerWaitMax. If nothing is, it parks the goroutine until
// something is, or returns (0, nil) at the deadline or for a Wake. A zero
// deadline means none, one in the past means not to park. Wait never returns for
// a signal, nor for the deadline before it has passed.
//
// The timer is set only when deadline differs from that of the Wait before, so an
// unchanged one costs nothing. It should carry Go's monotonic reading, as
// time.Now().Add does; a pure wall-clock time is translated when the timer is
// set, and doesn't follow later changes of the clock. Wait allocates nothing.
func (p *Poller) Wait(events []Event, deadline time.Time) (int, error) {
	if p.closed.Load() {
		return 0, ErrClosed
	}
	if len(events) == 0 {
		panic("poller: Wait with no room for an event")
	}
	if len(events) > EventsPerWaitMax {
		events = events[:EventsPerWaitMax]
	}
	n, err := p.backend.wait(events, deadline)
	p.wakeup.unpark()
	return n, err
}

// Wake makes a Wait return that has not returned yet: the present one, or else
// the next. Calls before that return coalesce, and as long as the owner is busy
// between two waits a Wake costs no system call at all. What the caller did
// before Wake is visible to the owner after that return. Any goroutine may call
// it at any time; after Close it returns ErrClosed.
func (p *Poller) Wake() error {
	if p.closed.Load() {
		return ErrClosed
	}
	if !p.wakeup.request() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return ErrClosed
	}
	return p.backend.wake()
}

// Close releases the poller, by its owner and not during Wait. Registered
// descriptors stay open. A second Close returns ErrClosed.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Swap(true) {
		return ErrClosed
	}
	return p.backend.close()
}

// check refuses a registration of a closed poller and panics on a mistake of
// the calling program.
func (p *Poller) check(tok Token, in Interest) error {
	if p.closed.Load() {
		return ErrClosed
	}
	if tok >= TokenReserved {
		panic(fmt.Sprintf("poller: token %#x is reserved", uint64(tok)))
	}
	if in&^interestAll != 0 {
		panic(fmt.Sprintf("poller: unknown interest %#x", uint8(in)))
	}
	return nil
}

// sysError names the system call and adds the sentinel that a caller acts upon.
func sysError(call string, err error) error {
	wrapped := os.NewSyscallError(call, err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: %w", ErrDescriptors, wrapped)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: %w", ErrInUse, wrapped)
	}
	return wrapped
}
