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
type epoll struct {
	// Immutable after openBackend.
	file   *os.File        // wraps fd, for the runtime's poller
	conn   syscall.RawConn // of file
	fd     int
	timer  int
	event  int // written by wake
	wakeup *wakeup
	turn   func(uintptr) bool // e.look, made once, since a method value allocates

	// Owned by the goroutine in wait.
	buffer [EventsPerWaitMax]unix.EpollEvent
	armed  time.Time // what the timer was last set to
	fired  bool      // the timer has reached armed
	timed  bool      // this wait ends when the timer fires
	dst    []Event   // of this wait
	n      int
	err    error
}

var _ backend = (*epoll)(nil)

func openBackend(w *wakeup) (backend, error) {
	e := &epoll{fd: -1, timer: -1, event: -1, wakeup: w}
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
	if err = unix.SetNonblock(e.fd, true); err != nil {
		return sysError("fcntl", err)
	}
	e.file = os.NewFile(uintptr(e.fd), "epoll")
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
	return e.n, err
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
// goroutine, and again after each edge of the epoll descriptor; an edge between
// the two makes it call again at once, so none is lost.
func (e *epoll) look(uintptr) bool {
	e.collect()
	return e.n > 0 || e.err != nil || e.timed && e.fired || !e.wakeup.park()
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
	} else if e.fd >= 0 {
		err = os.NewSyscallError("close", unix.Close(e.fd))
	}
	for _, fd := range []int{e.timer, e.event} {
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
