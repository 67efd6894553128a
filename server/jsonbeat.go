package server

import "bytes"

// jsonBeatKind is what a text message means to the server's own protocol.
type jsonBeatKind uint8

// An ordinary message, {"type":"heartbeat"}, or {"type":"heartbeat_ack"}.
const (
	notBeat jsonBeatKind = iota
	beat
	beatAck
)

// jsonKeysMax bounds the first-level members of a message: the shortest one with its comma is five bytes, `"":0,`, so that a
// message of the permitted size can't hold more (test: TestJSONBeatKeysFit).
const jsonKeysMax = jsonHeartbeatBytesMax / 5

// parseJSONBeat says whether a text message is a heartbeat or the acknowledgement of one, and returns the raw JSON value of its
// first-level member ts if that is a number or a string of at most jsonTimestampBytesMax bytes between its quotes; otherwise
// nil. The value points into msg.
//
// Browsers can neither send nor see ping frames, so a client beats with {"type":"heartbeat"}. Most text messages are something
// else, and telling them apart must cost nanoseconds: one look at the first byte and one search. What passes is read by the
// strict grammar of RFC 8259, in a single pass and without memory of its own.
//
// Wherever JSON readers disagree the message is ordinary data, so that the application judges it: duplicate first-level keys, a
// backslash in a first-level key (it could be `type` in disguise), anything behind the object, more than jsonHeartbeatBytesMax
// bytes. The value of type is compared as it is written, so an escape there doesn't match either.
func parseJSONBeat(msg []byte) (kind jsonBeatKind, ts []byte) {
	if len(msg) > jsonHeartbeatBytesMax {
		return notBeat, nil
	}
	s := jsonScanner{text: msg}
	s.skipSpace()
	if s.peek() != '{' || !bytes.Contains(msg, []byte("heartbeat")) {
		return notBeat, nil
	}
	return s.beatObject()
}

// appendBeatAck appends the answer to a heartbeat; ts is what parseJSONBeat returned.
func appendBeatAck(dst, ts []byte) []byte {
	dst = append(dst, `{"type":"heartbeat_ack"`...)
	if ts != nil {
		dst = append(dst, `,"ts":`...)
		dst = append(dst, ts...)
	}
	return append(dst, '}')
}

// jsonScanner reads one JSON text of at most jsonHeartbeatBytesMax bytes from front to back. Every method that reports false
// has met something that RFC 8259 doesn't allow there; the position no longer means anything then.
type jsonScanner struct {
	text []byte
	at   int // index of the next byte
}

// beatObject reads the whole text as one object, at its opening brace.
func (s *jsonScanner) beatObject() (kind jsonBeatKind, ts []byte) {
	var keys [jsonKeysMax]jsonKey
	s.at++
	s.skipSpace()
	for n := 0; ; n++ {
		if n == 0 && s.accept('}') {
			break
		}
		key, ok := s.key()
		if !ok || bytes.IndexByte(key, '\\') >= 0 {
			return notBeat, nil
		}
		keys[n] = jsonKey{text: key, hash: hashOf(key)}
		if keys[n].among(keys[:n]) {
			return notBeat, nil
		}
		value, ok := s.value()
		if !ok {
			return notBeat, nil
		}
		switch string(key) {
		case "type":
			kind = beatKindOf(value)
		case "ts":
			ts = timestampOf(value)
		}
		s.skipSpace()
		if s.accept('}') {
			break
		}
		if !s.accept(',') {
			return notBeat, nil
		}
		s.skipSpace()
	}
	s.skipSpace()
	if kind == notBeat || s.at != len(s.text) {
		return notBeat, nil
	}
	return kind, ts
}

// beatKindOf compares the value of type as it is written.
func beatKindOf(value []byte) jsonBeatKind {
	switch string(value) {
	case `"heartbeat"`:
		return beat
	case `"heartbeat_ack"`:
		return beatAck
	default:
		return notBeat
	}
}

// timestampOf returns a value that may travel back in an acknowledgement, or nil.
func timestampOf(value []byte) []byte {
	switch c := value[0]; {
	case c == '-' || '0' <= c && c <= '9':
		return value
	case c == '"' && len(value) <= jsonTimestampBytesMax+len(`""`):
		return value
	default:
		return nil
	}
}

// jsonKey is a first-level key, with a hash because comparing each pair of up to jsonKeysMax keys byte by byte would let one
// hostile message cost as much as ten honest ones.
type jsonKey struct {
	text []byte
	hash uint32
}

