package server

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// The errors of this package that callers act upon.
var (
	// ErrClosed: the connection is gone or going, or the server was shut down.
	ErrClosed = errors.New("server: closed")
	// ErrBackpressure: the peer doesn't read what it was sent; the message was not taken, and the connection is being closed (1013).
	ErrBackpressure = errors.New("server: peer reads too slowly")
	// ErrEncoding: a text message that is not UTF-8.
	ErrEncoding = errors.New("server: text is not UTF-8")
	// ErrTLS: a TLS connection can't be adopted, its keys belong to net/http.
	ErrTLS = errors.New("server: a TLS connection can't be adopted")
	// ErrNotServing: Serve doesn't run.
	ErrNotServing = errors.New("server: not serving")
)

// Conn is a handle of one connection: a small comparable value, good as a map key, and safe to keep and to use from any goroutine
// even when the connection is long gone.
type Conn struct {
	server *Server
	token  poller.Token
}

// find returns the connection's loop and record, or a nil record when it is gone.
func (c Conn) find() (*loop, *record) {
	if c.server == nil {
		return nil, nil
	}
	l := c.server.loops[tokenLoop(c.token)]
	r := l.table.find(tokenSlot(c.token))
	if r == nil || r.load().generation() != tokenGeneration(c.token) {
		return l, nil
	}
	return l, r
}

// ID is the connection's name over nodes and restarts: 16 hexadecimal digits of a random number. Empty when it is gone.
func (c Conn) ID() string {
	_, r := c.find()
	if r == nil {
		return ""
	}
	return connID(r.id.Load())
}

func connID(id uint64) string { return fmt.Sprintf("%016x", id) }

// RemoteAddr is where the connection comes from; zero on a Unix socket, or when it is gone.
func (c Conn) RemoteAddr() netip.AddrPort {
	l, r := c.find()
	if r == nil {
		return netip.AddrPort{}
	}
	return l.remoteAddr(tokenSlot(c.token), r)
}

// User is what Config.Upgrade said whose connection it is.
func (c Conn) User() string {
	var user string
	c.withSide(func(s *side) { user = s.user })
	return user
}

// Value is what the application keeps with the connection.
func (c Conn) Value() any {
	var value any
	c.withSide(func(s *side) { value = s.value })
	return value
}

// SetValue keeps something with the connection; nil drops it. A connection with a value costs some 350 bytes more.
func (c Conn) SetValue(value any) {
	l, r := c.find()
	if r == nil {
		return
	}
	shard := l.sides.shard(tokenSlot(c.token))
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if r.load().generation() == tokenGeneration(c.token) {
		shard.ensureLocked(r).value = value
	}
}

// withSide looks into the side table, if the connection is there and has an entry.
func (c Conn) withSide(look func(s *side)) {
	l, r := c.find()
	if r == nil || r.side.Load() == 0 {
		return
	}
	shard := l.sides.shard(tokenSlot(c.token))
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s := shard.ofLocked(r); s != nil && r.load().generation() == tokenGeneration(c.token) {
		look(s)
	}
}

// Send sends one message. It copies the data and never blocks: what the socket doesn't take waits in the connection's outbox. The errors are
// ErrClosed, ErrBackpressure (the message was not taken and the connection is closed, 1013) and ErrEncoding.
//
// Messages that one goroutine sends arrive in that order.
func (c Conn) Send(op Op, data []byte) error {
	if op == Text && !utf8.Valid(data) {
		return ErrEncoding
	}
	l, r := c.find()
	if r == nil {
		return ErrClosed
	}
	if d := r.deflate(); d != 0 && len(data) >= wsframe.CompressBytesMin {
		// Before the work: whether even the smallest frame has room.
		if err := l.refuses(r, tokenGeneration(c.token), wsframe.HeaderBytes(0)); err != nil {
			return c.refused(err)
		}
		buf := l.buffers.get(wsframe.HeaderBytes(len(data)) + len(data))
		frame := c.server.deflater.Append(buf[:0], d, wsframe.Opcode(op), data)
		err := c.send(nil, frame)
		l.buffers.put(frame)
		return err
	}
	var header [wsframe.HeaderBytesMax]byte
	return c.send(wsframe.AppendHeader(header[:0], wsframe.Opcode(op), true, len(data)), data)
}

// Prepared is a message that was encoded once, to be sent to many.
type Prepared struct {
	// Immutable after Prepare.
	op      Op
	frame   []byte
	payload []byte // the part of frame behind its header

	// Compressed when the first connection needs it: for the largest window, and for any.
	once       [2]sync.Once
	compressed [2][]byte
}

