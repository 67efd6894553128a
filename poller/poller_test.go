package poller

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPoller runs one suite over every backend that this system can run, with
// real sockets of both kinds. backends is defined per system.
func TestPoller(t *testing.T) {
	for name, open := range backends() {
		t.Run(name, func(t *testing.T) { testPoller(t, open) })
	}
}

func testPoller(t *testing.T, open opener) {
	tests := []struct {
		name string
		run  func(t *testing.T, open opener)
	}{
		{"registration", testRegistration},
		{"modify", testModify},
		{"level triggered listener", testListenerLevelTriggered},
		{"token of 64 bits", testTokenBits},
		{"more ready than asked for", testMoreReadyThanRoom},
		{"stale event", testStaleEvent},
		{"descriptor reused", testDescriptorReused},
		{"closed poller", testClosedPoller},
		{"caller's mistakes", testMistakes},
		{"wake", testWake},
		{"wake coalesces", testWakeCoalesces},
		{"wake while parked", testWakeParked},
		{"wake is never lost", testWakeHammer},
		{"wake and close", testWakeAgainstClose},
		{"wake overtaken by close", testWakeOvertaken},
		{"deadline", testDeadline},
		{"deadline moves", testDeadlineMoves},
		{"deadline taken back", testDeadlineTakenBack},
		{"timer never silent", testTimerNeverSilent},
		{"timer amid events", testTimerAmidEvents},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run("edges over "+network, func(t *testing.T) { testEdges(t, open, network) })
	}
}

// edgeToken is the registration that the cases of testEdges watch.
const edgeToken Token = 7

// testEdges walks the edge-triggered corner cases of one kind of socket.
func testEdges(t *testing.T, open opener, network string) {
	const tok = edgeToken
	tests := []struct {
		name string
		run  func(t *testing.T, p *Poller, client, server *socket)
	}{
		{"idle socket is writable once", func(t *testing.T, p *Poller, _, _ *socket) {
			wantCalm(t, p)
		}},
		{"each arrival is an edge, read or not", edgePerArrival},
		{"data and end in one event, read short", edgeDataAndEnd},
		{"end after the event", func(t *testing.T, p *Poller, client, server *socket) {
			write(t, client.fd, "last")
			waitFor(t, p, tok, CanRead)
			if err := CloseWrite(client.fd); err != nil {
				t.Fatal(err)
			}
			waitFor(t, p, tok, Hangup)
		}},
		{"room again after EAGAIN", func(t *testing.T, p *Poller, client, server *socket) {
			total := fill(t, server.fd)
			wantCalm(t, p)
			drain(t, client.fd, total)
			waitFor(t, p, tok, CanWrite)
		}},
		{"peer gone", func(t *testing.T, p *Poller, client, server *socket) {
			write(t, server.fd, "unread") // makes the close a reset
			client.close(t)
			waitFor(t, p, tok, CanRead|Hangup)
			if err := readAll(t, server.fd); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("read: %v", err)
			}
		}},
		{"waiting bytes are reported by Add", func(t *testing.T, p *Poller, client, server *socket) {
			if err := p.Remove(server.fd); err != nil {
				t.Fatal(err)
			}
			write(t, client.fd, "early")
			awaitReady(t, server.fd, unix.POLLIN)
			if err := p.Add(server.fd, tok, readyAll); err != nil {
				t.Fatal(err)
			}
			if n := waitFor(t, p, tok, CanRead|CanWrite); n != 1 {
				t.Fatalf("%d events, want one with both", n)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := openPoller(t, open)
			client, server := pair(t, network)
			if err := p.Add(server.fd, tok, readyAll); err != nil {
				t.Fatal(err)
			}
			waitFor(t, p, tok, CanWrite)
			test.run(t, p, client, server)
		})
	}
}

func edgePerArrival(t *testing.T, p *Poller, client, server *socket) {
	write(t, client.fd, "one")
	waitFor(t, p, edgeToken, CanRead)
	wantCalm(t, p)
	write(t, client.fd, "two")
	waitFor(t, p, edgeToken, CanRead)
	if got := readText(t, server.fd); got != "onetwo" {
		t.Fatalf("read %q", got)
	}
	if _, err := Read(server.fd, make([]byte, 1)); !errors.Is(err, ErrWouldBlock) {
		t.Fatalf("drained: %v, want ErrWouldBlock", err)
	}
	wantCalm(t, p)
	write(t, client.fd, "three")
	waitFor(t, p, edgeToken, CanRead)
}

func edgeDataAndEnd(t *testing.T, p *Poller, client, server *socket) {
	write(t, client.fd, "last")
	if err := CloseWrite(client.fd); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, server.fd)
	events := pollNow(t, p)
	if len(events) != 1 || events[0].Token != edgeToken || events[0].Ready&(CanRead|Hangup) != CanRead|Hangup {
		t.Fatalf("events %+v, want one of CanRead and Hangup", events)
	}
	if got := readText(t, server.fd); got != "last" {
		t.Fatalf("read %q", got)
	}
	wantCalm(t, p) // no further edge: the caller must go on by itself
	if _, err := Read(server.fd, make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("second read: %v, want io.EOF", err)
	}
}

