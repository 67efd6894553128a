package main

import (
	"bytes"
	"flag"
	"fmt"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

const (
	// sizeMax bounds --size: the client reads with one buffer of 64 KiB.
	sizeMax = 1 << 20
	// pipelineMax bounds --pipeline: times of sending are kept for each message in flight.
	pipelineMax = 1024
	// rateReached is the share of --rate below which the answers fell behind.
	rateReached = 0.98
)

func echoDefaults(o *options) {
	o.connections = 1000
}

func echoFlags(fs *flag.FlagSet, o *options) {
	fs.IntVar(&o.size, "size", o.size, "payload `bytes` of a message")
	fs.IntVar(&o.pipeline, "pipeline", o.pipeline, "messages in flight per connection")
	fs.BoolVar(&o.text, "text", false, "text messages instead of binary ones")
}

// echoer sends messages and checks what comes back.
type echoer struct {
	client  *client
	opcode  wsframe.Opcode
	payload []byte
	frame   []byte // the payload masked, ready to send
	ack     []byte // the answer to a text heartbeat, likewise
	pacer   *pacer // nil in the closed loop

	received []uint32 // per connection
	sentAt   []int64  // closed loop: of the messages in flight, pipeline a connection, in a ring
	pipeline int
	total    int // messages that came back
	corrupt  int // came back, but not what was sent
	spans    []recorded
}

// recorded is a span whose messages are recorded: those that were due in it (in the closed loop: sent), whenever they are answered. Those that a server
// keeps waiting at its end would be left out otherwise, and they waited longest.
type recorded struct {
	from, to int64 // on the client's clock
	latency  *histogram
}

// begin records what is due from now on.
func (e *echoer) begin(latency *histogram) {
	e.spans = append(e.spans, recorded{from: e.client.clock(), to: never, latency: latency})
}

// end records only what was due until now. Answers to that still count.
func (e *echoer) end() { e.spans[len(e.spans)-1].to = e.client.clock() }

// record takes the answer to a message that was due then.
func (e *echoer) record(due, at int64) {
	for i := len(e.spans) - 1; i >= 0; i-- {
		if s := &e.spans[i]; due >= s.from {
			if due < s.to {
				s.latency.record(at - due)
			}
			return
		}
	}
}

// payloadOf is the text that the floor programs answer with too: a to z, over and over.
func payloadOf(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = 'a' + byte(i%26)
	}
	return p
}

func newEchoer(c *client, o *options) *echoer {
	e := &echoer{
		client: c, opcode: wsframe.Binary, payload: payloadOf(o.size),
		received: make([]uint32, o.connections), pipeline: o.pipeline,
	}
	if o.text {
		e.opcode = wsframe.Text
	}
	e.frame, e.ack = c.frame(e.opcode, e.payload), c.frame(wsframe.Text, []byte(textAck))
	return e
}

// echoFound is what one process found.
type echoFound struct {
	Messages, Corrupt, Missing int
	Unsent                     int // due, and never sent: the client was too slow
	Silent                     int // connections without an echo in the span
	Latency                    *histogram
}

func (f *echoFound) add(other *echoFound) {
	f.Messages += other.Messages
	f.Corrupt += other.Corrupt
	f.Missing += other.Missing
	f.Unsent += other.Unsent
	f.Silent += other.Silent
	f.Latency.merge(other.Latency)
}

func runEcho(s *session) error {
	o, c := s.opts, s.client
	if err := s.open(o.connections); err != nil {
		return err
	}
	e := newEchoer(c, o)
	if o.rate > 0 {
		e.startOpenLoop(o)
	} else {
		e.startClosedLoop(o)
	}
	if err := s.rest("warming up", o.settle); err != nil {
		return err
	}
	var before int
	var counts []uint32
	own := echoFound{Latency: newHistogram()}
	sp, err := s.span("echoing", func() {
		before, counts = e.total, append([]uint32(nil), e.received...)
		e.begin(own.Latency)
	})
	if err != nil {
		return err
	}
	e.end()
	own.Messages = e.total - before
	for i, n := range counts {
		if c.isOpen(i) && e.received[i] == n {
			own.Silent++
		}
	}
	if err := s.countSyscalls(func() int { return e.total }); err != nil {
		return err
	}
	if own.Missing, err = e.finish(); err != nil {
		return err
	}
	own.Unsent = e.unsent()
	own.Corrupt = e.corrupt
	all, err := collect(s, &sp, own)
	if err != nil {
		return err
	}
	all.fill(s, sp)
	return nil
}

