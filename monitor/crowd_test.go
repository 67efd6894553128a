package monitor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// dialRaw opens a connection to the admin listener and writes to it; it ends with the test.
func dialRaw(t *testing.T, addr net.Addr, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the test is over
	_, _ = io.WriteString(c, text)      // It may have lost its place already.
	return c
}

// statusLine is the first line of an answer.
func statusLine(t *testing.T, c net.Conn) (string, error) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

// promptly fails when a probe or a scrape isn't answered within a second.
func promptly(t *testing.T, addr net.Addr, amid string) {
	t.Helper()
	for _, path := range []string{"/healthz", "/metrics"} {
		began := time.Now()
		if got := ask(t, addr, "GET", path); got.status != http.StatusOK {
			t.Errorf("%s amid %s: status %d", path, amid, got.status)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s amid %s took %v", path, amid, took)
		}
	}
}

// Goal: nobody who only holds connections keeps a probe or a scrape waiting. Method: crowds several times the bound, one upon the other.
func TestProbesAreAnsweredAmidACrowd(t *testing.T) {
	m := quietMonitor(newFixedSource())
	addr := serveMonitor(t, m)
	const crowd = 200
	events := make([]net.Conn, crowd)
	for i := range events {
		events[i] = dialRaw(t, addr, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	promptly(t, addr, "pages")
	open, refused := 0, 0
	for _, c := range events {
		line, err := statusLine(t, c)
		switch {
		case err == nil && strings.Contains(line, " 200 "):
			open++
		case err == nil && strings.Contains(line, " 503 "):
			refused++
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Fatalf("a page that was refused holds its connection: %v", err)
			}
		default:
			t.Fatalf("%q, %v", line, err)
		}
	}
	if open != listenersMax || refused != crowd-listenersMax {
		t.Errorf("%d pages are fed, %d refused", open, refused)
	}
	for range crowd {
		dialRaw(t, addr, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	promptly(t, addr, "connections kept alive")
	for i := range crowd {
		dialRaw(t, addr, []string{
			"", "GET", "GET /healthz HTTP/1.1\r\nHost: loc",
			"POST /api/v1/stats HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\nhalf",
			"POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf",
			"GET /debug/pprof/heap?seconds=20 HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + strings.Repeat("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 99), // and nothing is read
		}[i%7])
	}
	promptly(t, addr, "half requests")
	m.live.mu.Lock()
	defer m.live.mu.Unlock()
	if n := len(m.live.listeners); n != listenersMax {
		t.Errorf("%d pages are still fed, want %d", n, listenersMax)
	}
}

// There are never more connections than the bound; the one that has been silent for longest makes room, and who is served stays.
func TestConnectionsAreBounded(t *testing.T) {
	m := quietMonitor(newFixedSource())
	addr := serveMonitor(t, m)
	page := dialRaw(t, addr, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if line, err := statusLine(t, page); err != nil || !strings.Contains(line, " 200 ") {
		t.Fatalf("%q, %v", line, err)
	}
	const request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	conns := make([]net.Conn, connectionsMax)
	for i := range conns {
		conns[i] = dialRaw(t, addr, request)
		if line, err := statusLine(t, conns[i]); err != nil || !strings.Contains(line, " 200 ") {
			t.Fatalf("connection %d: %q, %v", i, line, err)
		}
	}
	closed := 0
	for i, c := range conns {
		_, _ = io.WriteString(c, request) // The next line tells.
		if line, err := statusLine(t, c); err != nil {
			closed++
			if i != 0 {
				t.Errorf("connection %d made room: %q, %v", i, line, err)
			}
		}
	}
	if closed != 1 {
		t.Errorf("%d connections made room for one", closed)
	}
	if _, err := statusLine(t, page); err != nil {
		t.Errorf("the page was cut: %v", err)
	}
}

// Where everybody is being answered a new connection waits, until one ends or the listener does.
func TestBusyConnectionsStay(t *testing.T) {
	inner, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newBoundedListener(inner, 2)
	accepted, failed := make(chan *boundedConn), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			bounded, ok := c.(*boundedConn)
			if !ok {
				panic(fmt.Sprintf("a %T was accepted", c))
			}
			bounded.begin()
			accepted <- bounded
		}
	}()
	dialRaw(t, l.Addr(), "")
	first := <-accepted
	dialRaw(t, l.Addr(), "")
	second := <-accepted
	dialRaw(t, l.Addr(), "")
	select {
	case <-accepted:
		t.Fatal("a third connection was let in")
	case <-time.After(5 * idleGrace):
	}
	first.end()
	third := <-accepted
	if _, err := first.Conn.Write([]byte("x")); err == nil {
		t.Error("the one that ended is still open")
	}
	dialRaw(t, l.Addr(), "")
	select {
	case <-accepted:
		t.Fatal("a fourth connection was let in")
	case <-time.After(5 * idleGrace):
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("Accept goes on after Close")
	}
	for _, c := range []net.Conn{first, second, third} {
		_ = c.Close() // the first already is
	}
}

// Bodies that don't come hold no place.
func TestHalfBodiesMakeRoom(t *testing.T) {
	s, _ := serveWebSockets(t, server.Config{})
	addr := serveMonitor(t, quietMonitor(s))
	for range 2 * connectionsMax {
		dialRaw(t, addr, "POST /api/v1/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\nhalf")
	}
	promptly(t, addr, "half bodies")
}

// A busy connection whose peer doesn't take its answer makes room after a while.
func TestStalledWritesMakeRoom(t *testing.T) {
	b := newBoundedListener(nil, 1)
	here, there := net.Pipe()
	c := &boundedConn{Conn: here, listener: b, busy: 1}
	b.conns[c] = struct{}{}
	written := make(chan error, 1)
	go func() { _, err := c.Write([]byte("x")); written <- err }()
	idlest := func(later time.Duration) *boundedConn {
		b.mu.Lock()
		defer b.mu.Unlock()
		if c.writes == 0 {
			return nil
		}
		found, _ := b.idlestLocked(c.writeSince.Add(later))
		return found
	}
	eventually(t, "the write stalls", func() bool { return idlest(stalledAfter) == c })
	if idlest(stalledAfter-1) != nil {
		t.Error("it makes room too early")
	}
	if _, err := there.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if idlest(2*stalledAfter) != nil {
		t.Error("it makes room although the peer took all")
	}
	_ = here.Close()  // a pipe
	_ = there.Close() // likewise
}

// What may be held for long leaves places for everybody else.
func TestPlacesAreLeft(t *testing.T) {
	if long := listenersMax + chartsMax + profilesMax + scrapesMax; connectionsMax-long < 8 {
		t.Errorf("%d of %d places may be held for long", long, connectionsMax)
	}
}
