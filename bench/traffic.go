package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

const (
	// goodbyeBatch is how many connections say goodbye at one time: with all at once the last ones would wait longer than a
	// server waits for the end of a connection that it closes.
	goodbyeBatch = 2000
	// goodbyePatience is how long connections that don't end are waited for in all: a server that has stopped would take drainFor for every batch.
	goodbyePatience = 6 * drainFor
	// restReads bounds how often a socket is read at its end: a peer that never stops would keep the client.
	restReads = 64
)

// The ends that a server's reasons come down to, seen from here. Which of several reasons it was, a client can't tell: a FIN that
// overtakes a ping is answered by the kernel with a reset, and whose host was reachable only the server knows.
const (
	endGoodbye = "goodbye" // Close frames both ways
	endLeft    = "left"    // FIN or RST from here
	endSilent  = "silence"
	endSlow    = "slow"
	endPolicy  = "policy"
	endSize    = "size"
	endBroken  = "broken" // of the protocol or the encoding
	endKicked  = "kicked"
	endRestart = "restart"
	endOther   = "other" // a code of an application
)

// traffic is what one process had to do with the server, from its first connect to its last end: what the server's own counters
// must come to.
type traffic struct {
	Opened   int            // upgrades completed
	Closed   map[string]int // upgraded connections that ended, by end
	Rejected map[int]int    // upgrades refused, by status

	Pings, TextBeats   int // heartbeats of the server
	Pongs, Acks, Beats int // answers to them, and the client's own heartbeats
	Sent, Received     int // data messages
	BytesSent          int // after the upgrade
	BytesReceived      int // all

	Abandoned int // upgraded connections ended while one frame either way could be under way
	Unclear   int // upgraded connections that ended without saying why
	Undone    int // opens given up: the server may have taken them, refused them or not seen them
	Hostile   int // connections that leave unread what comes, or go on sending to a server that has stopped to listen
}

func newTraffic() traffic { return traffic{Closed: map[string]int{}, Rejected: map[int]int{}} }

// add is for the traffic of another process.
func (t *traffic) add(other traffic) {
	t.Opened += other.Opened
	t.Closed = joined(t.Closed, other.Closed)
	for status, n := range other.Rejected {
		t.Rejected[status] += n
	}
	t.Pings += other.Pings
	t.TextBeats += other.TextBeats
	t.Pongs += other.Pongs
	t.Acks += other.Acks
	t.Beats += other.Beats
	t.Sent += other.Sent
	t.Received += other.Received
	t.BytesSent += other.BytesSent
	t.BytesReceived += other.BytesReceived
	t.Abandoned += other.Abandoned
	t.Unclear += other.Unclear
	t.Undone += other.Undone
	t.Hostile += other.Hostile
}

// heard counts a message of the server. Its hello and its acknowledgements are neither beats nor data.
func (t *traffic) heard(m wsframe.Message) {
	switch m.Opcode {
	case wsframe.Ping:
		t.Pings++
	case wsframe.Text:
		switch {
		case bytes.HasPrefix(m.Payload, []byte(`{"type":"heartbeat"`)):
			t.TextBeats++
		case bytes.HasPrefix(m.Payload, []byte(`{"type":"heartbeat_ack"`)), bytes.HasPrefix(m.Payload, []byte(`{"type":"hello"`)):
		default:
			t.Received++
		}
	case wsframe.Binary:
		t.Received++
	default:
	}
}

// cut counts the end of a connection that our side brought about without a word.
func (t *traffic) cut(was phase) {
	if was != open {
		t.Undone++
		return
	}
	t.Closed[endLeft]++
	t.Abandoned++
}

// ended counts the end of a connection that the server brought about.
func (t *traffic) ended(was phase, why error) {
	var closing *closeError
	var refusal *statusError
	switch {
	case was != open && errors.As(why, &refusal):
		t.Rejected[refusal.status]++
	case was != open:
		t.Undone++
	case errors.As(why, &closing):
		t.Closed[endOf(closing.code)]++
	default:
		t.Unclear++
		t.Abandoned++
	}
}

// endOf is the end that a Close frame of the server tells of.
func endOf(code wsframe.CloseCode) string {
	switch code {
	case wsframe.CloseHeartbeatLost:
		return endSilent
	case wsframe.CloseOverload:
		return endSlow
	case wsframe.ClosePolicy:
		return endPolicy
	case wsframe.CloseTooBig:
		return endSize
	case wsframe.CloseProtocol, wsframe.CloseInvalidUTF8:
		return endBroken
	case wsframe.CloseKicked:
		return endKicked
	case wsframe.CloseRestart:
		return endRestart
	default:
		return endOther
	}
}

// statusReasons are the reasons for which a server refuses an upgrade with a status.
func statusReasons(status int) []string {
	switch status {
	case http.StatusRequestTimeout:
		return []string{"timeout"}
	case http.StatusNotFound:
		return []string{"path"}
	case http.StatusForbidden:
		return []string{"origin", "upgrade"}
	case http.StatusTooManyRequests:
		return []string{"address"}
	case http.StatusServiceUnavailable:
		return []string{"limit", "rate", "draining", "overload", "descriptors"}
	case http.StatusBadRequest:
		return []string{"malformed", "heartbeat"}
	default:
		return []string{"malformed", "upgrade", "panic"}
	}
}

// sayGoodbye closes every open connection in the order of RFC 6455, section 7.1.1, and reads each to its end: then nothing is under
// way any more, and what both sides counted is the same or one of them is wrong.
func (c *client) sayGoodbye() error {
	c.pacer, c.alarms = nil, nil
	patience := goodbyePatience
	frame := c.frame(wsframe.Close, binary.BigEndian.AppendUint16(nil, uint16(wsframe.CloseNormal)))
	for from := 0; from < len(c.conns); from += goodbyeBatch {
		batch := c.conns[from:min(from+goodbyeBatch, len(c.conns))]
		for i := range batch {
			if batch[i].phase == open {
				batch[i].mute = true
				c.send(from+i, frame)
			}
		}
		left := 0
		began := c.clock()
		err := c.run(began+int64(min(drainFor, patience)), func() bool {
			for left < len(batch) && batch[left].phase == closed {
				left++
			}
			return left == len(batch)
		})
		if err != nil {
			return err
		}
		if left < len(batch) {
			patience -= time.Duration(c.clock() - began)
		}
	}
	return nil
}

// readRest reads what is left of a connection that has been told its end, and counts it. True if a Close frame was in it.
func (c *client) readRest(i int) (told bool) {
	k := &c.conns[i]
	for range restReads {
		n, err := poller.Read(int(k.fd), c.buf)
		if err != nil {
			return told
		}
		c.traffic.BytesReceived += n
		for p := c.buf[:n]; len(p) > 0 && !told; {
			m, used, ok, err := k.decoder.Next(&c.limits, p)
			if err != nil || !ok {
				break
			}
			p = p[used:]
			c.traffic.heard(m)
			told = m.Opcode == wsframe.Close
		}
	}
	return told
}
