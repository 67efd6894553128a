package server

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// simKernel is the operating system of the simulation: sockets that are byte streams in memory with bounded buffers, and the edges
// that epoll reports of them. It behaves as Linux was measured to (TestSysConformance runs the same cases on both), and as
// badly as Linux may.
type simKernel struct {
	clock   time.Duration
	rand    *rand.Rand
	sockets []*simSocket // by descriptor; nil: free
	ports   []*simPort
	fdsMax  int
	woken   bool
	stale   []poller.Token // of connections that are gone
	faults  []string       // what no program may do to a kernel

	// What the world does around system calls; both may be nil.
	point func()                       // others run
	pass  func(deadline time.Duration) // nothing is ready: time passes, at most to the deadline
	ended bool                         // nothing will ever happen again

	// Counts.
	written uint64 // bytes that the server wrote to sockets
	sawEnd  bool   // a read found the end of a stream
	opened  int
	closed  int

	// Troubles, of 1000 calls.
	spoil   int // events that come with a stale one
	watches int // registrations that fail
	aborts  int // calls of accept that fail
}

var _ sys = (*simKernel)(nil)

// errSimEnded: the loop waits for something that can't come any more.
var errSimEnded = errors.New("sim: nothing will ever happen again")

// simPort is a listening socket.
type simPort struct {
	k       *simKernel
	fd      int
	token   poller.Token
	added   bool
	paused  bool
	backlog []*simSocket
	peers   []netip.AddrPort
	shed    int
	stingy  int // of 100 calls of Shed, how many find the reserve gone
	closed  bool
}

var _ acceptor = (*simPort)(nil)

func newSimKernel(random *rand.Rand) *simKernel {
	return &simKernel{rand: random, sockets: make([]*simSocket, 3), fdsMax: 1 << 20, clock: time.Second}
}

func (k *simKernel) chance(of1000 int) bool { return k.rand.IntN(1000) < of1000 }

func (k *simKernel) fault(format string, args ...any) {
	k.faults = append(k.faults, fmt.Sprintf(format, args...))
}

func (k *simKernel) others() {
	if k.point != nil {
		k.point()
	}
}

// descriptor gives the lowest free number, as a kernel does: numbers are reused at once.
func (k *simKernel) descriptor(s *simSocket) int {
	for fd := 3; fd < len(k.sockets); fd++ {
		if k.sockets[fd] == nil {
			k.sockets[fd] = s
			return fd
		}
	}
	k.sockets = append(k.sockets, s)
	return len(k.sockets) - 1
}

func (k *simKernel) listenPort() *simPort {
	p := &simPort{k: k}
	p.fd = k.descriptor(&simSocket{})
	k.ports = append(k.ports, p)
	return p
}

// connect is a peer's: the connection waits in the backlog until it is accepted.
func (k *simKernel) connect(p *simPort, from netip.AddrPort, inMax, outMax int, unix bool) *simSocket {
	s := &simSocket{fd: -1, inMax: inMax, outMax: outMax, unix: unix}
	if p.closed {
		s.closed, s.destroyed = true, true
		return s
	}
	p.backlog, p.peers = append(p.backlog, s), append(p.peers, from)
	return s
}

// handOver is a connection that comes with a descriptor already, as an adopted one does.
func (k *simKernel) handOver(inMax, outMax int, unix bool) *simSocket {
	s := &simSocket{inMax: inMax, outMax: outMax, unix: unix, acceptedAt: k.clock}
	s.fd = k.descriptor(s)
	k.opened++
	return s
}

// The part of the server.

func (k *simKernel) now() time.Duration { return k.clock }

func (k *simKernel) wake() {
	k.woken = true
	k.others()
}

func (k *simKernel) wait(events []poller.Event, deadline time.Duration) (int, error) {
	k.others()
	for {
		if n := k.collect(events); n > 0 || k.woken {
			k.woken = false
			return n, nil
		}
		if deadline != noDeadline && k.clock >= deadline {
			return 0, nil
		}
		if k.pass == nil {
			k.clock, k.ended = max(k.clock, deadline), deadline == noDeadline
		} else {
			k.pass(deadline)
		}
		if k.ended {
			return 0, errSimEnded
		}
	}
}

