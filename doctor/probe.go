package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// Outcome is how a probe ended.
type Outcome string

// The ways in which a probe ends.
const (
	Refused  Outcome = "refused"  // no WebSocket came about
	Cut      Outcome = "cut"      // the connection ended without a Close frame: something in between
	Closed   Outcome = "closed"   // a Close frame came: from the server, or from something in between that speaks WebSocket
	Outlived Outcome = "outlived" // it was still open when patience ended
	Stopped  Outcome = "stopped"  // ctx was canceled before either: nothing is known
)

// Probed is what a probe found.
type Probed struct {
	URL     string        `json:"url"`
	Outcome Outcome       `json:"outcome"`
	Silent  time.Duration `json:"-"` // from the last byte to the end
	Life    time.Duration `json:"-"` // from the upgrade to the end
	Frames  int           `json:"frames"`
	Limits  []string      `json:"limits,omitempty"` // known limits that fit
	Code    uint16        `json:"close_code,omitempty"`
	Reason  string        `json:"close_reason,omitempty"`
	// A limit fits that counts from the opening, so that no heartbeat helps against it.
	FromOpening bool   `json:"from_opening,omitempty"`
	Text        string `json:"text"` // all of it in words
}

const (
	dialTimeout   = 15 * time.Second
	headBytesMax  = 16 << 10
	frameBytesMax = 64 << 10
	// A proxy looks at its timers every second or so.
	limitSlack = 2 * time.Second
	// The interval that the server is asked for, so that its own timeout is far away, with no heartbeat in between.
	silentQuery = "heartbeat=none&heartbeat_interval=10m"
)

// ErrURL is the error of an address that no probe can be made to.
var ErrURL = errors.New("not a ws:// or wss:// address")

// CheckURL says whether an address can be probed.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" || u.Fragment != "" || u.User != nil || strings.ContainsAny(address, " \r\n") {
		return fmt.Errorf("%w: %q", ErrURL, address)
	}
	return nil
}

// Probe opens a WebSocket, says nothing, and tells when and how it ends. It asks a server of this project to send no heartbeats. The end of
// ctx's deadline is the end of patience; canceled, it is stopped and knows nothing. trust is for tests; nil is the system's certificates. The error is that of CheckURL.
func Probe(ctx context.Context, address string, trust *tls.Config) (Probed, error) {
	if err := CheckURL(address); err != nil {
		return Probed{}, err
	}
	u, _ := url.Parse(address) // it was parsed just now
	p := Probed{URL: address}
	c, err := dial(ctx, u, trust)
	if err != nil {
		return p.refused(err), nil
	}
	defer func() { _ = c.Close() }() // what it had to tell is told
	if err := c.SetReadDeadline(now().Add(dialTimeout)); err != nil {
		return p.refused(err), nil
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	rest, err := upgrade(c, u)
	if err != nil {
		return p.refused(err), nil
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return p.refused(err), nil
	}
	if ctx.Err() != nil {
		_ = c.SetDeadline(time.Unix(1, 0)) // it may have ended just before its deadline was taken away
	}
	p.listen(ctx, c, rest)
	p.judge()
	return p, nil
}

func (p *Probed) refused(err error) Probed {
	p.Outcome, p.Text = Refused, "no WebSocket: "+err.Error()
	return *p
}

func dial(ctx context.Context, u *url.URL, trust *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	port := u.Port()
	if u.Scheme == "ws" {
		return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), orElse(port, "80")))
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if trust != nil {
		config = trust.Clone()
	}
	config.ServerName, config.NextProtos = u.Hostname(), []string{"http/1.1"}
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), orElse(port, "443")))
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// upgrade makes a WebSocket of a connection and returns what came behind the response.
func upgrade(c net.Conn, u *url.URL) (rest []byte, err error) {
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	target := orElse(u.EscapedPath(), "/") + "?"
	switch {
	case u.Query().Has("heartbeat"):
		target += u.RawQuery
	case u.RawQuery != "":
		target += u.RawQuery + "&" + silentQuery
	default:
		target += silentQuery
	}
	if _, err := c.Write(wsframe.AppendRequest(nil, u.Host, target, key, nil)); err != nil {
		return nil, err
	}
	head := make([]byte, 0, 4096)
	for {
		n, status, err := wsframe.CheckResponse(head, key)
		switch {
		case err != nil:
			return nil, err
		case n > 0 && status != 101:
			return nil, fmt.Errorf("answered with status %d", status)
		case n > 0:
			return head[n:], nil
		case len(head) >= headBytesMax:
			return nil, errors.New("the answer has no end")
		}
		buf := make([]byte, 4096)
		got, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		head = append(head, buf[:got]...)
	}
}