// hashOf is FNV-1a. A peer that finds collisions gains what a plain comparison costs.
func hashOf(key []byte) uint32 {
	hash := uint32(2166136261)
	for _, c := range key {
		hash = (hash ^ uint32(c)) * 16777619
	}
	return hash
}

// among says whether one of the keys is the same.
func (k *jsonKey) among(keys []jsonKey) bool {
	for i := range keys {
		if keys[i].hash == k.hash && bytes.Equal(keys[i].text, k.text) {
			return true
		}
	}
	return false
}

// key reads a member's name with its colon, up to the first byte of the value, and returns what stands between the quotes.
func (s *jsonScanner) key() (key []byte, ok bool) {
	start := s.at + 1
	if !s.string() {
		return nil, false
	}
	key = s.text[start : s.at-1]
	s.skipSpace()
	if !s.accept(':') {
		return nil, false
	}
	s.skipSpace()
	return key, true
}

// value reads one value of any kind and returns it as it is written. Open brackets are bits of a fixed set rather than stack
// frames: what a peer nests must not make a goroutine's stack grow.
func (s *jsonScanner) value() (raw []byte, ok bool) {
	var objects [jsonHeartbeatBytesMax / 64]uint64 // bit d is set: the bracket at depth d is a brace
	start, depth := s.at, 0
	for {
		opened := s.peek() == '{' || s.peek() == '['
		if opened {
			if s.peek() == '{' {
				objects[depth/64] |= 1 << (depth % 64)
			} else {
				objects[depth/64] &^= 1 << (depth % 64)
			}
			depth++
			s.at++
			s.skipSpace()
		} else if !s.scalar() {
			return nil, false
		}
		// Behind a value come brackets that end and then a comma; behind an opening bracket its end or the first value.
		for {
			if depth == 0 {
				return s.text[start:s.at], true
			}
			s.skipSpace()
			inObject := objects[(depth-1)/64]>>((depth-1)%64)&1 == 1
			if inObject && s.accept('}') || !inObject && s.accept(']') {
				depth--
				opened = false
				continue
			}
			if !opened && !s.accept(',') {
				return nil, false
			}
			s.skipSpace()
			if inObject {
				if _, ok := s.key(); !ok {
					return nil, false
				}
			}
			break
		}
	}
}

// scalar reads a string, a number, true, false or null.
func (s *jsonScanner) scalar() bool {
	switch s.peek() {
	case '"':
		return s.string()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

// word reads a literal name.
func (s *jsonScanner) word(name string) bool {
	if rest := s.text[s.at:]; len(rest) < len(name) || string(rest[:len(name)]) != name {
		return false
	}
	s.at += len(name)
	return true
}

// string reads a string with its quotes. Its bytes need no look at UTF-8: a text message has been checked as a whole.
func (s *jsonScanner) string() bool {
	if !s.accept('"') {
		return false
	}
	for s.at < len(s.text) {
		c := s.text[s.at]
		s.at++
		switch {
		case c == '"':
			return true
		case c < ' ':
			return false // RFC 8259, section 7: control characters must be escaped
		case c == '\\' && !s.escape():
			return false
		}
	}
	return false
}

// escape reads what follows a backslash.
func (s *jsonScanner) escape() bool {
	c := s.peek()
	s.at++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			if c := s.peek() | 0x20; !isDigit(s.peek()) && (c < 'a' || c > 'f') {
				return false
			}
			s.at++
		}
		return true
	default:
		return false
	}
}

// number reads RFC 8259, section 6: [-] (0 | 1-9 digits) [. digits] [(e|E) [+|-] digits].
func (s *jsonScanner) number() bool {
	s.accept('-')
	if !s.accept('0') && !s.digits() {
		return false
	}
	if s.accept('.') && !s.digits() {
		return false
	}
	if s.accept('e') || s.accept('E') {
		if !s.accept('+') {
			s.accept('-')
		}
		return s.digits()
	}
	return true
}

// digits reads at least one digit.
func (s *jsonScanner) digits() bool {
	start := s.at
	for isDigit(s.peek()) {
		s.at++
	}
	return s.at > start
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// peek returns the next byte, and 0 at the end: no rule of JSON allows a zero byte anywhere.
func (s *jsonScanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// accept reads the next byte if it is c, which must not be 0.
func (s *jsonScanner) accept(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

// skipSpace reads the four kinds of white space of RFC 8259, section 2.
func (s *jsonScanner) skipSpace() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}
