package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

const (
	// dripEvery is the pause between two bytes of one that drips, unless the server's timeout is so short that this would be
	// silence.
	dripEvery = time.Second
	// floodEvery is the pause between two bursts of a flood: short enough to be one, and the client gets to read.
	floodEvery = 20 * time.Millisecond
	// tinyFrames and floodPings are what a burst has.
	tinyFrames = 256
	floodPings = 64
	// slowMessageBytes is the payload of what a slow reader has echoed. slowBufferBytes is each of its socket's buffers:
	// the kernel's own would take megabytes before anything is felt.
	slowMessageBytes = 4096
	slowMessages     = 8 // of a burst
	slowBufferBytes  = 4096
	// serverCloseTimeout is how long Pulsewheel waits for a peer that it sent a Close frame to.
	serverCloseTimeout = 5 * time.Second
	// floodWithin is how long the server may take to see that a flood is one.
	floodWithin = 5 * time.Second
)

// kind is one way of being hostile: what such a peer sends, and how the server is to end it.
type kind struct {
	name string

	// headBytes of the request of the upgrade are all that goes out at first: such a peer never gets to the upgrade.
	// 0: it is upgraded.
	headBytes int
	// first is sent after the upgrade.
	first []byte
	// burst is sent then every so often, as far as the socket takes it.
	burst []byte
	every time.Duration
	// drip is sent a byte every so often instead.
	drip []byte
	// deaf: it reads nothing. Every second one reads again later, to see what it was told.
	deaf bool

	// limit is the time after which the server must end it, from the connect for one that is not upgraded, else from the
	// upgrade, for a deaf one from the last byte that its socket took. 0: it may stay.
	limit time.Duration
	// exact: nor may the server end it before limit.
	exact bool
	// wanted says whether it is one of the right ends.
	wanted func(why error) bool
	// want says which ends those are.
	want string
}

// kindNames lists the kinds in the order in which the documentation does.
func kindNames() []string {
	return []string{"half-head", "drip-head", "half-header", "half-frame", "drip", "slow-reader", "tiny-frames", "ping-flood", "oversized"}
}

// kindNamed makes one kind. Frames are masked as the client's are.
func kindNamed(name string, c *client, o *options) *kind {
	k := &kind{name: name, wanted: anyEnd, want: "any end"}
	binary := func(payloadBytes int) []byte { return c.frame(wsframe.Binary, make([]byte, payloadBytes)) }
	switch name {
	case "half-head":
		k.headBytes, k.limit, k.exact = len(c.request)/2, o.handshakeTimeout, true
	case "drip-head":
		k.headBytes, k.limit, k.exact = 1, o.handshakeTimeout, true
		k.drip, k.every = c.request[1:], dripEvery
	case "half-header":
		k.first, k.limit, k.exact = binary(300)[:3], o.timeout, true // of its 8 bytes
	case "half-frame":
		whole := binary(128)
		k.first, k.limit, k.exact = whole[:len(whole)/2], o.timeout, true
	case "drip":
		k.drip, k.every = binary(60000), min(dripEvery, o.timeout/3)
		k.wanted, k.want = alive, "anything but expiry, for any byte is a sign of life"
	case "slow-reader":
		k.burst, k.every, k.deaf = bytes.Repeat(binary(slowMessageBytes), slowMessages), floodEvery, true
		k.limit = o.timeout + o.interval + serverCloseTimeout
		k.wanted, k.want = slowEnd, "close 1013 or a reset"
	case "tiny-frames":
		k.first = wsframe.AppendMasked(nil, wsframe.Text, false, []byte("t"), c.mask)
		for range tinyFrames {
			k.burst = wsframe.AppendMasked(k.burst, wsframe.Continuation, false, []byte("t"), c.mask)
		}
		k.every, k.limit = floodEvery, floodWithin
		k.wanted, k.want = closedWith(wsframe.ClosePolicy), "close 1008"
	case "ping-flood":
		for range floodPings {
			k.burst = wsframe.AppendMasked(k.burst, wsframe.Ping, true, nil, c.mask)
		}
		k.every, k.limit = floodEvery, floodWithin
		k.wanted, k.want = closedWith(wsframe.ClosePolicy), "close 1008"
	case "oversized":
		// Binary, masked, with a length of 1 TiB, and as much of it as anybody would wait for.
		k.first = append([]byte{0x82, 0x80 | 127, 0, 0, 1, 0, 0, 0, 0, 0}, make([]byte, 64)...)
		k.limit = floodWithin
		k.wanted, k.want = closedWith(wsframe.CloseTooBig), "close 1009"
	}
	return k
}

// anyEnd takes every end that the server brought about.
func anyEnd(error) bool { return true }

// closedWith wants a Close frame with that code.
func closedWith(code wsframe.CloseCode) func(error) bool {
	return func(why error) bool {
		var closing *closeError
		return errors.As(why, &closing) && closing.code == code
	}
}

// alive refuses that a peer which says something was taken for dead.
func alive(why error) bool { return !closedWith(wsframe.CloseHeartbeatLost)(why) }

// slowEnd is a Close frame for one that read again in time, or what is left to see for one that did not.
func slowEnd(why error) bool {
	return closedWith(wsframe.CloseOverload)(why) || errors.Is(why, syscall.ECONNRESET) || errors.Is(why, syscall.EPIPE)
}

// kindList is a flag of kinds, comma-separated.
type kindList []string

func (l *kindList) String() string { return strings.Join(*l, ",") }

func (l *kindList) Set(text string) error {
	*l = nil
	for name := range strings.SplitSeq(text, ",") {
		if !slices.Contains(kindNames(), name) {
			return fmt.Errorf("%q is none of %s", name, strings.Join(kindNames(), ", "))
		}
		*l = append(*l, name)
	}
	return nil
}
