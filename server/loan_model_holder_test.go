package server

import (
	"reflect"
	"strings"
	"testing"
)

// The steps of the holder of a loan in the model of loan_model_test.go, and the tests.

func (m *loanModel) takeWork(n *loanState) {
	if n.holder == loanSender {
		n.word &^= bitSend | bitOut
		n.at = atFlush
		return
	}
	next, taken := m.rules.take(n.word)
	n.taken, n.at = taken, atRead
	if !m.rules.takeLate {
		n.word = next
	}
}

// readInput is runner.input: what was left, then the socket, and on to its end only if it was hung up.
func (m *loanModel) readInput(n *loanState) {
	if n.taken&bitsInput == 0 {
		n.at = atFlush
		return
	}
	if n.left > 0 && m.consume(n) {
		n.at = atLeave
		return
	}
	got := n.inbox
	n.inbox = 0
	switch {
	case got == 0 && (n.fin || n.reset):
		n.eof = true
		m.conclude(n)
		n.at = atFlush
	case got == 0:
		n.at = atFlush
	default:
		n.read += got
		n.left += got
		switch {
		case m.consume(n):
			n.at = atLeave
		case n.taken&bitHup == 0:
			n.at = atFlush // a short read: nothing more was there
		}
	}
}

// consume decodes what was read, until the outbox is too full or the handler busy. true: the rest is left.
func (m *loanModel) consume(n *loanState) (halted bool) {
	if !n.upgraded {
		if n.timedOut {
			m.fail(m.from, "upgraded behind its deadline")
		}
		n.word, _ = m.rules.open(n.word)
		if n.upgraded = true; !m.story.blocking { // else it stands for the call of Open
			n.left--
			n.consumed++
		}
	}
	if m.story.blocking {
		if n.handler > 0 {
			m.fail(m.from, "a blocking handler was called a second time")
		}
		n.word |= bitBusy
		n.handler += n.left
		n.consumed += n.left
		n.left = 0
		return true
	}
	for n.left > 0 {
		if m.story.echo {
			if n.outbox >= modelOutboxMax {
				n.word |= bitStopped
				return true
			}
			n.outbox++
			n.appended++
			next, lend := m.rules.send(n.word)
			if n.word = next; lend {
				m.fail(m.from, "lent twice")
			}
		}
		n.left--
		n.consumed++
	}
	return false
}

// conclude is the end of a connection whose peer is gone.
func (m *loanModel) conclude(n *loanState) {
	n.peerGone = true
	next, lend := m.rules.closing(n.word)
	if n.word = next; lend {
		m.fail(m.from, "lent twice")
	}
}

// flush is one system call of runner.flush: the socket takes one message, then it is full.
func (m *loanModel) flush(n *loanState) {
	linger := n.holder == loanLinger
	switch {
	case n.outbox == 0:
		if n.word &^= bitStopped; !m.rules.blockedKept {
			n.word &^= bitBlocked
		}
		if m.afterFlush(n); linger {
			n.at = atShut
		}
	case m.rules.blockedEarly && n.word&bitBlocked == 0:
		n.word |= bitBlocked
	case n.reset:
		m.conclude(n)
		if m.afterFlush(n); linger {
			n.holder = loanGone
		}
	case !n.full:
		n.outbox--
		n.written++
		n.full, n.progress = true, true
	case m.rules.blockedEarly:
		n.wantsRoom = true
		m.stopOrGoOn(n)
		m.afterFlush(n)
	default:
		n.wantsRoom, n.at = true, atBlock
	}
}

// stopOrGoOn is what runner.block decides about input.
func (m *loanModel) stopOrGoOn(n *loanState) {
	switch {
	case n.outbox > modelOutboxMax/2:
		n.word |= bitStopped
	case n.progress:
		n.word &^= bitStopped
	}
}

func (m *loanModel) afterFlush(n *loanState) {
	n.progress = false
	switch {
	case n.holder == loanLinger:
		n.at = atRest
	case n.holder == loanDecoder && m.rules.takeLate:
		n.at = atTakeLate
	default:
		n.at = atRelease
	}
}

// releaseLoan ends a loan, or goes on with what came meanwhile.
func (m *loanModel) releaseLoan(n *loanState) {
	next, released := m.rules.release(n.word)
	n.word = next
	n.taken = 0
	switch {
	case released:
		n.holder, n.at = loanFree, 0
	case n.holder == loanSender && n.word&(bitsInput|bitClose) == 0:
		n.at = atTake
	case n.holder == loanDecoder:
		n.at = atCheck
	default: // a sender never runs handlers, and the loop's own borrow ends here
		n.holder, n.at = loanRing, atCheck
	}
}

