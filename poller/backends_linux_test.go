package poller

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// writeRaises: a plain write(2) to a dead peer raises SIGPIPE.
const writeRaises = true

// backends are epoll, and the kqueue translation over a kernel made of epoll: so
// every line of it but the system calls runs here, against real sockets.
func backends() map[string]opener {
	return map[string]opener{
		"epoll": openBackend,
		"kqueue over a fake kernel": func(w *wakeup) (backend, error) {
			k, err := newFakeKernel()
			if err != nil {
				return nil, err
			}
			return newKqueue(k, w)
		},
	}
}

// fakeKernel behaves as kevent(2) is documented to: two filters a descriptor,
// reported apart; forgotten with the close of the descriptor; EV_CLEAR is an edge.
type fakeKernel struct {
	// Immutable after newFakeKernel.
	fd   int
	user int // the eventfd behind filterUser

	// Owned by the goroutine that waits and changes.
	notes   map[int]fakeNotes
	pending []kevent // the second half of a pair for which there was no room
}

// fakeNotes are the filters of one descriptor, with flagAdd if present.
type fakeNotes [2]keventFlags

func newFakeKernel() (*fakeKernel, error) {
	k := &fakeKernel{notes: map[int]fakeNotes{}}
	var err error
	if k.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	k.user, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return k, err
}

func (k *fakeKernel) kevent(changes, events []kevent, timeout time.Duration) (int, error) {
	for _, change := range changes {
		if err := k.change(change); err != nil {
			return 0, err
		}
	}
	if len(events) == 0 {
		return 0, nil
	}
	n := copy(events, k.pending)
	k.pending = k.pending[n:]
	if n == len(events) {
		return n, nil
	}
	if n > 0 {
		timeout = 0
	}
	raw := make([]unix.EpollEvent, (len(events)-n+1)/2)
	ready, err := k.sleep(raw, timeout)
	if err != nil {
		return 0, err
	}
	for _, event := range raw[:ready] {
		for _, half := range k.halves(event) {
			if n < len(events) {
				events[n] = half
				n++
			} else {
				k.pending = append(k.pending, half)
			}
		}
	}
	return n, nil
}

// sleep is not ended by signals. The runtime's own come at any time, and a Wait that one of them ends early, between a Wake and its kick, would
// leave the kick to the next Wait: tests that count kicks couldn't tell. TestKqueueInterrupted has interruptions where they are wanted.
func (k *fakeKernel) sleep(raw []unix.EpollEvent, timeout time.Duration) (int, error) {
	if timeout > 0 && timeout%time.Millisecond != 0 {
		return 0, unix.EINVAL // not rounded
	}
	until := time.Now().Add(timeout)
	for {
		milliseconds := -1
		if timeout >= 0 {
			milliseconds = int(timeout / time.Millisecond)
		}
		n, err := unix.EpollWait(k.fd, raw, milliseconds)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
		if timeout >= 0 {
			timeout = max(0, time.Until(until)+time.Millisecond-1)
		}
	}
}

// change may be called from any goroutine if it is a trigger.
func (k *fakeKernel) change(change kevent) error {
	switch {
	case change.filter == filterUser && change.flags&flagTrigger != 0:
		_, err := unix.Write(k.user, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		return err
	case change.filter == filterUser:
		return unix.EpollCtl(k.fd, unix.EPOLL_CTL_ADD, k.user, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(k.user)})
	}
	kept := k.pending[:0]
	for _, half := range k.pending {
		if half.ident != change.ident || half.filter != change.filter {
			kept = append(kept, half)
		}
	}
	k.pending = kept
	notes := k.notes[change.ident]
	present := notes[change.filter]&flagAdd != 0
	switch {
	case change.flags&flagDelete != 0:
		if !present {
			return unix.ENOENT
		}
		notes[change.filter] = 0
	case present:
		// As in the kernel, adding again leaves the trigger as it was.
	default:
		notes[change.filter] = change.flags & (flagAdd | flagClear)
	}
	k.notes[change.ident] = notes
	return k.register(change.ident, notes)
}

