package server

import (
	"net"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// heldBytesMax is what a connection may hold of user memory that has announced a large message and sent a byte of it: record, timer, side
// table and the smallest buffer.
const heldBytesMax = 512

// TestAnnouncementsCostNothing: memory follows what arrived, never what was announced. Thousands of connections that announce 64 KiB each and
// send one byte of it, and as many that announce 8 EiB, stay under their bound; the latter are refused at once.
func TestAnnouncementsCostNothing(t *testing.T) {
	descriptors, err := poller.DescriptorLimit()
	if err != nil {
		t.Fatal(err)
	}
	n := int(min(10_000, descriptors-500))
	c := startChild(t, childSettings{Interval: 5 * time.Minute, Timeout: 10 * time.Minute})
	request, head := []byte(upgradeRequest("/ws")), wsframe.AppendHeader(nil, wsframe.Binary, true, 64<<10)
	head[1] |= 0x80
	half := append(head, 1, 2, 3, 4, 'x')
	before := c.report(t).Heap
	var peers []net.Conn
	defer func() {
		for _, p := range peers {
			_ = p.Close()
		}
	}()
	for range n {
		p := connect(t, c.addr)
		peers = append(peers, p)
		if _, err := p.Write(append(request, half...)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "all are there", func() bool { return c.report(t).Stats.BytesIn == uint64(n*len(half)) })
	held := float64(c.report(t).Heap-before) / float64(n)
	t.Logf("%.0f bytes a connection, with %d of them", held, n)
	if held > heldBytesMax {
		t.Errorf("%.0f bytes a connection, want at most %d", held, heldBytesMax)
	}

	for _, p := range peers {
		_ = p.Close()
	}
	await(t, "they are gone", func() bool { return c.report(t).Stats.Active == 0 })
	huge := []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}
	before = c.report(t).Heap
	for range 200 {
		p := c.dial(t, "/ws")
		p.write(huge)
		p.expectClose(wsframe.CloseTooBig)
		_ = p.Close()
	}
	if grown := int64(c.report(t).Heap) - int64(before); grown > 256<<10 {
		t.Errorf("200 announcements of 8 EiB hold %d bytes", grown)
	}
}
