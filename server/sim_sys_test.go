package server

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// TestSysConformance runs one table of cases on the real system and on the simulated one, so that the simulation can't drift away
// from what kernels do.
func TestSysConformance(t *testing.T) {
	systems := []struct {
		name string
		open func(t *testing.T) *sysCase
	}{
		{"real", openRealSys},
		{"simulated", openSimulatedSys},
	}
	for _, system := range systems {
		for _, test := range sysCases() {
			t.Run(system.name+"/"+test.name, func(t *testing.T) { test.run(system.open(t)) })
		}
	}
}

// sysCase is a system, and what a case needs around it.
type sysCase struct {
	t        *testing.T
	sys      sys
	listener acceptor
	dial     func() sysPeer
	events   []poller.Event
}

// sysPeer is the other end of a connection.
type sysPeer interface {
	send(text string)
	receive() (string, error) // some bytes; waits for them
	endStream()
	reset()
}

const (
	sysListener poller.Token = 1<<56 | 7
	sysConn     poller.Token = 2<<56 | 9
)

func (c *sysCase) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// connect makes a connection and registers it.
func (c *sysCase) connect() (fd int, p sysPeer) {
	c.t.Helper()
	p = c.dial()
	batch := make([]poller.Accepted, 4)
	n, err := c.sys.accept(c.listener, batch)
	if err != nil || n != 1 {
		c.t.Fatalf("accept: %d, %v", n, err)
	}
	c.must(c.sys.add(batch[0].FD, sysConn))
	c.await(sysConn, poller.CanWrite)
	return batch[0].FD, p
}

// await waits until all of want was reported of a token, in one event or in several.
func (c *sysCase) await(tok poller.Token, want poller.Readiness) {
	c.t.Helper()
	var got poller.Readiness
	for until := c.sys.now() + 5*time.Second; got&want != want; {
		if c.sys.now() >= until {
			c.t.Fatalf("token %#x: ready for %03b, want %03b", uint64(tok), got, want)
		}
		n, err := c.sys.wait(c.events, until)
		c.must(err)
		for _, e := range c.events[:n] {
			if e.Token == tok {
				got |= e.Ready
			}
		}
	}
}

// quiet checks that nothing is reported for a moment.
func (c *sysCase) quiet() {
	c.t.Helper()
	n, err := c.sys.wait(c.events, c.sys.now()+30*time.Millisecond)
	c.must(err)
	if n != 0 {
		c.t.Fatalf("unexpected event %+v", c.events[0])
	}
}

func (c *sysCase) read(fd int, want string, wantErr error) {
	c.t.Helper()
	buf := make([]byte, 256)
	n, err := c.sys.read(fd, buf)
	if string(buf[:n]) != want || !errors.Is(err, wantErr) {
		c.t.Fatalf("read: %q, %v, want %q, %v", buf[:n], err, want, wantErr)
	}
}

// receive reads from the peer until its stream ends or want has come.
func (c *sysCase) receive(p sysPeer, want string) {
	c.t.Helper()
	got := ""
	for len(got) < len(want) {
		text, err := p.receive()
		got += text
		if err != nil {
			c.t.Fatalf("the peer got %q, %v, want %q", got, err, want)
		}
	}
	if got != want {
		c.t.Fatalf("the peer got %q, want %q", got, want)
	}
}

// fill writes until the socket is full and stays so: at first the kernel moves bytes on to the peer.
func (c *sysCase) fill(fd int) (written int) {
	c.t.Helper()
	chunk := bytes.Repeat([]byte("x"), 4096)
	for {
		n, err := c.sys.write(fd, chunk)
		written += n
		if !errors.Is(err, poller.ErrWouldBlock) {
			c.must(err)
			continue
		}
		events, err := c.sys.wait(c.events, c.sys.now()+30*time.Millisecond)
		c.must(err)
		if events == 0 {
			return written
		}
	}
}

