//go:build linux

// Command gobwas-epoll is an echo server with heartbeats on github.com/gobwas/ws with one plain epoll loop, in the style
// of the demonstrations that hold a million connections in Go: a net.Conn is accepted and upgraded the usual way, then its
// descriptor is put into an epoll of the program's own, and one goroutine reads whatever is ready.
//
// Two weaknesses belong to the style and are kept: each descriptor is in two epolls, the runtime's and this one, with a
// whole net.Conn around it; and a frame of which only a part has come is waited for, which holds up everyone else.
package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/pulsewheel/pulsewheel/bench/peers/peer"
)

const (
	// eventsPerWait is the batch of one wait. Demonstrations take 100; under load a larger one saves waits.
	eventsPerWait = 256
	// readBytes bounds one read. The loop has one buffer for all connections.
	readBytes = 64 * 1024
)

var (
	errClosed      = errors.New("closed by the client")
	errFrameTooBig = errors.New("frame too big")
)

// server is the whole program's state.
type server struct {
	// Immutable after newServer.
	epoll    int
	upgrader ws.Upgrader // its buffers are pooled by the library
	ticks    int         // of one heartbeat interval; 0 no beats

	// By descriptor, filled by the goroutine that upgrades before epoll knows the descriptor, emptied by the loop.
	conns []atomic.Pointer[conn]

	// Owned by the loop.
	in      []byte
	input   bytes.Reader // over what was read into in
	out     bytes.Buffer // the answers to one read, written at once
	scratch [ws.MaxHeaderSize]byte
	turn    int // descriptors with fd % ticks == turn are pinged at the next tick
}

// conn is one connection.
type conn struct {
	net.Conn
	fd    int
	state ws.State // with StateFragmented between the fragments of a message
}

func main() {
	options := peer.ParseFlags()
	if options.HeartbeatTimeout > 0 {
		peer.Fail(errors.New("silence is borne: the demonstrations have no deadline"))
	}
	s, err := newServer(options.HeartbeatInterval)
	if err != nil {
		peer.Fail(err)
	}
	l, err := net.Listen("tcp", options.Listen)
	if err != nil {
		peer.Fail(err)
	}
	go func() { peer.Fail(s.loop()) }()
	for {
		nc, err := l.Accept()
		if err != nil {
			peer.Fail(err)
		}
		go s.upgrade(nc)
	}
}

func newServer(interval time.Duration) (*server, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, os.NewSyscallError("getrlimit", err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	s := &server{epoll: epoll, conns: make([]atomic.Pointer[conn], min(limit.Cur, 1<<21)), in: make([]byte, readBytes)}
	if interval > 0 {
		s.ticks = max(int(interval/peer.Tick), 1)
	}
	return s, nil
}

// upgrade shakes hands and hands the connection to the loop. The goroutine then ends.
func (s *server) upgrade(nc net.Conn) {
	c := &conn{Conn: nc, state: ws.StateServerSide}
	_, err := s.upgrader.Upgrade(nc)
	if err == nil {
		err = s.register(c)
	}
	if err != nil {
		_ = nc.Close() // the upgrader has answered
	}
}

func (s *server) register(c *conn) error {
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Control(func(fd uintptr) { c.fd = int(fd) }); err != nil {
		return err
	}
	s.conns[c.fd].Store(c)
	// Level-triggered: one read an event, and no second one to see that the socket is empty.
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, c.fd, &event))
}

func (s *server) loop() error {
	events := make([]unix.EpollEvent, eventsPerWait)
	next := time.Now().Add(peer.Tick)
	for {
		timeout := -1
		if s.ticks > 0 {
			// Rounded up, so that a rest below a millisecond does not become a busy zero.
			timeout = max(int((time.Until(next)+time.Millisecond-1)/time.Millisecond), 0)
		}
		n, err := unix.EpollWait(s.epoll, events, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, event := range events[:max(n, 0)] {
			if c := s.conns[event.Fd].Load(); c != nil && s.serve(c) != nil {
				s.drop(c)
			}
		}
		if s.ticks == 0 {
			continue
		}
		for now := time.Now(); !next.After(now); next = next.Add(peer.Tick) {
			s.beat()
		}
	}
}

// serve reads once, answers every frame in what was read, and writes once: the library's helpers would read and write
// several times a frame.
func (s *server) serve(c *conn) error {
	n, err := c.Read(s.in)
	if err != nil {
		return err
	}
	s.input.Reset(s.in[:n])
	s.out.Reset()
	// The rest of a frame of which only a part has come is waited for on the connection itself.
	r := io.MultiReader(&s.input, c.Conn)
	for s.input.Len() > 0 && err == nil {
		err = s.frame(c, r)
	}
	if s.out.Len() == 0 {
		return err
	}
	_, written := c.Write(s.out.Bytes())
	return errors.Join(err, written)
}

// frame adds the answer to one frame to out. A message in fragments goes back in the same fragments.
func (s *server) frame(c *conn, r io.Reader) error {
	h, err := ws.ReadHeaderBuffer(r, s.scratch[:])
	if err != nil {
		return err
	}
	if err := ws.CheckHeader(h, c.state); err != nil {
		return err
	}
	if h.Length > peer.MessageBytesMax { // the library's lower level has no bound of its own
		return errFrameTooBig
	}
	answer := h
	answer.Masked = false
	switch h.OpCode {
	case ws.OpPong:
		_, err := io.CopyN(io.Discard, r, h.Length)
		return err
	case ws.OpPing:
		answer.OpCode = ws.OpPong
	case ws.OpClose: // goes back as it came
	default:
		c.state = c.state.Clear(ws.StateFragmented)
		if !h.Fin {
			c.state = c.state.Set(ws.StateFragmented)
		}
	}
	if err := ws.WriteHeaderBuffer(&s.out, answer, s.scratch[:]); err != nil {
		return err
	}
	s.out.Grow(int(h.Length))
	payload := s.out.AvailableBuffer()[:h.Length]
	if _, err := io.ReadFull(r, payload); err != nil {
		return err
	}
	ws.Cipher(payload, h.Mask, 0)
	s.out.Write(payload) // to where it is
	if h.OpCode == ws.OpClose {
		return errClosed
	}
	return nil
}

// beat pings the descriptors whose turn this tick is: every ticks-th, so that the beats of an interval are spread evenly.
func (s *server) beat() {
	for fd := s.turn; fd < len(s.conns); fd += s.ticks {
		c := s.conns[fd].Load()
		if c == nil {
			continue
		}
		if _, err := c.Write(ws.CompiledPing); err != nil { // the library's prepared ping
			s.drop(c)
		}
	}
	s.turn = (s.turn + 1) % s.ticks
}

// drop forgets the connection before its descriptor is free for another. Closing takes it out of both epolls.
func (s *server) drop(c *conn) {
	s.conns[c.fd].CompareAndSwap(c, nil) // one that could not be registered was closed before, and may have a successor
	_ = c.Close()                        // it is lost already
}
