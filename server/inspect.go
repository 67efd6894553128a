package server

import (
	"strconv"
	"time"

	"github.com/pulsewheel/pulsewheel/pool"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// What an operator asks of a running server. Every question is answered from the atomics of the tables, on the goroutine that
// asks: no loop is posted to, none waits, and a page of a listing costs the same however many connections there are.

// inspectSlotsMax bounds the slots that one page looks at: some milliseconds, also where a filter lets nobody through.
const inspectSlotsMax = 1 << 18

// Place is where a listing goes on: a loop and a slot of its table. Connections keep their slots for life, so one that stays is
// listed exactly once, whatever opens and closes meanwhile. The zero Place is the beginning.
type Place uint64

// Page is a part of a listing. It may hold fewer connections than asked for, even none, while there is more: a page ends as well
// after so many slots. Next is the zero Place after the last page.
type Page struct {
	Connections []Info
	Next        Place
}

// Inspect lists open connections from a place on, at most limit of them; with a user only those of that user. It never blocks a
// loop. A place that no listing gave out is as good as the end.
func (s *Server) Inspect(from Place, limit int, user string) Page {
	var page Page
	if !s.isStarted() {
		return page
	}
	looked := 0
	index, slot := int(min(uint64(from>>24), loopsMax)), uint32(from&(1<<24-1))
	for ; index < len(s.loops); index, slot = index+1, 0 {
		l := s.loops[index]
		for ; slot < l.table.slots.Load(); slot++ {
			if len(page.Connections) >= limit || looked >= inspectSlotsMax {
				page.Next = Place(uint64(index)<<24 | uint64(slot))
				return page
			}
			looked++
			w := l.table.at(slot).load()
			if w&bitLive == 0 {
				continue
			}
			c := Conn{server: s, token: makeToken(index, slot, w.generation())}
			if user != "" && c.User() != user {
				continue
			}
			if info, ok := c.Info(); ok {
				page.Connections = append(page.Connections, info)
			}
		}
	}
	return page
}

// Lookup finds an open connection by its ID. It looks through the tables: some milliseconds at a million connections, on the
// caller's goroutine.
func (s *Server) Lookup(id string) (Conn, bool) {
	want, err := strconv.ParseUint(id, 16, 64)
	if err != nil || len(id) != 16 || !s.isStarted() {
		return Conn{}, false
	}
	for _, l := range s.loops {
		for slot := range l.table.slots.Load() {
			r := l.table.at(slot)
			if r.id.Load() != want {
				continue
			}
			// The word is read before and the ID after it: the slot may have a newer connection meanwhile.
			if w := r.load(); w&bitLive != 0 && r.id.Load() == want {
				return Conn{server: s, token: makeToken(l.index, slot, w.generation())}, true
			}
		}
	}
	return Conn{}, false
}

// SendUser sends a message to every open connection of a user and tells how many took it.
func (s *Server) SendUser(user string, op Op, data []byte) (reached int, err error) {
	p, err := Prepare(op, data)
	if err != nil {
		return 0, err
	}
	for c := range s.Conns() {
		if c.User() == user && c.SendPrepared(p) == nil {
			reached++
		}
	}
	return reached, nil
}

// Kick closes a connection for an operator (4403); its client doesn't come back by itself.
func (c Conn) Kick() {
	c.conclude(ending{cause: CauseKicked, code: wsframe.CloseKicked, reason: "kicked"})
}

// Pressure is how the server's queues stand, and how its loops keep up.
type Pressure struct {
	Loops             int    // event loops
	LoopsStarved      int    // of them, those with connections that wait for a decoder because the decoder pool is full
	HandlersQueued    int    // deliveries that wait for a handler
	HandlersQueueMax  int    // how many may
	HandlersSaturated uint64 // refusals of the handler pool ever; what it refused waits with its connection

	TurnAge time.Duration // for how long the loop that is busy longest has been at its present turn
	Lost    time.Duration // of the loop that lost most: turns and delays so long that timers don't count them, ever

	// Of the listener that is fullest by share, as the kernel tells it; 0 of 0 if it doesn't (Unix sockets, other systems than Linux).
	AcceptQueue      int // connections that wait to be accepted
	AcceptQueueLimit int // how many may before the kernel drops them
}

// Pressure reads the queues; it costs a few atomic loads, a lock of the handler pool and a system call for each listener.
func (s *Server) Pressure() Pressure {
	if !s.isStarted() {
		return Pressure{}
	}
	p := Pressure{Loops: len(s.loops), HandlersQueueMax: handlerQueue}
	for _, l := range s.loops {
		if l.starved.Load() {
			p.LoopsStarved++
		}
		if began := l.turnBegan.Load(); began != 0 {
			p.TurnAge = max(p.TurnAge, s.since()-time.Duration(began))
		}
		p.Lost = max(p.Lost, time.Duration(l.lost.Load()))
	}
	for _, queue := range s.queues {
		// By cross multiplication, since a limit of 0 is unknown.
		if waiting, limit := queue.Queue(); p.AcceptQueueLimit == 0 || waiting*p.AcceptQueueLimit > p.AcceptQueue*limit {
			p.AcceptQueue, p.AcceptQueueLimit = waiting, limit
		}
	}
	if h, ok := s.handlers.(interface{ Stats() pool.Stats }); ok { // those of the simulation have none
		stats := h.Stats()
		p.HandlersQueued, p.HandlersSaturated = stats.Queued, stats.Saturated
	}
	return p
}

// isStarted says whether the loops are there to be looked at.
func (s *Server) isStarted() bool {
	select {
	case <-s.started:
		return true
	default:
		return false
	}
}