// awaitEnd waits, by means of a level-triggered poller of its own, until the end
// of the stream has arrived at fd.
func awaitEnd(t *testing.T, fd int) {
	t.Helper()
	p := openPoller(t, openBackend)
	if err := p.Add(fd, 1, Readable); err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, 1, Hangup)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// drain reads total bytes.
func drain(t *testing.T, fd, total int) {
	t.Helper()
	p := make([]byte, 64<<10)
	for total > 0 {
		n, err := Read(fd, p)
		if errors.Is(err, ErrWouldBlock) {
			awaitReady(t, fd, unix.POLLIN)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		total -= n
	}
}

func testRegistration(t *testing.T, open opener) {
	p := openPoller(t, open)
	client, server := pair(t, "tcp")
	if err := p.Add(server.fd, 1, readyAll); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(server.fd); err != nil {
		t.Fatal(err)
	}
	write(t, client.fd, "x")
	awaitReady(t, server.fd, unix.POLLIN)
	wantCalm(t, p)
	if err := p.Remove(server.fd); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("second Remove: %v, want ENOENT", err)
	}
	if err := p.Modify(server.fd, 1, readyAll); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Modify after Remove: %v, want ENOENT", err)
	}
	if err := p.Add(-1, 1, readyAll); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Add(-1): %v, want EBADF", err)
	}
	if err := p.Add(server.fd, 2, Readable|EdgeTriggered); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(client.fd, 3, Writable|EdgeTriggered); err != nil {
		t.Fatal(err)
	}
	for _, event := range pollNow(t, p) {
		if event.Token == 2 && event.Ready&CanWrite != 0 || event.Token == 3 && event.Ready&CanRead != 0 {
			t.Errorf("%+v was not asked for", event)
		}
	}
}

func testModify(t *testing.T, open opener) {
	p := openPoller(t, open)
	client, server := pair(t, "tcp")
	write(t, client.fd, "x")
	awaitReady(t, server.fd, unix.POLLIN)
	if err := p.Add(server.fd, 1, Readable); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name string
		tok  Token
		in   Interest
		want [2]Readiness // of two polls in a row
	}{
		{"level", 1, Readable, [2]Readiness{CanRead, CanRead}},
		{"other token", 2, Readable, [2]Readiness{CanRead, CanRead}},
		{"edge", 3, Readable | EdgeTriggered, [2]Readiness{CanRead, 0}},
		{"edge again, armed anew", 4, Readable | EdgeTriggered, [2]Readiness{CanRead, 0}},
		{"both", 5, readyAll, [2]Readiness{CanRead | CanWrite, 0}},
		{"only writing, level", 6, Writable, [2]Readiness{CanWrite, CanWrite}},
		{"silent", 7, 0, [2]Readiness{0, 0}},
		{"level after silence", 8, Readable | Writable, [2]Readiness{CanRead | CanWrite, CanRead | CanWrite}},
	}
	for _, step := range steps {
		if err := p.Modify(server.fd, step.tok, step.in); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		for i, want := range step.want {
			var got Readiness
			for _, event := range pollNow(t, p) {
				if event.Token != step.tok {
					t.Errorf("%s: token %d, want %d", step.name, event.Token, step.tok)
				}
				got |= event.Ready
			}
			if got != want {
				t.Errorf("%s, poll %d: %03b, want %03b", step.name, i+1, got, want)
			}
		}
	}
}

func testListenerLevelTriggered(t *testing.T, open opener) {
	p := openPoller(t, open)
	l := listenNetwork(t, "tcp", ListenOptions{})
	if err := p.Add(l.FD(), 1, Readable); err != nil {
		t.Fatal(err)
	}
	wantCalm(t, p)
	for range 2 {
		connect(t, dialable(l), ConnectOptions{})
	}
	waitFor(t, p, 1, CanRead)
	acceptOne(t, l)
	waitFor(t, p, 1, CanRead) // one is left
	if err := p.Modify(l.FD(), 1, 0); err != nil {
		t.Fatal(err)
	}
	wantCalm(t, p) // paused
	if err := p.Modify(l.FD(), 1, Readable); err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, 1, CanRead)
	acceptOne(t, l)
	wantCalm(t, p)
}

func testTokenBits(t *testing.T, open opener) {
	p := openPoller(t, open)
	_, server := pair(t, "unix")
	if err := p.Add(server.fd, 0, readyAll); err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, 0, CanWrite)
	for _, tok := range []Token{1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<63 | 5, 0x0123456789abcdef, TokenReserved - 1} {
		if err := p.Modify(server.fd, tok, readyAll); err != nil {
			t.Fatal(err)
		}
		waitFor(t, p, tok, CanWrite)
	}
}

