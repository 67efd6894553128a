package wsframe

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
)

// testdata/autobahn.json lists the cases of the Autobahn conformance suite that an echo server must pass, and says in
// its note how to read them. Here they run against the frame layer alone, with an echo of a few lines around it. The
// list knows nothing of this package, so that a whole server can be put to the same cases over its sockets.

type conformanceCase struct {
	ID     string             `json:"id"`
	Intent string             `json:"intent"`
	Offer  string             `json:"offer"`
	Send   []conformanceFrame `json:"send"`
	Expect []conformanceFrame `json:"expect"`
	By     int                `json:"by"`
	Close  CloseCode          `json:"close"`
}

type conformanceFrame struct {
	Op         string `json:"op"`
	Fin        *bool  `json:"fin"`
	RSV        byte   `json:"rsv"`
	Code       *int   `json:"code"`
	Text       string `json:"text"`
	Hex        string `json:"hex"`
	Fill       string `json:"fill"`
	FillHex    string `json:"fillhex"`
	Like       string `json:"like"`
	Bytes      int    `json:"bytes"`
	Fragment   int    `json:"fragment"`
	Chop       int    `json:"chop"`
	Cuts       []int  `json:"cuts"`
	Join       bool   `json:"join"`
	Count      int    `json:"count"`
	Compressed bool   `json:"compressed"`
}

