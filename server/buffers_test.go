package server

import "testing"

// TestLongBacklogIsCopiedSeldom: what grows by many small appends is moved a few times, not with each of them, however long it is; and it has room for
// at most twice of what is in it.
func TestLongBacklogIsCopiedSeldom(t *testing.T) {
	const size = 8 << 20
	b := new(buffers)
	part := make([]byte, 1000)
	var buf []byte
	copied := 0
	for len(buf) < size {
		room := cap(buf)
		if buf = b.appendTo(buf, part); cap(buf) != room {
			copied += len(buf) - len(part)
		}
		if copied > 2*size {
			t.Fatalf("%d bytes were copied to append %d", copied, len(buf))
		}
		if cap(buf) > 2*len(buf)+bufferBytesLeast {
			t.Fatalf("%d bytes have room for %d", len(buf), cap(buf))
		}
	}
}
