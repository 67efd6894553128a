package main

import (
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// BenchmarkEcho is one message there and back on one connection, server and client in one process: the latency floor of
// the harness, mostly two wake-ups.
func BenchmarkEcho(b *testing.B) {
	p, err := listenPeer("127.0.0.1:0", peerOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.kill()
	o := &options{connections: 1, opening: 1, openTimeout: time.Second, size: 128, pipeline: 1}
	if o.target, err = parseTarget(p.url(), nil); err != nil {
		b.Fatal(err)
	}
	c, err := newClient(o)
	if err != nil {
		b.Fatal(err)
	}
	defer c.close() //nolint:errcheck // the benchmark ends
	if err := c.reach(); err != nil {
		b.Fatal(err)
	}
	e := newEchoer(c, o)
	e.begin(newHistogram())
	b.SetBytes(int64(o.size))
	b.ReportAllocs()
	b.ResetTimer()
	e.startClosedLoop(o)
	if err := c.run(never, func() bool { return e.total >= b.N }); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAnswer is what the harness itself spends on an echo besides the kernel: decode, check, record, reply.
func BenchmarkAnswer(b *testing.B) {
	e, c, frame := answering()
	b.SetBytes(int64(len(e.payload)))
	b.ReportAllocs()
	for b.Loop() {
		c.out = c.out[:0]
		c.consume(0, frame)
	}
}

// answering is a client in the middle of an echo, and the frame that comes back.
func answering() (*echoer, *client, []byte) {
	c := standingClient(1)
	c.clock = func() int64 { return 1 }
	c.limits = wsframe.Limits{Client: true, MessageBytesMax: messageBytesMax}
	e := newEchoer(c, &options{connections: 1, size: 128, pipeline: 1})
	e.begin(newHistogram())
	e.sentAt = make([]int64, 1)
	c.hooks.message = e.answered
	return e, c, wsframe.AppendFrame(nil, wsframe.Binary, e.payload)
}

// TestAnswerAllocatesNothing: garbage of the client would show as latency of the server.
func TestAnswerAllocatesNothing(t *testing.T) {
	e, c, frame := answering()
	if n := testing.AllocsPerRun(1000, func() {
		c.out = c.out[:0]
		c.consume(0, frame)
	}); n != 0 {
		t.Errorf("%v allocations an echo", n)
	}
	if e.total == 0 || e.corrupt != 0 {
		t.Errorf("%d answered, %d corrupt", e.total, e.corrupt)
	}
}