// quiescent judges a state in which nobody can do anything: nothing may be undone.
func (m *loanModel) quiescent(s loanState) {
	data := int8(strings.Count(m.story.peer, "d"))
	ends := strings.ContainsAny(m.story.peer, "fr") || m.story.closes > 0 || s.timedOut
	switch {
	case s.holder != loanFree:
		m.fail(m.from, "nobody runs the loan")
	case ends && (s.closed != 1 || s.word != 2<<generationShift):
		m.fail(m.from, "the end was lost")
	case !ends && s.word != modelGeneration|bitLive:
		m.fail(m.from, "bits are left over")
	case !strings.Contains(m.story.peer, "r") && m.story.closes == 0 && !s.timedOut && (s.read != data || s.consumed != data || s.left != 0):
		m.fail(m.from, "input was lost")
	case m.story.blocking && s.handled != s.consumed:
		m.fail(m.from, "the handler was forgotten")
	case !s.peerGone && s.written != s.appended:
		m.fail(m.from, "output was lost")
	}
}

// loanStories cover every bit of the word; together they have 943,000 states.
func loanStories() []loanStory {
	return []loanStory{
		{name: "data and end", peer: "ddf", sends: 1},
		{name: "data and beats", peer: "dd", sends: 1, beats: 1, yields: 1},
		{name: "data, end, beats", peer: "ddf", sends: 1, beats: 1, yields: 1},
		{name: "echo", peer: "ddd", sends: 1, echo: true, yields: 1},
		{name: "echo and end", peer: "dddf", sends: 1, echo: true},
		{name: "blocking handler", peer: "ddd", sends: 1, blocking: true, yields: 1},
		{name: "blocking handler and end", peer: "ddf", sends: 1, beats: 1, blocking: true},
		{name: "reset", peer: "dr", sends: 2, beats: 1, echo: true},
		{name: "application closes", peer: "d", sends: 2, beats: 1, closes: 1},
		{name: "application closes a busy one", peer: "ddf", sends: 1, closes: 1, blocking: true},
		{name: "application closes an echo", peer: "df", sends: 1, beats: 1, yields: 1, closes: 1, echo: true},
		{name: "application closes, reset", peer: "dr", sends: 1, beats: 1, closes: 1},
		{name: "upgrade", peer: "dd", sends: 1, closes: 1, upgrade: true},
		{name: "upgrade of a blocking one", peer: "ddf", sends: 1, blocking: true, upgrade: true},
	}
}

func TestLoanModel(t *testing.T) {
	for _, story := range loanStories() {
		t.Run(story.name, func(t *testing.T) {
			t.Parallel()
			m := &loanModel{rules: realRules(), story: story}
			if fault := m.explore(); fault != "" {
				t.Fatal(fault)
			}
			t.Logf("%d states", len(m.states))
		})
	}
}

