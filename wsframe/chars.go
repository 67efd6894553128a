package wsframe

import (
	"bytes"
	"encoding/binary"
)

// equalFold compares ASCII of equal length without regard to case. bytes.EqualFold knows Unicode and so takes the
// Kelvin sign for a k.
func equalFold(p []byte, s string) bool {
	if len(p) != len(s) {
		return false
	}
	for i := range len(s) {
		a, b := p[i], s[i]
		if a != b && (a|0x20 != b|0x20 || a|0x20 < 'a' || a|0x20 > 'z') {
			return false
		}
	}
	return true
}

// The characters of a token (RFC 9110, section 5.6.2) as bits, those below 64 and those from 64 to 127.
const (
	tokenLow = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' |
		(1<<10-1)<<'0'
	tokenHigh = 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64) |
		(1<<26-1)<<('A'-64) | (1<<26-1)<<('a'-64)
)

func isToken(c byte) bool {
	mask := uint64(tokenLow)
	if c >= 64 {
		mask = tokenHigh
	}
	return c < 128 && mask>>(c&63)&1 != 0
}

func isTokens[T []byte | string](p T) bool {
	for i := range len(p) {
		if !isToken(p[i]) {
			return false
		}
	}
	return len(p) > 0
}

// The characters of a host name (RFC 3986, section 3.2.2) as bits, without percent escapes, which no client sends.
const (
	hostLow  = 1<<'!' | 1<<'$' | 1<<'&' | 1<<'\'' | 1<<'(' | 1<<')' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' | 1<<';' | 1<<'=' | (1<<10-1)<<'0'
	hostHigh = 1<<('_'-64) | 1<<('~'-64) | (1<<26-1)<<('A'-64) | (1<<26-1)<<('a'-64)
)

func isHostChar(c byte) bool {
	mask := uint64(hostLow)
	if c >= 64 {
		mask = hostHigh
	}
	return c < 128 && mask>>(c&63)&1 != 0
}

// isHost reports whether p is a name or an address with an optional port; IPv6 stands in brackets. The empty host is
// valid. User information is not (RFC 9110, section 4.2.4).
func isHost(p []byte) bool {
	i := 0
	if len(p) > 0 && p[0] == '[' {
		end := bytes.IndexByte(p, ']')
		if end < 0 || !isIPv6(p[1:end]) {
			return false
		}
		i = end + 1
	} else {
		for i < len(p) && isHostChar(p[i]) {
			i++
		}
	}
	if i < len(p) && p[i] == ':' {
		for i++; i < len(p) && isDigit(p[i]); i++ {
		}
	}
	return i == len(p)
}

// isIPv6 reports whether p is an IPv6 address without a zone (RFC 3986, section 3.2.2): eight groups of up to four
// hexadecimal digits, of which the last two may be written as IPv4 and some zeros may be left out once.
func isIPv6(p []byte) bool {
	const groupsAll = 8
	groups, gap := 0, false
	if rest, ok := bytes.CutPrefix(p, []byte("::")); ok {
		p, gap = rest, true
	}
	for len(p) > 0 {
		digits := 0
		for digits < len(p) && isHex(p[digits]) {
			digits++
		}
		if digits < len(p) && p[digits] == '.' {
			groups += 2
			return groups <= groupsAll && gap == (groups < groupsAll) && isIPv4(p)
		}
		if groups++; digits == 0 || digits > 4 {
			return false
		}
		if p = p[digits:]; len(p) == 0 {
			break
		}
		switch {
		case p[0] != ':' || len(p) == 1:
			return false
		case p[1] != ':':
			p = p[1:]
		case gap:
			return false
		default:
			p, gap = p[2:], true
		}
	}
	return groups <= groupsAll && gap == (groups < groupsAll)
}

// isIPv4 reports whether p is four numbers up to 255 without leading zeros, with dots between.
func isIPv4(p []byte) bool {
	for numbers := 1; ; numbers++ {
		digits, value := 0, 0
		for digits < min(len(p), 4) && isDigit(p[digits]) {
			value = value*10 + int(p[digits]-'0')
			digits++
		}
		if digits == 0 || value > 255 || p[0] == '0' && digits > 1 {
			return false
		}
		if p = p[digits:]; numbers == 4 || len(p) < 2 || p[0] != '.' {
			return numbers == 4 && len(p) == 0
		}
		p = p[1:]
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

// isEscaped reports whether each percent sign of a path begins an escape (RFC 3986, section 2.1).
func isEscaped(path []byte) bool {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 {
			return true
		}
		if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
			return false
		}
		path = path[i+3:]
	}
}

// isValue reports whether p is free of control characters but for the tab (RFC 9110, section 5.5). Eight bytes at a
// time: most of a head is values.
func isValue[T []byte | string](p T) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(p); i += 8 {
		var word [8]byte
		copy(word[:], p[i:])
		x := binary.LittleEndian.Uint64(word[:])
		del := x ^ ones*0x7F
		// The top bit of a byte is set in the first term if it is below 0x20 and in the second if it is 0x7F; a borrow
		// may set others too, never hide one.
		if ((x-ones*0x20)&^x|(del-ones)&^del)&tops == 0 {
			continue
		}
		for _, c := range word {
			if isControl(c) {
				return false
			}
		}
	}
	for ; i < len(p); i++ {
		if isControl(p[i]) {
			return false
		}
	}
	return true
}

func isControl(c byte) bool { return c < 0x20 && c != '\t' || c == 0x7F }
