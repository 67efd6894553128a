//go:build linux

package poller

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// epoll is the backend of Linux.
//
// A goroutine blocked in epoll_wait costs futex calls and the attention of the
// scheduler's monitor. So the epoll descriptor is itself registered, through
// os.NewFile, with the poller of Go's runtime, which parks the goroutine like
// one that waits for a socket; each time it is woken, look asks the kernel with
// a raw epoll_pwait that never blocks. A timeout would need to block, hence a
// timer descriptor stands for it inside the epoll set.
//
// The runtime is registered edge-triggered, so every event of every socket wakes
// the thread that waits for its poller, though the loop has no need of it as
// long as it is at work: the thread finds nothing to run, looks for work
// everywhere and waits again. With 10,000 connections echoing as fast as they
// can that was a third of the server's CPU time. So the runtime waits for a
// second epoll descriptor, the gate, in which the first one is all there is. A
// loop that has found something gateShutsAfter times in a row shuts it, and
// opens it before it parks: one epoll_ctl each.
type epoll struct {
	// Immutable after openBackend.
	file   *os.File        // wraps gate, for the runtime's poller
	conn   syscall.RawConn // of file
	fd     int
	gate   int // epoll too, with fd in it
	timer  int
	event  int // written by wake
	wakeup *wakeup
	turn   func(uintptr) bool // e.look, made once, since a method value allocates

	// Owned by the goroutine in wait.
	buffer [EventsPerWaitMax]unix.EpollEvent
	armed  time.Time // what the timer was last set to
	fired  bool      // the timer has reached armed
	timed  bool      // this wait ends when the timer fires
	busy   int       // waits since the last that parked
	shut   bool      // the gate is
	dst    []Event   // of this wait
	n      int
	err    error
}

const (
	// gateShutsAfter is how many waits in a row that did not park show a loop at
	// work: two calls more among as many waits are not felt.
	gateShutsAfter = 64

	gateOpen = unix.EPOLLIN | uint32(unix.EPOLLET&(1<<32-1))
	gateShut = 0
)

var _ backend = (*epoll)(nil)

func openBackend(w *wakeup) (backend, error) {
	e := &epoll{fd: -1, gate: -1, timer: -1, event: -1, wakeup: w}
	if err := e.open(); err != nil {
		_ = e.close()
		return nil, err
	}
	return e, nil
}

func (e *epoll) open() (err error) {
	if e.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return sysError("epoll_create1", err)
	}
	if e.gate, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return sysError("epoll_create1", err)
	}
	if err = e.setGate(unix.EPOLL_CTL_ADD, gateOpen); err != nil {
		return err
	}
	if e.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return sysError("timerfd_create", err)
	}
	if e.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return sysError("eventfd2", err)
	}
	// Both are edge-triggered and never read. Each write to an eventfd is an
	// edge; so is each expiry of a one-shot timer, whose count timerfd_settime
	// discards. (A periodic timer would fall silent: only a read restarts it.)
	if err = e.add(e.timer, tokenTimer, Readable|EdgeTriggered); err != nil {
		return err
	}
	if err = e.add(e.event, tokenWake, Readable|EdgeTriggered); err != nil {
		return err
	}
	// os.NewFile hands only non-blocking descriptors to the runtime's poller.
	if err = unix.SetNonblock(e.gate, true); err != nil {
		return sysError("fcntl", err)
	}
	e.file = os.NewFile(uintptr(e.gate), "epoll")
	if e.conn, err = e.file.SyscallConn(); err != nil {
		return err
	}
	e.turn = e.look
	return e.file.SetReadDeadline(time.Time{}) // fails if the runtime's poller refused it
}

func (e *epoll) add(fd int, tok Token, in Interest) error {
	return e.control(unix.EPOLL_CTL_ADD, fd, tok, in)
}

func (e *epoll) modify(fd int, tok Token, in Interest) error {
	return e.control(unix.EPOLL_CTL_MOD, fd, tok, in)
}

func (e *epoll) remove(fd int) error {
	return e.control(unix.EPOLL_CTL_DEL, fd, 0, 0)
}

