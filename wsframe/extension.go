package wsframe

import "strconv"

const (
	deflateName = "permessage-deflate"
	// deflateAnswer is the part of the answer that is always the same: neither side takes its context over (RFC 7692,
	// sections 7.1.1.1 and 7.1.1.2), whether the client asked for it or not, so that neither window outlives a message.
	deflateAnswer = deflateName + "; server_no_context_takeover; client_no_context_takeover"
)

// The parameters of permessage-deflate (RFC 7692, section 7.1), as bits of those that an offer has.
const (
	paramServerNoContext = 1 << iota
	paramClientNoContext
	paramServerWindow
	paramClientWindow
)

// NegotiateDeflate chooses among the offers of permessage-deflate in a request, in the client's order of preference, and
// returns the value of Sec-WebSocket-Extensions that accepts the first one that RFC 7692 allows, for Accept.Extensions.
// Without one d is 0 and answer empty, and there is no compression.
//
// An offer is declined, as section 7.1 asks for, for a parameter that is unknown, comes twice, or has a value that it
// must not have. All others can be accepted: a smaller window for the server is kept to and confirmed, one that the
// client announces for itself is confirmed, and no context is ever taken over.
func NegotiateDeflate(h *Head) (d Deflate, answer string) {
	h.lines(fieldExtensions, func(value []byte) bool {
		o, ok := firstOffer(value)
		if ok {
			d, answer = o.accept()
		}
		return !ok
	})
	return d, answer
}

// firstOffer returns the first valid offer of permessage-deflate in the value of one line.
func firstOffer(value []byte) (o deflateOffer, ok bool) {
	s := extensionScanner{rest: value}
	for s.next() {
		switch {
		case !s.param:
			if o.valid {
				return o, true
			}
			o = deflateOffer{valid: string(s.name) == deflateName}
		case o.valid:
			o.valid = o.add(&s)
		}
	}
	return o, o.valid && !s.malformed
}

// deflateOffer is one offer of permessage-deflate.
type deflateOffer struct {
	valid        bool
	params       uint8
	serverWindow Deflate // 0: any
	clientWindow Deflate // 0: the client did not say
}

// add takes the parameter that s stands at, and reports whether RFC 7692 allows it.
func (o *deflateOffer) add(s *extensionScanner) bool {
	var param uint8
	valid := false
	switch string(s.name) {
	case "server_no_context_takeover":
		param, valid = paramServerNoContext, !s.hasValue
	case "client_no_context_takeover":
		param, valid = paramClientNoContext, !s.hasValue
	case "server_max_window_bits":
		param = paramServerWindow
		o.serverWindow, valid = s.windowBits()
	case "client_max_window_bits":
		// RFC 7692, 7.1.2.2: this parameter may have no value in an offer: the client then only says that it would
		// understand one in the answer.
		param, valid = paramClientWindow, true
		if s.hasValue {
			o.clientWindow, valid = s.windowBits()
		}
	}
	valid = valid && o.params&param == 0
	o.params |= param
	return valid
}

// accept returns what the offer agrees to.
func (o *deflateOffer) accept() (d Deflate, answer string) {
	d, answer = WindowBitsMax, deflateAnswer
	if o.serverWindow != 0 {
		d = o.serverWindow
		answer += "; server_max_window_bits=" + strconv.Itoa(int(d))
	}
	if o.clientWindow != 0 {
		answer += "; client_max_window_bits=" + strconv.Itoa(int(o.clientWindow))
	}
	return d, answer
}

// extensionScanner goes over the value of a Sec-WebSocket-Extensions line (RFC 6455, section 9.1):
//
//	extension *( "," extension )   extension = token *( ";" param )   param = token [ "=" ( token | quoted-string ) ]
//
// Blanks may stand between all of these, and elements of the list may be empty (RFC 9110, section 5.6.1.2).
type extensionScanner struct {
	rest []byte

	// What next found.
	name     []byte // of an extension, or of a parameter
	value    []byte // of a parameter; of a quoted one with its escapes, without its quotes
	param    bool
	hasValue bool

	inside    bool // an extension
	malformed bool // the value is not of this form
}

// next moves to the next extension or parameter. false: there is none, or malformed.
func (s *extensionScanner) next() bool {
	s.rest = trimBlanks(s.rest)
	for len(s.rest) > 0 && s.rest[0] == ',' {
		s.rest, s.inside = trimBlanks(s.rest[1:]), false
	}
	if len(s.rest) == 0 || s.malformed {
		return false
	}
	s.param, s.hasValue, s.value = s.inside, false, nil
	if s.inside {
		if s.rest[0] != ';' {
			s.malformed = true
			return false
		}
		s.rest = trimBlanks(s.rest[1:])
	}
	s.inside = true
	if s.name = s.token(); len(s.name) == 0 {
		s.malformed = true
		return false
	}
	if s.rest = trimBlanks(s.rest); !s.param || len(s.rest) == 0 || s.rest[0] != '=' {
		return true
	}
	s.rest, s.hasValue = trimBlanks(s.rest[1:]), true
	if len(s.rest) > 0 && s.rest[0] == '"' {
		s.malformed = !s.quoted()
	} else {
		s.value = s.token()
		s.malformed = len(s.value) == 0
	}
	return !s.malformed
}

// areExtensions reports whether each such line of the head is of that form.
func (h *Head) areExtensions() bool {
	return h.lines(fieldExtensions, func(value []byte) bool {
		s := extensionScanner{rest: value}
		for s.next() {
		}
		return !s.malformed
	})
}

// token takes a token off rest; it may be empty.
func (s *extensionScanner) token() []byte {
	n := 0
	for n < len(s.rest) && isToken(s.rest[n]) {
		n++
	}
	token := s.rest[:n]
	s.rest = s.rest[n:]
	return token
}

// quoted takes a quoted string off rest. RFC 6455, 9.1: when using the quoted-string syntax variant, the value after
// quoted-string unescaping MUST conform to the token ABNF.
func (s *extensionScanner) quoted() bool {
	n := 1
	for n < len(s.rest) && s.rest[n] != '"' {
		if s.rest[n] == '\\' {
			n++
		}
		if n == len(s.rest) || !isToken(s.rest[n]) {
			return false
		}
		n++
	}
	if n == 1 || n == len(s.rest) {
		return false
	}
	s.value, s.rest = s.rest[1:n], s.rest[n+1:]
	return true
}

// windowBits reads the value as RFC 7692, 7.1.2 has it: a decimal integer without leading zeroes between 8 and 15.
func (s *extensionScanner) windowBits() (bits Deflate, ok bool) {
	for _, c := range s.value {
		if c == '\\' {
			continue // of an escape, in a quoted value
		}
		if !isDigit(c) || bits == 0 && c == '0' || bits > WindowBitsMax {
			return 0, false
		}
		bits = bits*10 + Deflate(c-'0')
	}
	return bits, bits >= WindowBitsMin && bits <= WindowBitsMax
}