func (k *fakeKernel) register(fd int, notes fakeNotes) error {
	event := unix.EpollEvent{Fd: int32(fd)}
	if notes[filterRead]&flagAdd != 0 {
		event.Events |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if notes[filterWrite]&flagAdd != 0 {
		event.Events |= unix.EPOLLOUT
	}
	if (notes[filterRead]|notes[filterWrite])&flagClear != 0 {
		event.Events |= unix.EPOLLET
	}
	op := unix.EPOLL_CTL_MOD
	if event.Events == 0 {
		op = unix.EPOLL_CTL_DEL
	}
	err := unix.EpollCtl(k.fd, op, fd, &event)
	if errors.Is(err, unix.ENOENT) && op == unix.EPOLL_CTL_MOD {
		// New, or the descriptor was closed and its filters with it: only the
		// change at hand counts, but the notes of a predecessor carry the same flags.
		err = unix.EpollCtl(k.fd, unix.EPOLL_CTL_ADD, fd, &event)
	}
	return err
}

// halves splits what epoll says of a descriptor into what its filters say.
func (k *fakeKernel) halves(raw unix.EpollEvent) []kevent {
	fd := int(raw.Fd)
	if fd == k.user {
		return []kevent{{filter: filterUser}}
	}
	var list []kevent
	const broken = unix.EPOLLHUP | unix.EPOLLERR
	if k.notes[fd][filterRead]&flagAdd != 0 && raw.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|broken) != 0 {
		half := kevent{ident: fd, filter: filterRead}
		if raw.Events&(unix.EPOLLRDHUP|broken) != 0 {
			half.flags = flagEOF
		}
		list = append(list, half)
	}
	if k.notes[fd][filterWrite]&flagAdd != 0 && raw.Events&(unix.EPOLLOUT|broken) != 0 {
		half := kevent{ident: fd, filter: filterWrite}
		if raw.Events&broken != 0 {
			half.flags = flagEOF
		}
		list = append(list, half)
	}
	return list
}

func (k *fakeKernel) close() error {
	_ = unix.Close(k.user)
	return os.NewSyscallError("close", unix.Close(k.fd))
}

// TestEpollDescriptors: close-on-exec all, and the gate non-blocking, since
// otherwise the runtime's poller would not have it.
func TestEpollDescriptors(t *testing.T) {
	p := openPoller(t, openBackend)
	e, ok := p.backend.(*epoll)
	if !ok {
		t.Fatalf("backend is a %T", p.backend)
	}
	for name, fd := range map[string]int{"gate": e.gate, "timer": e.timer, "event": e.event} {
		wantFlags(t, name, fd)
	}
}

