package poller

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// kqueue is the backend of darwin and freebsd. It stands apart from the system
// calls (kevent_bsd.go) behind kernel, so that it compiles and is tested on every
// platform.
//
// Three things differ from epoll. Reading and writing are two filters, reported
// apart: translate merges what one call returns about one descriptor. The event
// data is a pointer in Go's eyes, where a number would upset the collector: so
// the token stands in a table indexed by descriptor. And the goroutine simply
// blocks in kevent, with a timeout.
type kqueue struct {
	// Immutable after newKqueue.
	kernel  kernel // called by wait in its goroutine and by wake in any
	wakeup  *wakeup
	trigger []kevent // the change that wake makes

	// Owned by the goroutine of the Poller.
	table   []registration // indexed by descriptor; grows in add
	changes []kevent       // scratch of apply
	buffer  [EventsPerWaitMax]kevent
	batch   uint64 // number of the present call of translate
}

// registration is what kqueue knows about one descriptor. index is its place
// in dst, valid while batch equals that of the kqueue.
type registration struct {
	token Token
	batch uint64
	index int
	in    Interest
	known bool
}

// kernel is the seam to the system.
type kernel interface {
	// kevent applies changes and waits for events at most timeout: zero polls,
	// negative is for ever. Changes may come from several goroutines at once.
	kevent(changes, events []kevent, timeout time.Duration) (int, error)
	close() error
}

// kevent is the part of struct kevent that we use.
type kevent struct {
	ident  int
	filter keventFilter
	flags  keventFlags
}

type keventFilter uint8

const (
	filterRead keventFilter = iota
	filterWrite
	filterUser
)

type keventFlags uint8

const (
	flagAdd     keventFlags = 1 << iota
	flagClear               // edge-triggered
	flagDelete              // of a change
	flagEOF                 // of an event: the peer has ended this direction, or both
	flagTrigger             // of a change to a filterUser: report it
)

var _ backend = (*kqueue)(nil)

func newKqueue(k kernel, w *wakeup) (*kqueue, error) {
	if _, err := k.kevent([]kevent{{filter: filterUser, flags: flagAdd | flagClear}}, nil, 0); err != nil {
		_ = k.close()
		return nil, sysError("kevent", err)
	}
	return &kqueue{kernel: k, wakeup: w, trigger: []kevent{{filter: filterUser, flags: flagTrigger}}}, nil
}

// add takes a descriptor that is registered already as one whose predecessor
// was closed without remove: the kernel has forgotten that one, the table hasn't.
func (k *kqueue) add(fd int, tok Token, in Interest) error {
	if fd < 0 {
		return os.NewSyscallError("kevent", unix.EBADF)
	}
	for fd >= len(k.table) {
		k.table = append(k.table, registration{})
	}
	k.table[fd] = registration{}
	err := k.apply(fd, tok, in)
	if err != nil {
		k.table[fd] = registration{}
	}
	return err
}

func (k *kqueue) modify(fd int, tok Token, in Interest) error {
	if !k.registered(fd) {
		return os.NewSyscallError("kevent", unix.ENOENT)
	}
	return k.apply(fd, tok, in)
}

func (k *kqueue) remove(fd int) error {
	if !k.registered(fd) {
		return os.NewSyscallError("kevent", unix.ENOENT)
	}
	err := k.apply(fd, 0, 0)
	k.table[fd] = registration{}
	return err
}

func (k *kqueue) registered(fd int) bool {
	return fd >= 0 && fd < len(k.table) && k.table[fd].known
}

// apply takes fd from the interest it has to the one it shall have. A filter
// whose trigger changes is deleted first, since adding it again would leave
// the trigger as it was.
func (k *kqueue) apply(fd int, tok Token, in Interest) error {
	r := &k.table[fd]
	add := flagAdd
	if in&EdgeTriggered != 0 {
		add |= flagClear
	}
	k.changes = k.changes[:0]
	for _, f := range [...]struct {
		filter keventFilter
		bit    Interest
	}{{filterRead, Readable}, {filterWrite, Writable}} {
		if r.in&f.bit != 0 && (in&f.bit == 0 || (r.in^in)&EdgeTriggered != 0) {
			k.changes = append(k.changes, kevent{ident: fd, filter: f.filter, flags: flagDelete})
		}
		if in&f.bit != 0 {
			k.changes = append(k.changes, kevent{ident: fd, filter: f.filter, flags: add})
		}
	}
	*r = registration{token: tok, in: in, known: true}
	if len(k.changes) == 0 {
		return nil
	}
	if _, err := k.kernel.kevent(k.changes, nil, 0); err != nil {
		return os.NewSyscallError("kevent", err)
	}
	return nil
}

func (k *kqueue) wait(dst []Event, deadline time.Time) (int, error) {
	for {
		timeout := timeoutUntil(deadline)
		if timeout != 0 && !k.wakeup.park() {
			timeout = 0
		}
		n, err := k.kernel.kevent(nil, k.buffer[:len(dst)], timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, os.NewSyscallError("kevent", err)
		}
		ready := k.translate(dst, k.buffer[:max(n, 0)])
		if ready > 0 || timeout == 0 {
			return ready, nil
		}
		// Interrupted, woken, or the deadline has passed: the next round asks the
		// wake-up state and the clock, and polls if either ends the wait.
	}
}

// timeoutUntil rounds up to whole milliseconds: cut off to the kernel's own
// resolution, the last fraction before a deadline would become a busy loop.
func timeoutUntil(deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return -1
	}
	d := time.Until(deadline)
	if d <= 0 {
		return 0
	}
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

// translate merges the filters of one descriptor into one Event. Events of
// descriptors that are not registered (any longer) are dropped.
func (k *kqueue) translate(dst []Event, events []kevent) int {
	k.batch++
	n := 0
	for _, event := range events {
		if event.filter == filterUser || !k.registered(event.ident) {
			continue
		}
		r := &k.table[event.ident]
		if r.batch != k.batch {
			r.batch, r.index = k.batch, n
			dst[n] = Event{Token: r.token}
			n++
		}
		dst[r.index].Ready |= keventReadiness(event)
	}
	return n
}

func (k *kqueue) wake() error {
	_, err := k.kernel.kevent(k.trigger, nil, 0)
	return os.NewSyscallError("kevent", err)
}

func (k *kqueue) close() error {
	return k.kernel.close()
}

func keventReadiness(event kevent) Readiness {
	ready := CanRead
	if event.filter == filterWrite {
		ready = CanWrite
	}
	if event.flags&flagEOF != 0 {
		ready |= Hangup
	}
	return ready
}
