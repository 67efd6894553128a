// Command floor is the least that a Go server can do: a parked epoll loop that moves the bytes of WebSocket
// without understanding them.
//
// It upgrades whoever asks, answers every --size bytes of payload with one frame prepared beforehand, and pings
// every connection once per --heartbeat-interval, spread over ticks of 20 ms. It checks nothing. What a real
// server costs above this program, in one run on one machine, is that server's own doing.
//
// Limits: the request head must arrive in one read; after it a client sends only data frames of --size bytes and empty
// pongs, and a frame is told by its first byte alone; a socket that is full is dropped, since there is no outbox.
// floor.c is the same in C.
package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

const (
	// tick is the grain at which the beats of an interval are spread.
	tick = 20 * time.Millisecond
	// readBytes bounds one read; a loop has one buffer.
	readBytes = 64 * 1024
	// framesPerWrite is how many echoes one write answers at most.
	framesPerWrite = 64
	// eventsPerWait is the batch of one wait.
	eventsPerWait = 256
	// acceptsPerEvent is how many connections one readiness of the listener takes in.
	acceptsPerEvent = 64
	// listenerToken marks the listener among tokens that are descriptors.
	listenerToken = poller.Token(1 << 62)
	// pong is the opcode that answers a ping; masked and empty it is a frame of pongBytes.
	pong      = 10
	pongBytes = 6
	// acceptSalt is the constant of RFC 6455, section 1.3.
	acceptSalt = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	upgraded   = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)

var errKey = errors.New("no Sec-WebSocket-Key in the first read")

type phase uint8

const (
	free phase = iota
	handshake
	open
)

// conn is one connection, indexed by its descriptor.
type conn struct {
	phase phase
	data  bool  // the frame under way is a message, not a pong
	need  int32 // bytes still to come of the frame under way; 0 at a boundary
}

// floor is the whole program's state; one goroutine owns it.
type floor struct {
	poller   *poller.Poller
	listener *poller.Listener
	conns    []conn
	accepted [acceptsPerEvent]poller.Accepted
	buf      []byte
	scratch  []byte // of an upgrade's answer
	frames   []byte // framesPerWrite copies of one unmasked frame
	ping     [2]byte
	frame    int // bytes of one of them
	masked   int // bytes of the frame that a client sends
	ticks    int // ticks of one heartbeat interval; 0 no beats
	turn     int // descriptors with fd % ticks == turn are pinged at the next tick
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9001", "address, host:port")
	size := flag.Int("size", 128, "payload `bytes` of an echoed message")
	interval := flag.Duration("heartbeat-interval", 0, "each connection is pinged once in this time; 0 never")
	flag.Parse()
	f, err := newFloor(*listen, *size, *interval)
	if err == nil {
		err = f.run()
	}
	fmt.Fprintf(os.Stderr, "floor: %v\n", err)
	os.Exit(1)
}

func newFloor(listen string, size int, interval time.Duration) (*floor, error) {
	if size < 0 || size > readBytes {
		return nil, fmt.Errorf("--size %d is not between 0 and %d", size, readBytes)
	}
	limit, err := poller.DescriptorLimit()
	if err != nil {
		return nil, err
	}
	f := &floor{conns: make([]conn, min(limit, 1<<21)), buf: make([]byte, readBytes), ping: [2]byte{0x89, 0}}
	if interval > 0 {
		f.ticks = max(int(interval/tick), 1)
	}
	f.prepare(size)
	if f.poller, err = poller.Open(); err != nil {
		return nil, err
	}
	if f.listener, err = poller.Listen(listen, poller.ListenOptions{}); err != nil {
		return nil, err
	}
	return f, f.poller.Add(f.listener.FD(), listenerToken, poller.Readable)
}

// prepare encodes the frame that answers every echo, as often as one write may need it.
func (f *floor) prepare(size int) {
	var frame []byte
	switch {
	case size < 126:
		frame = []byte{0x82, byte(size)}
	case size < 1<<16:
		frame = binary.BigEndian.AppendUint16([]byte{0x82, 126}, uint16(size))
	default:
		frame = binary.BigEndian.AppendUint64([]byte{0x82, 127}, uint64(size))
	}
	for i := range size {
		frame = append(frame, 'a'+byte(i%26))
	}
	f.frame, f.masked = len(frame), len(frame)+4
	f.frames = bytes.Repeat(frame, framesPerWrite)
}

