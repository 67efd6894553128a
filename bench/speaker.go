package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// broadcastPath is where Pulsewheel's admin listener takes broadcasts.
const broadcastPath = "/api/v1/broadcast"

// speaker asks a server for broadcasts, one at a time, while the client's loop goes on.
type speaker struct {
	// Immutable after newSpeaker.
	admin *admin
	size  int
	wake  func()
	told  chan told

	// Owned by the scenario.
	speaking bool
	reached  []int           // as the server counts, by broadcast
	answered []time.Duration // of the asking, by broadcast; number 0 is left out
	nobody   bool            // number 0 was answered, and reached nobody
	err      error           // of the first that failed
}

// told is the answer to one broadcast.
type told struct {
	number  int
	reached int
	took    time.Duration
	err     error
}

// newSpeaker asks at an admin listener. wake is called from another goroutine when an answer is there.
func newSpeaker(adminURL string, size int, wake func()) *speaker {
	base, _ := adminBase(adminURL) // checked with the flags
	return &speaker{admin: newAdmin(base), size: size, wake: wake, told: make(chan told, 1)}
}

// say asks for one broadcast; heard tells when it was answered.
func (s *speaker) say(number int) {
	s.speaking = true
	go func() {
		from := time.Now()
		reached, err := s.admin.broadcast(broadcastPayload(s.size, number, from))
		s.told <- told{number, reached, time.Since(from), err}
		s.wake()
	}()
}

// heard says whether the latest broadcast has been answered.
func (s *speaker) heard() bool {
	select {
	case t := <-s.told:
		s.speaking = false
		if t.err != nil && s.err == nil {
			s.err = t.err
		}
		s.nobody = t.err == nil && t.number == 0 && t.reached == 0
		if t.err == nil && t.number > 0 {
			s.reached, s.answered = append(s.reached, t.reached), append(s.answered, t.took)
		}
	default:
	}
	return !s.speaking
}

// broadcast sends one message to all connections, as binary, and returns how many the server says it reached.
func (a *admin) broadcast(payload []byte) (reached int, err error) {
	r, err := a.client.Post(a.base+broadcastPath+"?binary=1", "application/octet-stream", bytes.NewReader(payload))
	if err != nil {
		return 0, a.refused(broadcastPath, err)
	}
	defer r.Body.Close() //nolint:errcheck // it was read
	switch r.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return 0, fmt.Errorf("%w: %s has no %s: this server can't be told to broadcast", errAdmin, a.base, broadcastPath)
	default:
		return 0, fmt.Errorf("%w: %s%s answers %s", errAdmin, a.base, broadcastPath, r.Status)
	}
	var answer struct {
		Reached *int `json:"reached"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, adminBytesMax)).Decode(&answer); err != nil || answer.Reached == nil {
		return 0, fmt.Errorf("%w: %s%s does not say how many it reached", errAdmin, a.base, broadcastPath)
	}
	return *answer.Reached, nil
}
