package poller

import (
	"errors"
	"io"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds waits that end much sooner unless something is broken.
const patience = 10 * time.Second

// calm is for how long nothing must happen where nothing may.
const calm = 25 * time.Millisecond

// readyAll is how connections are registered.
const readyAll = Readable | Writable | EdgeTriggered

type opener func(*wakeup) (backend, error)

func openPoller(t testing.TB, open opener) *Poller {
	t.Helper()
	p, err := openWith(open)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

func listen(t testing.TB, address string, o ListenOptions) *Listener {
	t.Helper()
	l, err := Listen(address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dialable is the address of l as Connect takes it.
func dialable(l *Listener) string {
	if l.Addr().Network() == "unix" {
		return unixPrefix + l.Addr().String()
	}
	return l.Addr().String()
}

// listenNetwork listens on a fresh address of a network: "tcp" or "unix".
func listenNetwork(t testing.TB, network string, o ListenOptions) *Listener {
	t.Helper()
	if network == "unix" {
		return listen(t, unixPrefix+filepath.Join(t.TempDir(), "s"), o)
	}
	return listen(t, "127.0.0.1:0", o)
}

// acceptOne waits for one connection.
func acceptOne(t testing.TB, l *Listener) (s *socket, peer netip.AddrPort) {
	t.Helper()
	awaitReady(t, l.FD(), unix.POLLIN)
	var batch [1]Accepted
	n, err := l.Accept(batch[:])
	if n != 1 || err != nil {
		t.Fatalf("Accept = %d, %v; want 1", n, err)
	}
	return own(t, batch[0].FD), batch[0].Peer
}

func connect(t testing.TB, address string, o ConnectOptions) *socket {
	t.Helper()
	fd, err := Connect(address, o)
	if err != nil {
		t.Fatal(err)
	}
	s := own(t, fd)
	awaitReady(t, fd, unix.POLLOUT)
	if err := SocketError(fd); err != nil {
		t.Fatalf("connect to %s: %v", address, err)
	}
	return s
}

// pair is a connection: the side that connected, and the side that accepted.
func pair(t testing.TB, network string) (client, server *socket) {
	t.Helper()
	l := listenNetwork(t, network, ListenOptions{})
	client = connect(t, dialable(l), ConnectOptions{})
	server, _ = acceptOne(t, l)
	return client, server
}

// socket is a descriptor that a test closes at its end, if not before: once only,
// since the number may belong to another test by then.
type socket struct {
	fd   int
	once sync.Once
}

func own(t testing.TB, fd int) *socket {
	t.Helper()
	s := &socket{fd: fd}
	t.Cleanup(func() { s.close(t) })
	return s
}

func (s *socket) close(t testing.TB) {
	t.Helper()
	s.once.Do(func() {
		if err := Close(s.fd); err != nil {
			t.Errorf("Close(%d): %v", s.fd, err)
		}
	})
}

// gone notes that fd has been closed by other means.
func (s *socket) gone() { s.once.Do(func() {}) }

// awaitReady waits with poll(2), so that it rests on nothing of this package.
func awaitReady(t testing.TB, fd int, events int16) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		if n, err := unix.Poll(fds, 100); err == nil && n > 0 {
			return
		}
	}
	t.Fatalf("descriptor %d not ready for %#x", fd, events)
}

func write(t testing.TB, fd int, text string) {
	t.Helper()
	if n, err := Write(fd, []byte(text)); n != len(text) || err != nil {
		t.Fatalf("Write(%q) = %d, %v", text, n, err)
	}
}

// readText reads once what is there.
func readText(t testing.TB, fd int) string {
	t.Helper()
	var p [4096]byte
	n, err := Read(fd, p[:])
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return string(p[:n])
}

// readAll reads a stream to its end, waiting for it, and drops it.
func readAll(t testing.TB, fd int) error {
	t.Helper()
	var p [4096]byte
	for {
		_, err := Read(fd, p[:])
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, ErrWouldBlock):
			awaitReady(t, fd, unix.POLLIN)
		case err != nil:
			return err
		}
	}
}

// fill writes until the socket is full and returns how many bytes it took.
func fill(t testing.TB, fd int) int {
	t.Helper()
	chunk := make([]byte, 64<<10)
	for total := 0; ; {
		n, err := Write(fd, chunk)
		if errors.Is(err, ErrWouldBlock) {
			return total
		}
		if err != nil {
			t.Fatalf("Write after %d bytes: %v", total, err)
		}
		total += n
	}
}

// waitFor waits until tok has been reported with all of want, in one event or
// several, and returns how many events of tok that took.
func waitFor(t testing.TB, p *Poller, tok Token, want Readiness) (events int) {
	t.Helper()
	var got Readiness
	deadline := time.Now().Add(patience)
	var batch [8]Event
	for got&want != want {
		n, err := p.Wait(batch[:], deadline)
		if err != nil {
			t.Fatalf("Wait: %v", err)
		}
		if !time.Now().Before(deadline) {
			t.Fatalf("token %#x: got %03b, want %03b", tok, got, want)
		}
		for _, event := range batch[:n] {
			if event.Token == tok {
				got |= event.Ready
				events++
			}
		}
	}
	return events
}

// pollNow returns what is ready without parking.
func pollNow(t testing.TB, p *Poller) []Event {
	t.Helper()
	batch := make([]Event, EventsPerWaitMax)
	n, err := p.Wait(batch, time.Unix(1, 0))
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return batch[:n]
}

// wantCalm fails if anything is reported within calm.
func wantCalm(t testing.TB, p *Poller) {
	t.Helper()
	start := time.Now()
	var batch [8]Event
	n, err := p.Wait(batch[:], start.Add(calm))
	if n != 0 || err != nil {
		t.Fatalf("Wait = %v, %v; want nothing", batch[:n], err)
	}
	if took := time.Since(start); took < calm {
		t.Fatalf("Wait returned after %v, before its deadline of %v", took, calm)
	}
}
