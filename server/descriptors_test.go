package server

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestDescriptorsExhausted: accept neither spins nor dies when there is no descriptor left. Those beyond hear a 503, those inside
// don't notice, and it resumes as soon as there is room.
func TestDescriptorsExhausted(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		const room, crowd = 20, 60
		c := startChild(t, childSettings{InlineBatch: v.inlineBatch, Interval: 25 * time.Second, Timeout: 75 * time.Second, Descriptors: room})
		var taken []*peer
		refused := 0
		for range crowd {
			p := newPeer(t, connect(t, c.addr))
			p.write([]byte(upgradeRequest("/ws")))
			_ = p.SetReadDeadline(time.Now().Add(patience))
			head := make([]byte, 12)
			switch _, err := io.ReadFull(p, head); {
			case err != nil:
				refused++ // shed without a word: a reset can overtake the answer
			case strings.HasPrefix(string(head), "HTTP/1.1 503"):
				refused++
				_ = p.Close()
			case strings.HasPrefix(string(head), "HTTP/1.1 101"):
				p.in = head
				p.readUpgrade()
				taken = append(taken, p)
			default:
				t.Fatalf("got %q", head)
			}
		}
		if len(taken) > room+4 || len(taken) < room/2 || refused != crowd-len(taken) {
			t.Errorf("%d taken and %d refused, there is room for about %d", len(taken), refused, room)
		}
		// Some more who wait, and say nothing: the listener's event is there all the time.
		for range 10 {
			connect(t, c.addr)
		}
		before := c.report(t)
		served := 0
		during(time.Second, func() {
			p := taken[served%len(taken)]
			p.send(wsframe.Text, "still served")
			p.expect(wsframe.Text, "still served")
			served++
		})
		after := c.report(t)
		// Each echo costs some tens of µs, ten times that under the race detector; a spinning loop costs the whole second.
		if used := after.CPU - before.CPU; used > 600*time.Millisecond {
			t.Errorf("%v of CPU time in a second with %d echoes", used, served)
		}
		if n := after.Stats.Rejected["descriptors"]; n == 0 {
			t.Error("nobody was counted as turned away for want of a descriptor")
		}
		for _, p := range taken[:5] {
			_ = p.Close()
		}
		await(t, "it resumes", func() bool {
			p := newPeer(t, connect(t, c.addr))
			p.write([]byte(upgradeRequest("/ws")))
			_ = p.SetReadDeadline(time.Now().Add(time.Second))
			head := make([]byte, 12)
			_, err := io.ReadFull(p, head)
			if err == nil && strings.HasPrefix(string(head), "HTTP/1.1 101") {
				return true
			}
			_ = p.Close()
			return false
		})
		for _, p := range taken[5:] {
			p.send(wsframe.Text, "still served")
			p.expect(wsframe.Text, "still served")
		}
	})
}

// TestDescriptorReserve: however many loops there are, the connection limit leaves them their descriptors, and who comes beyond it hears why.
func TestDescriptorReserve(t *testing.T) {
	t.Parallel()
	const limit, loops = 400, 60
	const room = limit - (descriptorReserve + descriptorsPerLoop*loops + descriptorsPerListener)
	c := startChild(t, childSettings{Interval: 25 * time.Second, Timeout: 75 * time.Second, Limit: limit, Loops: loops})
	if got := c.report(t).Stats.Limit; got != room {
		t.Fatalf("a limit of %d connections with %d descriptors and %d loops, want %d", got, limit, loops, room)
	}
	for range room {
		c.dial(t, "/ws")
	}
	p := newPeer(t, connect(t, c.addr))
	p.write([]byte(upgradeRequest("/ws")))
	_ = p.SetReadDeadline(time.Now().Add(patience))
	head := make([]byte, 12)
	if _, err := io.ReadFull(p, head); err != nil || string(head) != "HTTP/1.1 503" {
		t.Errorf("beyond the limit: %q, %v", head, err)
	}
	await(t, "it is counted", func() bool { return c.report(t).Stats.Rejected["limit"] == 1 })
	r := c.report(t).Stats
	if r.Active != room || r.Rejected["descriptors"] != 0 {
		t.Errorf("%d of %d active, rejected %v", r.Active, room, r.Rejected)
	}
}
