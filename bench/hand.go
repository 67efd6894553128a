package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
)

// handCommand is the subcommand that makes this program a hand. It is for the leader to call: what a hand says on its
// standard output is not for people.
const handCommand = "hand"

var (
	errNoLeader = errors.New("the process that leads this one is gone")
	// errHandedOver ends a hand's script: the rest of it is the leader's.
	errHandedOver = errors.New("handed over")
)

// hand is the side of a hand: it says where it stands, and waits for the leader's word.
type hand struct {
	words    *json.Encoder
	released chan message // closed when the leader is gone
}

// newHand listens to the leader. wake tells the hand's goroutine that there is a word, alone that the leader is gone; both come from another one.
func newHand(from io.Reader, to io.Writer, wake, alone func()) *hand {
	h := &hand{words: json.NewEncoder(to), released: make(chan message, 1)}
	go func() {
		defer wake()
		defer alone()
		defer close(h.released)
		for words := json.NewDecoder(from); ; {
			var m message
			if words.Decode(&m) != nil {
				return
			}
			h.released <- m
			wake()
		}
	}()
	return h
}

// arrive says where the hand stands.
func (h *hand) arrive(m message) error {
	if err := h.words.Encode(m); err != nil {
		return fmt.Errorf("%w: %w", errNoLeader, err)
	}
	return nil
}

// mayLeave says whether the leader has released the point.
func (h *hand) mayLeave(point string) (bool, error) {
	select {
	case m, ok := <-h.released:
		if !ok || m.Point != point {
			return false, errNoLeader
		}
		return true, nil
	default:
		return false, nil
	}
}

// runHand is the subcommand: hand PART SCENARIO FLAGS, with the flags that the leader was called with.
func runHand(args []string, stdout, stderr io.Writer) error {
	if len(args) < 2 {
		return fmt.Errorf("%w: %s is what bench calls itself", errUsage, handCommand)
	}
	part, err := strconv.Atoi(args[0])
	if err != nil || part < 0 {
		return fmt.Errorf("%w: %q is no number of a part", errUsage, args[0])
	}
	sc, err := scenarioNamed(args[1])
	if err != nil {
		return err
	}
	whole, err := parseOptions(sc, args[2:], stderr)
	if err != nil {
		return err
	}
	parts, err := sc.parts(whole)
	if err != nil {
		return err
	}
	if part >= len(parts) {
		return fmt.Errorf("%w: there are %d parts, %d is none of them", errUsage, len(parts), part)
	}
	o := parts[part]
	audited := whole.adminURL != ""
	// What the server costs is for the leader to read, and what was found for it to tell.
	o.pid, o.adminURL, o.jsonFile = 0, "", ""
	s := &session{opts: o, whole: whole, audited: audited, report: &report{Scenario: sc.name}, bar: newProgress(io.Discard)}
	if s.client, err = newClient(o); err != nil {
		return err
	}
	defer s.client.close()      //nolint:errcheck // the process ends
	signal.Ignore(os.Interrupt) // on a terminal Ctrl-C reaches the leader too, which then ends this process
	s.hand = newHand(os.Stdin, stdout, s.wake, func() { s.client.interrupted.Store(true) })
	if err := sc.run(s); !errors.Is(err, errHandedOver) {
		return err
	}
	return nil
}

// wake makes the client look up from its poller.
func (s *session) wake() { _ = s.client.poller.Wake() } // fails only when the run is over

// meet brings all processes of a run to one point of the script. There the leader does what then says (nil: nothing),
// while everybody serves the connections; when it is done all go on.
func (s *session) meet(point string, then func() error) error {
	return s.meetCounting(point, nil, func(int) error {
		if then == nil {
			return nil
		}
		return then()
	})
}

// meetCounting is meet where then is given the sum of what each process counts when it comes to the point.
func (s *session) meetCounting(point string, count func() int, then func(all int) error) error {
	own := 0
	if count != nil {
		own = count()
	}
	if s.hand != nil {
		return s.stand(point, message{Point: point, Count: own})
	}
	if s.crew == nil {
		return then(own)
	}
	if err := s.gather(point); err != nil {
		return err
	}
	if err := then(own + s.crew.count()); err != nil {
		return err
	}
	return s.crew.release(point)
}

// stand is a hand's part of a meeting.
func (s *session) stand(point string, m message) error {
	if err := s.hand.arrive(m); err != nil {
		return err
	}
	var failed error
	err := s.client.run(never, func() bool {
		var left bool
		left, failed = s.hand.mayLeave(point)
		return left || failed != nil
	})
	if errors.Is(err, errInterrupted) {
		return errNoLeader
	}
	return errors.Join(err, failed)
}

// gather is the leader's: it serves the client until all hands are at the point.
func (s *session) gather(point string) error {
	from := s.client.clock()
	s.watch("waiting for all: "+point, func() (int, int) { return 1, 1 })
	var failed error
	within := meetWithin + s.lag
	err := s.client.run(from+int64(within), func() bool {
		failed = s.crew.take()
		return failed != nil || s.crew.at(point)
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	return s.crew.missing(point, within)
}

// foundPoint is the last point of every script, at which the hands hand over what they found.
const foundPoint = "found"

// found is what every process of a run has to tell, whatever the scenario.
type found[T any] struct {
	Tally   tally
	Traffic traffic
	Client  clientUse
	Own     T // the scenario's
}

// adds is a scenario's findings: those of two processes make one.
type adds[T any] interface {
	*T
	add(*T)
}

// gathered adds what all hands of a crew found, having come to foundPoint.
func gathered[T any, P adds[T]](c *crew, sum *found[T]) error {
	for i, h := range c.hands {
		var other found[T]
		if err := json.Unmarshal(h.last.Found, &other); err != nil {
			return fmt.Errorf("%w %d: %w", errCrew, i+1, err)
		}
		sum.Tally.add(other.Tally)
		sum.Traffic.add(other.Traffic)
		sum.Client.add(other.Client)
		P(&sum.Own).add(&other.Own)
	}
	return nil
}

// collect hands over what this process found and returns what all found together; sp, the span that the report is about, gets
// what all clients used. A hand goes no further: it stays until the leader is done.
func collect[T any, P adds[T]](s *session, sp *span, own T) (T, error) {
	mine := found[T]{Tally: s.client.tally.clone(), Client: sp.client, Own: own}
	if s.audited { // its connections are done with: what is compared from now on is the counters
		s.watch("ending", func() (int, int) { return mine.Tally.Active - s.client.tally.Active, mine.Tally.Active })
		if err := s.client.sayGoodbye(); err != nil {
			return own, err
		}
	}
	mine.Traffic = s.client.traffic
	if s.hand != nil {
		text, err := json.Marshal(mine)
		if err != nil {
			return own, err
		}
		if err := s.stand(foundPoint, message{Point: foundPoint, Found: text}); err != nil && !errors.Is(err, errNoLeader) {
			return own, err
		}
		return own, errHandedOver
	}
	if s.crew != nil {
		if err := s.gather(foundPoint); err != nil {
			return own, err
		}
		if err := gathered[T, P](s.crew, &mine); err != nil {
			return own, err
		}
	}
	s.total, sp.client = &mine.Tally, mine.Client
	s.auditCounters(&mine.Traffic)
	return mine.Own, nil
}
