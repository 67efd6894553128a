package wsframe

import (
	"encoding/binary"
	"math"
)

// Opcode says what a frame is (RFC 6455, section 5.2).
type Opcode uint8

// The opcodes of RFC 6455; all others are reserved. Continuation never appears in a Message.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xA
)

const (
	// ControlBytesMax is the longest payload of a control frame (RFC 6455, section 5.5).
	ControlBytesMax = 125
	// HeaderBytesMax is the longest frame header: 2 bytes, 8 of length, 4 of mask.
	HeaderBytesMax = 14

	headerBytesMin = 2
	maskBytes      = 4
)

// The first two bytes of a frame, high bit first:
//
//	FIN RSV1 RSV2 RSV3 opcode:4 | MASK length:7
//
// A length of 126 is followed by 16 bits, one of 127 by 64 bits (the highest 0) of length, then the mask if any.
const (
	bitFin        = 0x80
	bitsReserved  = 0x70
	bitCompressed = 0x40 // RSV1, as permessage-deflate uses it (RFC 7692, section 6)
	bitsOpcode    = 0x0F
	bitMask       = 0x80
	bitsLength    = 0x7F
	length16      = 126
	length64      = 127
	length16Bytes = 2
	length64Bytes = 8
)

// IsControl reports whether o is Close, Ping, Pong or one of the reserved control opcodes.
func (o Opcode) IsControl() bool { return o >= Close }

// String returns the name of RFC 6455 in lower case, "reserved" for an opcode that has none.
func (o Opcode) String() string {
	switch o {
	case Continuation:
		return "continuation"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	default:
		return "reserved"
	}
}

// header is a parsed frame header.
type header struct {
	length int // of the payload; math.MaxInt stands for all that is longer
	opcode Opcode
	fin    bool
	masked bool
	mask   [maskBytes]byte

	compressed bool // begins a compressed message
}

// headerNeed returns how many bytes the header has that begins with p: 2 as long as p is too short to tell.
func headerNeed(p []byte) int {
	if len(p) < headerBytesMin {
		return headerBytesMin
	}
	need := headerBytesMin
	switch p[1] & bitsLength {
	case length16:
		need += length16Bytes
	case length64:
		need += length64Bytes
	}
	if p[1]&bitMask != 0 {
		need += maskBytes
	}
	return need
}

// parseHeader reads the header that p, of headerNeed(p) bytes, is. It judges only the encoding of the length; the
// header is usable for Peek and FrameEnd even then.
func parseHeader(p []byte) (h header, perr *ProtocolError) {
	h.fin = p[0]&bitFin != 0
	h.compressed = p[0]&bitCompressed != 0
	h.opcode = Opcode(p[0] & bitsOpcode)
	at := headerBytesMin
	switch p[1] & bitsLength {
	case length16:
		length := binary.BigEndian.Uint16(p[at:])
		at += length16Bytes
		// RFC 6455, 5.2: in all cases, the minimal number of bytes MUST be used to encode the length.
		if length < length16 {
			perr = errLengthNotMinimal
		}
		h.length = int(length)
	case length64:
		length := binary.BigEndian.Uint64(p[at:])
		at += length64Bytes
		switch {
		case length > math.MaxInt64:
			// RFC 6455, 5.2: the most significant bit MUST be 0.
			perr = errLengthTopBit
		case length <= math.MaxUint16:
			perr = errLengthNotMinimal
		}
		h.length = int(min(length, math.MaxInt))
	default:
		h.length = int(p[1] & bitsLength)
	}
	if p[1]&bitMask != 0 {
		h.masked = true
		h.mask = [maskBytes]byte(p[at : at+maskBytes])
	}
	return h, perr
}

// checkBits judges what the first two bytes of a frame say: the reserved bits, the opcode, the mask, what control
// frames are allowed, and whether a message is under way. It is the one place that knows about reserved bits.
func checkBits(b0, b1 byte, inMessage bool, lim *Limits) *ProtocolError {
	// RFC 6455, 5.2: MUST be 0 unless an extension is negotiated that defines meanings for non-zero values.
	if b0&bitsReserved != 0 && !mayCompress(b0, lim) {
		return errReservedBits
	}
	// RFC 6455, 5.1: The server MUST close the connection upon receiving a frame that is not masked. A client MUST
	// close a connection if it detects a masked frame.
	if masked := b1&bitMask != 0; masked == lim.Client {
		if lim.Client {
			return errMaskedFrame
		}
		return errUnmaskedFrame
	}
	switch Opcode(b0 & bitsOpcode) {
	case Continuation:
		// RFC 6455, 5.4: a continuation continues a message that a text or binary frame without FIN began.
		if !inMessage {
			return errNoMessage
		}
	case Text, Binary:
		// RFC 6455, 5.4: The fragments of one message MUST NOT be interleaved between the fragments of another message.
		if inMessage {
			return errMessageOpen
		}
	case Close, Ping, Pong:
		// RFC 6455, 5.5: All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented.
		if b0&bitFin == 0 {
			return errControlFragment
		}
		if b1&bitsLength > ControlBytesMax {
			return errControlLength
		}
	default:
		return errReservedOpcode
	}
	return nil
}

// mayCompress reports whether the reserved bits of a frame's first byte, of which at least one is set, are those of
// permessage-deflate. RFC 7692, 6.1: RSV1 of the first fragment of each compressed message is set; an endpoint MUST
// NOT set it on control frames and non-first fragments of a data message.
func mayCompress(b0 byte, lim *Limits) bool {
	op := Opcode(b0 & bitsOpcode)
	return lim.Deflate && b0&bitsReserved == bitCompressed && (op == Text || op == Binary)
}
