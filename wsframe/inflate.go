package wsframe

import (
	"compress/flate"
	"errors"
	"io"
	"math"
	"slices"
)

const (
	// syncTail is what a sender cuts off the end of a message and a receiver appends (RFC 7692, section 7.2): the
	// length of an empty block without compression, whose header is the last thing on the wire.
	syncTail = "\x00\x00\xFF\xFF"
	// finalTail is an empty last block, which turns the message into a stream whose end the library can see.
	finalTail = "\x01\x00\x00\xFF\xFF"

	// finalBlocksMax bounds the blocks of one message that say they are the last. RFC 7692, 7.2.1 allows them anywhere
	// in it; each sets the inflater up anew, microseconds for 10 bits. Senders that make them at all make one.
	finalBlocksMax = 16

	// workAhead bounds how many bytes may be read beyond what came out, and an eighth: blocks without content, of eleven bytes each, set the
	// inflater's tables up anew, a microsecond each. The library holds back up to a window; the rest is for senders that flush often.
	workAhead = windowBytes + 64<<10
	// windowBytes is the farthest that deflate can look back (RFC 1951, section 2).
	windowBytes = 1 << WindowBitsMax
	// inflateBytesLeast is the least that is asked for to inflate into.
	inflateBytesLeast = 512
	// expansionMost is how many bytes one byte of deflate can become: a match of 258 bytes takes at least 2 bits.
	expansionMost = 258 * 8 / 2
)

// compressedBytesMost returns how long the compressed form of so many bytes may be. Of all ways to compress badly the
// fixed code is the worst that a deflate may choose: 9 bits for each byte from 144 on. The rest is for block headers.
func compressedBytesMost(bytes int) int {
	const headers = 64
	return bytes + min(bytes/8+headers, math.MaxInt-ControlBytesMax-bytes)
}

// inflatedBytesMost returns how long a message may become that has so many compressed bytes.
func inflatedBytesMost(compressed int) int {
	if compressed > math.MaxInt/expansionMost {
		return math.MaxInt
	}
	return compressed * expansionMost
}

// Inflater turns compressed messages into what their sender had. The zero value is ready; the first compressed message
// takes some 40 KiB for it, most of them the window. Since no window is kept from one message to the next, it belongs to
// whoever decodes, not to a connection: one for each goroutine that does.
//
// It is the standard library's inflate. That of klauspost/compress is faster by a quarter to a third, but a block whose
// code for lengths or distances is empty (which no sender makes, and which is an error) is decoded by what its tables
// held before: at v1.20.3 a peer could so learn something of what other connections had sent.
//
// One goroutine at a time may use it.
type Inflater struct {
	flate  io.Reader // a flate.Resetter too
	source deflateSource

	buf      []byte  // what was inflated
	utf8Open int     // bytes at its end that begin a character without ending it
	beyond   [1]byte // where a byte goes that must not come
}

// Inflate returns m with its payload inflated, or m itself if it is not compressed. The payload lies in the Inflater's
// buffer and is valid until its next use. err is always a *ProtocolError: 1009 as soon as more than
// lim.MessageBytesMax bytes have come out; 1007 at the first byte of text that is not UTF-8, and for data that is not
// deflate, ends in the middle of it or refers to messages before, since it cannot be what its opcode says it is; 1008
// for blocks that cost more to set up than they can hold.
//
// Memory for it comes from lim.Grow, by doubling, and never more than lim.MessageBytesMax.
func (x *Inflater) Inflate(lim *Limits, m Message) (Message, error) {
	if !m.Compressed {
		return m, nil
	}
	if perr := x.inflate(lim, m.Opcode == Text, m.Payload); perr != nil {
		return Message{}, perr
	}
	m.Payload, m.Compressed = slices.Clip(x.buf), false
	return m, nil
}

// Release hands over the buffer of the last message, with length 0, for a pool; nil if there is none. The inflater's
// own state stays.
func (x *Inflater) Release() (buf []byte) {
	if cap(x.buf) > 0 {
		buf = x.buf[:0]
	}
	x.buf = nil
	return buf
}

