package wsframe

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// event is a Message that outlives its Decoder's next call.
type event struct {
	op      Opcode
	payload string
	frames  int
}

func (e event) String() string {
	if len(e.payload) > 40 {
		return fmt.Sprintf("%v %d bytes in %d", e.op, len(e.payload), e.frames)
	}
	return fmt.Sprintf("%v %q in %d", e.op, e.payload, e.frames)
}

// feed decodes the pieces one after the other, as a connection would deliver them. reason is that of the error, empty
// if the Decoder waits for more.
func feed(t testing.TB, d *Decoder, lim *Limits, pieces ...[]byte) (events []event, reason string) {
	t.Helper()
	for _, piece := range pieces {
		// A copy of exact capacity: unmasking in place must not reach the caller's bytes or beyond the piece.
		buf := slices.Clip(bytes.Clone(piece))
		for {
			m, n, ok, err := d.Next(lim, buf)
			if n < 0 || n > len(buf) {
				t.Fatalf("consumed %d of %d bytes", n, len(buf))
			}
			if err != nil {
				perr, isProtocol := errors.AsType[*ProtocolError](err)
				if !isProtocol || ok {
					t.Fatalf("error %v of type %T with ok %v", err, err, ok)
				}
				return events, perr.Reason
			}
			if !ok {
				if n != len(buf) {
					t.Fatalf("waits for more but left %d bytes", len(buf)-n)
				}
				break
			}
			events = append(events, event{m.Opcode, string(m.Payload), m.Frames})
			buf = buf[n:]
		}
	}
	return events, ""
}

// masked is a frame as a client sends it.
func masked(op Opcode, fin bool, payload string) []byte {
	return AppendMasked(nil, op, fin, []byte(payload), [4]byte{0x37, 0xfa, 0x21, 0x3d})
}

// unmasked is a frame as a server sends it.
func unmasked(op Opcode, fin bool, payload string) []byte {
	return append(AppendHeader(nil, op, fin, len(payload)), payload...)
}

// join concatenates frames.
func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// bits reads a frame header written as the figure in RFC 6455, section 5.2, draws it: digits 0 and 1, any spaces.
func bits(t testing.TB, s string) []byte {
	t.Helper()
	s = strings.ReplaceAll(s, " ", "")
	if len(s)%8 != 0 {
		t.Fatalf("%d bits are no whole bytes", len(s))
	}
	p := make([]byte, len(s)/8)
	for i, c := range s {
		if c == '1' {
			p[i/8] |= 0x80 >> (i % 8)
		}
	}
	return p
}

// bytewise cuts p into single bytes.
func bytewise(p []byte) [][]byte {
	pieces := make([][]byte, len(p))
	for i := range p {
		pieces[i] = p[i : i+1]
	}
	return pieces
}

// pairs renders Refusal.Header and the like for comparison.
func pairs(header [][2]string) string { return fmt.Sprint(header) }
