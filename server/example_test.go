package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/pulsewheel/pulsewheel/server"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// greeter is an application: it knows its users, keeps a count with each connection, answers, and passes on what is meant for all.
type greeter struct {
	server *server.Server
}

func (g *greeter) Open(c server.Conn, _ *server.Request) {
	_ = c.Send(server.Text, []byte("welcome "+c.User())) // a peer that is gone has its own ending
}

func (g *greeter) Message(c server.Conn, op server.Op, data []byte) {
	if text, ok := bytes.CutPrefix(data, []byte("all: ")); ok {
		_, _ = g.server.Broadcast(op, fmt.Appendf(nil, "%s says %s", c.User(), text)) // it came as text, so it is UTF-8
		return
	}
	count, _ := c.Value().(int)
	c.SetValue(count + 1)
	_ = c.Send(op, fmt.Appendf(nil, "message %d: %s", count+1, data))
}

func (g *greeter) Close(server.Conn, uint16, string) {}

// upgrade runs before the connection becomes a WebSocket.
func upgrade(r *server.Request) (server.Accept, error) {
	user := r.Query().Get("user")
	if user == "" {
		return server.Accept{}, &server.RefusalError{Status: http.StatusUnauthorized, Body: "who are you?"}
	}
	return server.Accept{User: user}, nil
}

// A program that embeds the server: it authenticates in Upgrade, keeps a value with each connection, answers and broadcasts.
func Example() {
	g := new(greeter)
	s, err := server.New(server.Config{
		Listen: []string{"127.0.0.1:0"}, Upgrade: upgrade, HandlerInline: true, Logger: slog.New(slog.DiscardHandler),
	}, g)
	if err != nil {
		fmt.Println(err)
		return
	}
	g.server = s
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	<-s.Started()
	addr := s.Addrs()[0].String()

	ann, bob := dial(addr, "/ws?user=ann"), dial(addr, "/ws?user=bob")
	fmt.Println(ann.hear())
	fmt.Println(bob.hear())
	ann.say("hello")
	fmt.Println(ann.hear())
	ann.say("hello again")
	fmt.Println(ann.hear())
	ann.say("all: lunch")
	fmt.Println(bob.hear())
	ann.conn.Close()
	bob.conn.Close()

	_ = s.Shutdown(context.Background()) // this context has no end
	fmt.Println(errors.Is(<-done, server.ErrClosed))
	// Output:
	// welcome ann
	// welcome bob
	// message 1: hello
	// message 2: hello again
	// ann says lunch
	// true
}

// client is the least that speaks WebSocket.
type client struct {
	conn    net.Conn
	in      []byte
	decoder wsframe.Decoder
}

func dial(addr, target string) *client {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		panic(err)
	}
	c := &client{conn: conn}
	key := [16]byte{1, 2, 3} // random in earnest
	_, _ = conn.Write(wsframe.AppendRequest(nil, addr, target, key, nil))
	for {
		c.read()
		if n, status, err := wsframe.CheckResponse(c.in, key); n > 0 {
			if status != http.StatusSwitchingProtocols || err != nil {
				panic(fmt.Sprint("no upgrade: ", status, err))
			}
			c.in = c.in[n:]
			return c
		}
	}
}

func (c *client) read() {
	buf := make([]byte, 4096)
	n, err := c.conn.Read(buf)
	if err != nil {
		panic(err)
	}
	c.in = append(c.in, buf[:n]...)
}

func (c *client) say(text string) {
	_, _ = c.conn.Write(wsframe.AppendMasked(nil, wsframe.Text, true, []byte(text), [4]byte{4, 3, 2, 1}))
}

func (c *client) hear() string {
	for {
		m, n, ok, err := c.decoder.Next(&wsframe.Limits{Client: true}, c.in)
		if err != nil {
			panic(err)
		}
		c.in = c.in[n:]
		if ok {
			return string(m.Payload)
		}
		c.read()
	}
}
