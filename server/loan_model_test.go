package server

import (
	"fmt"
	"strings"
)

// Goal: no interleaving of peer, kernel, loop, decoder, sender, handler and application loses a bit of work, lends a connection
// twice, or touches the connection that has the slot next.
//
// Method: every actor is cut into its atomic steps, and a breadth-first search visits every state that any order of steps can
// reach. The steps call the functions of loan.go themselves. A state in which nobody can do anything must have nothing left to do.
// The second half of the proof is that the model can fail: wrong functions must lose something in it.

// loanRules are the functions of loan.go, and the order in which their callers use them, so that a test can put a wrong one in.
type loanRules struct {
	event   func(w, ready word) (word, bool)
	take    func(w word) (word, word)
	release func(w word) (word, bool)
	send    func(w word) (word, bool)
	closing func(w word) (word, bool)
	open    func(w word) (word, bool)
	idle    func(w word) (word, bool)
	borrow  func(w word) (word, bool)

	takeLate     bool // the work is taken after the look at the socket
	blockedEarly bool // BLOCKED is set before the write
	blockedKept  bool // and an emptied outbox doesn't clear it
	stale        bool // nobody looks at the generation
	deadlineHeld bool // the deadline of a handshake doesn't wait for the holder of the loan
	leaveNothing bool // a halted holder doesn't raise the work again that it took
}

func realRules() loanRules {
	return loanRules{
		event: word.event, take: word.take, release: word.release, send: word.send,
		closing: word.closing, open: word.open, idle: word.idle, borrow: word.borrow,
	}
}

// loanStory is what happens to the one connection of the model.
type loanStory struct {
	name     string
	peer     string // its steps: d data, f end of stream, r reset
	sends    int8   // messages that the application sends
	beats    int8   // heartbeats
	yields   int8   // loans whose budget is spent
	closes   int8   // 1: the application closes the connection
	echo     bool   // the handler is inline and answers each message
	blocking bool   // the handler may block
	upgrade  bool   // the first data is the request, and it has a deadline
}

// Who has the loan.
const (
	loanFree    int8 = iota
	loanDecoder      // a runner in serve, on the loop or in the pool
	loanSender       // flushElsewhere
	loanBeat         // the loop's own borrow
	loanRing         // nobody runs it: it waits in the loop's ring, or for it
	loanEnding       // it waits for the loop to begin the closing
	loanLinger       // the closing
	loanGone         // to be reaped
)

// Where the holder is.
const (
	atCheck int8 = iota
	atTake
	atRead
	atLeave
	atFlush
	atBlock
	atTakeLate
	atRelease
	atClear
	atShut
	atDrain
	atRest // a closing waits for an event
)

const modelGeneration = word(1) << generationShift

// modelOutboxMax is the bound of the outbox in messages; above half of it input stops.
const modelOutboxMax = 2

// loanState is one state of the whole. It is comparable, so that a map finds the states that were seen.
type loanState struct {
	word word

	// Peer and kernel.
	peer                      int8 // steps done
	inbox                     int8 // data in the socket
	fin, reset, shut          bool // end of the peer's stream, reset, end of ours
	edge, full, wantsRoom     bool
	read, consumed            int8
	eof                       bool
	outbox, appended, written int8

	// The loop.
	batch     bool // events were fetched and not yet dispatched
	batchWord word
	lingering bool
	beats     int8

	// The holder.
	holder   int8
	at       int8
	taken    word
	progress bool
	left     int8 // input that was read and waits
	yields   int8

	// Others.
	sends     int8
	announced bool // the message is in the outbox, SEND not yet set
	handler   int8 // messages that a blocking handler has
	handled   int8
	closes    int8
	upgraded  bool
	timedOut  bool
	peerGone  bool
	closed    int8
}

// loanModel searches the states of one story.
type loanModel struct {
	rules  loanRules
	story  loanStory
	index  map[loanState]int32
	states []loanState
	parent []int32
	step   []string
	from   int32
	fault  string
	faulty int32
}

// explore visits every state and returns what went wrong, or "".
func (m *loanModel) explore() string {
	m.index = make(map[loanState]int32)
	m.from = -1
	begin := loanState{word: modelGeneration | bitLive, sends: m.story.sends, beats: m.story.beats, yields: m.story.yields, closes: m.story.closes}
	if begin.upgraded = !m.story.upgrade; m.story.upgrade {
		begin.word = modelGeneration
	}
	m.to("begin", begin)
	for at := int32(0); int(at) < len(m.states) && m.fault == ""; at++ {
		m.from = at
		if s := m.states[at]; m.steps(s) == 0 {
			m.quiescent(s)
		}
	}
	if m.fault == "" {
		return ""
	}
	var trace []string
	for at := m.faulty; at > 0; at = m.parent[at] {
		trace = append(trace, m.step[at])
	}
	for i, j := 0, len(trace)-1; i < j; i, j = i+1, j-1 {
		trace[i], trace[j] = trace[j], trace[i]
	}
	return fmt.Sprintf("%s, after: %s; state %+v", m.fault, strings.Join(trace, ", "), m.states[m.faulty])
}