func sysCases() []struct {
	name string
	run  func(c *sysCase)
} {
	return []struct {
		name string
		run  func(c *sysCase)
	}{
		{"a new socket is writable, once", func(c *sysCase) { c.connect(); c.quiet() }},
		{"an edge comes once", func(c *sysCase) {
			fd, p := c.connect()
			p.send("one")
			c.await(sysConn, poller.CanRead)
			c.quiet()
			p.send("two")
			c.await(sysConn, poller.CanRead)
			c.read(fd, "onetwo", nil)
			c.read(fd, "", poller.ErrWouldBlock)
		}},
		{"data and the end of the stream, read short", func(c *sysCase) {
			fd, p := c.connect()
			p.send("last")
			p.endStream()
			c.await(sysConn, poller.CanRead|poller.Hangup)
			c.read(fd, "last", nil)
			c.quiet()
			c.read(fd, "", io.EOF)
		}},
		{"what holds at the registration is reported", func(c *sysCase) {
			p := c.dial()
			p.send("early")
			batch := make([]poller.Accepted, 4)
			n, err := c.sys.accept(c.listener, batch)
			if err != nil || n != 1 {
				c.t.Fatalf("accept: %d, %v", n, err)
			}
			c.must(c.sys.add(batch[0].FD, sysConn))
			c.await(sysConn, poller.CanRead|poller.CanWrite)
			c.read(batch[0].FD, "early", nil)
		}},
		{"room comes back as an edge", func(c *sysCase) {
			fd, p := c.connect()
			for written := c.fill(fd); written > 0; {
				text, err := p.receive()
				c.must(err)
				written -= len(text)
			}
			c.await(sysConn, poller.CanWrite)
			_, err := c.sys.write(fd, []byte("x"))
			c.must(err)
		}},
		{"a reset", func(c *sysCase) {
			fd, p := c.connect()
			p.reset()
			c.await(sysConn, poller.CanRead|poller.CanWrite|poller.Hangup)
			c.read(fd, "", syscall.ECONNRESET)
			if _, err := c.sys.write(fd, []byte("x")); err == nil || errors.Is(err, poller.ErrWouldBlock) {
				c.t.Fatalf("write after a reset: %v", err)
			}
		}},
		{"peek takes nothing", func(c *sysCase) {
			fd, p := c.connect()
			if n, err := c.sys.peek(fd); n != 0 || !errors.Is(err, poller.ErrWouldBlock) {
				c.t.Fatalf("peek at nothing: %d, %v", n, err)
			}
			p.send("look")
			c.await(sysConn, poller.CanRead)
			if n, err := c.sys.peek(fd); n != 1 || err != nil {
				c.t.Fatalf("peek: %d, %v", n, err)
			}
			c.read(fd, "look", nil)
			p.endStream()
			c.await(sysConn, poller.Hangup)
			if n, err := c.sys.peek(fd); n != 0 || !errors.Is(err, io.EOF) {
				c.t.Fatalf("peek at the end: %d, %v", n, err)
			}
		}},
		{"writev keeps the order", func(c *sysCase) {
			fd, p := c.connect()
			n, err := c.sys.writev(fd, [][]byte{[]byte("first "), []byte("second")})
			if n != len("first second") || err != nil {
				c.t.Fatalf("writev: %d, %v", n, err)
			}
			c.receive(p, "first second")
		}},
		{"the end of our stream comes behind what was written", func(c *sysCase) {
			fd, p := c.connect()
			_, err := c.sys.write(fd, []byte("bye"))
			c.must(err)
			c.must(c.sys.closeWrite(fd))
			c.receive(p, "bye")
			if _, err := p.receive(); !errors.Is(err, io.EOF) {
				c.t.Fatalf("the peer got %v, want EOF", err)
			}
			p.send("still here")
			c.await(sysConn, poller.CanRead)
			c.read(fd, "still here", nil)
		}},
		{"closing with unread input is a reset", func(c *sysCase) {
			fd, p := c.connect()
			p.send("unread")
			c.await(sysConn, poller.CanRead)
			c.must(c.sys.closeFD(fd))
			for {
				if _, err := p.receive(); err != nil {
					if errors.Is(err, io.EOF) {
						c.t.Fatal("the peer saw an orderly end")
					}
					return
				}
			}
		}},
		{"a closed descriptor reports nothing", func(c *sysCase) {
			fd, p := c.connect()
			p.send("unseen")
			c.must(c.sys.closeFD(fd))
			c.quiet()
		}},
		{"wake ends one wait", func(c *sysCase) {
			c.sys.wake()
			c.sys.wake()
			began := c.sys.now()
			if n, err := c.sys.wait(c.events, began+time.Minute); n != 0 || err != nil {
				c.t.Fatalf("wait: %d, %v", n, err)
			}
			if took := c.sys.now() - began; took > 30*time.Second {
				c.t.Fatalf("it took %v", took)
			}
			deadline := c.sys.now() + 20*time.Millisecond
			if n, err := c.sys.wait(c.events, deadline); n != 0 || err != nil || c.sys.now() < deadline {
				c.t.Fatalf("a second wait: %d, %v, %v before its deadline", n, err, deadline-c.sys.now())
			}
		}},
		{"a listener is level-triggered, and pauses", func(c *sysCase) {
			c.must(c.sys.addListener(c.listener.FD(), sysListener))
			c.dial()
			c.dial()
			c.await(sysListener, poller.CanRead)
			c.await(sysListener, poller.CanRead)
			c.must(c.sys.pauseListener(c.listener.FD(), sysListener, true))
			c.quiet()
			c.must(c.sys.pauseListener(c.listener.FD(), sysListener, false))
			c.await(sysListener, poller.CanRead)
			batch := make([]poller.Accepted, 4)
			if n, err := c.sys.accept(c.listener, batch[:1]); n != 1 || err != nil {
				c.t.Fatalf("accept: %d, %v", n, err)
			}
			c.await(sysListener, poller.CanRead)
			if n, err := c.sys.accept(c.listener, batch); n != 1 || err != nil {
				c.t.Fatalf("accept: %d, %v", n, err)
			}
			c.quiet()
		}},
	}
}

