package server

import (
	"errors"

	"github.com/pulsewheel/pulsewheel/poller"
)

// flush writes the outbox and the replies of the loan, all in one system call where the socket takes them. What it doesn't take
// becomes the head of the outbox, and BLOCKED is set: after the write, so that the edge that clears it can't have passed.
func (x *runner) flush() {
	r := x.r
	if len(x.out) == 0 && r.side.Load() == 0 {
		return
	}
	progress := false
	for {
		s, first, more := x.loop.sides.output(x.slot, r)
		if len(first) == 0 && len(x.out) == 0 {
			break
		}
		replies := len(x.out)
		n, err := x.write(first)
		if err != nil && !errors.Is(err, poller.ErrWouldBlock) {
			x.out = x.out[:0]
			x.gone(err)
			return
		}
		progress = progress || n > 0
		x.tally[countBytesOut] += uint64(n)
		x.settle(s, first, n)
		x.out = x.out[:0]
		if err != nil {
			x.block(progress)
			return
		}
		if n == len(first)+replies && !more {
			break
		}
		// After a short write the socket is asked once more: only EAGAIN promises an edge on every kind of socket.
	}
	if r.load()&(bitBlocked|bitStopped) != 0 {
		r.clear(bitBlocked | bitStopped)
	}
}

// write sends what is unsent and the replies behind it.
func (x *runner) write(first []byte) (int, error) {
	switch {
	case len(x.out) == 0:
		return x.loop.sys.write(int(x.r.fd), first)
	case len(first) == 0:
		return x.loop.sys.write(int(x.r.fd), x.out)
	default:
		x.bufs = [2][]byte{first, x.out}
		return x.loop.sys.writev(int(x.r.fd), x.bufs[:])
	}
}

// settle books n written bytes: first those of the outbox, then those of the replies. Replies that are left join the outbox.
func (x *runner) settle(s *side, first []byte, n int) {
	fromOutbox := min(n, len(first))
	if fromOutbox > 0 {
		x.r.unsent.Add(^uint32(fromOutbox - 1))
		s.sent += fromOutbox
		if s.sent == len(s.sending) {
			x.loop.buffers.put(s.sending)
			s.sending, s.sent = nil, 0
		}
	}
	if written := n - fromOutbox; written < len(x.out) {
		if s == nil {
			s = x.loop.sides.ensure(x.slot, x.r)
		}
		// What was written of a reply stays in front of its rest, so that the outbox always begins at a frame.
		s.sent += written
		s.sending = x.loop.buffers.appendTo(s.sending, x.out)
		x.r.unsent.Add(uint32(len(x.out) - written))
	}
}

// block notes that the socket is full.
func (x *runner) block(progress bool) {
	s := x.loop.sides.of(x.slot, x.r)
	if progress || x.r.load()&bitBlocked == 0 {
		// The loop's time, not the runner's: the loop compares it with its own, and a sender's clock may be ahead of that.
		s.progressAt = x.loop.connMillis.Load()
	}
	x.r.set(bitBlocked)
	bound := x.server.policy.Load().maxBackpressure
	unsent := int(x.r.unsent.Load())
	switch {
	case bound < 0:
	case unsent > bound/2:
		x.r.set(bitStopped)
	case progress:
		// Only progress lifts the stop: without it, who needs more room than half of the bound would try again at once, for ever.
		x.r.clear(bitStopped)
	}
}

// output returns what is to be written next of the outbox: the rest of what the holder took before, or else all that senders
// appended since. more says that there is more behind it.
func (t *sides) output(slot uint32, r *record) (s *side, first []byte, more bool) {
	if r.side.Load() == 0 {
		return nil, nil, false
	}
	shard := t.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	s = shard.ofLocked(r)
	if s == nil {
		return nil, nil, false
	}
	if len(s.sending) == 0 {
		s.sending, s.sent, s.pending = s.pending, 0, nil
	}
	return s, s.sending[s.sent:], len(s.pending) > 0
}

// appendFrame adds one whole frame, in two pieces, to a connection's outbox. Over the bound it adds nothing and answers
// ErrBackpressure; an empty outbox takes one message of any size.
func (l *loop) appendFrame(slot uint32, r *record, generation uint32, header, payload []byte) error {
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	bytes := len(header) + len(payload)
	if err := l.refuses(r, generation, bytes); err != nil {
		return err
	}
	s := shard.ensureLocked(r)
	s.pending = append(append(l.buffers.extend(s.pending, len(s.pending)+bytes), header...), payload...)
	r.unsent.Add(uint32(bytes))
	shard.messagesOut++
	return nil
}

// refuses says why a frame of so many bytes wouldn't be taken now; nil: it would.
func (l *loop) refuses(r *record, generation uint32, bytes int) error {
	if w := r.load(); w.generation() != generation || w&bitLive == 0 {
		return ErrClosed
	}
	unsent := int(r.unsent.Load())
	if bound := l.server.policy.Load().maxBackpressure; bound >= 0 && unsent > 0 && unsent+bytes > bound {
		return ErrBackpressure
	}
	return nil
}
