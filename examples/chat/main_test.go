package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// guest is a client of the chat.
type guest struct {
	net.Conn
	t       *testing.T
	limits  wsframe.Limits
	decoder wsframe.Decoder
	in      []byte
}

// join connects, and returns the status of the answer.
func join(t *testing.T, addr, query string, header ...[2]string) (*guest, int) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	g := &guest{Conn: c, t: t, limits: wsframe.Limits{Client: true}}
	var key [16]byte
	if _, err := c.Write(wsframe.AppendRequest(nil, addr, "/chat"+query, key, header)); err != nil {
		t.Fatal(err)
	}
	for {
		n, status, err := wsframe.CheckResponse(g.in, key)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			g.in = g.in[n:]
			return g, status
		}
		g.fill()
	}
}

func (g *guest) fill() {
	g.t.Helper()
	buf := make([]byte, 4096)
	n, err := g.Read(buf)
	if err != nil {
		g.t.Fatal(err)
	}
	g.in = append(bytes.Clone(g.in), buf[:n]...)
}

func (g *guest) say(text string) {
	g.t.Helper()
	if _, err := g.Write(wsframe.AppendMasked(nil, wsframe.Text, true, []byte(text), [4]byte{1, 2, 3, 4})); err != nil {
		g.t.Fatal(err)
	}
}

// hear compares what comes next, a Close frame as "close 1000".
func (g *guest) hear(want string) {
	g.t.Helper()
	for {
		m, n, ok, err := g.decoder.Next(&g.limits, g.in)
		g.in = g.in[n:]
		if err != nil {
			g.t.Fatal(err)
		}
		if !ok {
			g.fill()
			continue
		}
		got := string(m.Payload)
		if m.Opcode == wsframe.Close {
			code, _, _ := wsframe.ParseClose(m.Payload)
			got = fmt.Sprintf("close %d", code)
		}
		if got != want {
			g.t.Fatalf("heard %q, want %q", got, want)
		}
		return
	}
}

func TestChat(t *testing.T) {
	r, err := newRoom(server.Config{Listen: []string{"127.0.0.1:0"}}, map[string]string{"1": "ann", "2": "bob"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.server.Serve() }()
	<-r.server.Started()
	addr := r.server.Addrs()[0].String()

	for _, query := range []string{"", "?token=", "?token=3"} {
		refused, status := join(t, addr, query)
		if status != 401 {
			t.Errorf("query %q: status %d, want 401", query, status)
		}
		_ = refused.Close()
	}
	stranger, status := join(t, addr, "?token=3&errors=close")
	if status != 101 {
		t.Fatalf("status %d", status)
	}
	stranger.hear("close 4401")

	ann, status := join(t, addr, "?token=1")
	if status != 101 {
		t.Fatalf("status %d", status)
	}
	ann.hear("ann joined")
	bob, status := join(t, addr, "", [2]string{"Authorization", "Bearer 2"})
	if status != 101 {
		t.Fatalf("status %d", status)
	}
	bob.hear("bob joined")
	ann.hear("bob joined")
	ann.say("hello")
	for _, g := range []*guest{ann, bob} {
		g.hear("ann: hello")
	}
	bob.say("/who")
	bob.hear("here: ann, bob")
	ann.say("/count")
	ann.hear("you said 1 things")
	bob.say("/quit")
	bob.hear("close 1000")
	_ = bob.Close()
	ann.hear("bob left")

	_ = ann.Close()
	_ = stranger.Close()
	if err := r.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, server.ErrClosed) {
		t.Error(err)
	}
}