// The real system.

type realPeer struct {
	t    *testing.T
	conn *net.TCPConn
}

func openRealSys(t *testing.T) *sysCase {
	t.Helper()
	began := time.Now()
	system, err := openSys(began, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	in, err := poller.Listen("127.0.0.1:0", poller.ListenOptions{SendBufferBytes: 8 << 10, ReceiveBufferBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	real := &closingSys{sys: system}
	t.Cleanup(func() { real.closeAll(t); _ = in.Close(); _ = system.close() })
	return &sysCase{t: t, sys: real, listener: in, events: make([]poller.Event, 8), dial: func() sysPeer {
		c, err := net.Dial("tcp", in.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return &realPeer{t, c.(*net.TCPConn)}
	}}
}

// closingSys closes what a case leaves open.
type closingSys struct {
	sys
	fds []int
}

func (s *closingSys) accept(l acceptor, batch []poller.Accepted) (int, error) {
	n, err := s.sys.accept(l, batch)
	for _, a := range batch[:n] {
		s.fds = append(s.fds, a.FD)
	}
	return n, err
}

func (s *closingSys) closeFD(fd int) error {
	s.fds = nil // cases that close have one
	return s.sys.closeFD(fd)
}

func (s *closingSys) closeAll(t *testing.T) {
	t.Helper()
	for _, fd := range s.fds {
		if err := s.sys.closeFD(fd); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func (p *realPeer) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *realPeer) send(text string) {
	_, err := p.conn.Write([]byte(text))
	p.check(err)
}

func (p *realPeer) receive() (string, error) {
	p.check(p.conn.SetReadDeadline(time.Now().Add(5 * time.Second)))
	buf := make([]byte, 64<<10)
	n, err := p.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatal("the peer waits in vain")
	}
	return string(buf[:n]), err
}

func (p *realPeer) endStream() { p.check(p.conn.CloseWrite()) }

func (p *realPeer) reset() {
	p.check(p.conn.SetLinger(0))
	p.check(p.conn.Close())
}

// The simulated one.

type simulatedPeer struct {
	k *simKernel
	s *simSocket
}

func openSimulatedSys(t *testing.T) *sysCase {
	t.Helper()
	k := newSimKernel(rand.New(rand.NewPCG(1, 2)))
	port := k.listenPort()
	t.Cleanup(func() {
		if len(k.faults) > 0 {
			t.Errorf("faults: %v", k.faults)
		}
	})
	return &sysCase{t: t, sys: k, listener: port, events: make([]poller.Event, 8), dial: func() sysPeer {
		return &simulatedPeer{k, k.connect(port, netip.AddrPort{}, 8<<10, 8<<10, false)}
	}}
}

func (p *simulatedPeer) send(text string) { _, _ = p.s.send(p.k, []byte(text)) }

func (p *simulatedPeer) receive() (string, error) {
	buf := make([]byte, 64<<10)
	n, err := p.s.recv(p.k, buf)
	return string(buf[:n]), err
}

func (p *simulatedPeer) endStream() { p.s.endStream(p.k) }
func (p *simulatedPeer) reset()     { p.s.resetByPeer(p.k) }
