package server

import (
	"sync/atomic"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// record is all that an idle connection costs besides its timer and its kernel socket: 64 bytes without a pointer, so that the
// collector never looks at it. Fields written under a loan happen before the next loan, by way of word.
type record struct {
	word atomic.Uint64 // see loan.go

	// Atomic: set before the connection is live, or by the loan's holder; read by anybody.
	id       atomic.Uint64
	heard    atomic.Uint32 // connection time of the last readable event, ms; written by the loop
	unsent   atomic.Uint32 // bytes in the outbox
	side     atomic.Uint32 // index in the shard's side table + 1; 0: none
	peer     atomic.Uint32 // IPv4 address; 0: the side table has it
	since    atomic.Uint32 // seconds since the server began 28 bits (eight years) | deflate 4
	interval atomic.Uint32 // of heartbeats, ms; 0: none are sent
	timeout  atomic.Uint32 // ms; 0: never expires
	rtt      atomic.Uint32 // smoothed round trip and its variation, 16 bits each, in 100 µs
	about    atomic.Uint32 // port 16 bits | flags 10 | mode 2 | phase 4

	// Loop-only to write; the holder compares an answer with it. In a free slot it is the next free one.
	beatAt atomic.Uint32 // connection time of the last heartbeat, or of the last arming after traffic, ms

	// Loan-only.
	controlAt uint32 // when the peer's control frames are paid off, in 1/65536 s
	fd        int32
}

// phase of a connection, in record.about; loan-only.
type phase uint32

const (
	phaseHandshake phase = iota // the request head is read
	phaseUpgrade                // Config.Upgrade has the request
	phaseOpen                   // frames
	phaseFlush                  // the Close frame or a refusal is on its way out
	phaseDrain                  // half-closed: input is read and dropped until the peer's end
	phaseGone                   // to be reaped at the end of the turn
)

// Flags in record.about, loan-only.
const (
	flagBusy     uint32 = 1 << (6 + iota) // traffic, and not only answers, put the heartbeat off more than once in a row
	flagStamped                           // text heartbeats say when they were sent: who asked for them understands that
	flagBeatOut                           // a heartbeat is unanswered
	flagAnswered                          // and since it was answered the peer has said nothing else
	flagAdopted                           // came through Server.Adopt
	flagUnix                              // a Unix socket: short reads don't mean that it is empty
	flagPeerGone                          // end of stream or reset was seen
	flagOpened                            // it became a WebSocket
	flagEntered                           // admission counts it
	flagQuiet                             // between the last two heartbeats there was no traffic but answers
)

func (r *record) phase() phase { return phase(r.about.Load() & 0xf) }

func (r *record) setPhase(p phase) { r.about.Store(r.about.Load()&^0xf | uint32(p)) }

func (r *record) mode() HeartbeatMode { return HeartbeatMode(r.about.Load() >> 4 & 0x3) }

func (r *record) setMode(m HeartbeatMode) { r.about.Store(r.about.Load()&^0x30 | uint32(m)<<4) }

func (r *record) flag(f uint32) bool { return r.about.Load()&f != 0 }

func (r *record) setFlag(f uint32) { r.about.Store(r.about.Load() | f) }

func (r *record) clearFlag(f uint32) { r.about.Store(r.about.Load() &^ f) }

const sinceMask = 1<<28 - 1

// openedAt is when the connection was accepted, in seconds since the server began.
func (r *record) openedAt() uint32 { return r.since.Load() & sinceMask }

// setOpened begins a connection: without compression, until its upgrade agrees on it.
func (r *record) setOpened(seconds uint32) { r.since.Store(seconds & sinceMask) }

// deflate is what was agreed on about compression.
func (r *record) deflate() wsframe.Deflate { return wsframe.Deflate(r.since.Load() >> 28) }

func (r *record) setDeflate(d wsframe.Deflate) { r.since.Store(r.openedAt() | uint32(d)<<28) }

func (r *record) port() uint16 { return uint16(r.about.Load() >> 16) }

func (r *record) load() word { return word(r.word.Load()) }

func (r *record) swap(old, next word) bool {
	return old == next || r.word.CompareAndSwap(uint64(old), uint64(next))
}

// set and clear change bits that belong to the holder (BLOCKED, STOPPED, BUSY, LIVE, LINGER) or raise work for itself.
func (r *record) set(bits word)   { r.word.Or(uint64(bits)) }
func (r *record) clear(bits word) { r.word.And(^uint64(bits)) }

// step applies a transition until no other step came between, and tells whether it lent (or released) the loan.
func (r *record) step(transition func(word) (word, bool)) bool {
	for {
		w := r.load()
		next, ok := transition(w)
		if r.swap(w, next) {
			return ok
		}
	}
}

// stepIf is step for somebody who only knows the generation: false when the slot has a newer connection.
func (r *record) stepIf(generation uint32, transition func(word) (word, bool)) bool {
	for {
		w := r.load()
		if w.generation() != generation {
			return false
		}
		next, ok := transition(w)
		if r.swap(w, next) {
			return ok
		}
	}
}

func (r *record) take() word {
	for {
		w := r.load()
		next, taken := w.take()
		if r.swap(w, next) {
			return taken
		}
	}
}

// Tokens: 8 bits loop | 24 bits slot | 32 bits generation. Generations begin at 1, so that no token of a connection is ever one
// of those that loops use for their listeners (generation 0).
func makeToken(loop int, slot, generation uint32) poller.Token {
	return poller.Token(uint64(loop)<<56 | uint64(slot)<<32 | uint64(generation))
}

func tokenLoop(tok poller.Token) int          { return int(tok >> 56) }
func tokenSlot(tok poller.Token) uint32       { return uint32(tok>>32) & (1<<24 - 1) }
func tokenGeneration(tok poller.Token) uint32 { return uint32(tok) }

// page is a run of records. Pages never move and are never given back: a slot's memory is reused by the next connection.
type page [pageRecords]record

// table is the connections of one loop. Any goroutine may look a slot up; the rest is the loop's.
type table struct {
	// Atomic: a slice that grows would be a race with lookups, so the directory is fixed.
	pages [pagesMax]atomic.Pointer[page]
	slots atomic.Uint32 // slots ever used: 0..slots-1 have a record

	// Owned by the loop. Free slots are a list through beatAt, first in, first out, so that a slot rests as long as it can.
	freeHead, freeTail uint32 // slot + 1; 0: none
	used               int
}

// at finds the record of a slot that is below slots.
func (t *table) at(slot uint32) *record {
	return &t.pages[slot/pageRecords].Load()[slot%pageRecords]
}

// find is at for a slot out of a token that may be anything.
func (t *table) find(slot uint32) *record {
	if slot >= t.slots.Load() {
		return nil
	}
	return t.at(slot)
}

// acquire takes a free slot, or false when all 16 million are in use. Its generation is already raised.
func (t *table) acquire() (uint32, bool) {
	if t.freeHead != 0 {
		slot := t.freeHead - 1
		t.freeHead = t.at(slot).beatAt.Load()
		if t.freeHead == 0 {
			t.freeTail = 0
		}
		t.used++
		return slot, true
	}
	slot := t.slots.Load()
	if slot >= pagesMax*pageRecords {
		return 0, false
	}
	if slot%pageRecords == 0 {
		t.pages[slot/pageRecords].Store(new(page))
	}
	t.at(slot).word.Store(1 << generationShift)
	t.slots.Store(slot + 1)
	t.used++
	return slot, true
}

// release frees a slot: its generation is raised, and every token of the old one is stale from here on.
func (t *table) release(slot uint32) {
	r := t.at(slot)
	generation := r.load().generation() + 1
	if generation == 0 {
		generation = 1 // generation 0 is not a connection's
	}
	r.fd = -1
	r.beatAt.Store(0)
	r.word.Store(uint64(generation) << generationShift)
	if t.freeTail != 0 {
		t.at(t.freeTail - 1).beatAt.Store(slot + 1)
	} else {
		t.freeHead = slot + 1
	}
	t.freeTail = slot + 1
	t.used--
}