// control puts the token into Fd and Pad, which together are the kernel's 64
// bits of event data on every architecture.
func (e *epoll) control(op, fd int, tok Token, in Interest) error {
	event := unix.EpollEvent{Events: epollEvents(in), Fd: int32(tok), Pad: int32(tok >> 32)}
	if err := unix.EpollCtl(e.fd, op, fd, &event); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

func (e *epoll) wait(dst []Event, deadline time.Time) (int, error) {
	park, err := e.arm(deadline)
	if err != nil {
		return 0, err
	}
	e.dst = dst
	if park {
		err = e.conn.Read(e.turn)
	} else {
		e.collect()
	}
	e.dst = nil
	if err == nil {
		err = e.err
	}
	if e.busy++; e.busy == gateShutsAfter && err == nil {
		err = e.setGate(unix.EPOLL_CTL_MOD, gateShut)
	}
	return e.n, err
}

// setGate lets the events of fd through to the runtime's poller, or none.
func (e *epoll) setGate(op int, events uint32) error {
	e.shut = events == gateShut
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(e.gate, op, e.fd, &unix.EpollEvent{Events: events}))
}

// arm sets the timer if deadline has moved, and reports whether wait may park.
// A timer that nobody waits for any longer is left to fire: it costs nothing
// until then, and look ignores it.
func (e *epoll) arm(deadline time.Time) (park bool, err error) {
	if e.timed = !deadline.IsZero(); !e.timed {
		return true, nil
	}
	if deadline.Equal(e.armed) {
		return true, nil // if the timer has fired already, look says so before it parks
	}
	d := time.Until(deadline)
	if d <= 0 {
		return false, nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if err := unix.TimerfdSettime(e.timer, 0, &spec, nil); err != nil {
		return false, os.NewSyscallError("timerfd_settime", err)
	}
	e.armed, e.fired = deadline, false
	return true, nil
}

// look reports whether wait is over. The runtime calls it before it parks the
// goroutine, and again after each edge of the gate; an edge between the two
// makes it call again at once, so none is lost.
//
// A gate that was shut is opened first, and then the kernel is asked once more:
// what came before the gate was open is an edge only if fd had not been ready
// ever since the runtime last looked (ep_modify in Linux' fs/eventpoll.c wakes
// nobody for what is in the ready list already).
func (e *epoll) look(uintptr) bool {
	for {
		e.collect()
		if e.n > 0 || e.err != nil || e.timed && e.fired || !e.wakeup.park() {
			return true
		}
		e.busy = 0
		if !e.shut {
			return false
		}
		if e.err = e.setGate(unix.EPOLL_CTL_MOD, gateOpen); e.err != nil {
			return true
		}
	}
}

// collect asks the kernel, without blocking, and translates. The wake-up's event
// carries nothing: its state tells whether somebody called Wake.
func (e *epoll) collect() {
	n, errno := sysEpollWait(e.fd, e.buffer[:len(e.dst)])
	e.n, e.err = 0, nil
	if errno != 0 && errno != unix.EINTR {
		e.err = os.NewSyscallError("epoll_pwait", errno)
	}
	for i := range n {
		event := &e.buffer[i]
		switch tok := Token(uint32(event.Fd)) | Token(uint32(event.Pad))<<32; tok {
		case tokenTimer:
			e.fired = true
		case tokenWake:
		default:
			e.dst[e.n] = Event{Token: tok, Ready: epollReadiness(event.Events)}
			e.n++
		}
	}
}

func (e *epoll) wake() error {
	if errno := sysEventSignal(e.event); errno != 0 {
		return os.NewSyscallError("write", errno)
	}
	return nil
}

func (e *epoll) close() error {
	var err error
	if e.file != nil {
		err = e.file.Close()
	} else if e.gate >= 0 {
		err = os.NewSyscallError("close", unix.Close(e.gate))
	}
	for _, fd := range []int{e.fd, e.timer, e.event} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	return err
}

func epollEvents(in Interest) uint32 {
	var events uint32
	if in&Readable != 0 {
		events |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if in&Writable != 0 {
		events |= unix.EPOLLOUT
	}
	if in&EdgeTriggered != 0 {
		events |= unix.EPOLLET
	}
	return events
}

func epollReadiness(events uint32) Readiness {
	var ready Readiness
	if events&unix.EPOLLIN != 0 {
		ready |= CanRead
	}
	if events&unix.EPOLLOUT != 0 {
		ready |= CanWrite
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		ready |= Hangup
	}
	return ready
}