// inflate fills buf from the compressed payload. One that was cut short is refused, unless the tails happen to complete
// it: then it is what the receiver of RFC 7692, section 7.2.2 would see too.
func (x *Inflater) inflate(lim *Limits, text bool, payload []byte) *ProtocolError {
	x.source = deflateSource{payload: payload}
	defer func() { x.source = deflateSource{} }()
	x.buf, x.utf8Open = x.buf[:0], 0
	if x.flate == nil {
		x.flate = flate.NewReader(&x.source)
	}
	for range finalBlocksMax + 1 {
		x.restart()
		if perr := x.stream(lim, text); perr != nil {
			return perr
		}
		// A last block of the peer's own ends earlier, and the message goes on after it. The library reads no byte more
		// than it decodes.
		if x.source.at < len(payload)+len(syncTail+finalTail) {
			continue
		}
		if x.utf8Open > 0 {
			return errTextUTF8
		}
		return nil
	}
	return errDeflateBlocks
}

// restart makes the inflater begin a stream at the next byte, with the window that this message has built up so far.
func (x *Inflater) restart() {
	window := x.buf[max(0, len(x.buf)-windowBytes):]
	if err := x.flate.(flate.Resetter).Reset(&x.source, window); err != nil { //nolint:forcetypeassert // flate documents it
		panic("wsframe: resetting an inflater: " + err.Error()) // it touches memory only
	}
}

// stream inflates to the end of a deflate stream.
func (x *Inflater) stream(lim *Limits, text bool) *ProtocolError {
	for {
		dst, full := x.room(lim)
		x.source.most = len(x.buf) + len(x.buf)/8 + workAhead
		n, err := x.flate.Read(dst)
		if n > 0 {
			if full {
				return errMessageTooBig
			}
			start := len(x.buf)
			x.buf = x.buf[:start+n]
			if text {
				open, valid := textPrefix(x.buf[start-x.utf8Open:])
				if !valid {
					return errTextUTF8
				}
				x.utf8Open = open
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errWorkAhead):
			return errDeflateBlocks
		default:
			return errDeflateData
		}
	}
}

// room returns where to inflate to next: free space of the buffer, which grows for it, or, if the message is full, one
// byte to find out whether there is more.
func (x *Inflater) room(lim *Limits) (dst []byte, full bool) {
	most := math.MaxInt
	if lim.MessageBytesMax > 0 {
		most = lim.MessageBytesMax
	}
	have := len(x.buf)
	if have == most {
		return x.beyond[:], true
	}
	if have == cap(x.buf) {
		bytes := min(max(2*have, inflateBytesLeast), most)
		if lim.Grow == nil {
			x.buf = slices.Grow(x.buf, bytes-have)
		} else {
			x.buf = lim.ask(x.buf, bytes)
		}
	}
	return x.buf[have:min(cap(x.buf), most)], false
}

// deflateSource is a compressed payload and the tails that complete it.
type deflateSource struct {
	payload []byte
	at      int // of the next byte
	most    int // beyond which nothing is given
}

// errWorkAhead ends a stream that costs far more to read than comes out.
var errWorkAhead = errors.New("wsframe: deflate that makes nothing")

// Read gives the next bytes.
func (s *deflateSource) Read(p []byte) (n int, err error) {
	if s.at > s.most {
		return 0, errWorkAhead
	}
	if s.at < len(s.payload) {
		n = copy(p, s.payload[s.at:])
	} else if tail := s.at - len(s.payload); tail < len(syncTail+finalTail) {
		n = copy(p, (syncTail + finalTail)[tail:])
	} else {
		return 0, io.EOF
	}
	s.at += n
	return n, nil
}

// ReadByte gives the next byte. It is what keeps the library from reading ahead.
func (s *deflateSource) ReadByte() (byte, error) {
	if s.at > s.most {
		return 0, errWorkAhead
	}
	if s.at < len(s.payload) {
		s.at++
		return s.payload[s.at-1], nil
	}
	var b [1]byte
	_, err := s.Read(b[:])
	return b[0], err
}
