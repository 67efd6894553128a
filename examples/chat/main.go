// Command chat is a chat server in a hundred lines: how a program embeds package server.
//
//	go run ./examples/chat -listen 127.0.0.1:8080
//
// and in two other terminals, with any WebSocket client:
//
//	npx wscat -c 'ws://127.0.0.1:8080/chat?token=ann-secret'
//	npx wscat -c 'ws://127.0.0.1:8080/chat?token=bob-secret'
//
// What is said reaches everyone. "/who" tells who is there, "/count" how much one has said oneself, "/quit" says goodbye.
//
// It shows the four things that most programs need:
//
//   - authentication before the upgrade: room.upgrade knows the user by a token, or refuses with 401;
//   - a value kept with each connection: member, made by room.upgrade and found again by Conn.Value;
//   - answers to one: Conn.Send in room.Message;
//   - messages to all: Server.Broadcast.
//
// Heartbeats, slow readers and shutdown need no code. A browser can't set headers on a WebSocket, hence the token in the query; a real
// server would have it short-lived, since addresses end up in logs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// member is what the chat keeps with a connection. Only its handler uses it, one call at a time, so it needs no lock.
type member struct {
	said int
}

// room is the handler of all connections.
type room struct {
	server *server.Server
	users  map[string]string // by token
}

var _ server.Handler = (*room)(nil)

// newRoom makes the chat's server. cfg may set addresses and limits.
func newRoom(cfg server.Config, users map[string]string) (*room, error) {
	r := &room{users: users}
	cfg.Path = "/chat"
	cfg.Upgrade = r.upgrade
	cfg.HandlerInline = true // nothing below blocks
	s, err := server.New(cfg, r)
	if err != nil {
		return nil, err
	}
	r.server = s
	return r, nil
}

// upgrade lets in who has a token. With "&errors=close" in the query a browser sees the refusal as close code 4401.
func (r *room) upgrade(request *server.Request) (server.Accept, error) {
	token := request.Query().Get("token")
	if token == "" {
		token, _ = strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
	}
	user, ok := r.users[token]
	if !ok {
		return server.Accept{}, &server.RefusalError{
			Status: http.StatusUnauthorized, Body: "no valid token", Header: http.Header{"Www-Authenticate": {"Bearer"}},
		}
	}
	return server.Accept{User: user, Value: new(member)}, nil
}

// Open greets the new member and tells the others.
func (r *room) Open(c server.Conn, _ *server.Request) {
	r.tellAll(c.User() + " joined")
}

// Message answers a command, or passes on what was said.
func (r *room) Message(c server.Conn, op server.Op, data []byte) {
	if op != server.Text {
		c.Close(1003, "text-only")
		return
	}
	switch text := string(data); text {
	case "/who":
		r.tell(c, "here: "+strings.Join(r.members(), ", "))
	case "/count":
		r.tell(c, fmt.Sprintf("you said %d things", r.member(c).said))
	case "/quit":
		c.Close(1000, "goodbye")
	default:
		r.member(c).said++
		r.tellAll(c.User() + ": " + text)
	}
}

// Close tells the others; c itself no longer hears it.
func (r *room) Close(c server.Conn, _ uint16, _ string) {
	r.tellAll(c.User() + " left")
}

// member finds what upgrade kept with the connection.
func (r *room) member(c server.Conn) *member {
	m, ok := c.Value().(*member)
	if !ok {
		return new(member) // the connection is gone meanwhile
	}
	return m
}

// members are the users who are here, each once.
func (r *room) members() []string {
	var users []string
	for c := range r.server.Conns() {
		users = append(users, c.User())
	}
	slices.Sort(users)
	return slices.Compact(users)
}

// tell answers one. Send fails when the peer is gone or doesn't read; then the server is closing the connection already.
func (r *room) tell(c server.Conn, text string) {
	_ = c.Send(server.Text, []byte(text))
}

// tellAll reaches everyone who is here.
func (r *room) tellAll(text string) {
	if _, err := r.server.Broadcast(server.Text, []byte(text)); err != nil {
		slog.Error("broadcast failed", "error", err)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address")
	flag.Parse()
	r, err := newRoom(server.Config{Listen: []string{*listen}}, map[string]string{"ann-secret": "ann", "bob-secret": "bob"})
	if err != nil {
		slog.Error("bad configuration", "error", err)
		os.Exit(2)
	}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	go func() {
		<-interrupted.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = r.server.Shutdown(ctx) // Serve returns in any case
	}()
	if err := r.server.Serve(); !errors.Is(err, server.ErrClosed) {
		slog.Error("can't serve", "error", err)
		os.Exit(1)
	}
}
