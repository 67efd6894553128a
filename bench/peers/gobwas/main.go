// Command gobwas is an echo server with heartbeats on github.com/gobwas/ws, a goroutine per connection, set up for many
// connections.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/pulsewheel/pulsewheel/bench/peers/peer"
)

// readBytes holds a message of the benchmarks with its header, so that one read carries it: ws.ReadHeader on a bare
// connection reads up to twice for the header alone.
const readBytes = 256

var errFrameTooBig = errors.New("frame too big")

// server is what all connections share.
type server struct {
	options  peer.Options
	upgrader ws.Upgrader // its buffers are pooled by the library
	frames   sync.Pool   // of *bytes.Buffer, held while a frame is echoed
}

// conn is one connection. Every frame is one Write, which net.Conn keeps whole, so that echo and heartbeat need no lock.
type conn struct {
	net.Conn
	br      *bufio.Reader
	state   ws.State               // with StateFragmented between the fragments of a message
	scratch [ws.MaxHeaderSize]byte // of a header being read or written
}

func main() {
	s := &server{
		options: peer.ParseFlags(),
		frames:  sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
	l, err := net.Listen("tcp", s.options.Listen)
	if err != nil {
		peer.Fail(err)
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			peer.Fail(err)
		}
		go s.upgrade(nc)
	}
}

// upgrade leaves the connection to a new goroutine: this one's stack has grown in the handshake.
func (s *server) upgrade(nc net.Conn) {
	if _, err := s.upgrader.Upgrade(nc); err != nil {
		_ = nc.Close() // the upgrader has answered
		return
	}
	go s.serve(&conn{Conn: nc, br: bufio.NewReaderSize(nc, readBytes), state: ws.StateServerSide})
}

func (s *server) serve(c *conn) {
	stop := s.options.Beat(func() error {
		_, err := c.Write(ws.CompiledPing) // the library's prepared ping
		return err
	})
	for s.expire(c) == nil && s.frame(c) == nil {
	}
	stop()
	_ = c.Close() // it is lost already
}

// expire sets a deadline before each frame, as the library's examples do before each read.
func (s *server) expire(c *conn) error {
	if s.options.HeartbeatTimeout == 0 {
		return nil
	}
	return c.SetReadDeadline(s.options.Deadline())
}

// frame serves one frame. A message in fragments goes back in the same fragments.
func (s *server) frame(c *conn) error {
	h, err := ws.ReadHeaderBuffer(c.br, c.scratch[:])
	if err != nil {
		return err
	}
	if err := ws.CheckHeader(h, c.state); err != nil {
		return err
	}
	if h.OpCode.IsControl() {
		return wsutil.ControlHandler{Src: c.br, Dst: c.Conn, State: ws.StateServerSide}.Handle(h)
	}
	if h.Length > peer.MessageBytesMax { // the library's lower level has no bound of its own
		return errFrameTooBig
	}
	c.state = c.state.Clear(ws.StateFragmented)
	if !h.Fin {
		c.state = c.state.Set(ws.StateFragmented)
	}
	return s.echo(c, h)
}

// echo composes the answer in a pooled buffer and writes it at once: ws.WriteFrame would write header and payload apart.
func (s *server) echo(c *conn, h ws.Header) error {
	out := s.frames.Get().(*bytes.Buffer)
	defer s.frames.Put(out)
	out.Reset()
	out.Grow(ws.MaxHeaderSize + int(h.Length))
	answer := h
	answer.Masked = false
	if err := ws.WriteHeaderBuffer(out, answer, c.scratch[:]); err != nil {
		return err
	}
	payload := out.AvailableBuffer()[:h.Length]
	if _, err := io.ReadFull(c.br, payload); err != nil {
		return err
	}
	ws.Cipher(payload, h.Mask, 0)
	out.Write(payload) // to where it is
	_, err := c.Write(out.Bytes())
	return err
}
