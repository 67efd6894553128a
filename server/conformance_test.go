package server

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// The cases of the Autobahn conformance suite, against a whole server over TCP. The list is that of the frame layer, whose note says how to
// read it; here it has a client of its own, which compresses with the standard library, so that no error of ours can meet itself.

// script is one case of the list.
type script struct {
	ID, Intent, Offer string
	Send, Expect      []step
	By                int
	Close             wsframe.CloseCode
}

// step is one frame or message of a script, or many of a kind.
type step struct {
	Op, Text, Hex, Fill, FillHex, Like string
	Fin                                *bool
	RSV                                byte
	Code                               *uint16
	Bytes, Fragment, Chop, Count       int
	Cuts                               []int
	Join, Compressed                   bool
}

// Of a thousand compressed messages so many bytes are sent: no state goes from one to the next, and all of them would be 11 GB. Everything
// else of the suite has its full size and number.
const compressedBytesMax = 1 << 20

// In builds that check goroutines, which take ten times as long, the large cases (sections 9, 12 and 13) are those of messages up to
// the first bound, with so many of each.
const (
	checkedMessageMax = 256 << 10
	checkedCount      = 4
)

// loadScripts reads the list.
func loadScripts(t *testing.T) []script {
	t.Helper()
	file, err := os.Open("../wsframe/testdata/autobahn.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var list struct {
		Note  []string
		Cases []script
	}
	d := json.NewDecoder(file)
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil || len(list.Cases) < 517 {
		t.Fatalf("%d cases: %v", len(list.Cases), err)
	}
	return list.Cases
}

// large says whether a case is one of performance.
func (c *script) large() bool {
	section, _, _ := strings.Cut(c.ID, ".")
	return section == "9" || section == "12" || section == "13"
}

// closes says with which code the client closes, and whether the script does it by itself.
func (c *script) closes() (code wsframe.CloseCode, itself bool) {
	for _, s := range c.Send {
		switch {
		case s.Op != "close":
		case s.Code != nil:
			return wsframe.CloseCode(*s.Code), true
		default:
			return wsframe.CloseNoStatus, true
		}
	}
	return wsframe.CloseNormal, false
}

// cause is the label under which the end of the connection is to be counted.
func (c *script) cause() string {
	code, _ := c.closes()
	switch c.Close {
	case code:
		return CauseClient.String()
	case wsframe.CloseInvalidUTF8:
		return CauseEncoding.String()
	default:
		return CauseProtocol.String()
	}
}

// corpora has enough bytes of each kind to cut messages from.
func corpora() map[string][]byte {
	const size = 256 << 10
	r := rand.New(rand.NewPCG(12, 13))
	words := strings.Fields("wheel heart 心跳 pulse größer quiet node of and the timer -- silence")
	word := func() string { return words[r.IntN(len(words))] }
	fill := func(next func() string) []byte {
		var b bytes.Buffer
		for b.Len() < size {
			b.WriteString(next())
		}
		return b.Bytes()
	}
	return map[string][]byte{
		"json":  fill(func() string { return fmt.Sprintf(`{"n":%d,"text":"%s %s"},`, r.IntN(1000), word(), word()) }),
		"html":  fill(func() string { return "<li><b>" + word() + "</b> " + word() + "</li>\n" }),
		"prose": fill(func() string { return word() + " " }),
		"image": fill(func() string { return strings.Repeat(string(rune(r.IntN(128))), 1+r.IntN(30)) }),
		"noise": fill(func() string { return string(binary.BigEndian.AppendUint64(nil, r.Uint64())) }),
	}
}

// conformance is what the cases of one server share.
type conformance struct {
	corpora map[string][]byte
	count   int // of messages at most; 0: no bound
}

func (f *conformance) messages(s *step) int {
	n := max(s.Count, 1)
	if s.Like != "" {
		n = min(n, max(checkedCount, compressedBytesMax/s.Bytes))
	}
	if f.count > 0 {
		n = min(n, f.count)
	}
	return n
}

func (s *step) opcode(t testing.TB) wsframe.Opcode {
	for op := wsframe.Continuation; op <= wsframe.Pong; op++ {
		if s.Op == op.String() {
			return op
		}
	}
	n, err := strconv.ParseUint(s.Op, 10, 4)
	if err != nil {
		t.Error(err)
	}
	return wsframe.Opcode(n)
}

