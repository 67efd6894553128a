package server

import (
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestHalves: half a request head, half a header and half a frame from many peers at once hold no goroutine and no worker; nobody
// else notices, and each of them is gone at its time.
func TestHalves(t *testing.T) {
	const each, timeout = 200, 1200 * time.Millisecond
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) { // one by one: goroutines are counted
			s := v.start(t, Config{
				HandshakeTimeout: timeout, HeartbeatInterval: timeout / 2, HeartbeatTimeout: timeout, HeartbeatMode: HeartbeatNone,
			}, hooks{message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) }})
			good := s.dial(t, "/ws")
			echo := func() time.Duration {
				began := time.Now()
				good.send(wsframe.Text, "nobody notices")
				good.expect(wsframe.Text, "nobody notices")
				return time.Since(began)
			}
			echo()
			goroutines := len(foreignGoroutines())
			frame := masked(wsframe.Binary, true, randomText(1000))
			var peers []*peer
			for range each {
				head := newPeer(t, connect(t, s.addr))
				head.write([]byte("GET /ws HTTP/1.1\r\nHost: exam"))
				header, body := s.dial(t, "/ws"), s.dial(t, "/ws")
				header.write(frame[:3])
				body.write(frame[:500])
				peers = append(peers, head, header, body)
			}
			began := time.Now()
			// Workers of the pools that have nothing to do stay a while: as many as Opens ran at one time, which depends on the machine, but far fewer
			// than there are halves.
			if n := len(foreignGoroutines()); n > goroutines+2*s.decoderCount+3*each/10 {
				t.Errorf("%d goroutines with %d half messages, %d without", n, 3*each, goroutines)
			}
			slowest := time.Duration(0)
			await(t, "they are gone", func() bool {
				slowest = max(slowest, echo())
				st := s.Stats()
				return st.Active == 1 && st.Expired == 2*each
			})
			if took := time.Since(began); took > timeout+2*tick+2*slack {
				t.Errorf("the last was gone after %v", took)
			}
			if slowest > slack {
				t.Errorf("an echo took %v", slowest)
			}
			for _, p := range peers {
				_ = p.Close()
			}
			await(t, "the half heads too", func() bool { return s.Stats().Rejected["timeout"] == each })
		})
	}
}