func conformanceCases(t *testing.T) []conformanceCase {
	t.Helper()
	data, err := os.ReadFile("testdata/autobahn.json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Note  []string          `json:"note"`
		Cases []conformanceCase `json:"cases"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		t.Fatal(err)
	}
	if len(list.Cases) != 517 {
		t.Fatalf("%d cases, want all 517 of the suite", len(list.Cases))
	}
	return list.Cases
}

// conformanceCount is how many of a thousand equal messages are enough here: no state goes from one to the next, and
// all of them would be gigabytes.
const conformanceCount = 4

func (f conformanceFrame) opcode(t *testing.T) Opcode {
	t.Helper()
	for op := range Opcode(16) {
		if f.Op == op.String() || f.Op == strconv.Itoa(int(op)) {
			return op
		}
	}
	t.Fatalf("opcode %q", f.Op)
	return 0
}

func (f conformanceFrame) count() int { return min(max(f.Count, 1), conformanceCount) }

// payload is that of the message with number n.
func (f conformanceFrame) payload(t *testing.T, n int) []byte {
	t.Helper()
	unhex := func(s string) []byte {
		p, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var p []byte
	if f.Code != nil {
		p = binary.BigEndian.AppendUint16(p, uint16(*f.Code))
	}
	switch {
	case f.Like != "":
		return sample(f.Like, f.Bytes, n)
	case f.Fill != "":
		return append(p, strings.Repeat(f.Fill, f.Bytes)...)
	case f.FillHex != "":
		return append(p, bytes.Repeat(unhex(f.FillHex), f.Bytes)...)
	case f.Hex != "":
		return append(p, unhex(f.Hex)...)
	default:
		return append(p, f.Text...)
	}
}

// sample makes bytes of a kind of data, others for each n.
func sample(like string, size, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(size), uint64(n)))
	words := strings.Fields("the of connection heartbeat and wheel to server in a silence timer is that answer für größer")
	var b bytes.Buffer
	for b.Len() < size+4 {
		switch like {
		case "json":
			fmt.Fprintf(&b, `{"id":%d,"user":%q,"tags":[%q,%q],"score":%.3f},`, r.IntN(1e6), words[r.IntN(len(words))], "a", "b", r.Float64())
		case "html":
			fmt.Fprintf(&b, "<div class=\"row\"><a href=\"/item/%d\">%s</a></div>\n", r.IntN(1e4), words[r.IntN(len(words))])
		case "prose":
			fmt.Fprintf(&b, "%s ", words[r.IntN(len(words))])
		case "image":
			b.WriteByte(byte(b.Len()/64 + r.IntN(8)))
		default:
			b.WriteByte(byte(r.Uint32()))
		}
	}
	// Text is cut between characters and filled up to the size asked for.
	p := b.Bytes()[:size]
	if like == "json" || like == "html" {
		p = bytes.ToValidUTF8(p, nil)
		p = append(p, strings.Repeat(" ", size-len(p))...)
	}
	return p
}

// writes is what the client puts on the wire, in the pieces that it writes.
func (c conformanceCase) writes(t *testing.T) (pieces [][]byte) {
	t.Helper()
	closes := false
	var joined []byte
	var compress Deflater
	for _, f := range c.Send {
		op := f.opcode(t)
		closes = closes || op == Close
		for n := range f.count() {
			payload, rsv := f.payload(t, n), f.RSV
			if f.Compressed {
				if frame := compress.Append(nil, WindowBitsMax, op, payload); frame[0]&bitCompressed != 0 {
					payload, rsv = frame[len(AppendHeader(nil, op, true, frameLength(t, frame))):], 4
				}
			}
			size := len(payload)
			if f.Fragment > 0 {
				size = f.Fragment
			}
			for first := true; first || len(payload) > 0; first = false {
				part := payload[:min(size, len(payload))]
				payload = payload[len(part):]
				fin := len(payload) == 0 && (f.Fin == nil || *f.Fin)
				frame := AppendMasked(nil, op, fin, part, benchMask)
				frame[0] |= rsv << 4
				if joined = append(joined, frame...); f.Join {
					op, rsv = Continuation, 0
					continue
				}
				pieces = append(pieces, cut(joined, len(joined)-len(part), f)...)
				op, rsv, joined = Continuation, 0, nil
			}
			op = f.opcode(t)
		}
	}
	if !closes && c.Close == CloseNormal {
		pieces = append(pieces, masked(Close, true, "\x03\xE8"))
	}
	return pieces
}

// frameLength is the length of the payload of an unmasked frame.
func frameLength(t *testing.T, frame []byte) int {
	t.Helper()
	h, perr := parseHeader(frame[:headerNeed(frame)])
	if perr != nil {
		t.Fatal(perr)
	}
	return h.length
}

// cut cuts the bytes of a frame, whose payload begins at header, into writes.
func cut(frame []byte, header int, f conformanceFrame) (pieces [][]byte) {
	for _, at := range f.Cuts {
		at += header
		pieces = append(pieces, frame[:at])
		frame, header = frame[at:], header-at
	}
	for f.Chop > 0 && len(frame) > f.Chop {
		pieces = append(pieces, frame[:f.Chop])
		frame = frame[f.Chop:]
	}
	return append(pieces, frame)
}

// echo is the least server: it answers pings, sends messages back and closes as RFC 6455 asks for.
type echo struct {
	decoder  Decoder
	inflate  Inflater
	compress *Deflater
	agreed   Deflate
	out      []byte
	closed   bool
}

// take serves one write of the client.
func (e *echo) take(lim *Limits, piece []byte) {
	buf := bytes.Clone(piece)
	for !e.closed {
		m, n, ok, err := e.decoder.Next(lim, buf)
		if err == nil && ok {
			m, err = e.inflate.Inflate(lim, m)
		}
		if perr, failed := errors.AsType[*ProtocolError](err); failed {
			e.out, e.closed = AppendClose(e.out, perr.Code, perr.Reason), true
			return
		}
		if !ok {
			return
		}
		buf = buf[n:]
		switch m.Opcode {
		case Ping:
			e.out = AppendFrame(e.out, Pong, m.Payload)
		case Pong:
		case Close:
			e.out, e.closed = AppendFrame(e.out, Close, m.Payload), true
		default:
			e.out = e.compress.Append(e.out, e.agreed, m.Opcode, m.Payload)
		}
	}
}

// received decodes what the echo sent. code is that of its Close frame.
func received(t *testing.T, stream []byte, deflated bool) (events []event, code CloseCode) {
	t.Helper()
	var d Decoder
	var x Inflater
	lim := &Limits{Client: true, Deflate: deflated}
	for len(stream) > 0 {
		m, n, ok, err := d.Next(lim, stream)
		if err != nil || !ok {
			t.Fatalf("the echo sent what is no frame: %v %v", ok, err)
		}
		if m, err = x.Inflate(lim, m); err != nil {
			t.Fatalf("the echo sent what can't be inflated: %v", err)
		}
		stream = stream[n:]
		if m.Opcode != Close {
			events = append(events, event{op: m.Opcode, payload: string(m.Payload)})
			continue
		}
		if code, _, err = ParseClose(m.Payload); err != nil || len(stream) > 0 {
			t.Fatalf("after the close: %d bytes, %v", len(stream), err)
		}
	}
	return events, code
}

// TestAutobahn runs the list. Every case must end with exactly the messages and the Close frame that it names, and a
// case that fails must fail with the write that makes it impossible.
func TestAutobahn(t *testing.T) {
	var compress Deflater
	for _, c := range conformanceCases(t) {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			e := &echo{compress: &compress}
			if c.Offer != "" {
				h, r := parse(t, request("GET /ws HTTP/1.1", append(upgradeFields(), "Sec-WebSocket-Extensions: "+c.Offer)...), HeadLimits{})
				if r != nil || CheckUpgrade(&h) != nil {
					t.Fatalf("%s: refused", c.Intent)
				}
				if e.agreed, _ = NegotiateDeflate(&h); e.agreed == 0 {
					t.Fatalf("%s: %q declined", c.Intent, c.Offer)
				}
			}
			lim := &Limits{MessageBytesMax: 16 << 20, EmptyFragmentsMax: 64, Deflate: e.agreed != 0}
			decided := 0
			for i, piece := range c.writes(t) {
				if e.take(lim, piece); e.closed && decided == 0 {
					decided = i + 1
				}
			}
			if c.By > 0 && decided != c.By {
				t.Errorf("%s: closed with write %d, want %d", c.Intent, decided, c.By)
			}
			events, code := received(t, e.out, e.agreed != 0)
			if code != c.Close {
				t.Errorf("%s: closed with %d, want %d", c.Intent, code, c.Close)
			}
			at := 0
			for _, f := range c.Expect {
				for n := range f.count() {
					if at == len(events) {
						t.Fatalf("%s: only %d messages came back", c.Intent, at)
					}
					if events[at].op != f.opcode(t) || events[at].payload != string(f.payload(t, n)) {
						t.Fatalf("%s: message %d is %v", c.Intent, at, events[at])
					}
					at++
				}
			}
			if at != len(events) {
				t.Errorf("%s: %v came back unexpected", c.Intent, events[at:])
			}
		})
	}
}
