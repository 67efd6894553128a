package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 15 * time.Second

// slack is what a busy machine may add to a time that the server promises.
var slack = allowance()

func allowance() time.Duration {
	if checkedBuild() { // the tests' own peers are as slow
		return 900 * time.Millisecond
	}
	return 300 * time.Millisecond
}

// variant is who runs what. Whatever a connection does must not depend on it.
type variant struct {
	name        string
	inlineBatch int
	inline      bool // the handler never blocks
}

// runners are the two ways to serve a loan: few by the loop and many by the pool, or all by the pool.
func runners() []variant {
	return []variant{
		{name: "default", inline: true},
		{name: "pool", inlineBatch: -1, inline: true},
	}
}

// variants are the runners with handlers of both kinds.
func variants() []variant {
	return append(runners(),
		variant{name: "blocking handler"},
		variant{name: "pool and blocking handler", inlineBatch: -1},
	)
}

// each runs a test in every one of the variants, at the same time.
func each(t *testing.T, variants []variant, test func(t *testing.T, v variant)) {
	t.Helper()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}

// start is the variant's server.
func (v variant) start(t testing.TB, cfg Config, h Handler) *running {
	t.Helper()
	cfg.InlineBatch, cfg.HandlerInline = v.inlineBatch, v.inline
	return start(t, cfg, h)
}

// running is a server under test, on a port of its own.
type running struct {
	*Server
	t    testing.TB
	addr string
	logs *logs
	done chan error
}

// start runs a server until the test ends, and fails the test if it doesn't end well.
func start(t testing.TB, cfg Config, h Handler) *running {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []string{"127.0.0.1:0"}
	}
	s := &running{t: t, logs: new(logs), done: make(chan error, 1)}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(s.logs, nil))
	}
	if cfg.ConnectionLimit == 0 {
		cfg.ConnectionLimit = 15_000
	}
	var err error
	if s.Server, err = New(cfg, h); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.Serve() }()
	select {
	case <-s.Started():
	case err := <-s.done:
		t.Fatal(err)
	}
	if addrs := s.Addrs(); len(addrs) > 0 {
		s.addr = addrs[0].String()
	}
	t.Cleanup(s.stopAndCheck)
	return s
}

// stopAndCheck shuts the server down, if the test has not, and looks for what may be left in its tables.
func (s *running) stopAndCheck() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.t.Errorf("Shutdown: %v", err)
	}
	if err := <-s.done; !errors.Is(err, ErrClosed) {
		s.t.Errorf("Serve: %v, want ErrClosed", err)
	}
	if n := s.taken.Load(); n != 0 {
		s.t.Errorf("%d connections still count for admission", n)
	}
	if n := s.handshaking.Load(); n != 0 {
		s.t.Errorf("%d handshakes still count for admission", n)
	}
	for _, l := range s.loops {
		if a, h := l.active.Load(), l.handshakes.Load(); a != 0 || h != 0 {
			s.t.Errorf("loop %d: %d active and %d in their handshake after the end", l.index, a, h)
		}
		if n := l.wheel.Len(); n != 0 {
			s.t.Errorf("loop %d: %d timers after the end", l.index, n)
		}
		if s.inline && l.table.used != 0 {
			s.t.Errorf("loop %d: %d slots in use after the end", l.index, l.table.used)
		}
		if l.budget.shares != [intervalClasses + 1]uint64{} {
			s.t.Errorf("loop %d: a heartbeat load of %#x after the end", l.index, l.budget.shares)
		}
	}
}

// checkedBuild says whether goroutines are checked (race or invariants): everything takes some ten times as long.
func checkedBuild() bool { return reflect.TypeFor[owner]().Size() > 0 }

// open counts the connections that Conns shows and a Broadcast reaches: each is among them a moment after its 101.
func (s *running) open() (n int) {
	for range s.Conns() {
		n++
	}
	return n
}

// sidesKept counts the connections with an entry in a side table: what an idle one has no need of.
func (s *running) sidesKept() (n int) {
	for _, l := range s.loops {
		for i := range l.sides.shards {
			shard := &l.sides.shards[i]
			shard.mu.Lock()
			n += len(shard.items) - len(shard.free)
			shard.mu.Unlock()
		}
	}
	return n
}

// await waits for a condition that no event tells of.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !condition() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// receive waits for a value.
func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v in vain: %s", patience, what)
		panic("unreachable")
	}
}

// during runs look at short intervals for so long.
func during(d time.Duration, look func()) {
	end := time.After(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-end:
			return
		case <-tick.C:
			look()
		}
	}
}

// hooks is a Handler of functions; a nil one does nothing.
type hooks struct {
	open    func(c Conn, r *Request)
	message func(c Conn, op Op, data []byte)
	close   func(c Conn, code uint16, reason string)
}

func (h hooks) Open(c Conn, r *Request) {
	if h.open != nil {
		h.open(c, r)
	}
}

func (h hooks) Message(c Conn, op Op, data []byte) {
	if h.message != nil {
		h.message(c, op, data)
	}
}

func (h hooks) Close(c Conn, code uint16, reason string) {
	if h.close != nil {
		h.close(c, code, reason)
	}
}

// ended is what a handler was told of an end.
type ended struct {
	code   uint16
	reason string
}

// reporter is a Handler that passes on what it is told.
func reporter() (h hooks, opens chan Conn, messages chan string, closes chan ended) {
	opens, messages, closes = make(chan Conn, 1000), make(chan string, 10_000), make(chan ended, 1000)
	return hooks{
		open:    func(c Conn, _ *Request) { opens <- c },
		message: func(_ Conn, op Op, data []byte) { messages <- op.String() + " " + string(data) },
		close:   func(_ Conn, code uint16, reason string) { closes <- ended{code, reason} },
	}, opens, messages, closes
}

// logs keeps what a server logs.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

// response is what a server answered in plain HTTP.
type response struct {
	status string // "404 Not Found"
	header string
	body   string
}

// has says whether the header has exactly that line.
func (r response) has(line string) bool { return strings.Contains(r.header+"\r\n", "\r\n"+line+"\r\n") }

// roundTrip sends a request and reads all that comes until the server closes.
func roundTrip(t testing.TB, addr, request string) response {
	t.Helper()
	c := connect(t, addr)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r := readResponse(t, c)
	_ = c.Close() // the server waits for it, to be sure that its answer arrived
	return r
}

func readResponse(t testing.TB, c net.Conn) response {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("response %q: %v", all, err)
	}
	head, body, found := strings.Cut(string(all), "\r\n\r\n")
	status, header, _ := strings.Cut(head, "\r\n")
	status, ok := strings.CutPrefix(status, "HTTP/1.1 ")
	if !found || !ok {
		t.Fatalf("not an HTTP response: %q", all)
	}
	return response{status: status, header: "\r\n" + header, body: body}
}

// connect opens a TCP connection that the test's end closes.
func connect(t testing.TB, addr string) net.Conn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// upgradeRequest is a valid upgrade of target, with more header lines if wanted ("Name: value").
func upgradeRequest(target string, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", target)
	b.WriteString("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	for _, line := range lines {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// on runs f on the goroutine of each loop in turn, and waits for it: f may write to what the test reads.
func (s *running) on(t testing.TB, f func(l *loop)) {
	t.Helper()
	for _, l := range s.loops {
		done := make(chan struct{})
		l.post(task{kind: taskDo, do: func(l *loop) {
			f(l)
			close(done)
		}})
		receive(t, "a loop", done)
	}
}
