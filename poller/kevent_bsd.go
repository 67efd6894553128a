//go:build darwin || freebsd

package poller

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// systemKernel makes the system calls behind kqueue.
type systemKernel struct {
	fd     int
	buffer [EventsPerWaitMax]unix.Kevent_t // of the one goroutine that waits
}

func openBackend(w *wakeup) (backend, error) {
	fd, err := unix.Kqueue()
	if err != nil {
		return nil, sysError("kqueue", err)
	}
	unix.CloseOnExec(fd)
	return newKqueue(&systemKernel{fd: fd}, w)
}

func (s *systemKernel) kevent(changes, events []kevent, timeout time.Duration) (int, error) {
	var raw []unix.Kevent_t
	for _, change := range changes {
		raw = append(raw, change.system())
	}
	var limit *unix.Timespec
	if timeout >= 0 {
		spec := unix.NsecToTimespec(int64(timeout))
		limit = &spec
	}
	buffer := s.buffer[:len(events)]
	n, err := unix.Kevent(s.fd, raw, buffer, limit)
	if err != nil {
		return 0, err
	}
	for i := range n {
		events[i] = fromSystem(&buffer[i])
	}
	return n, nil
}

func (s *systemKernel) close() error {
	return os.NewSyscallError("close", unix.Close(s.fd))
}

func (k kevent) system() unix.Kevent_t {
	filter := [...]int{filterRead: unix.EVFILT_READ, filterWrite: unix.EVFILT_WRITE, filterUser: unix.EVFILT_USER}
	flags := 0
	if k.flags&flagAdd != 0 {
		flags |= unix.EV_ADD
	}
	if k.flags&flagClear != 0 {
		flags |= unix.EV_CLEAR
	}
	if k.flags&flagDelete != 0 {
		flags |= unix.EV_DELETE
	}
	var raw unix.Kevent_t
	unix.SetKevent(&raw, k.ident, filter[k.filter], flags)
	if k.flags&flagTrigger != 0 {
		raw.Fflags = unix.NOTE_TRIGGER
	}
	return raw
}

func fromSystem(raw *unix.Kevent_t) kevent {
	event := kevent{ident: int(raw.Ident)}
	switch raw.Filter {
	case unix.EVFILT_WRITE:
		event.filter = filterWrite
	case unix.EVFILT_USER:
		event.filter = filterUser
	}
	if raw.Flags&unix.EV_EOF != 0 {
		event.flags |= flagEOF
	}
	return event
}
