package server

import (
	"errors"
	"net/netip"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// listener is a listening socket in a loop's own poller. Accepting where the connection will live saves a wake-up of another
// thread for each of them (measured: 25 µs a connection against 40).
type listener struct {
	acceptor acceptor
	token    poller.Token
	unix     bool
	paused   time.Duration // real time when it is tried again; 0: it is not paused
}

// descriptorPause is how long accepting rests when no descriptor is left and not even a refusal was possible.
const descriptorPause = 100 * time.Millisecond

// listen adds a listening socket.
func (l *loop) listen(a acceptor, unix bool) error {
	in := &listener{acceptor: a, token: makeToken(l.index, uint32(len(l.listeners)), 0), unix: unix}
	if err := l.sys.addListener(a.FD(), in.token); err != nil {
		return err
	}
	l.listeners = append(l.listeners, in)
	return nil
}

// acceptFrom takes what waits at a listener, at most acceptsPerTurn connections.
func (l *loop) acceptFrom(in *listener) {
	if in.acceptor == nil {
		return // it was closed in this turn
	}
	n, err := l.sys.accept(in.acceptor, l.accepted)
	for _, a := range l.accepted[:n] {
		if refusal, why := l.server.knock(a.Peer.Addr()); refusal != nil {
			l.turnAway(a.FD, refusal, why)
			continue
		}
		target := l.server.lighter(l)
		if target == l {
			l.admit(a.FD, a.Peer, in.unix, nil)
			continue
		}
		fd, peer, unix := a.FD, a.Peer, in.unix
		if !target.post(task{kind: taskDo, do: func(l *loop) { l.admit(fd, peer, unix, nil) }}) {
			_ = l.sys.closeFD(fd) // the server ends
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, poller.ErrDescriptors):
		l.shed(in)
	default:
		l.server.log.Warn("accept failed", "error", err)
		l.pause(in)
	}
}

// shed answers EMFILE: a reserve descriptor is given up, so that waiting peers hear a 503 instead of nothing. As long as
// that works, accepting goes on and refuses; it neither spins nor dies.
func (l *loop) shed(in *listener) {
	refusal := l.server.unavailable("descriptors")
	for range acceptsPerTurn {
		health := false
		done, err := in.acceptor.Shed(l.server.atTheDoor(refusal, &health))
		if done {
			l.countTurnedAway(rejectDescriptor, health)
			continue
		}
		if err != nil {
			l.pause(in)
		}
		return
	}
}

// turnAway refuses a connection that was just accepted, without making one of it.
func (l *loop) turnAway(fd int, refusal *wsframe.Refusal, why rejection) {
	health := false
	l.sys.turnAway(fd, l.server.atTheDoor(refusal, &health))
	l.countTurnedAway(why, health)
}

func (l *loop) countTurnedAway(why rejection, health bool) {
	if health {
		why = rejectHealth
	}
	l.runner.tally[countRejected+count(why)]++
}

// pause rests a listener: its level-triggered event would wake the loop again and again.
func (l *loop) pause(in *listener) {
	in.paused = l.clock.read + descriptorPause
	if err := l.sys.pauseListener(in.acceptor.FD(), in.token, true); err != nil {
		l.server.log.Warn("listener can't be paused", "error", err)
	}
}

// resumeListeners wakes those whose rest is over, and says whether some still rest.
func (l *loop) resumeListeners() bool {
	some := false
	for _, in := range l.listeners {
		switch {
		case in.paused == 0 || in.acceptor == nil:
		case l.clock.read < in.paused:
			some = true
		default:
			in.paused = 0
			if err := l.sys.pauseListener(in.acceptor.FD(), in.token, false); err != nil {
				l.server.log.Warn("listener can't be resumed", "error", err)
			}
		}
	}
	return some
}

// closeListeners stops accepting.
func (l *loop) closeListeners() {
	for _, in := range l.listeners {
		if in.acceptor == nil {
			continue
		}
		_ = in.acceptor.Close() // the descriptor is gone in any case
		in.acceptor = nil
	}
}

// admit makes a connection of a descriptor, with what was read of it before. Its first read comes at once, before it is
// registered: in a storm the request is there already, and neither a wait nor a failing read is spent on it.
func (l *loop) admit(fd int, peer netip.AddrPort, unix bool, input []byte) {
	l.owner.check()
	if l.over {
		_ = l.sys.closeFD(fd) // it was on its way here when everything was closed
		l.runner.tally[countRejected+count(rejectDraining)]++
		return
	}
	slot, ok := l.table.acquire()
	if !ok {
		_ = l.sys.closeFD(fd) // 16 million connections on this loop: there is no slot to answer from
		return
	}
	r := l.table.at(slot)
	r.fd = int32(fd)
	r.id.Store(l.ids.Uint64())
	r.setOpened(uint32(l.clock.read / time.Second))
	r.heard.Store(l.now.ms)
	r.beatAt.Store(l.now.ms) // until the upgrade: when the handshake began
	r.controlAt = 0
	about := uint32(phaseHandshake) | uint32(peer.Port())<<16
	if unix {
		about |= flagUnix
	}
	if input != nil {
		about |= flagAdopted
	}
	r.about.Store(about)
	if peer.Addr().Is4() {
		ip := peer.Addr().As4()
		r.peer.Store(uint32(ip[0])<<24 | uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3]))
	}
	if r.peer.Load() == 0 && peer.IsValid() || input != nil {
		shard := l.sides.shard(slot)
		shard.mu.Lock()
		s := shard.ensureLocked(r)
		s.peer = peer
		if input != nil {
			s.left = append(l.buffers.get(len(input)), input...)
		}
		shard.mu.Unlock()
	}
	l.handshakes.Add(1)
	l.server.countHandshake(l, slot, r, 1)
	l.wheel.Schedule(slot, l.tickAfter(l.server.cfg.HandshakeTimeout))
	l.fresh = append(l.fresh, slot)
	l.firstRead(slot, r)
}

// firstRead serves a new connection and registers it.
func (l *loop) firstRead(slot uint32, r *record) {
	r.set(bitHeld | bitIn)
	generation := r.load().generation()
	inline := l.server.inlineBatch > 0
	if inline {
		l.runner.loop, l.runner.now = l, l.now
		l.runner.serve(slot)
	} else {
		l.ready = append(l.ready, slot) // with its loan, whatever becomes of it below
	}
	if err := l.sys.add(int(r.fd), makeToken(l.index, slot, generation)); err != nil {
		l.server.log.Warn("connection can't be registered", "error", err)
		r.setFlag(flagPeerGone)
		l.evict(slot, r, ending{cause: CauseReset, code: wsframe.CloseAbnormal, reason: "reset"})
	}
}
