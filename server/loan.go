package server

// A loan is the right to touch one connection's input, output and decoder. It is a bit in one atomic word that also holds the
// generation of the slot, so that checking "is this still the same connection?" and taking the loan are one step: two steps let
// thousands of loans slip onto a newer connection.
//
//	63            32 31         11  10     9    8    7       6       5     4    3   2   1  0
//	[  generation   ][  unused    ][LINGER LIVE BUSY STOPPED BLOCKED CLOSE SEND HUP OUT IN HELD]
//
//	HELD     somebody has the loan
//	IN…CLOSE work to be done; a bit stays until its work is taken, since one "again" bit loses the end of a stream when data and
//	         FIN come in one event
//	BLOCKED  the socket is full: only an OUT event helps
//	STOPPED  too much is unsent: input waits
//	BUSY     a handler that may block has a message: input waits
//	LIVE     upgraded and not closing: heartbeats go out, Send is accepted
//	LINGER   the loop keeps the loan until the connection is gone
//
// The functions below are the whole state machine. They are pure, so that the model in loan_model_test.go can walk through every
// interleaving of the very code that runs; record applies them with compare-and-swap.
type word uint64

const (
	bitHeld word = 1 << iota
	bitIn
	bitOut
	bitHup
	bitSend
	bitClose
	bitBlocked
	bitStopped
	bitBusy
	bitLive
	bitLinger

	bitsInput = bitIn | bitHup
	bitsWork  = bitIn | bitOut | bitHup | bitSend | bitClose
	bitsAll   = bitLinger<<1 - 1

	generationShift = 32
)

func (w word) generation() uint32 { return uint32(w >> generationShift) }

// owed are the bits of work that a holder must do now: input waits while the connection is stopped or busy.
func (w word) owed() word {
	if w&(bitStopped|bitBusy) != 0 {
		return w & bitsWork &^ bitsInput
	}
	return w & bitsWork
}

// event adds what the poller saw. Only the loop calls it. lend says that the caller now has the loan.
func (w word) event(ready word) (next word, lend bool) {
	if w&(bitHeld|bitBlocked) == 0 {
		// Writable, and nobody waits for it. In any other state ignoring it would lose a write: the holder may be about to find
		// the socket full.
		ready &^= bitOut
	}
	if ready == 0 {
		return w, false
	}
	next = w | ready
	if w&bitHeld != 0 {
		return next, false // its holder serves it
	}
	if ready&^bitsInput == 0 && w&(bitStopped|bitBusy) != 0 {
		return next, false // a debt, served by whoever clears the bit
	}
	return next | bitHeld, true
}

// take hands the holder the work that is owed, before it looks at the socket: whatever comes later raises its bit again. CLOSE is
// not taken, the loop answers it.
func (w word) take() (next, taken word) {
	taken = w.owed() &^ bitClose
	return w &^ taken, taken
}

// release gives the loan back, unless work came in meanwhile.
func (w word) release() (next word, released bool) {
	if w.owed() != 0 {
		return w, false
	}
	return w &^ bitHeld, true
}

// send tells that something was added to the outbox. lend: the caller flushes it. A blocked socket is not tried: its OUT event
// flushes everything.
func (w word) send() (next word, lend bool) {
	next = w | bitSend
	if w&(bitHeld|bitBlocked) != 0 {
		return next, false
	}
	return next | bitHeld, true
}

// closing asks for the end of the connection. lend: the caller passes the loan to the loop.
func (w word) closing() (next word, lend bool) {
	next = (w | bitClose) &^ bitLive
	return next | bitHeld, w&bitHeld == 0
}

// open makes the connection live, unless it is to be closed already.
func (w word) open() (next word, opened bool) {
	if w&bitClose != 0 {
		return w, false
	}
	return w | bitLive, true
}

// idle tells that the handler is done. lend: input waited for it, the caller passes the loan to the loop.
func (w word) idle() (next word, lend bool) {
	next = w &^ bitBusy
	if next&bitHeld != 0 || next.owed()&bitsInput == 0 {
		return next, false
	}
	return next | bitHeld, true
}

// borrow takes the loan for the loop's own purpose (a heartbeat, the last look before an expiry).
func (w word) borrow() (next word, lent bool) {
	if w&bitHeld != 0 {
		return w, false
	}
	return w | bitHeld, true
}
