package wsframe

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// take moves what buf holds of the payload under way into the Decoder's buffer, unmasks it there and, in text, checks
// the characters that it completes. n is what it consumed; remaining is what is still missing.
func (d *Decoder) take(lim *Limits, buf []byte) (n int, perr *ProtocolError) {
	n = min(len(buf), d.remaining)
	if n == 0 {
		return 0, nil
	}
	start := len(d.buf)
	d.buf = append(lim.grow(d.buf, n, d.most(lim)), buf[:n]...)
	if !lim.Client {
		ws.Cipher(d.buf[start:], d.mask, int(d.maskAt))
		d.maskAt = uint8((int(d.maskAt) + n) % maskBytes)
	}
	d.remaining -= n
	switch {
	case d.frame.IsControl():
		d.controlBytes += uint8(n)
	case d.message == Text && !d.compressed:
		open, valid := textPrefix(d.buf[start-int(d.utf8Open):])
		if !valid {
			return n, errTextUTF8
		}
		d.utf8Open = uint8(open)
	}
	return n, nil
}

// end leaves the frame under way, whose payload is complete. It returns the message that the frame completes, if any.
// The message's bytes stay where they are, beyond the length of the buffer, until something is appended to it.
func (d *Decoder) end() (m Message, ok bool, perr *ProtocolError) {
	d.inFrame = false
	if d.frame.IsControl() {
		assembled := len(d.buf) - int(d.controlBytes)
		payload := d.buf[assembled:len(d.buf):len(d.buf)]
		d.buf = d.buf[:assembled]
		d.controlBytes = 0
		if perr = checkPayload(d.frame, payload); perr != nil {
			return Message{}, false, perr
		}
		return Message{Opcode: d.frame, Payload: payload, Frames: 1}, true, nil
	}
	if !d.fin {
		return Message{}, false, nil
	}
	if d.utf8Open > 0 {
		return Message{}, false, errTextUTF8
	}
	m = Message{Opcode: d.message, Compressed: d.compressed, Payload: slices.Clip(d.buf), Frames: int(d.frames)}
	d.buf = d.buf[:0]
	d.message, d.compressed = Continuation, false
	d.frames = 0
	d.empties = 0
	return m, true, nil
}

// most is the size beyond which the buffer need not grow: the end of the message if the frame under way is its last, else
// what a message may have. A bound at the end of every fragment would copy a message of many small ones for each of them.
func (d *Decoder) most(lim *Limits) int {
	switch {
	case d.fin && !d.frame.IsControl():
		return len(d.buf) + d.remaining
	case lim.MessageBytesMax > 0 && !d.compressed:
		return lim.MessageBytesMax
	default:
		return math.MaxInt
	}
}

// grow returns buf with room for add more bytes. It doubles, so that a message that drips in is copied a constant number
// of times, but not beyond most unless add asks for it, and never by more than what arrived before: a peer gets memory for
// what it sent, not for what it announced.
func (lim *Limits) grow(buf []byte, add, most int) []byte {
	need := len(buf) + add
	if need <= cap(buf) {
		return buf
	}
	if lim.Grow == nil {
		return slices.Grow(buf, add)
	}
	return lim.ask(buf, max(need, min(2*cap(buf), most)))
}

// ask gets a buffer of at least so many bytes from Grow, whose contract it checks.
func (lim *Limits) ask(buf []byte, bytes int) []byte {
	grown := lim.Grow(buf, bytes)
	if len(grown) != len(buf) || cap(grown) < bytes {
		panic(fmt.Sprintf("wsframe: Grow returned length %d and capacity %d for %d and %d", len(grown), cap(grown), len(buf), bytes))
	}
	return grown
}

// textPrefix reports whether p can be the beginning of UTF-8 text, and how many bytes at its end begin a character
// that is not complete (at most 3). A character is refused with the first byte that makes it impossible.
func textPrefix(p []byte) (open int, valid bool) {
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if tail := p[len(p)-i:]; utf8.RuneStart(tail[0]) {
			// FullRune counts what cannot become a character as a full one, which Valid then refuses.
			if !utf8.FullRune(tail) {
				open = i
			}
			break
		}
	}
	return open, utf8.Valid(p[:len(p)-open])
}
