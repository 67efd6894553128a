package wsframe

import (
	"errors"
	"strconv"
)

// ProtocolError says that the peer broke the protocol or a limit, and with which code to close the connection. The
// values are preallocated and must not be changed.
type ProtocolError struct {
	// Code is what to send in the Close frame.
	Code CloseCode
	// Reason names the rule in lower-case ASCII with hyphens, at most 32 bytes: fit for the Close frame and as a label.
	Reason string
}

// Error says which rule was broken and the code it is answered with.
func (e *ProtocolError) Error() string {
	return "wsframe: " + e.Reason + " (close " + strconv.Itoa(int(e.Code)) + ")"
}

// Errors of AppendUpgrade and CheckResponse. They wrap no others.
var (
	// ErrHeaderInvalid is a field name that is no token or a value with a control character: somebody's attempt to
	// smuggle a line into the response.
	ErrHeaderInvalid = errors.New("wsframe: header field not fit to be sent")
	// ErrNotOffered is a subprotocol or an extension that the client did not ask for (RFC 6455, section 4.2.2).
	ErrNotOffered = errors.New("wsframe: subprotocol or extension that the client did not offer")
	// ErrNotUpgrade is a head that CheckUpgrade would refuse.
	ErrNotUpgrade = errors.New("wsframe: not a valid upgrade request")
	// ErrResponseMalformed is an answer to the opening handshake that is not HTTP/1.1 or has no end.
	ErrResponseMalformed = errors.New("wsframe: malformed response to the upgrade")
	// ErrAcceptMismatch is a 101 without the fields that RFC 6455, section 4.1 requires for the key sent.
	ErrAcceptMismatch = errors.New("wsframe: response does not accept this upgrade")

	// What Decoder.Next returns.
	errReservedBits     = &ProtocolError{CloseProtocol, "reserved-bits"}
	errReservedOpcode   = &ProtocolError{CloseProtocol, "reserved-opcode"}
	errUnmaskedFrame    = &ProtocolError{CloseProtocol, "unmasked-frame"}
	errMaskedFrame      = &ProtocolError{CloseProtocol, "masked-frame"}
	errControlFragment  = &ProtocolError{CloseProtocol, "fragmented-control-frame"}
	errControlLength    = &ProtocolError{CloseProtocol, "control-frame-too-long"}
	errNoMessage        = &ProtocolError{CloseProtocol, "continuation-without-message"}
	errMessageOpen      = &ProtocolError{CloseProtocol, "message-inside-message"}
	errLengthTopBit     = &ProtocolError{CloseProtocol, "length-top-bit"}
	errLengthNotMinimal = &ProtocolError{CloseProtocol, "length-not-minimal"}
	errCloseLength      = &ProtocolError{CloseProtocol, "close-length"}
	errCloseCode        = &ProtocolError{CloseProtocol, "close-code"}
	errCloseUTF8        = &ProtocolError{CloseInvalidUTF8, "close-reason-not-utf8"}
	errTextUTF8         = &ProtocolError{CloseInvalidUTF8, "text-not-utf8"}
	errMessageTooBig    = &ProtocolError{CloseTooBig, "message-too-big"}
	errFragments        = &ProtocolError{ClosePolicy, "too-many-fragments"}
	errEmptyFragments   = &ProtocolError{ClosePolicy, "too-many-empty-fragments"}

	// What Inflater.Inflate returns besides errMessageTooBig and errTextUTF8.
	errDeflateData   = &ProtocolError{CloseInvalidUTF8, "deflate-data"}
	errDeflateBlocks = &ProtocolError{ClosePolicy, "too-many-final-blocks"}
)
