package poller

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scriptedKernel records the changes and plays back what each wait returns.
type scriptedKernel struct {
	changes  []kevent
	timeouts []time.Duration
	replies  []reply
}

type reply struct {
	events []kevent
	err    error
}

func (s *scriptedKernel) kevent(changes, events []kevent, timeout time.Duration) (int, error) {
	s.changes = append(s.changes, changes...)
	if events == nil {
		return 0, nil
	}
	s.timeouts = append(s.timeouts, timeout)
	if len(s.replies) == 0 {
		return 0, nil
	}
	next := s.replies[0]
	s.replies = s.replies[1:]
	return copy(events, next.events), next.err
}

func (s *scriptedKernel) close() error { return nil }

func newScripted(t *testing.T) (*kqueue, *scriptedKernel) {
	t.Helper()
	s := &scriptedKernel{}
	k, err := newKqueue(s, new(wakeup))
	if err != nil {
		t.Fatal(err)
	}
	if want := []kevent{{filter: filterUser, flags: flagAdd | flagClear}}; !slices.Equal(s.changes, want) {
		t.Fatalf("opened with %+v, want %+v", s.changes, want)
	}
	s.changes = nil
	return k, s
}

// TestKqueueChanges goes from each interest to each of the next, in turn.
func TestKqueueChanges(t *testing.T) {
	const fd = 5
	const edge = flagAdd | flagClear
	steps := []struct {
		name string
		in   Interest
		want []kevent
	}{
		{"connection", readyAll, []kevent{{fd, filterRead, edge}, {fd, filterWrite, edge}}},
		{"the same again", readyAll, []kevent{{fd, filterRead, edge}, {fd, filterWrite, edge}}},
		{"reading only", Readable | EdgeTriggered, []kevent{{fd, filterRead, edge}, {fd, filterWrite, flagDelete}}},
		{"level", Readable, []kevent{{fd, filterRead, flagDelete}, {fd, filterRead, flagAdd}}},
		{"silent", 0, []kevent{{fd, filterRead, flagDelete}}},
		{"still silent", 0, nil},
		{"writing", Writable, []kevent{{fd, filterWrite, flagAdd}}},
		{"reading instead, edge", Readable | EdgeTriggered, []kevent{{fd, filterRead, edge}, {fd, filterWrite, flagDelete}}},
	}
	k, s := newScripted(t)
	if err := k.add(fd, 1, 0); err != nil || s.changes != nil {
		t.Fatalf("silent add: %v, %+v", err, s.changes)
	}
	for _, step := range steps {
		s.changes = nil
		if err := k.modify(fd, 1, step.in); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if !slices.Equal(s.changes, step.want) {
			t.Errorf("%s: %+v, want %+v", step.name, s.changes, step.want)
		}
	}
	s.changes = nil
	if err := k.remove(fd); err != nil || !slices.Equal(s.changes, []kevent{{fd, filterRead, flagDelete}}) {
		t.Errorf("remove: %v, %+v", err, s.changes)
	}
}

