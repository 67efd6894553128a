package wsframe

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// HeaderBytes returns the length of the unmasked header of a frame with that payload: 2, 4 or 10 bytes.
func HeaderBytes(payloadBytes int) int {
	switch {
	case payloadBytes < length16:
		return headerBytesMin
	case payloadBytes <= math.MaxUint16:
		return headerBytesMin + length16Bytes
	default:
		return headerBytesMin + length64Bytes
	}
}

// AppendHeader appends the unmasked header of a frame, as a server sends it; the caller appends the payload. A message
// of one frame has fin and its own opcode, the later frames of one in several have Continuation.
func AppendHeader(dst []byte, op Opcode, fin bool, payloadBytes int) []byte {
	return appendHeader(dst, op, fin, payloadBytes, 0)
}

func appendHeader(dst []byte, op Opcode, fin bool, payloadBytes int, mask byte) []byte {
	first := byte(op)
	if fin {
		first |= bitFin
	}
	switch {
	case payloadBytes < length16:
		return append(dst, first, mask|byte(payloadBytes))
	case payloadBytes <= math.MaxUint16:
		return append(dst, first, mask|length16, byte(payloadBytes>>8), byte(payloadBytes))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, mask|length64), uint64(payloadBytes))
	}
}

// AppendFrame appends a whole unmasked frame with fin. The payload of a control frame must not exceed ControlBytesMax.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	return append(AppendHeader(dst, op, true, len(payload)), payload...)
}

// AppendMasked appends a whole frame as a client sends it; payload is not changed. RFC 6455, section 10.3 wants each
// mask unpredictable, which is the caller's part.
func AppendMasked(dst []byte, op Opcode, fin bool, payload []byte, mask [4]byte) []byte {
	dst = appendHeader(dst, op, fin, len(payload), bitMask)
	dst = append(dst, mask[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	ws.Cipher(dst[start:], mask, 0)
	return dst
}

// AppendClose appends an unmasked Close frame. Code 0 and CloseNoStatus make an empty payload and drop the reason;
// any other code that is not Sendable goes out as CloseInternal, since only this side can have chosen it. The reason
// is cut to CloseReasonBytesMax bytes at a character, and what is not UTF-8 in it becomes U+FFFD.
func AppendClose(dst []byte, code CloseCode, reason string) []byte {
	if code == 0 || code == CloseNoStatus {
		return AppendHeader(dst, Close, true, 0)
	}
	if !code.Sendable() {
		code = CloseInternal
	}
	reason = cutReason(reason)
	dst = AppendHeader(dst, Close, true, closeCodeBytes+len(reason))
	return append(binary.BigEndian.AppendUint16(dst, uint16(code)), reason...)
}

// cutReason returns as much of reason as fits a Close frame, as valid UTF-8.
func cutReason(reason string) string {
	if !utf8.ValidString(reason) {
		// Cut first, so that the copy is as short as the frame.
		reason = strings.ToValidUTF8(reason[:min(len(reason), ControlBytesMax)], string(utf8.RuneError))
	}
	if len(reason) <= CloseReasonBytesMax {
		return reason
	}
	end := CloseReasonBytesMax
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}

// FrameEnd returns the length in bytes, header included, of the frame that begins at buf[0]; it may be more than buf
// holds. ok is false if the header is incomplete. It is for the frames of an outbox, which are our own: the frame
// under way has to be finished, what follows it can be discarded.
func FrameEnd(buf []byte) (n int, ok bool) {
	if len(buf) < headerBytesMin || len(buf) < headerNeed(buf) {
		return 0, false
	}
	n = headerNeed(buf)
	h, _ := parseHeader(buf[:n])
	if h.length > math.MaxInt-n {
		return math.MaxInt, true
	}
	return n + h.length, true
}