// fill writes the report.
func (f *echoFound) fill(s *session, sp span) {
	o, r := s.whole, s.report
	lat := f.Latency.latencies()
	rate := float64(f.Messages) / sp.seconds()
	r.LatencyUs, r.latencyOf = &lat, "echo"
	r.add("messages", float64(f.Messages))
	r.add("messages_per_second", rate)
	r.add("size_bytes", float64(o.size))
	s.perOperation(sp, "echo", f.Messages)
	limits := dependents{what: "echo", latencies: []timed{{lat.P99, []string{latencyKey}}}}
	if o.rate == 0 { // else the rate is what was asked for, or a note says that it wasn't reached
		limits.rates = []string{"messages_per_second"}
	}
	s.calibrate(sp, limits)
	if f.Unsent > 0 {
		r.withhold(latencyKey)
		r.note("%d messages were due and could not be sent in time: the client was the limit", f.Unsent)
	}
	if o.rate > 0 && rate < rateReached*o.rate {
		r.note("%.0f messages a second were asked for, %.0f came back in time", o.rate, rate)
	}
	r.add("corrupt", float64(f.Corrupt))
	r.add("unanswered", float64(f.Missing))
	r.require(f.Messages > 0, "no message came back: does the server echo?")
	r.require(f.Corrupt == 0, "%d messages came back changed", f.Corrupt)
	r.require(f.Missing == 0, "%d messages were not answered within %v%s", f.Missing, drainFor, unsentExcuse(f.Unsent))
	r.require(f.Messages == 0 || o.rate > 0 || f.Silent == 0, "%d connections got no echo in the span", f.Silent)
}

// startClosedLoop puts the messages in flight; each answer then sends the next.
func (e *echoer) startClosedLoop(o *options) {
	c := e.client
	e.sentAt = make([]int64, o.connections*o.pipeline)
	c.hooks.message = e.answered
	burst := bytes.Repeat(e.frame, o.pipeline)
	for i := range c.conns {
		if !c.isOpen(i) {
			continue
		}
		now := c.clock()
		for j := range o.pipeline {
			e.sentAt[i*o.pipeline+j] = now
		}
		if c.send(i, burst) {
			c.traffic.Sent += o.pipeline
		}
	}
}

// answered is the closed loop: the answer's latency, then the next message.
func (e *echoer) answered(i int, m wsframe.Message, at int64) {
	if !e.count(i, m) {
		return
	}
	slot := &e.sentAt[i*e.pipeline+int((e.received[i]-1)%uint32(e.pipeline))]
	e.record(*slot, at)
	*slot = at
	e.client.traffic.Sent++
	e.client.reply(e.frame)
}

// startOpenLoop sends on a plan.
func (e *echoer) startOpenLoop(o *options) {
	c := e.client
	e.pacer = newPacer(c.clock(), o.rate, o.connections, func(i int) {
		if c.send(i, e.frame) {
			c.traffic.Sent++
		}
	})
	e.pacer.scattered = true
	c.pacer = e.pacer
	c.hooks.message = func(i int, m wsframe.Message, at int64) {
		if e.count(i, m) {
			e.record(e.pacer.dueOf(i, int(e.received[i])-1), at)
		}
	}
}

// count checks a message and counts it; false for one that is not an echo: a server may say something of its own, and a heartbeat of
// it wants an answer.
func (e *echoer) count(i int, m wsframe.Message) bool {
	if m.Opcode == wsframe.Text && bytes.HasPrefix(m.Payload, []byte(`{"type":"`)) { // no payload of ours begins like that
		if bytes.HasPrefix(m.Payload, []byte(`{"type":"heartbeat"`)) {
			e.client.traffic.Acks++
			e.client.reply(e.ack)
		}
		return false
	}
	if m.Opcode != e.opcode && len(m.Payload) != len(e.payload) {
		return false
	}
	e.received[i]++
	e.total++
	if m.Opcode != e.opcode || !bytes.Equal(m.Payload, e.payload) {
		e.corrupt++
	}
	return true
}

// finish stops sending, waits for what is still due and returns how many answers are missing.
func (e *echoer) finish() (int, error) {
	c := e.client
	if e.pacer == nil {
		want := 0
		for i := range c.conns {
			if c.isOpen(i) {
				want += e.pipeline
			}
		}
		have := 0
		c.hooks.message = func(i int, m wsframe.Message, at int64) {
			if e.count(i, m) {
				have++
				e.record(e.sentAt[i*e.pipeline+int((e.received[i]-1)%uint32(e.pipeline))], at)
			}
		}
		err := c.run(c.clock()+int64(drainFor), func() bool { return have >= want || c.tally.Active == 0 })
		return want - have, err
	}
	e.pacer.stop(c.clock())
	missing := func() int { return e.pacer.missing(c, func(i int) int { return int(e.received[i]) }) }
	_, err := c.drain(func() int { return missing() + e.pacer.unsent() })
	return missing(), err
}

// unsent is how many messages were due before the plan was stopped and have not been sent.
func (e *echoer) unsent() int {
	if e.pacer == nil {
		return 0
	}
	return e.pacer.unsent()
}

// unsentExcuse says that what is missing may be the client's own fault.
func unsentExcuse(unsent int) string {
	if unsent == 0 {
		return ""
	}
	return fmt.Sprintf(", but the client itself was behind: %d that were due it has not sent", unsent)
}