// to is a step into a state.
func (m *loanModel) to(step string, s loanState) {
	at, seen := m.index[s]
	if !seen {
		at = int32(len(m.states))
		m.index[s] = at
		m.states, m.parent, m.step = append(m.states, s), append(m.parent, m.from), append(m.step, step)
	}
	held := s.word.generation() == 1 && s.word&bitHeld != 0
	if held != (s.holder != loanFree) {
		m.fail(at, "HELD and the holder disagree")
	}
	if s.word&bitLive != 0 && (s.timedOut || s.word&(bitClose|bitLinger) != 0) {
		m.fail(at, "it is live and ends")
	}
}

func (m *loanModel) fail(at int32, fault string) {
	if m.fault == "" {
		m.fault, m.faulty = fault, at
	}
}

// lend gives the loan to a holder that just got it.
func (m *loanModel) lend(s *loanState, holder, at int8) {
	if s.holder != loanFree {
		m.fail(m.from, "lent twice")
	}
	s.holder, s.at = holder, at
}

// mine says whether somebody who knows the connection by its generation still finds it.
func (m *loanModel) mine(s *loanState) bool {
	if m.rules.stale && s.word.generation() != 1 {
		m.fail(m.from, "the next connection in the slot was touched")
	}
	return s.word.generation() == 1
}

// steps takes every step that is possible and returns their number.
func (m *loanModel) steps(s loanState) int {
	count := 0
	for _, actor := range [...]func(*loanModel, loanState) int{
		(*loanModel).peerSteps, (*loanModel).loopSteps, (*loanModel).holderSteps, (*loanModel).otherSteps,
	} {
		count += actor(m, s)
	}
	return count
}

// peerSteps are those of the peer and of the kernel on its behalf.
func (m *loanModel) peerSteps(s loanState) (count int) {
	if int(s.peer) < len(m.story.peer) && !s.reset && !s.fin {
		n := s
		n.peer++
		n.edge = s.closed == 0
		switch m.story.peer[s.peer] {
		case 'd':
			n.inbox++
		case 'f':
			n.fin = true
		case 'r':
			n.reset = true
		}
		m.to("peer "+m.story.peer[s.peer:s.peer+1], n)
		count++
	} else if s.shut && !s.fin && !s.reset && !s.full {
		n := s // it has read our Close frame and the end of our stream, and goes as well
		n.fin, n.edge = true, true
		m.to("peer answers the end", n)
		count++
	}
	if s.full && !s.reset {
		n := s
		n.full = false
		if s.wantsRoom {
			n.wantsRoom, n.edge = false, true
		}
		m.to("peer reads", n)
		count++
	}
	return count
}

// loopSteps are those of the loop, one at a time: while it writes a heartbeat or closes it does nothing else.
func (m *loanModel) loopSteps(s loanState) (count int) {
	if s.holder == loanBeat || s.holder == loanLinger && s.at != atRest {
		return 0
	}
	take := func(step string, change func(n *loanState)) {
		n := s
		change(&n)
		m.to(step, n)
		count++
	}
	if s.edge && !s.batch && s.closed == 0 {
		take("fetch", func(n *loanState) {
			n.edge, n.batch, n.batchWord = false, true, 0
			if s.inbox > 0 || s.fin || s.reset {
				n.batchWord |= bitIn
			}
			if !s.full || s.reset {
				n.batchWord |= bitOut
			}
			if s.fin || s.reset {
				n.batchWord |= bitHup
			}
		})
	}
	if s.batch {
		take("dispatch", m.dispatch)
	}
	switch {
	case s.holder == loanRing:
		take("ring", func(n *loanState) { n.holder, n.at = loanDecoder, atCheck })
	case s.holder == loanEnding:
		take("begin closing", func(n *loanState) {
			n.word = (n.word | bitLinger) &^ (bitClose | bitLive | bitStopped)
			if n.holder, n.at = loanLinger, atClear; n.peerGone {
				n.holder = loanGone
				return
			}
			n.outbox++
			n.appended++
		})
	case s.holder == loanLinger && s.lingering:
		take("go on closing", func(n *loanState) { n.lingering, n.at = false, atClear })
	case s.holder == loanGone && s.handler == 0:
		take("reap", func(n *loanState) { // everything of the connection goes, and the generation is raised
			n.closed++
			n.word, n.holder, n.at, n.taken, n.lingering = 2<<generationShift, loanFree, 0, 0, false
		})
	}
	if waits := s.word&(bitLive|bitClose|bitLinger) == 0 && s.word.generation() == 1; m.story.upgrade && waits && (m.rules.deadlineHeld || s.word&bitHeld == 0) {
		take("deadline", func(n *loanState) {
			n.timedOut = true
			next, lend := m.rules.closing(n.word)
			if n.word = next; lend {
				m.lend(n, loanEnding, atCheck)
			}
		})
	}
	if s.beats > 0 && s.word&bitLive != 0 && s.word.generation() == 1 {
		take("beat", func(n *loanState) {
			n.beats--
			if n.word&bitBlocked != 0 {
				return
			}
			next, lent := m.rules.borrow(n.word)
			if n.word = next; lent {
				m.lend(n, loanBeat, atFlush)
				n.outbox++
				n.appended++
				n.progress = false
			}
		})
	}
	return count
}