// TestKqueueMerges: the filters of a descriptor become one event, wherever they
// stand in the list, and what isn't registered becomes none.
func TestKqueueMerges(t *testing.T) {
	tests := []struct {
		name   string
		events []kevent
		want   []Event
	}{
		{"read", []kevent{{3, filterRead, 0}}, []Event{{30, CanRead}}},
		{"write", []kevent{{3, filterWrite, 0}}, []Event{{30, CanWrite}}},
		{"end of stream", []kevent{{3, filterRead, flagEOF}}, []Event{{30, CanRead | Hangup}}},
		{"broken pipe", []kevent{{3, filterWrite, flagEOF}}, []Event{{30, CanWrite | Hangup}}},
		{"both", []kevent{{3, filterRead, 0}, {3, filterWrite, 0}}, []Event{{30, CanRead | CanWrite}}},
		{
			"apart",
			[]kevent{{3, filterRead, 0}, {4, filterWrite, 0}, {3, filterWrite, flagEOF}, {4, filterRead, 0}},
			[]Event{{30, CanRead | CanWrite | Hangup}, {40, CanWrite | CanRead}},
		},
		{"wake-up between", []kevent{{3, filterRead, 0}, {0, filterUser, 0}, {4, filterRead, 0}}, []Event{{30, CanRead}, {40, CanRead}}},
		{"not registered", []kevent{{2, filterRead, 0}, {9, filterRead, 0}, {4, filterRead, 0}}, []Event{{40, CanRead}}},
	}
	k, s := newScripted(t)
	for fd, tok := range map[int]Token{3: 30, 4: 40} {
		if err := k.add(fd, tok, readyAll); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range tests {
		s.replies = []reply{{events: test.events}}
		dst := make([]Event, 8)
		n, err := k.wait(dst, time.Unix(1, 0))
		if err != nil || !slices.Equal(dst[:n], test.want) {
			t.Errorf("%s: %+v, %v; want %+v", test.name, dst[:n], err, test.want)
		}
	}
}

// TestKqueueTimeout: none, past, and fractions rounded up.
func TestKqueueTimeout(t *testing.T) {
	tests := []struct {
		name     string
		deadline time.Time
		min, max time.Duration
	}{
		{"none", time.Time{}, -1, -1},
		{"past", time.Unix(1, 0), 0, 0},
		{"fraction", time.Now().Add(time.Hour + 100*time.Microsecond), time.Hour - time.Minute, time.Hour + time.Millisecond},
	}
	for _, test := range tests {
		got := timeoutUntil(test.deadline)
		if got < test.min || got > test.max || got > 0 && got%time.Millisecond != 0 {
			t.Errorf("%s: %v, want whole milliseconds between %v and %v", test.name, got, test.min, test.max)
		}
	}
	for range 1000 {
		deadline := time.Now().Add(400 * time.Microsecond)
		if got := timeoutUntil(deadline); got != time.Millisecond && time.Now().Before(deadline) {
			t.Fatalf("400 µs became %v, want 1 ms", got)
		}
	}
}

// TestKqueueInterrupted: EINTR and an early return are no reason to come back;
// another error is.
func TestKqueueInterrupted(t *testing.T) {
	k, s := newScripted(t)
	if err := k.add(3, 30, readyAll); err != nil {
		t.Fatal(err)
	}
	s.replies = []reply{{err: unix.EINTR}, {}, {events: []kevent{{filter: filterUser}}}, {events: []kevent{{3, filterRead, 0}}}}
	dst := make([]Event, 8)
	if n, err := k.wait(dst, time.Time{}); n != 1 || err != nil {
		t.Fatalf("wait = %d, %v; want the event", n, err)
	}
	if want := []time.Duration{-1, -1, -1, -1}; !slices.Equal(s.timeouts, want) {
		t.Errorf("timeouts %v, want %v", s.timeouts, want)
	}
	s.replies = []reply{{err: unix.EBADF}}
	if _, err := k.wait(dst, time.Time{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("wait: %v, want EBADF", err)
	}
}

// TestKqueueFails: the kernel's refusal reaches the caller.
func TestKqueueFails(t *testing.T) {
	failing := failingKernel{}
	if _, err := newKqueue(failing, new(wakeup)); !errors.Is(err, ErrDescriptors) {
		t.Errorf("open: %v, want ErrDescriptors", err)
	}
	k := &kqueue{kernel: failing}
	if err := k.add(3, 30, readyAll); !errors.Is(err, unix.EMFILE) {
		t.Errorf("add: %v, want the kernel's EMFILE", err)
	}
}

type failingKernel struct{}

func (failingKernel) kevent(_, _ []kevent, _ time.Duration) (int, error) { return 0, unix.EMFILE }
func (failingKernel) close() error                                       { return nil }
