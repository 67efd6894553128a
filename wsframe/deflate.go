package wsframe

import (
	"bytes"
	"errors"
	"sync"

	"github.com/klauspost/compress/flate"
)

// Deflate is what was agreed on about permessage-deflate (RFC 7692) with one peer: 0 is none, WindowBitsMin to
// WindowBitsMax are the bits of the largest window that the server may compress with. It fits 4 bits. No context is taken
// over in either direction, so that there is nothing else to remember and nothing to hold between two messages.
type Deflate uint8

const (
	// WindowBitsMin is the smallest window that can be agreed on (RFC 7692, section 7.1.2).
	WindowBitsMin = 8
	// WindowBitsMax is the largest, and what is used unless a peer asks for less.
	WindowBitsMax = 15

	// CompressBytesMin is the shortest message that Deflater compresses. Below it the header of a block takes what
	// the block saves, and the frame costs some 5 µs more.
	CompressBytesMin = 128
)

// Deflater compresses messages for any number of connections and goroutines at a time. The zero value is ready; it must
// not be copied. It keeps no more compressors (0.5 to 0.8 MB each) than messages are compressed at the same moment, and
// the collector takes those that are not used.
type Deflater struct {
	pools [WindowBitsMax - WindowBitsMin + 1]sync.Pool // of *compressor, by the bits of the window
}

// Append appends payload as one unmasked frame with fin, as AppendFrame does: compressed if d says that the peer can read
// it, if the message has at least CompressBytesMin bytes, and if it gets shorter; plain otherwise. Only Text and Binary
// may be compressed; d must be 0 for others (RFC 7692, section 6.1).
//
// A frame that is right for WindowBitsMin is right for every d but 0.
func (c *Deflater) Append(dst []byte, d Deflate, op Opcode, payload []byte) []byte {
	if d == 0 || len(payload) < CompressBytesMin {
		return AppendFrame(dst, op, payload)
	}
	pool := &c.pools[d-WindowBitsMin]
	w, ok := pool.Get().(*compressor)
	if !ok {
		w = newCompressor(d)
	}
	defer pool.Put(w)
	start := len(dst)
	// The header of what is shorter than payload is not longer than payload's.
	frameAt := start + HeaderBytes(len(payload))
	var reserved [HeaderBytesMax]byte
	out, gained := w.compress(append(dst, reserved[:frameAt-start]...), payload)
	if !gained {
		return AppendFrame(out[:start], op, payload)
	}
	compressed := out[frameAt:]
	header := AppendHeader(out[:start], op, true, len(compressed))
	header[start] |= bitCompressed
	return append(header, compressed...)
}

// compressor is a deflate of one window and where its output goes.
type compressor struct {
	flate *flate.Writer
	out   []byte
	most  int // length of out from which on nothing is gained
}

// errNoGain stops a compressor whose output is as long as its input.
var errNoGain = errors.New("wsframe: compression gains nothing")

func newCompressor(d Deflate) *compressor {
	w := new(compressor)
	var err error
	if d == WindowBitsMax {
		// Half as dear as the levels above it, and hardly longer.
		w.flate, err = flate.NewWriter(w, flate.BestSpeed)
	} else {
		w.flate, err = flate.NewWriterWindow(w, 1<<d)
	}
	if err != nil {
		panic("wsframe: a window that nobody can have agreed on: " + err.Error())
	}
	return w
}

// compress appends the compressed form of payload to dst, as it goes into a frame. Without gain the result is of use
// for its memory only.
func (w *compressor) compress(dst, payload []byte) (out []byte, gained bool) {
	w.out = dst
	w.most = len(dst) + len(payload) + len(syncTail)
	defer func() { w.out = nil }()
	w.flate.Reset(w)
	_, err := w.flate.Write(payload)
	if err == nil {
		err = w.flate.Flush()
	}
	if errors.Is(err, errNoGain) {
		return w.out, false
	}
	if err != nil || !bytes.HasSuffix(w.out, []byte(syncTail)) {
		panic("wsframe: deflate ended without a flush") // it writes to memory, and a flush is what it was asked for
	}
	return w.out[:len(w.out)-len(syncTail)], true
}

// Write takes compressed bytes.
func (w *compressor) Write(p []byte) (int, error) {
	if len(w.out)+len(p) >= w.most {
		return 0, errNoGain
	}
	w.out = append(w.out, p...)
	return len(p), nil
}