// dispatch is what loop.dispatch does with one event.
func (m *loanModel) dispatch(n *loanState) {
	ready := n.batchWord
	n.batch, n.batchWord = false, 0
	if !m.mine(n) {
		return
	}
	next, lend := m.rules.event(n.word, ready)
	n.word = next
	switch {
	case lend:
		m.lend(n, loanDecoder, atCheck)
	case n.word&bitLinger != 0:
		n.lingering = true
	}
}

// otherSteps are those of a sender, of a blocking handler and of the application that closes.
func (m *loanModel) otherSteps(s loanState) (count int) {
	take := func(step string, change func(n *loanState)) {
		n := s
		change(&n)
		m.to(step, n)
		count++
	}
	switch {
	case s.sends > 0 && s.upgraded && !s.announced && s.holder != loanSender:
		take("append", func(n *loanState) {
			if n.word.generation() != 1 || n.word&bitLive == 0 {
				n.sends-- // ErrClosed
				return
			}
			n.announced = true
			n.outbox++
			n.appended++
		})
	case s.announced:
		take("send", func(n *loanState) {
			n.announced = false
			n.sends--
			if !m.mine(n) {
				return
			}
			next, lend := m.rules.send(n.word)
			if n.word = next; lend {
				m.lend(n, loanSender, atTake)
			}
		})
	}
	if s.handler > 0 {
		take("handler", func(n *loanState) {
			n.handled += n.handler
			n.handler = 0
			if !m.mine(n) {
				return
			}
			next, lend := m.rules.idle(n.word)
			if n.word = next; lend {
				m.lend(n, loanRing, atCheck)
			}
		})
	}
	if s.closes > 0 && s.upgraded {
		take("close", func(n *loanState) {
			n.closes--
			if n.word.generation() != 1 || n.word&bitLive == 0 {
				return
			}
			next, lend := m.rules.closing(n.word)
			if n.word = next; lend {
				m.lend(n, loanEnding, atCheck)
			}
		})
	}
	return count
}

// holderSteps are those of whoever has the loan.
func (m *loanModel) holderSteps(s loanState) (count int) {
	if s.holder != loanDecoder && s.holder != loanSender && s.holder != loanBeat && (s.holder != loanLinger || s.at == atRest) {
		return 0
	}
	n := s
	name := m.holderStep(&n)
	m.to(name, n)
	if s.holder == loanDecoder && s.at == atCheck && s.yields > 0 && s.word&bitClose == 0 {
		n := s
		n.yields--
		n.holder = loanRing
		m.to("budget spent", n)
		count++
	}
	return count + 1
}

// holderStep is the next step of the holder; it has no choice.
func (m *loanModel) holderStep(n *loanState) string {
	switch n.at {
	case atCheck:
		if n.word&bitClose != 0 {
			n.holder = loanEnding
			return "pass on"
		}
		n.at = atTake
		return "check"
	case atTake:
		m.takeWork(n)
		return "take"
	case atRead:
		m.readInput(n)
		return "read"
	case atLeave:
		if n.at = atFlush; !m.rules.leaveNothing && n.word&bitClose == 0 {
			n.word |= bitIn | n.taken&bitHup
		}
		return "leave"
	case atFlush:
		m.flush(n)
		return "write"
	case atBlock:
		n.word |= bitBlocked
		m.stopOrGoOn(n)
		m.afterFlush(n)
		return "blocked"
	case atTakeLate:
		n.word, _ = m.rules.take(n.word)
		n.at = atRelease
		return "take late"
	case atRelease:
		m.releaseLoan(n)
		return "release"
	case atClear:
		if n.word, n.at = n.word&^bitsWork, atFlush; n.shut {
			n.at = atDrain
		}
		return "clear"
	case atShut:
		n.shut, n.at = true, atDrain
		return "end our stream"
	default:
		n.inbox, n.at = 0, atRest
		if n.fin || n.reset {
			n.holder = loanGone
		}
		return "drain"
	}
}
