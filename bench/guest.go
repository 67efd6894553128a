package main

import (
	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// host looks after guests: connections whose slots lie behind those of the members, which come and go as a scenario
// wants, in ways that would be losses and failures of a member. It hears of every turn in their lives on the client's
// goroutine; at is the client's clock.
type host interface {
	// connected returns what guest i sends first: the request of the upgrade, or as much of it as the guest means to send.
	connected(i int, at int64) []byte
	// opened: the upgrade is complete. The host may send, end the guest, or make it deaf or mute.
	opened(i int, at int64)
	// pinged: a ping came; unless the guest is mute it is being answered.
	pinged(i int, at int64)
	// hungUp: the server has ended the connection of a deaf guest, which has not read what came before. It still holds its
	// descriptor; the host shuts it or has it listen again.
	hungUp(i int, at int64)
	// ended: the guest is gone, and not by a call of shut. was is where it stood, closed if not even a socket was to be had.
	ended(i int, was phase, why error, at int64)
}

// isGuest says whose slot i is.
func (c *client) isGuest(i int) bool { return i >= c.members }

// connectGuest begins a connection in a slot that is closed. The host bounds the time it may take.
func (c *client) connectGuest(i int, o poller.ConnectOptions) {
	now := c.clock()
	fd, err := c.dial(o)
	if err != nil {
		c.host.ended(i, closed, err, now)
		return
	}
	c.begin(i, fd, now)
}

// deliverGuest is deliver for guests: they take part in heartbeats and closing and leave data unread.
func (c *client) deliverGuest(i int, m wsframe.Message, now int64) bool {
	switch m.Opcode {
	case wsframe.Ping:
		if !c.conns[i].mute {
			c.answerPing(m.Payload)
		}
		c.host.pinged(i, now)
	case wsframe.Close:
		c.answerClose(i, m.Payload)
	default:
	}
	return c.conns[i].phase == open
}

// listen has a deaf guest read again, all that waits.
func (c *client) listen(i int) {
	c.conns[i].deaf = false
	c.receive(i, true)
}
