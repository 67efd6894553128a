// Package peer holds what the peers written in Go have in common: their command line and the timer of their heartbeats.
// Everything that makes a peer what it is stands in its own main package.
package peer

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"time"
)

const (
	// Path is where every peer serves WebSocket.
	Path = "/ws"
	// MessageBytesMax bounds a message, or a frame where the library has no messages: Pulsewheel's own bound.
	MessageBytesMax = 1 << 20
	// Tick is the grain of beats. Timers that are due at one instant are run in one wake-up of the process; at any instant
	// of their own, each beat costs a wake-up and half as much again in CPU.
	Tick = 20 * time.Millisecond
)

// Options are the command line that all peers share.
type Options struct {
	Listen            string        // host:port
	HeartbeatInterval time.Duration // between two pings on one connection; 0 none are sent
	HeartbeatTimeout  time.Duration // of silence, after which a connection is ended; 0 it is borne

	started time.Time // the beats' grid is counted from here
}

// ParseFlags reads the command line. A wrong one ends the process with exit code 2.
func ParseFlags() Options {
	o := Options{started: time.Now()}
	flag.StringVar(&o.Listen, "listen", "127.0.0.1:9001", "address, `host:port`")
	flag.DurationVar(&o.HeartbeatInterval, "heartbeat-interval", 0, "each connection is pinged once in this time; 0 never")
	flag.DurationVar(&o.HeartbeatTimeout, "heartbeat-timeout", 0, "a connection that is silent for so long is ended, two intervals at most; 0 never")
	flag.Parse()
	if flag.NArg() > 0 || o.HeartbeatInterval < 0 ||
		o.HeartbeatTimeout != 0 && (o.HeartbeatTimeout <= o.HeartbeatInterval || o.HeartbeatTimeout > 2*o.HeartbeatInterval) {
		fmt.Fprintln(flag.CommandLine.Output(), "no arguments, no negative interval, and a timeout of more than one interval and at most two")
		flag.Usage()
		os.Exit(2)
	}
	return o
}

// Fail ends the process with exit code 1 and the reason on one line.
func Fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Deadline is when a connection that was heard just now has been silent for HeartbeatTimeout, which is not 0.
func (o Options) Deadline() time.Time { return time.Now().Add(o.HeartbeatTimeout) }

// Beat calls send once per HeartbeatInterval, each time on a goroutine of its own, until it fails or stop is called. One call may
// be under way when stop returns.
//
// It is the cheapest that a library with a goroutine per connection leaves to its user: a runtime timer and no second
// goroutine, whose stack would stay. The first beat comes after a random part of the interval, so that connections that
// were opened in a crowd do not beat in one.
func (o Options) Beat(send func() error) (stop func()) {
	if o.HeartbeatInterval <= 0 {
		return func() {}
	}
	due := (time.Since(o.started) + rand.N(o.HeartbeatInterval)).Round(Tick)
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() {
		if send() == nil {
			due += o.HeartbeatInterval
			timer.Reset(due - time.Since(o.started))
		}
	})
	timer.Reset(due - time.Since(o.started)) // not before timer is assigned, since it may fire at once
	return func() { timer.Stop() }
}
