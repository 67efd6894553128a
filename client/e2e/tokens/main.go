// Command tokens is an embedding program for the end-to-end tests: its Config.Upgrade wants ?token=good…, and words of a client end its
// connection in the ways that concern a token.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/pulsewheel/pulsewheel/server"
)

func main() {
	s, err := server.New(server.Config{
		Listen: []string{"127.0.0.1:0"}, AllowedOrigins: []string{"*"}, HandlerInline: true,
		Upgrade: func(r *server.Request) (server.Accept, error) {
			query, err := url.ParseQuery(r.RawQuery)
			if err != nil || !strings.HasPrefix(query.Get("token"), "good") {
				return server.Accept{}, &server.RefusalError{Status: http.StatusUnauthorized, Body: "a token, please"}
			}
			return server.Accept{User: query.Get("token")}, nil
		},
	}, handler{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	go func() {
		<-s.Started()
		fmt.Fprintf(os.Stdout, "ws://%s/ws\n", s.Addrs()[0])
	}()
	if err := s.Serve(); !errors.Is(err, server.ErrClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type handler struct{}

func (handler) Open(server.Conn, *server.Request) {}

// Message does to the connection what it is told.
func (handler) Message(c server.Conn, op server.Op, data []byte) {
	switch string(data) {
	case "expire":
		c.Close(4401, "token-expired")
	case "kick":
		c.Kick()
	case "policy":
		c.Close(1008, "policy")
	default:
		_ = c.Send(op, data)
	}
}

func (handler) Close(server.Conn, uint16, string) {}