func (f *floor) run() error {
	events := make([]poller.Event, eventsPerWait)
	var next time.Time
	if f.ticks > 0 {
		next = time.Now().Add(tick)
	}
	for {
		n, err := f.poller.Wait(events, next)
		if err != nil {
			return err
		}
		for _, ev := range events[:n] {
			if ev.Token == listenerToken {
				err = f.accept()
			} else {
				f.serve(int(ev.Token))
			}
			if err != nil {
				return err
			}
		}
		if f.ticks == 0 {
			continue
		}
		for now := time.Now(); !next.After(now); next = next.Add(tick) {
			f.beat()
		}
	}
}

func (f *floor) accept() error {
	n, err := f.listener.Accept(f.accepted[:])
	for _, a := range f.accepted[:n] {
		// Level-triggered, as in the program in C: one read an event, and no second one to see that the socket is empty.
		if a.FD >= len(f.conns) || f.poller.Add(a.FD, poller.Token(a.FD), poller.Readable) != nil {
			_ = poller.Close(a.FD) // it never became ours
			continue
		}
		f.conns[a.FD] = conn{phase: handshake}
	}
	if errors.Is(err, poller.ErrDescriptors) {
		return nil // they wait in the backlog
	}
	return err
}

func (f *floor) serve(fd int) {
	c := &f.conns[fd]
	n, err := poller.Read(fd, f.buf)
	switch {
	case errors.Is(err, poller.ErrWouldBlock):
		return
	case err != nil: // io.EOF as well
		f.drop(fd)
		return
	case c.phase == handshake:
		if f.upgrade(fd, f.buf[:n]) != nil {
			f.drop(fd)
		}
		return
	}
	for count := f.completed(c, f.buf[:n]); count > 0; count -= framesPerWrite {
		want := min(count, framesPerWrite) * f.frame
		if sent, err := poller.Write(fd, f.frames[:want]); err != nil || sent != want {
			f.drop(fd)
			return
		}
	}
}

// completed counts the messages that end in p, by the length that each frame is known to have.
func (f *floor) completed(c *conn, p []byte) (count int) {
	for len(p) > 0 {
		if c.need == 0 {
			c.data = p[0]&15 != pong
			c.need = pongBytes
			if c.data {
				c.need = int32(f.masked)
			}
		}
		n := min(int(c.need), len(p))
		p = p[n:]
		if c.need -= int32(n); c.need == 0 && c.data {
			count++
		}
	}
	return count
}

func (f *floor) upgrade(fd int, head []byte) error {
	_, after, found := bytes.Cut(head, []byte("Sec-WebSocket-Key: "))
	if !found || len(after) < 24 {
		return errKey
	}
	f.scratch = append(append(f.scratch[:0], after[:24]...), acceptSalt...)
	digest := sha1.Sum(f.scratch)
	f.scratch = base64.StdEncoding.AppendEncode(append(f.scratch[:0], upgraded...), digest[:])
	f.scratch = append(f.scratch, "\r\n\r\n"...)
	if _, err := poller.Write(fd, f.scratch); err != nil {
		return err
	}
	f.conns[fd].phase = open
	return nil
}

// beat pings the descriptors whose turn this tick is: every ticks-th, so that the beats of an interval are spread evenly.
func (f *floor) beat() {
	for fd := f.turn; fd < len(f.conns); fd += f.ticks {
		if f.conns[fd].phase != open {
			continue
		}
		if _, err := poller.Write(fd, f.ping[:]); err != nil && !errors.Is(err, poller.ErrWouldBlock) {
			f.drop(fd)
		}
	}
	f.turn = (f.turn + 1) % f.ticks
}

func (f *floor) drop(fd int) {
	f.conns[fd] = conn{}
	_ = poller.Close(fd) // nothing is left to do for it either way
}