// testMoreReadyThanRoom registers more ready sockets than one Wait returns, and
// asks with too short and too long a slice: each is reported exactly once.
func testMoreReadyThanRoom(t *testing.T, open opener) {
	const sockets = EventsPerWaitMax + 50
	p := openPoller(t, open)
	for tok := range Token(sockets) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		own(t, fds[0])
		own(t, fds[1])
		write(t, fds[1], "x")
		if err := p.Add(fds[0], tok, readyAll); err != nil {
			t.Fatal(err)
		}
	}
	seen := make([]Readiness, sockets)
	for _, room := range []int{1, 3, 2 * EventsPerWaitMax, 2 * EventsPerWaitMax, 2 * EventsPerWaitMax, 1, 1} {
		events := make([]Event, room)
		n, err := p.Wait(events, time.Unix(1, 0))
		if err != nil || n > min(room, EventsPerWaitMax) {
			t.Fatalf("Wait = %d, %v with room for %d", n, err, room)
		}
		inOneWait := map[Token]bool{}
		for _, event := range events[:n] {
			if inOneWait[event.Token] {
				t.Errorf("token %d twice in one Wait", event.Token)
			}
			inOneWait[event.Token] = true
			if again := seen[event.Token] & event.Ready; again != 0 {
				t.Errorf("token %d: %03b reported again", event.Token, again)
			}
			seen[event.Token] |= event.Ready
		}
	}
	for tok, ready := range seen {
		if ready != CanRead|CanWrite {
			t.Errorf("token %d: %03b, want readable and writable", tok, ready)
		}
	}
}

// testStaleEvent closes a ready socket before its event was fetched, and opens
// another under the same number.
func testStaleEvent(t *testing.T, open opener) {
	p := openPoller(t, open)
	clientA, serverA := pair(t, "tcp")
	clientB, serverB := pair(t, "tcp")
	for tok, s := range []*socket{serverA, serverB} {
		if err := p.Add(s.fd, Token(tok), readyAll); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, p, 0, CanWrite)
	for len(pollNow(t, p)) > 0 {
		continue
	}
	write(t, clientA.fd, "x")
	write(t, clientB.fd, "x")
	awaitReady(t, serverA.fd, unix.POLLIN)
	awaitReady(t, serverB.fd, unix.POLLIN)
	var batch [1]Event
	if n, err := p.Wait(batch[:], time.Unix(1, 0)); n != 1 || err != nil {
		t.Fatalf("Wait = %d, %v", n, err)
	}
	other := []*socket{serverB, serverA}[batch[0].Token]
	other.close(t)
	for _, event := range pollNow(t, p) {
		if event.Token != batch[0].Token { // kqueue may still have its other filter to tell
			t.Fatalf("event %+v of a closed descriptor", event)
		}
	}
}

func testDescriptorReused(t *testing.T, open opener) {
	p := openPoller(t, open)
	clientA, serverA := pair(t, "tcp")
	if err := p.Add(serverA.fd, 1000, readyAll); err != nil {
		t.Fatal(err)
	}
	write(t, clientA.fd, "x")
	waitFor(t, p, 1000, CanRead)
	_, serverB := pair(t, "tcp")
	// A duplicate of B takes the number of A, whose registration ends with its close.
	serverA.close(t)
	fd, err := unix.FcntlInt(uintptr(serverB.fd), unix.F_DUPFD_CLOEXEC, serverA.fd)
	if err != nil {
		t.Fatal(err)
	}
	own(t, fd)
	if fd != serverA.fd {
		t.Fatalf("duplicate is %d, want %d", fd, serverA.fd)
	}
	if err := p.Add(fd, 2000, readyAll); err != nil {
		t.Fatal(err)
	}
	for _, event := range pollNow(t, p) {
		if event.Token != 2000 {
			t.Errorf("event %+v under the old token", event)
		}
	}
}

func testClosedPoller(t *testing.T, open opener) {
	p := openPoller(t, open)
	_, server := pair(t, "unix")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	_, waitErr := p.Wait(make([]Event, 1), time.Time{})
	for call, err := range map[string]error{
		"Add":    p.Add(server.fd, 1, readyAll),
		"Modify": p.Modify(server.fd, 1, readyAll),
		"Remove": p.Remove(server.fd),
		"Wait":   waitErr,
		"Wake":   p.Wake(),
		"Close":  p.Close(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", call, err)
		}
	}
}

func testMistakes(t *testing.T, open opener) {
	p := openPoller(t, open)
	for name, call := range map[string]func(){
		"reserved token":   func() { _ = p.Add(0, TokenReserved, Readable) },
		"last token":       func() { _ = p.Modify(0, ^Token(0), Readable) },
		"unknown interest": func() { _ = p.Add(0, 1, 8) },
		"no room":          func() { _, _ = p.Wait(nil, time.Time{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}