// payload is that of message n of a step.
func (f *conformance) payload(t testing.TB, s *step, n int) []byte {
	unhex := func(digits string) string {
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	var p []byte
	if s.Code != nil {
		p = binary.BigEndian.AppendUint16(p, *s.Code)
	}
	if s.Like == "" {
		p = append(p, s.Text+unhex(s.Hex)...)
		return append(p, strings.Repeat(s.Fill+unhex(s.FillHex), s.Bytes)...)
	}
	all := f.corpora[s.Like]
	at := n * 4099 % (len(all) - s.Bytes)
	if p = all[at : at+s.Bytes]; s.Op == "text" {
		p = bytes.ToValidUTF8(p, nil) // cut inside a character
		p = append(p, strings.Repeat(" ", s.Bytes-len(p))...)
	}
	return p
}

// write puts the script on the wire, in the pieces that it asks for. It stops after piece By until the server has closed: that much must be enough.
func (f *conformance) write(t testing.TB, c *script, w io.Writer, closed <-chan struct{}) error {
	var held, packed bytes.Buffer
	deflate, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		return err
	}
	pieces := 0
	put := func(piece []byte) {
		if pieces++; c.By > 0 && pieces == c.By+1 {
			<-closed
		}
		if err == nil {
			_, err = w.Write(piece)
		}
	}
	message := func(s *step, payload []byte, rsv byte) {
		op := s.opcode(t)
		for begun := false; !begun || len(payload) > 0; begun = true {
			part := payload
			if s.Fragment > 0 {
				part = payload[:min(s.Fragment, len(payload))]
			}
			payload = payload[len(part):]
			frame := masked(op, len(payload) == 0 && (s.Fin == nil || *s.Fin), string(part))
			frame[0] |= rsv << 4
			op, rsv = wsframe.Continuation, 0
			if held.Write(frame); s.Join {
				continue
			}
			all := bytes.Clone(held.Bytes())
			body, from := len(all)-len(part), 0
			for _, cut := range s.Cuts {
				put(all[from : body+cut])
				from = body + cut
			}
			rest := all[from:]
			for piece := range slices.Chunk(rest, max(s.Chop, len(rest)*(1-min(s.Chop, 1)))) {
				put(piece)
			}
			held.Reset()
		}
	}
	for i := range c.Send {
		s := &c.Send[i]
		for n := range f.messages(s) {
			payload, rsv := f.payload(t, s, n), s.RSV
			if s.Compressed {
				packed.Reset()
				deflate.Reset(&packed)
				_, _ = deflate.Write(payload) // into memory
				_ = deflate.Flush()
				payload, rsv = bytes.TrimSuffix(packed.Bytes(), []byte("\x00\x00\xff\xff")), 4
			}
			message(s, payload, rsv)
		}
	}
	if _, itself := c.closes(); !itself && c.Close == wsframe.CloseNormal {
		put(masked(wsframe.Close, true, "\x03\xe8"))
	}
	return err
}

// run is one case: exactly the messages and pongs that it names come back, then the Close frame with its code, then the end of the stream, which
// the server makes first (RFC 6455, 7.1.1).
func (f *conformance) run(t *testing.T, s *running, c *script) {
	var lines []string
	if c.Offer != "" {
		lines = append(lines, "Sec-WebSocket-Extensions: "+c.Offer)
	}
	p := s.dial(t, "/ws", lines...)
	if p.limits.Deflate = c.Offer != ""; p.limits.Deflate != strings.Contains(p.response, "permessage-deflate") {
		t.Fatalf("%s: %q was answered %q", c.Intent, c.Offer, p.response)
	}
	_ = p.SetWriteDeadline(time.Now().Add(4 * patience))
	closed, wrote := make(chan struct{}), make(chan error, 1)
	defer func() {
		close(closed)
		if t.Failed() {
			_ = p.Close()
		}
		if err := receive(t, "the end of the writing", wrote); err != nil {
			t.Errorf("%s: %v", c.Intent, err)
		}
		_ = p.Close()
	}()
	go func() { wrote <- f.write(t, c, p, closed) }()
	inflate := flate.NewReader(nil)
	for i := range c.Expect {
		want := &c.Expect[i]
		for n := range f.messages(want) {
			m := p.next()
			got := m.Payload
			if m.Compressed {
				// RFC 7692, 7.2.2: the empty block that the sender left away; the one behind it is final.
				_ = inflate.(flate.Resetter).Reset(bytes.NewReader(append(got, "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)), nil) //nolint:forcetypeassert // documented
				var err error
				if got, err = io.ReadAll(inflate); err != nil {
					t.Fatalf("%s: message %d can't be inflated: %v", c.Intent, n, err)
				}
			}
			if wanted := f.payload(t, want, n); m.Opcode != want.opcode(t) || !bytes.Equal(got, wanted) {
				t.Fatalf("%s: message %d: got %v of %d bytes %.50q, want %s of %d bytes %.50q", c.Intent, n, m.Opcode, len(got), got, want.Op, len(wanted), wanted)
			}
		}
	}
	p.expectClose(c.Close)
}

// TestConformance runs the list against the server that "serve --echo --compression --message-size-limit 16MiB --max-fragments 0 --max-backpressure 64MiB
// --handshake-timeout 30s" is; where the pool serves it, without the large cases. Afterwards each end was counted under its cause.
func TestConformance(t *testing.T) {
	scripts, samples := loadScripts(t), corpora()
	for i, v := range runners() {
		t.Run(v.name, func(t *testing.T) {
			f := &conformance{corpora: samples}
			s := v.start(t, Config{
				Compression: true, MessageSizeLimit: 16 << 20, MaxFragments: -1, MaxBackpressure: 64 << 20, HandshakeTimeout: 30 * time.Second,
			}, Echo{})
			want := map[string]uint64{}
			if checkedBuild() {
				f.count = checkedCount
			}
			for _, c := range scripts {
				if c.large() && (i > 0 || checkedBuild() && c.Send[0].Bytes > checkedMessageMax) {
					continue
				}
				want[c.cause()]++
				t.Run(c.ID, func(t *testing.T) {
					t.Parallel()
					f.run(t, s, &c)
				})
			}
			t.Cleanup(func() { // the cases run in parallel when this function has returned
				await(t, "all have ended", func() bool { return s.Stats().Active == 0 })
				ends := s.Stats().Closed
				maps.DeleteFunc(ends, func(_ string, n uint64) bool { return n == 0 })
				if !maps.Equal(ends, want) {
					t.Errorf("the ends were counted as %v, want %v", ends, want)
				}
			})
		})
	}
}
