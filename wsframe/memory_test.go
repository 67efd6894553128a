//go:build !race

// The race detector allocates on its own, so these figures hold only without it.

package wsframe

import (
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"
)

// allocated runs f and returns the bytes that it allocated, and those of them that are still in use.
func allocated(f func()) (total, held uint64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, after.HeapAlloc - min(after.HeapAlloc, before.HeapAlloc)
}

// announced is the header of a masked binary frame with so many bytes of payload, more than 65535.
func announced(bytes uint64) []byte {
	header := binary.BigEndian.AppendUint64([]byte{bitFin | byte(Binary), bitMask | length64}, bytes)
	return append(header, 1, 2, 3, 4)
}

// TestAnnouncedBytesCostNothing: 14 bytes that announce as much as 63 bits can say are refused, or waited for if they are
// within the limit, without a byte of memory.
func TestAnnouncedBytesCostNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		max    int
		length uint64
		err    error
	}{
		{name: "8 EiB against a limit", max: 64 << 10, length: 1<<63 - 1, err: errMessageTooBig},
		{name: "8 EiB without a limit", length: 1<<63 - 1, err: errMessageTooBig},
		{name: "1 GiB within the limit", max: 1 << 30, length: 1 << 30},
		{name: "1 GiB without a limit", length: 1 << 30},
	} {
		for _, deflate := range []bool{false, true} {
			lim := &Limits{MessageBytesMax: c.max, Deflate: deflate}
			header := announced(c.length)
			if deflate {
				header[0] |= bitCompressed
			}
			var err error
			const rounds = 100
			total, _ := allocated(func() {
				for range rounds {
					var d Decoder
					_, _, _, err = d.Next(lim, header)
					d.Peek(lim, nil)
				}
			})
			if !errors.Is(err, c.err) || total > 4096 {
				t.Errorf("%s, deflate %v: %v, %d bytes allocated in %d rounds", c.name, deflate, err, total, rounds)
			}
		}
	}
}

// TestHalfFramesHoldLittle: 10,000 connections announce 64 KiB each and send one byte of it. What each holds is a Decoder
// and the least buffer that its owner gives; a server adds its own record of the connection.
func TestHalfFramesHoldLittle(t *testing.T) {
	const connections, bufferBytesLeast, bytesMost = 10_000, 64, 96 + 64 + 16
	lim := &Limits{MessageBytesMax: 64 << 10, Deflate: true, Grow: func(buf []byte, size int) []byte {
		if size > bufferBytesLeast {
			t.Fatalf("asked for %d bytes after one", size)
		}
		return append(make([]byte, 0, bufferBytesLeast), buf...)
	}}
	for _, compressed := range []bool{false, true} {
		header := append(announced(64<<10), 'x')
		if compressed {
			header[0] |= bitCompressed
		}
		var held []*Decoder
		_, bytes := allocated(func() {
			held = make([]*Decoder, connections)
			for i := range held {
				held[i] = new(Decoder)
				if _, _, ok, err := held[i].Next(lim, header); ok || err != nil {
					t.Fatal(ok, err)
				}
			}
		})
		if each := bytes / connections; each > bytesMost {
			t.Errorf("compressed %v: %d bytes each, want at most %d", compressed, each, bytesMost)
		}
		runtime.KeepAlive(held)
	}
}

// TestInflaterMemory: one Inflater is what all connections of a goroutine share.
func TestInflaterMemory(t *testing.T) {
	payload := []byte(deflated(t, string(sample("json", 60_000, 1))))
	lim := &Limits{MessageBytesMax: 64 << 10, Deflate: true}
	var x Inflater
	_, bytes := allocated(func() {
		if _, err := x.Inflate(lim, Message{Opcode: Text, Compressed: true, Payload: payload}); err != nil {
			t.Fatal(err)
		}
		x.Release()
	})
	if bytes > 48<<10 {
		t.Errorf("an Inflater holds %d bytes, want at most 48 KiB", bytes)
	}
	runtime.KeepAlive(&x)
}

// TestFragmentsAreCopiedSeldom: a message that comes in very many fragments is copied a constant number of times, not once
// for each of them, and its buffer is never more than twice what arrived, nor beyond the bound of a message.
func TestFragmentsAreCopiedSeldom(t *testing.T) {
	const size, fragment = 4 << 20, 64
	for _, c := range []struct {
		name  string
		bound int
		ping  bool
	}{
		{name: "no bound"},
		{name: "bound", bound: size + 100},
		{name: "pings between", bound: size, ping: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			arrived, copied := 0, 0
			lim := &Limits{MessageBytesMax: c.bound, Grow: func(buf []byte, bytes int) []byte {
				if copied += len(buf); bytes > max(2*arrived, fragment+ControlBytesMax) || c.bound > 0 && bytes > c.bound+ControlBytesMax {
					t.Fatalf("asked for %d bytes after %d", bytes, arrived)
				}
				if copied > 2*size {
					t.Fatalf("%d bytes were copied for the first %d of a message", copied, arrived)
				}
				return append(make([]byte, 0, bytes), buf...)
			}}
			var d Decoder
			op, part := Binary, strings.Repeat("x", fragment)
			for arrived < size {
				arrived += fragment
				m, _, ok, err := d.Next(lim, masked(op, arrived == size, part))
				if err != nil || ok != (arrived == size) || ok && len(m.Payload) != size {
					t.Fatalf("after %d bytes: %v %v", arrived, ok, err)
				}
				if op = Continuation; c.ping && !ok {
					if m, _, ok, err := d.Next(lim, masked(Ping, true, "p")); !ok || err != nil || m.Opcode != Ping {
						t.Fatal(ok, err)
					}
				}
			}
		})
	}
}