// collect reports the edges, sampling what holds now, as epoll_wait does.
func (k *simKernel) collect(events []poller.Event) (n int) {
	for _, p := range k.ports {
		if p.added && !p.paused && !p.closed && len(p.backlog) > 0 && n < len(events) {
			events[n] = poller.Event{Token: p.token, Ready: poller.CanRead}
			n++
		}
	}
	count := len(k.sockets)
	first := k.rand.IntN(count)
	for i := range count {
		s := k.sockets[(first+i)%count]
		if s == nil || !s.edge || !s.added || n == len(events) {
			continue
		}
		s.edge = false
		if ready := s.readiness(); ready != 0 {
			events[n] = poller.Event{Token: s.token, Ready: ready}
			n++
		}
	}
	if n > 0 && n < len(events) && len(k.stale) > 0 && k.chance(k.spoil) {
		events[n] = poller.Event{Token: k.stale[k.rand.IntN(len(k.stale))], Ready: poller.CanRead | poller.CanWrite | poller.Hangup}
		n++
	}
	return n
}

func (s *simSocket) readiness() (ready poller.Readiness) {
	if len(s.in) > 0 || s.fin || s.reset {
		ready |= poller.CanRead
	}
	if s.roomy() || s.reset || s.shut {
		ready |= poller.CanWrite
	}
	if s.fin || s.reset {
		ready |= poller.Hangup
	}
	return ready
}

// roomy says whether the socket counts as writable: a third of the buffer is free (sk_stream_is_writeable).
func (s *simSocket) roomy() bool { return s.outMax-len(s.out) >= (s.outMax+2)/3 }

func (k *simKernel) add(fd int, tok poller.Token) error {
	s := k.socket(fd, "epoll_ctl")
	if s.added {
		k.fault("descriptor %d was registered twice", fd)
	}
	k.others()
	if k.chance(k.watches) {
		s.unwatched = true
		return os.NewSyscallError("epoll_ctl", syscall.ENOSPC)
	}
	s.token, s.added, s.edge = tok, true, true
	return nil
}

func (k *simKernel) addListener(fd int, tok poller.Token) error {
	p := k.port(fd)
	p.token, p.added = tok, true
	return nil
}

func (k *simKernel) pauseListener(fd int, _ poller.Token, pause bool) error {
	k.port(fd).paused = pause
	return nil
}

func (k *simKernel) port(fd int) *simPort {
	for _, p := range k.ports {
		if p.fd == fd {
			return p
		}
	}
	panic(fmt.Sprintf("sim: %d is no listener", fd))
}

func (k *simKernel) close() error { return nil }

func (k *simKernel) accept(l acceptor, batch []poller.Accepted) (int, error) {
	k.others()
	if k.chance(k.aborts) {
		return 0, os.NewSyscallError("accept4", syscall.ENOBUFS)
	}
	return l.Accept(batch)
}

// enter begins a call on a connection: only one caller may be inside, since only one may have the loan.
func (k *simKernel) enter(fd int, call string) *simSocket {
	s := k.socket(fd, call)
	if s.user != "" {
		k.fault("%s on descriptor %d while somebody is inside %s", call, fd, s.user)
	}
	s.user = call
	k.others()
	return s
}

func (k *simKernel) leave(s *simSocket) {
	k.others()
	s.user = ""
}

func (k *simKernel) socket(fd int, call string) *simSocket {
	if fd < 0 || fd >= len(k.sockets) || k.sockets[fd] == nil {
		panic(fmt.Sprintf("sim: %s on descriptor %d, which is closed", call, fd))
	}
	return k.sockets[fd]
}

func (k *simKernel) read(fd int, p []byte) (int, error) {
	s := k.enter(fd, "read")
	defer k.leave(s)
	return k.receive(s, p, true)
}

func (k *simKernel) peek(fd int) (int, error) {
	s := k.enter(fd, "peek")
	defer k.leave(s)
	var one [1]byte
	return k.receive(s, one[:], false)
}

// unacknowledged: what was sent has arrived, also at those who never read it.
func (k *simKernel) unacknowledged(fd int) (int, time.Duration, error) {
	defer k.leave(k.enter(fd, "unacknowledged"))
	return 0, 0, nil
}

func (k *simKernel) setUserTimeout(fd int, _ time.Duration) error {
	defer k.leave(k.enter(fd, "setUserTimeout"))
	return nil
}

func (k *simKernel) receive(s *simSocket, p []byte, take bool) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case len(s.in) > 0:
	case s.reset:
		return 0, syscall.ECONNRESET
	case s.fin:
		k.sawEnd = true
		return 0, io.EOF
	default:
		return 0, poller.ErrWouldBlock
	}
	n := copy(p, s.in)
	if take {
		if s.unix && n > 1 && k.chance(300) {
			n = 1 + k.rand.IntN(n-1)
		}
		s.in = s.in[n:]
		s.lastReadAt = k.clock
		s.tellPeer() // there is room for more
	}
	return n, nil
}

