package wsframe

import (
	"encoding/binary"
	"unicode/utf8"
)

// CloseCode is the status code of a Close frame (RFC 6455, section 7.4).
type CloseCode uint16

// The codes that Pulsewheel sends or reports. CloseNoStatus and CloseAbnormal are never on the wire: they stand for a
// Close frame without a code and for a connection that ended without one.
const (
	CloseNormal        CloseCode = 1000
	CloseGoingAway     CloseCode = 1001
	CloseProtocol      CloseCode = 1002
	CloseUnsupported   CloseCode = 1003
	CloseNoStatus      CloseCode = 1005
	CloseAbnormal      CloseCode = 1006
	CloseInvalidUTF8   CloseCode = 1007
	ClosePolicy        CloseCode = 1008
	CloseTooBig        CloseCode = 1009
	CloseInternal      CloseCode = 1011
	CloseRestart       CloseCode = 1012
	CloseOverload      CloseCode = 1013
	CloseToken         CloseCode = 4401
	CloseKicked        CloseCode = 4403
	CloseHeartbeatLost CloseCode = 4408
)

const (
	// closeReserved is defined to have no meaning yet (RFC 6455, section 7.4.1).
	closeReserved CloseCode = 1004
	// closeBadGateway is the last code that the IANA registry has added to those of the RFC: 1012 to 1014.
	closeBadGateway CloseCode = 1014
	// closeCodeBytes is the length of the code in front of the reason.
	closeCodeBytes = 2
	// CloseReasonBytesMax is what a control frame leaves for the reason.
	CloseReasonBytesMax = ControlBytesMax - closeCodeBytes
)

// Sendable reports whether c may stand in a Close frame: the codes that RFC 6455 and the IANA registry define for it
// (1000 to 1003, 1007 to 1014) and those of libraries and applications (3000 to 4999).
func (c CloseCode) Sendable() bool {
	switch {
	case c == closeReserved, c == CloseNoStatus, c == CloseAbnormal:
		return false
	case c >= CloseNormal && c <= closeBadGateway:
		return true
	default:
		return c >= 3000 && c <= 4999
	}
}

// ParseClose takes the payload of a Close frame apart. An empty payload is CloseNoStatus. A payload of one byte, a
// code that is not Sendable and a reason that is not UTF-8 are errors, always a *ProtocolError with the code to
// answer with; those that Decoder.Next returned have passed already. The reason is a copy.
func ParseClose(payload []byte) (code CloseCode, reason string, err error) {
	if perr := checkClose(payload); perr != nil {
		return perr.Code, "", perr
	}
	if len(payload) == 0 {
		return CloseNoStatus, "", nil
	}
	return CloseCode(binary.BigEndian.Uint16(payload)), string(payload[closeCodeBytes:]), nil
}

// checkClose judges the payload of a Close frame.
func checkClose(payload []byte) *ProtocolError {
	if len(payload) == 0 {
		return nil
	}
	// RFC 6455, 5.5.1: If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer.
	if len(payload) < closeCodeBytes {
		return errCloseLength
	}
	if !CloseCode(binary.BigEndian.Uint16(payload)).Sendable() {
		return errCloseCode
	}
	if !utf8.Valid(payload[closeCodeBytes:]) {
		return errCloseUTF8
	}
	return nil
}
