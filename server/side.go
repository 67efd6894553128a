package server

import (
	"net/netip"
	"sync"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// side is what few connections need at a time: unsent bytes, half a frame, an address that doesn't fit the record, what the
// application keeps. It exists only while there is something in it.
type side struct {
	// Guarded by the shard's lock.
	pending []byte  // whole frames that Send appended, not yet taken by the holder
	end     *ending // why the connection ends; the first one counts. Nil: it goes on
	user    string
	value   any
	peer    netip.AddrPort // where the record's 32 bits are not enough
	verdict *verdict       // what Config.Upgrade said, until the holder has read it
	waiting []delivery     // what the saturated handler pool didn't take

	// Loan-only.
	sending    []byte // whole frames, of which sent bytes are gone
	sent       int
	left       []byte // input that is not decoded yet: half a request head, or what a stopped or busy connection has left
	scanned    int    // of left, how far the end of the head was looked for
	decoder    wsframe.Decoder
	limits     *wsframe.Limits // where Accept.MessageSizeLimit differs from the server's
	request    *Request        // from the upgrade until Open was told
	paidAt     uint64          // connection time when the data messages are paid off, µs; where their rate is limited
	progressAt uint32          // connection time when the socket last took unsent bytes, ms
}

// ending is why a connection ends and what its peer is told.
type ending struct {
	cause  Cause
	reject rejection // before the upgrade
	code   wsframe.CloseCode
	reason string // slug[; retry-after=SECONDS]
	reply  []byte // instead of a Close frame: the refusal of a handshake
}

// sideShard is one part of a loop's side table: its own lock, so that senders to different connections seldom meet.
type sideShard struct {
	mu    sync.Mutex
	items []*side  // by record.side - 1
	free  []uint32 // indexes of items that are nil
	spare []*side  // emptied ones, at most sideSpares

	// Guarded by mu too: what senders count.
	messagesOut uint64

	_ [40]byte // two shards never share a cache line
}

const sideSpares = 4

// sides is the side table of one loop.
type sides struct {
	buffers  *buffers
	assembly *buffers
	shards   [sideShards]sideShard
}

func (t *sides) shard(slot uint32) *sideShard { return &t.shards[slot%sideShards] }

// ensureLocked returns the connection's side, which it makes if there is none.
func (s *sideShard) ensureLocked(r *record) *side {
	if index := r.side.Load(); index != 0 {
		return s.items[index-1]
	}
	var it *side
	if last := len(s.spare) - 1; last >= 0 {
		it = s.spare[last]
		s.spare = s.spare[:last]
	} else {
		it = new(side)
	}
	var index uint32
	if last := len(s.free) - 1; last >= 0 {
		index = s.free[last]
		s.free = s.free[:last]
		s.items[index] = it
	} else {
		index = uint32(len(s.items))
		s.items = append(s.items, it)
	}
	r.side.Store(index + 1)
	return it
}

// ofLocked returns the connection's side, or nil.
func (s *sideShard) ofLocked(r *record) *side {
	if index := r.side.Load(); index != 0 {
		return s.items[index-1]
	}
	return nil
}

// of returns the side for its loan-only fields: only the holder of the loan may call it.
func (t *sides) of(slot uint32, r *record) *side {
	if r.side.Load() == 0 {
		return nil
	}
	s := t.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ofLocked(r)
}

// ensure is of for a holder who is about to put something there.
func (t *sides) ensure(slot uint32, r *record) *side {
	s := t.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ensureLocked(r)
}

// trim gives the side back if nothing is in it; the holder calls it when it is done. now is connection time, µs.
func (t *sides) trim(slot uint32, r *record, now uint64) {
	s := t.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.ofLocked(r); it != nil && it.paidAt <= now && it.emptyLocked() {
		t.recycle(it)
		s.dropLocked(r, it)
	}
}

// drop gives the side back whatever is in it: the connection is gone.
func (t *sides) drop(slot uint32, r *record) {
	s := t.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.ofLocked(r); it != nil {
		t.recycle(it)
		s.dropLocked(r, it)
	}
}

func (s *sideShard) dropLocked(r *record, it *side) {
	index := r.side.Load() - 1
	s.items[index] = nil
	s.free = append(s.free, index)
	r.side.Store(0)
	*it = side{}
	if len(s.spare) < sideSpares {
		s.spare = append(s.spare, it)
	}
}

// recycle gives the buffers of a side back.
func (t *sides) recycle(it *side) {
	for _, buf := range [...][]byte{it.pending, it.sending, it.left} {
		if buf != nil {
			t.buffers.put(buf)
		}
	}
	if buf := it.decoder.Release(); buf != nil {
		t.assembly.put(buf)
	}
	it.pending, it.sending, it.left = nil, nil, nil
}

// emptyLocked says that nothing would be lost with the side.
func (it *side) emptyLocked() bool {
	return len(it.pending) == 0 && len(it.sending) == 0 && len(it.left) == 0 && it.decoder.Idle() && it.end == nil &&
		it.user == "" && it.value == nil && !it.peer.IsValid() && it.verdict == nil && len(it.waiting) == 0 &&
		it.limits == nil && it.request == nil
}