func (k *simKernel) write(fd int, p []byte) (int, error) {
	return k.transmit(fd, p, nil)
}

func (k *simKernel) writev(fd int, bufs [][]byte) (int, error) {
	if len(bufs) != 2 {
		panic(fmt.Sprintf("sim: writev of %d buffers", len(bufs)))
	}
	return k.transmit(fd, bufs[0], bufs[1])
}

func (k *simKernel) transmit(fd int, a, b []byte) (int, error) {
	s := k.enter(fd, "write")
	defer k.leave(s)
	if s.shut {
		k.fault("write on descriptor %d after the end of its stream", fd)
	}
	if s.reset {
		return 0, []error{syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT}[k.rand.IntN(3)]
	}
	room := max(0, s.outMax-len(s.out))
	want := len(a) + len(b)
	n := min(room, want)
	if room > 0 && want < s.outMax && k.chance(100) {
		n = want // the bound is a soft one: a buffer that was not full takes the whole packet
	}
	if s.unix && n > 1 && k.chance(200) {
		n = 1 + k.rand.IntN(n-1) // a short write that promises no edge
	}
	if s.firstWriteAt == 0 {
		s.firstWriteAt = k.clock
	}
	if n < want && (!s.unix || n == room) {
		s.wantsRoom = !s.unix || n == 0
	}
	if n == 0 && want > 0 {
		return 0, poller.ErrWouldBlock
	}
	k.written += uint64(n)
	if s.peerGone {
		s.reset = true
		s.stir(k)
		return n, nil
	}
	fromA := min(n, len(a))
	s.out = append(append(s.out, a[:fromA]...), b[:n-fromA]...)
	s.tellPeer()
	return n, nil
}

func (k *simKernel) closeWrite(fd int) error {
	s := k.enter(fd, "shutdown")
	defer k.leave(s)
	if s.reset {
		return syscall.ENOTCONN
	}
	s.shut = true
	s.tellPeer()
	return nil
}

func (k *simKernel) closeFD(fd int) error {
	s := k.enter(fd, "close")
	if s.added {
		k.stale = append(k.stale, s.token)
	}
	s.closed, s.shut, s.closedAt = true, true, k.clock
	if len(s.in) > 0 && !s.reset {
		s.destroyed = true // the kernel answers unread bytes with a reset
		s.out = s.out[:k.rand.IntN(len(s.out)+1)]
	}
	k.sockets[fd] = nil
	k.closed++
	k.leave(s)
	s.tellPeer()
	return nil
}

func (p *simPort) FD() int { return p.fd }

func (p *simPort) Accept(batch []poller.Accepted) (n int, err error) {
	k := p.k
	for n < len(batch) && len(p.backlog) > 0 {
		if k.opened-k.closed >= k.fdsMax {
			return n, poller.ErrDescriptors
		}
		s := p.backlog[0]
		batch[n].Peer = p.peers[0]
		p.backlog, p.peers = p.backlog[1:], p.peers[1:]
		s.fd, s.acceptedAt = k.descriptor(s), k.clock
		batch[n].FD = s.fd
		k.opened++
		n++
	}
	return n, nil
}

func (p *simPort) Shed(answer func([]byte) []byte) (bool, error) {
	if p.k.chance(10 * p.stingy) {
		return false, poller.ErrDescriptors
	}
	if len(p.backlog) == 0 {
		return false, nil
	}
	s := p.backlog[0]
	p.backlog, p.peers = p.backlog[1:], p.peers[1:]
	p.shed++
	s.turnedAway(answer)
	return true, nil
}

func (s *simSocket) turnedAway(answer func([]byte) []byte) {
	reply := answer(s.in)
	s.out = append(s.out, reply[:min(len(reply), s.outMax)]...)
	s.closed, s.shut, s.destroyed = true, true, len(s.in) > 0
	s.tellPeer()
}

func (k *simKernel) turnAway(fd int, answer func([]byte) []byte) {
	s := k.socket(fd, "turnAway")
	s.turnedAway(answer)
	k.sockets[fd] = nil
	k.closed++
}

func (p *simPort) Close() error {
	p.closed = true
	for _, s := range p.backlog {
		s.closed, s.destroyed = true, true
		s.tellPeer()
	}
	p.backlog, p.peers = nil, nil
	p.k.sockets[p.fd] = nil
	return nil
}