// Prepare encodes a message for SendPrepared.
func Prepare(op Op, data []byte) (*Prepared, error) {
	if op == Text && !utf8.Valid(data) {
		return nil, ErrEncoding
	}
	frame := wsframe.AppendFrame(nil, wsframe.Opcode(op), data)
	return &Prepared{op: op, frame: frame, payload: frame[len(frame)-len(data):]}, nil
}

// SendPrepared is Send without the encoding.
func (c Conn) SendPrepared(p *Prepared) error {
	_, r := c.find()
	if r == nil {
		return ErrClosed
	}
	d := r.deflate()
	if d == 0 {
		return c.send(nil, p.frame)
	}
	kind := 0
	if d < wsframe.WindowBitsMax {
		kind, d = 1, wsframe.WindowBitsMin // right for every window
	}
	p.once[kind].Do(func() { p.compressed[kind] = c.server.deflater.Append(nil, d, wsframe.Opcode(p.op), p.payload) })
	return c.send(nil, p.compressed[kind])
}

// send appends a frame to the outbox, and flushes it if nobody else is about to.
func (c Conn) send(header, payload []byte) error {
	l, r := c.find()
	if r == nil {
		return ErrClosed
	}
	slot, generation := tokenSlot(c.token), tokenGeneration(c.token)
	if err := l.appendFrame(slot, r, generation, header, payload); err != nil {
		return c.refused(err)
	}
	if r.stepIf(generation, word.send) {
		l.flushElsewhere(slot, r)
	}
	return nil
}

// refused ends a connection that is over its bound, and returns what Send answers.
func (c Conn) refused(err error) error {
	if errors.Is(err, ErrBackpressure) {
		c.conclude(endSlowConsumer())
	}
	return err
}

// flushElsewhere writes an outbox on a sender's goroutine, which has the loan. Input is not its business: a loan that can't be
// released because of it goes to the loop.
func (l *loop) flushElsewhere(slot uint32, r *record) {
	x := l.server.senders.Get().(*runner) //nolint:forcetypeassert // the pool holds nothing else
	x.loop, x.slot, x.r, x.out = l, slot, r, x.out[:0]
	for {
		r.step(func(w word) (word, bool) { return w &^ (bitSend | bitOut), false })
		x.flush()
		if r.side.Load() != 0 {
			l.sides.trim(slot, r, 0)
		}
		if r.step(word.release) {
			break
		}
		if r.load()&(bitsInput|bitClose) != 0 {
			l.post(task{kind: taskRunnable, slot: slot})
			break
		}
	}
	x.publish()
	l.server.senders.Put(x)
}

// Close ends the connection with a close code and a reason of at most 123 bytes: the Close frame goes out behind what was
// sent before. A code that may not be sent becomes 1011.
func (c Conn) Close(code uint16, reason string) {
	sent := wsframe.CloseCode(code)
	if !sent.Sendable() && sent != 0 && sent != wsframe.CloseNoStatus {
		sent = wsframe.CloseInternal
	}
	c.conclude(ending{cause: CauseApplication, code: sent, reason: reason})
}

// Info is what the server knows about one connection.
type Info struct {
	ID         string
	User       string
	RemoteAddr netip.AddrPort
	Age        time.Duration
	LastHeard  time.Duration // ago
	RTT        time.Duration // smoothed; 0: none measured yet
	Mode       HeartbeatMode
	Interval   time.Duration // of the server's heartbeats; 0: none
	Timeout    time.Duration
	Unsent     int // bytes
}

// Info describes the connection; false when it is gone.
func (c Conn) Info() (Info, bool) {
	l, r := c.find()
	if r == nil {
		return Info{}, false
	}
	now := l.sys.now()
	info := Info{
		ID: connID(r.id.Load()), User: c.User(), RemoteAddr: c.RemoteAddr(), Mode: r.mode(),
		Age:       now - time.Duration(r.openedAt())*time.Second,
		LastHeard: time.Duration(max(0, int32(l.connMillis.Load()-r.heard.Load()))) * time.Millisecond,
		RTT:       time.Duration(r.rtt.Load()>>16) * 100 * time.Microsecond,
		Interval:  time.Duration(r.interval.Load()) * time.Millisecond,
		Timeout:   time.Duration(r.timeout.Load()) * time.Millisecond,
		Unsent:    int(r.unsent.Load()),
	}
	_, still := c.find()
	return info, still != nil
}
