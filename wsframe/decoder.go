package wsframe

import (
	"math"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Limits bounds what a peer may send and says where the memory for it comes from. It is not changed after the first
// use and may be shared by all connections. The zero value has no bounds: it is for tests, not for the world.
type Limits struct {
	// MessageBytesMax bounds the payload of a whole message, in bytes, fragments added up; 0 is none. Beyond: 1009.
	// Of a compressed message it bounds what Inflater makes of it; the compressed bytes themselves may be more by an
	// eighth and 64 bytes, which is as much as any deflate can add to data that it cannot compress.
	MessageBytesMax int
	// FragmentsMax bounds the frames of one message; 0 is none. Beyond: 1008. Small fragments cost more work and
	// memory than their bytes, which MessageBytesMax does not see.
	FragmentsMax int
	// EmptyFragmentsMax bounds the empty frames of one message that do not end it; 0 is none. Beyond: 1008. They add
	// nothing to any count of bytes and have no honest use in number.
	EmptyFragmentsMax int
	// Client is set by a client: frames must then be unmasked. By default they must be masked.
	Client bool
	// Deflate is set for connections that agreed on permessage-deflate: their messages may be compressed, which
	// Message.Compressed then says. By default RSV1 is an error like the other reserved bits.
	Deflate bool
	// Grow returns a slice with the length and content of buf and a capacity of at least bytes; it may recycle buf.
	// It is asked for what arrived or for twice the former capacity, whichever is more, and never for more than the
	// end of the frame under way needs. Inflater asks it likewise for what it inflates. Nil: Go's append.
	Grow func(buf []byte, bytes int) []byte
}

// Message is a whole message (Text, Binary) or one control frame (Close, Ping, Pong).
type Message struct {
	Opcode Opcode
	// Compressed says that Payload is what the peer's deflate made of the message, not judged yet: it is for
	// Inflater.Inflate. Never set without Limits.Deflate.
	Compressed bool
	// Payload is unmasked; text and the reason of a Close are valid UTF-8. Valid until the next call on the Decoder.
	Payload []byte
	// Frames is how many frames the message came in; 1 for a control frame.
	Frames int
}

// Decoder assembles the messages of one connection from whatever pieces arrive. The zero value is ready. It holds
// only the state of an unfinished frame or message, so it may be dropped while Idle.
//
//	            header complete             last byte of the frame
//	boundary ───────────────────▶ in frame ────────────────────────▶ boundary
//	    ▲ message == 0: Idle if headBytes == 0; else between the frames of a message
//
// One goroutine at a time may use it.
type Decoder struct {
	// buf holds what has arrived of the message under way and, in its last controlBytes bytes, what has arrived of a
	// control frame that came between two of the message's frames. One buffer is enough: frames do not interleave.
	buf []byte

	failed    *ProtocolError // what Next returned once and returns ever after
	remaining int            // payload bytes that the frame under way still lacks
	frames    int32          // of the message under way
	empties   int32          // empty frames among them that did not end it

	mask         [maskBytes]byte
	head         [HeaderBytesMax]byte // the beginning of a header
	headBytes    uint8
	controlBytes uint8
	maskAt       uint8  // position in mask of the next payload byte
	utf8Open     uint8  // bytes at the end of the message's text that begin a character without ending it
	message      Opcode // of the message under way; Continuation: none
	frame        Opcode // of the frame under way
	inFrame      bool   // the header was read, the payload not yet wholly
	fin          bool   // the frame under way ends its message
	compressed   bool   // the message under way is
}

// Next decodes from buf, the bytes that follow those consumed before. It consumes n of them and returns at most one
// message: with ok it is complete, and the rest of buf is for the next call. Without ok and error all of buf was
// consumed and more is needed. err is always a *ProtocolError, after which nothing of this connection can be decoded
// and Next returns the same error again.
//
// Next may unmask in place, so the consumed part of buf is not what it was. It allocates nothing for a frame that
// lies in buf as a whole; else through lim.Grow.
func (d *Decoder) Next(lim *Limits, buf []byte) (m Message, n int, ok bool, err error) {
	if d.failed != nil {
		return Message{}, 0, false, d.failed
	}
	for {
		if !d.inFrame {
			h, k, ready, perr := d.readHeader(lim, buf[n:])
			n += k
			if perr != nil {
				return Message{}, n, false, d.fail(perr)
			}
			if !ready {
				return Message{}, n, false, nil
			}
			// The common case: the frame lies in buf, and nothing stands before it.
			if h.length <= len(buf)-n && (h.opcode.IsControl() || h.fin && d.message == Continuation) {
				payload := buf[n : n+h.length : n+h.length]
				if h.masked {
					ws.Cipher(payload, h.mask, 0)
				}
				if !h.compressed {
					if perr := checkPayload(h.opcode, payload); perr != nil {
						return Message{}, n, false, d.fail(perr)
					}
				}
				return Message{Opcode: h.opcode, Compressed: h.compressed, Payload: payload, Frames: 1}, n + h.length, true, nil
			}
			d.begin(h)
		}
		k, perr := d.take(lim, buf[n:])
		n += k
		if perr != nil {
			return Message{}, n, false, d.fail(perr)
		}
		if d.remaining > 0 {
			return Message{}, n, false, nil
		}
		m, ok, perr = d.end()
		if perr != nil {
			return Message{}, n, false, d.fail(perr)
		}
		if ok {
			return m, n, true, nil
		}
	}
}

// Peek returns how many payload bytes the message will have once the data frame under way, or the one whose header
// begins or continues in buf, is complete: what was assembled before and the frame's declared length. ok is false if
// that header is incomplete or belongs to a control frame. Of a compressed message it is what the payload may become.
// Peek consumes nothing and judges nothing; total is at most lim.MessageBytesMax + 1 if there is such a bound, so that
// arithmetic on it cannot overflow.
func (d *Decoder) Peek(lim *Limits, buf []byte) (total int, ok bool) {
	length, compressed := d.remaining, d.compressed
	if d.inFrame {
		if d.frame.IsControl() {
			return 0, false
		}
	} else {
		var p [HeaderBytesMax]byte
		copy(p[:], d.head[:d.headBytes])
		got := int(d.headBytes) + copy(p[d.headBytes:], buf)
		if got < headerBytesMin || got < headerNeed(p[:got]) {
			return 0, false
		}
		h, _ := parseHeader(p[:headerNeed(p[:got])])
		if h.opcode.IsControl() {
			return 0, false
		}
		length, compressed = h.length, d.compressed || h.compressed
	}
	total = math.MaxInt
	if assembled := len(d.buf); length <= math.MaxInt-assembled {
		total = assembled + length
	}
	if compressed {
		total = inflatedBytesMost(total)
	}
	if lim.MessageBytesMax > 0 {
		total = min(total, lim.MessageBytesMax+1)
	}
	return total, true
}

// Idle reports whether the Decoder stands at the boundary of a frame and of a message. The Decoder can then be
// dropped, after Release if its buffer came from a pool.
func (d *Decoder) Idle() bool {
	return !d.inFrame && d.message == Continuation && d.headBytes == 0 && d.failed == nil
}

// Release resets the Decoder and hands over its buffer, with length 0, for a pool; nil if it has none. The payload of
// the last message may lie in it, so call it once that is used. On a Decoder that is not Idle it abandons what was
// assembled: right when the connection is closed.
func (d *Decoder) Release() (buf []byte) {
	if cap(d.buf) > 0 {
		buf = d.buf[:0]
	}
	*d = Decoder{}
	return buf
}

// Reset brings the Decoder back to its zero state but keeps its buffer.
func (d *Decoder) Reset() { *d = Decoder{buf: d.buf[:0]} }

// fail records the error that ends the decoding of this connection. It exists so that a nil *ProtocolError never
// becomes a non-nil error.
func (d *Decoder) fail(perr *ProtocolError) error {
	d.failed = perr
	return perr
}

// readHeader reads a header from the kept part and buf, of which it consumes n bytes, and judges it. ready is false
// if it is incomplete: all of buf is kept then.
func (d *Decoder) readHeader(lim *Limits, buf []byte) (h header, n int, ready bool, perr *ProtocolError) {
	var p []byte
	if d.headBytes == 0 && len(buf) >= headerBytesMin && len(buf) >= headerNeed(buf) {
		n = headerNeed(buf)
		p = buf[:n]
	} else {
		if n, ready, perr = d.keepHeader(lim, buf); !ready || perr != nil {
			return header{}, n, false, perr
		}
		p = d.head[:d.headBytes]
		d.headBytes = 0
	}
	if perr = checkBits(p[0], p[1], d.message != Continuation, lim); perr != nil {
		return header{}, n, false, perr
	}
	if h, perr = parseHeader(p); perr != nil {
		return header{}, n, false, perr
	}
	if !h.opcode.IsControl() {
		perr = d.checkLimits(lim, h)
	}
	return h, n, perr == nil, perr
}

// keepHeader adds the n bytes of buf that belong to the header under way to those kept before. The first two bytes
// are judged as soon as they are there: a peer that breaks the protocol in them need not send the rest.
func (d *Decoder) keepHeader(lim *Limits, buf []byte) (n int, ready bool, perr *ProtocolError) {
	for {
		need := headerNeed(d.head[:d.headBytes])
		k := copy(d.head[d.headBytes:need], buf[n:])
		n += k
		d.headBytes += uint8(k)
		if int(d.headBytes) < need {
			return n, false, nil
		}
		if perr = checkBits(d.head[0], d.head[1], d.message != Continuation, lim); perr != nil {
			return n, false, perr
		}
		if headerNeed(d.head[:d.headBytes]) == need {
			return n, true, nil
		}
	}
}

// checkLimits compares what the header of a data frame announces with the bounds, before any memory is asked for.
func (d *Decoder) checkLimits(lim *Limits, h header) *ProtocolError {
	room := math.MaxInt - ControlBytesMax - len(d.buf)
	if lim.MessageBytesMax > 0 {
		room = lim.MessageBytesMax - len(d.buf)
		if d.compressed || h.compressed {
			room = compressedBytesMost(lim.MessageBytesMax) - len(d.buf)
		}
	}
	if h.length > room {
		return errMessageTooBig
	}
	if lim.FragmentsMax > 0 && int(d.frames) >= lim.FragmentsMax {
		return errFragments
	}
	if lim.EmptyFragmentsMax > 0 && h.length == 0 && !h.fin && int(d.empties) >= lim.EmptyFragmentsMax {
		return errEmptyFragments
	}
	return nil
}

// begin enters the frame of header h, whose payload will be collected.
func (d *Decoder) begin(h header) {
	d.inFrame = true
	d.frame = h.opcode
	d.fin = h.fin
	d.remaining = h.length
	d.mask = h.mask
	d.maskAt = 0
	if h.opcode.IsControl() {
		return
	}
	if h.opcode != Continuation {
		d.message, d.compressed = h.opcode, h.compressed
	}
	// The counts stop far above any bound, so that without one they cannot wrap.
	if d.frames < math.MaxInt32 {
		d.frames++
	}
	if h.length == 0 && !h.fin && d.empties < math.MaxInt32 {
		d.empties++
	}
}

// checkPayload judges the whole payload of an unfragmented frame.
func checkPayload(op Opcode, payload []byte) *ProtocolError {
	switch {
	case op == Text && !utf8.Valid(payload):
		// RFC 6455, 8.1: text that is not UTF-8 fails the connection.
		return errTextUTF8
	case op == Close:
		return checkClose(payload)
	default:
		return nil
	}
}