// TestEpollGate: a loop at work shuts the gate, and one that parks opens it: a wake-up, a deadline and an event reach it as before.
func TestEpollGate(t *testing.T) {
	p := openPoller(t, openBackend)
	e := p.backend.(*epoll)
	client, server := pair(t, "unix")
	if err := p.Add(server.fd, 7, Readable|EdgeTriggered); err != nil {
		t.Fatal(err)
	}
	work := func(waits int) {
		t.Helper()
		for range waits {
			if _, err := unix.Write(client.fd, []byte("x")); err != nil {
				t.Fatal(err)
			}
			var batch [4]Event
			if n, err := p.Wait(batch[:], time.Now().Add(patience)); n != 1 || err != nil {
				t.Fatalf("Wait = %v, %v; want one event", batch[:n], err)
			}
			var buf [8]byte
			if _, err := Read(server.fd, buf[:]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for round := range 3 {
		waitUntil(t, p, time.Now().Add(time.Millisecond)) // it parks: that is the first of the waits that count
		if work(gateShutsAfter - 2); e.shut {
			t.Fatalf("round %d: shut after %d waits", round, e.busy)
		}
		if work(2); !e.shut {
			t.Fatalf("round %d: open after %d waits", round, e.busy)
		}
		parkAndWake(t, p, 1)
		if e.shut {
			t.Fatalf("round %d: shut while parked", round)
		}
		// A deadline, and an event of a socket, reach a loop that has shut the gate before.
		work(gateShutsAfter)
		waitUntil(t, p, time.Now().Add(time.Millisecond))
		work(gateShutsAfter)
		written := make(chan error)
		go func() {
			for p.wakeup.state.Load() != parked {
				runtime.Gosched()
			}
			_, err := unix.Write(client.fd, []byte("y"))
			written <- err
		}()
		var batch [4]Event
		if n, err := p.Wait(batch[:], time.Now().Add(patience)); n != 1 || err != nil || batch[0].Token != 7 {
			t.Fatalf("round %d: Wait = %v, %v; want the socket's event", round, batch[:n], err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
}

// TestEpollGateLosesNothing: bytes that come while a loop at work opens the gate and parks reach it as any others. The loop takes a byte a wait, so
// that each burst shuts the gate; another goroutine writes the next burst up to a microsecond or so after the loop has read the last byte of the one before, and begins to park.
func TestEpollGateLosesNothing(t *testing.T) {
	const rounds, burst = 10_000, gateShutsAfter + 8
	p := openPoller(t, openBackend)
	e := p.backend.(*epoll)
	client, server := pair(t, "unix")
	if err := p.Add(server.fd, 7, Readable); err != nil {
		t.Fatal(err)
	}
	var got atomic.Int64
	written := make(chan error, 1)
	go func() {
		var err error
		for round := 0; round < rounds && err == nil; round++ {
			for spins := 0; got.Load() < int64(round*burst); spins++ {
				if spins%1024 == 0 {
					runtime.Gosched()
				}
			}
			for range round % 512 { // some nanoseconds each
				got.Load()
			}
			_, err = unix.Write(client.fd, make([]byte, burst))
		}
		written <- err
	}()
	var batch [4]Event
	buf := make([]byte, 1)
	shut := 0
	for got.Load() < rounds*burst {
		from := time.Now()
		n, err := p.Wait(batch[:], from.Add(patience)) // at the deadline it would be found, too
		if took := time.Since(from); n != 1 || err != nil || took >= patience {
			t.Fatalf("after %d bytes: Wait = %v, %v after %v; want the socket's event at once", got.Load(), batch[:n], err, took)
		}
		if e.busy == gateShutsAfter {
			shut++
		}
		if _, err := Read(server.fd, buf); err != nil {
			t.Fatal(err)
		}
		got.Add(1)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if shut < rounds/2 {
		t.Errorf("the gate was shut in %d of %d rounds only", shut, rounds)
	}
}

// TestEpollAddTwice: a second Add is refused by the kernel.
func TestEpollAddTwice(t *testing.T) {
	p := openPoller(t, openBackend)
	_, server := pair(t, "unix")
	if err := p.Add(server.fd, 1, readyAll); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(server.fd, 2, readyAll); !errors.Is(err, unix.EEXIST) {
		t.Fatalf("second Add: %v, want EEXIST", err)
	}
}

// TestEpollTimerCalls: an unchanged deadline, a past one and none set no timer.
func TestEpollTimerCalls(t *testing.T) {
	p := openPoller(t, openBackend)
	e := p.backend.(*epoll)
	remaining := func() time.Duration {
		var spec unix.ItimerSpec
		if err := unix.TimerfdGettime(e.timer, &spec); err != nil {
			t.Fatal(err)
		}
		return time.Duration(spec.Value.Nano())
	}
	step := func(deadline time.Time) {
		if err := p.Wake(); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, p, deadline)
	}
	hour := time.Now().Add(time.Hour)
	step(hour)
	if got := remaining(); got < 59*time.Minute || got > time.Hour {
		t.Fatalf("armed for %v, want about an hour", got)
	}
	// Taken away behind its back, the timer stays away as long as it isn't set anew.
	if err := unix.TimerfdSettime(e.timer, 0, &unix.ItimerSpec{}, nil); err != nil {
		t.Fatal(err)
	}
	for name, deadline := range map[string]time.Time{"same": hour, "past": time.Unix(1, 0), "none": {}} {
		if step(deadline); remaining() != 0 {
			t.Errorf("deadline %s: timer set", name)
		}
	}
	if step(hour.Add(1)); remaining() == 0 {
		t.Error("deadline moved: timer not set")
	}
}

// TestEpollHelpersSilent: once reported, timer and eventfd take no further room in
// the kernel's answers, though nobody reads them.
func TestEpollHelpersSilent(t *testing.T) {
	p := openPoller(t, openBackend)
	e := p.backend.(*epoll)
	parkAndWake(t, p, 1)
	waitUntil(t, p, time.Now().Add(time.Millisecond))
	if !e.fired {
		t.Fatal("the timer has not fired")
	}
	if n, errno := sysEpollWait(e.fd, e.buffer[:]); n != 0 || errno != 0 {
		t.Errorf("%d events, %v; want none", n, errno)
	}
}