// listen waits for the end.
func (p *Probed) listen(ctx context.Context, c net.Conn, input []byte) {
	opened := now()
	last := opened
	limits := &wsframe.Limits{Client: true, MessageBytesMax: frameBytesMax}
	var decoder wsframe.Decoder
	buf := make([]byte, 4096)
	closed := false
	for {
		for len(input) > 0 && !closed {
			m, n, ok, err := decoder.Next(limits, input)
			if err != nil {
				p.Frames++ // no frame, but no silence either
				n = len(input)
			}
			input = input[n:]
			if ok {
				p.Frames++
				if closed = m.Opcode == wsframe.Close; closed {
					code, reason, _ := wsframe.ParseClose(m.Payload) // a malformed one has no code
					p.Code, p.Reason = uint16(code), printable(reason)
				}
			}
		}
		if closed {
			break
		}
		n, err := c.Read(buf)
		if n > 0 {
			last, input = now(), buf[:n]
		}
		if err != nil {
			break
		}
	}
	end := now()
	p.Silent, p.Life = end.Sub(last), end.Sub(opened)
	switch {
	case closed:
		p.Outcome = Closed
	case errors.Is(ctx.Err(), context.Canceled):
		p.Outcome = Stopped
	case ctx.Err() != nil:
		p.Outcome = Outlived
	default:
		p.Outcome = Cut
	}
}

// judge puts the outcome into words.
func (p *Probed) judge() {
	silent, life := p.Silent.Round(100*time.Millisecond), p.Life.Round(100*time.Millisecond)
	switch p.Outcome {
	case Closed:
		p.fit()
		p.Text = fmt.Sprintf("a Close frame came after %v, %v after the last byte: code %d %q; mostly that is the server, a timeout of its own or a shutdown", life, silent, p.Code, p.Reason)
		if len(p.Limits) > 0 {
			p.Text += ", but it is also the limit of " + strings.Join(p.Limits, ", or of ")
		}
	case Outlived:
		p.Text = fmt.Sprintf("still open after %v, the last %v of it silent: nothing cuts it in that time", life, silent)
	case Stopped:
		p.Text = fmt.Sprintf("stopped after %v, when it was still open: that tells nothing", life)
	case Cut:
		p.fit()
		p.Text = fmt.Sprintf("cut %v after the last byte, without a Close frame", silent)
		if len(p.Limits) > 0 {
			p.Text += ": that is the limit of " + strings.Join(p.Limits, ", or of ")
		} else {
			p.Text += ": no limit that is known, a setting of whatever stands in front"
		}
		if p.FromOpening {
			p.Text += "; that counts from the opening, whatever is sent: no heartbeat helps, raise it there"
		} else {
			p.Text += fmt.Sprintf("; heartbeats must be less than %v apart", silent)
		}
	case Refused:
	}
	if p.Frames > 0 && p.Outcome != Closed {
		p.Text += fmt.Sprintf(" (%d frames came from the server, so it was not silent all the time)", p.Frames)
	}
}

// fit finds the known limits that the end fits.
func (p *Probed) fit() {
	for _, limit := range KnownLimits() {
		took := p.Silent
		if limit.FromOpening {
			took = p.Life
		}
		if took > limit.After-limitSlack && took < limit.After+limitSlack {
			p.Limits = append(p.Limits, limit.Whose)
			p.FromOpening = p.FromOpening || limit.FromOpening
		}
	}
}

// IsShort says whether a heartbeat interval would not keep such a connection open, as far as is known: one that was looked at for less than the
// interval tells nothing, and counts as short.
func (p *Probed) IsShort(interval time.Duration) bool {
	switch p.Outcome {
	case Cut, Closed:
		return p.FromOpening || p.Silent <= interval+limitSlack
	case Outlived:
		return p.Life < interval
	default:
		return true
	}
}

// printable is text that a terminal may be given.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}

// now is the real time: a probe measures what others do.
func now() time.Time { return time.Now() } //nolint:forbidigo // see above
