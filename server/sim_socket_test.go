package server

import (
	"io"
	"syscall"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// simSocket is a connected socket: the server's end of it, and the peer's.
type simSocket struct {
	fd     int
	token  poller.Token
	added  bool
	edge   bool
	unix   bool   // reads may be short although more is there
	user   string // the call that somebody is inside of
	closed bool   // by the server

	in        []byte // from the peer, not yet read
	inMax     int
	fin       bool // the peer ended its stream
	reset     bool
	out       []byte // to the peer, not yet read by it
	outMax    int
	wantsRoom bool
	shut      bool // the server ended its stream
	peerGone  bool // the peer closed: what is written now is answered by a reset
	destroyed bool // the server's close threw unread bytes away: the peer reads a reset
	peerWakes func()
	unwatched bool // it could not be registered

	acceptedAt, lastByteAt, lastReadAt, stirredAt, closedAt, firstWriteAt time.Duration
	lastByteLate                                                          time.Duration // what the world was late by then
}

func (s *simSocket) tellPeer() {
	if s.peerWakes != nil {
		s.peerWakes()
	}
}

// send puts bytes into the server's receive buffer, as many as fit.
func (s *simSocket) send(k *simKernel, p []byte) (int, error) {
	if s.destroyed || s.reset || s.closed || s.fin {
		return 0, syscall.EPIPE
	}
	n := min(len(p), s.inMax-len(s.in))
	if n > 0 {
		s.in = append(s.in, p[:n]...)
		s.lastByteAt = k.clock
		s.stir(k)
	}
	return n, nil
}

// recv takes bytes that the server wrote.
func (s *simSocket) recv(k *simKernel, p []byte) (int, error) {
	n := copy(p, s.out)
	s.out = s.out[n:]
	if s.wantsRoom && s.roomy() {
		s.wantsRoom = false
		s.stir(k)
	}
	switch {
	case n > 0:
		return n, nil
	case s.destroyed || s.reset:
		return 0, syscall.ECONNRESET
	case s.shut:
		return 0, io.EOF
	default:
		return 0, poller.ErrWouldBlock
	}
}

// stir is an edge: the socket tells of a change.
func (s *simSocket) stir(k *simKernel) {
	if s.edge = true; !s.closed {
		s.stirredAt = k.clock
	}
}

func (s *simSocket) endStream(k *simKernel) {
	s.fin = true
	s.stir(k)
}

// resetByPeer drops everything in flight.
func (s *simSocket) resetByPeer(k *simKernel) {
	s.reset, s.out = true, nil
	s.stir(k)
}

// closeByPeer is close(2) by a peer that may have left bytes unread.
func (s *simSocket) closeByPeer(k *simKernel) {
	if len(s.out) > 0 {
		s.resetByPeer(k)
		return
	}
	s.peerGone = true
	s.endStream(k)
}
