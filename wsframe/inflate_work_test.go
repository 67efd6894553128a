package wsframe

import (
	"bytes"
	"errors"
	"testing"
)

// emptyBlocks are blocks without compression that hold nothing: BFINAL 0, BTYPE 00, padded to the byte, LEN 0, NLEN ffff (RFC 1951,
// section 3.2.4). They are the cheapest of their kind.
func emptyBlocks(n int) []byte {
	return bytes.Repeat([]byte{0x00, 0x00, 0x00, 0xff, 0xff}, n)
}

// TestInflateWorkIsBounded: blocks that hold nothing are read as far as a sender that flushes often may get ahead of its output, and no farther,
// however large a message may be.
func TestInflateWorkIsBounded(t *testing.T) {
	lim := &Limits{MessageBytesMax: 16 << 20, Deflate: true}
	var x Inflater
	few := append(emptyBlocks(workAhead/5-10), 0x00)
	if m, err := x.Inflate(lim, Message{Opcode: Binary, Compressed: true, Payload: few}); err != nil || len(m.Payload) != 0 {
		t.Errorf("%d empty blocks: %d bytes, %v", workAhead/5-10, len(m.Payload), err)
	}
	many := append(emptyBlocks(10*workAhead/5), 0x00)
	var perr *ProtocolError
	if _, err := x.Inflate(lim, Message{Opcode: Binary, Compressed: true, Payload: many}); !errors.As(err, &perr) || perr.Code != ClosePolicy {
		t.Errorf("%d empty blocks: %v, want 1008", 10*workAhead/5, err)
	}
}