// TestLoanModelCanFail puts wrong functions into the model: each must lose something in some story. Those that lose nothing
// stand here as well, since that is worth knowing: they are only slower.
func TestLoanModelCanFail(t *testing.T) {
	tests := []struct {
		name     string
		wrong    func(r *loanRules)
		harmless bool
	}{
		{name: "data and hang-up are one bit", wrong: func(r *loanRules) {
			r.event = func(w, ready word) (word, bool) {
				if w&bitHeld != 0 && ready&bitHup != 0 {
					ready = ready&^bitHup | bitIn
				}
				return w.event(ready)
			}
		}},
		{name: "an event for a held connection is dropped", wrong: func(r *loanRules) {
			r.event = func(w, ready word) (word, bool) {
				if w&bitHeld != 0 {
					return w, false
				}
				return w.event(ready)
			}
		}},
		{name: "writable is ignored unless blocked, held or not", wrong: func(r *loanRules) {
			r.event = func(w, ready word) (word, bool) {
				if w&bitBlocked == 0 {
					ready &^= bitOut
				}
				return w.event(ready)
			}
		}},
		{name: "an event lends a held connection", wrong: func(r *loanRules) {
			r.event = func(w, ready word) (word, bool) {
				next, _ := w.event(ready)
				return next, next&bitHeld != 0
			}
		}},
		{name: "take forgets that the handler is busy", wrong: func(r *loanRules) {
			r.take = func(w word) (word, word) {
				taken := w & (bitsWork &^ bitClose)
				return w &^ taken, taken
			}
		}},
		{name: "take after the look at the socket", wrong: func(r *loanRules) { r.takeLate = true }},
		{name: "take clears all work but serves what is owed", wrong: func(r *loanRules) {
			r.take = func(w word) (word, word) {
				_, taken := w.take()
				return w &^ (bitsWork &^ bitClose), taken
			}
		}},
		{name: "release forgets sends", wrong: func(r *loanRules) { r.release = releaseWithout(bitSend) }},
		{name: "release forgets input", wrong: func(r *loanRules) { r.release = releaseWithout(bitIn) }},
		{name: "release forgets room", wrong: func(r *loanRules) { r.release = releaseWithout(bitOut) }},
		{name: "release forgets the closing", wrong: func(r *loanRules) { r.release = releaseWithout(bitClose) }},
		{name: "release waits for debts that nobody serves", wrong: func(r *loanRules) {
			r.release = func(w word) (word, bool) { return w &^ bitHeld, w&(bitsWork&^bitsInput) == 0 }
		}},
		{name: "a halted holder leaves nothing", wrong: func(r *loanRules) { r.leaveNothing = true }},
		{name: "send lends a held connection", wrong: func(r *loanRules) {
			r.send = func(w word) (word, bool) { return w | bitSend | bitHeld, true }
		}},
		{name: "send leaves a free connection alone", wrong: func(r *loanRules) {
			r.send = func(w word) (word, bool) { return w | bitSend, false }
		}},
		{name: "idle forgets the debt", wrong: func(r *loanRules) {
			r.idle = func(w word) (word, bool) { return w &^ bitBusy, false }
		}},
		{name: "idle leaves busy", wrong: func(r *loanRules) {
			r.idle = func(w word) (word, bool) { return w, false }
		}},
		{name: "closing lends a held connection", wrong: func(r *loanRules) {
			r.closing = func(w word) (word, bool) { return (w | bitClose | bitHeld) &^ bitLive, true }
		}},
		{name: "closing never lends", wrong: func(r *loanRules) {
			r.closing = func(w word) (word, bool) { return (w | bitClose) &^ bitLive, false }
		}},
		{name: "borrow takes a held connection", wrong: func(r *loanRules) {
			r.borrow = func(w word) (word, bool) { return w | bitHeld, true }
		}},
		{name: "the generation is not looked at", wrong: func(r *loanRules) { r.stale = true }},
		{name: "a handshake times out while it is upgraded", wrong: func(r *loanRules) { r.deadlineHeld = true }},
		{name: "an emptied outbox stays blocked", wrong: func(r *loanRules) { r.blockedKept = true }},

		// A hang-up never comes without the readable bit, and is taken together with it.
		{name: "release forgets hang-up", harmless: true, wrong: func(r *loanRules) { r.release = releaseWithout(bitHup) }},
		{name: "blocked before the write", harmless: true, wrong: func(r *loanRules) { r.blockedEarly = true }},
		{name: "send lends a blocked connection", harmless: true, wrong: func(r *loanRules) {
			r.send = func(w word) (word, bool) { return w | bitSend | bitHeld, w&bitHeld == 0 }
		}},
		{name: "an event lends a busy connection", harmless: true, wrong: func(r *loanRules) {
			r.event = func(w, ready word) (word, bool) {
				next, lend := w.event(ready)
				if next != w && next&bitHeld == 0 {
					return next | bitHeld, true
				}
				return next, lend
			}
		}},
		{name: "writable is never ignored", harmless: true, wrong: func(r *loanRules) {
			r.event = func(w, ready word) (word, bool) {
				next, lend := (w | bitBlocked).event(ready)
				return next&^bitBlocked | w&bitBlocked, lend
			}
		}},
	}
	longest := 3
	if reflect.TypeFor[owner]().Size() > 0 {
		longest = 2 // with the race detector, which has nothing to see here, a state costs ten times as much
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			found := ""
			for _, story := range loanStories() {
				if test.harmless && len(story.peer) > longest {
					continue // the longest take most of the time and tell nothing more
				}
				m := &loanModel{rules: realRules(), story: story}
				test.wrong(&m.rules)
				if fault := m.explore(); fault != "" {
					found = story.name + ": " + fault
					break
				}
			}
			switch {
			case test.harmless && found != "":
				t.Errorf("it was taken for harmless, but %s", found)
			case !test.harmless && found == "":
				t.Error("nothing was lost")
			}
			t.Log(found)
		})
	}
}

// releaseWithout is a release that doesn't see some of the work.
func releaseWithout(bits word) func(w word) (word, bool) {
	return func(w word) (word, bool) {
		if (w &^ bits).owed() != 0 {
			return w, false
		}
		return w &^ bitHeld, true
	}
}
