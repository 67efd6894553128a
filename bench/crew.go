package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// A run that needs more connections than one process may hold descriptors takes several. The process that was called is
// the leader: it runs the scenario with its own part, starts a hand for each of the other parts, and reads what the server costs. All
// of them run the same script in lockstep: at each point of it that matters the hands say that they are there and wait for
// the leader's word, serving their connections meanwhile. At the end each hands over what it found, and the leader adds that up.

const (
	// meetWithin bounds the wait for the other processes at a point, beside what a scenario knows of (session.lag). Their parts are of one size, so they
	// come together.
	meetWithin = 2 * time.Minute
	// handEndsWithin is how long a hand may take to close its connections and end.
	handEndsWithin = time.Minute
)

var errCrew = errors.New("load process")

// message is a line between the leader and a hand, one JSON object.
type message struct {
	Point string          `json:"point"` // of the script: where the hand stands, or what the leader releases
	Count int             `json:"count,omitempty"`
	Found json.RawMessage `json:"found,omitempty"` // at the last point: what the hand found
}

// hired is a hand as the leader sees it.
type hired struct {
	cmd  *exec.Cmd
	to   io.WriteCloser // its standard input; closing it ends the hand
	said lastWords
	last message // of it
	gone bool
}

// arrival is news from a hand: a message, or its end.
type arrival struct {
	hand int
	message
	ended bool
	exit  error // with ended: what exec.Cmd.Wait says
}

// crew is the hands of one run, owned by the leader's goroutine. Their words come through news; wake is called for each.
type crew struct {
	hands []*hired
	news  chan arrival
	wake  func()
}

// newCrew has room for so many hands. wake tells the leader's goroutine that there is news; it may come from any goroutine.
func newCrew(most int, wake func()) *crew {
	// A hand says one thing and then waits, so with what it says when it ends there are never more than two.
	return &crew{news: make(chan arrival, 2*most), wake: wake}
}

// hire starts a hand with the command line given.
func (c *crew) hire(words ...string) error {
	h := &hired{cmd: exec.Command(words[0], words[1:]...)}
	h.cmd.Stderr = &h.said
	var from io.Reader
	var err error
	if h.to, err = h.cmd.StdinPipe(); err != nil {
		return err
	}
	if from, err = h.cmd.StdoutPipe(); err != nil {
		return err
	}
	i := len(c.hands)
	say := func(a arrival) {
		a.hand = i
		c.news <- a
		c.wake()
	}
	listen := func() {
		for words := json.NewDecoder(from); ; {
			var a arrival
			if words.Decode(&a.message) != nil { // it ended, or says what no hand says: then it is not heard any more
				_, _ = io.Copy(io.Discard, from)
				return
			}
			say(a)
		}
	}
	if err := launch(h.cmd, listen, func(exit error) { say(arrival{ended: true, exit: exit}) }); err != nil {
		return fmt.Errorf("%w: %w", errCrew, err)
	}
	c.hands = append(c.hands, h)
	return nil
}

// take reads the news that there is. A hand that ended before its work was done is an error.
func (c *crew) take() error {
	for {
		select {
		case a := <-c.news:
			if err := c.hear(a); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// hear notes one piece of news.
func (c *crew) hear(a arrival) error {
	h := c.hands[a.hand]
	if !a.ended {
		h.last = a.message
		return nil
	}
	h.gone = true
	if h.last.Found != nil && a.exit == nil {
		return nil // its work is done
	}
	why := lastLine(h.said.String())
	if why == "" {
		why = fmt.Sprint("it ended: ", a.exit)
	}
	err := fmt.Errorf("%w %d: %s", errCrew, a.hand+1, why)
	var exit *exec.ExitError
	if errors.As(a.exit, &exit) && exit.ExitCode() == exitUsage {
		err = fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}

// at says whether all hands stand at that point.
func (c *crew) at(point string) bool {
	for _, h := range c.hands {
		if h.last.Point != point {
			return false
		}
	}
	return true
}

// count adds up what the hands counted when they came to the point.
func (c *crew) count() int {
	sum := 0
	for _, h := range c.hands {
		sum += h.last.Count
	}
	return sum
}

// missing names a hand that has not come to the point.
func (c *crew) missing(point string, within time.Duration) error {
	for i, h := range c.hands {
		if h.last.Point != point {
			return fmt.Errorf("%w %d did not get to %q within %v", errCrew, i+1, point, within)
		}
	}
	return nil
}

// release lets the hands go on from a point.
func (c *crew) release(point string) error {
	for i := range c.hands {
		if err := c.releaseOne(i, point); err != nil {
			return err
		}
	}
	return nil
}

func (c *crew) releaseOne(i int, point string) error {
	if err := json.NewEncoder(c.hands[i].to).Encode(message{Point: point}); err != nil {
		return fmt.Errorf("%w %d: %w", errCrew, i+1, err)
	}
	return nil
}

// end ends the hands that are left, by their process ids, and returns when all have ended.
func (c *crew) end() {
	for _, h := range c.hands {
		_ = h.to.Close() // a hand without a leader ends
	}
	patience := time.NewTimer(handEndsWithin)
	defer patience.Stop()
	for {
		left := false
		for _, h := range c.hands {
			left = left || !h.gone
		}
		if !left {
			return
		}
		select {
		case a := <-c.news:
			_ = c.hear(a) // how it ended has no meaning any more
		case <-patience.C:
			for _, h := range c.hands {
				_ = h.cmd.Process.Signal(syscall.SIGKILL) // fails only if it has ended
			}
		}
	}
}
