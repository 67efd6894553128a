package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// serve answers a connection with the given conversation and returns the address to dial.
func serve(t *testing.T, talk func(context.Context, *websocket.Conn)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("heartbeat"); got != "text" {
			t.Errorf("heartbeat = %q, want text", got)
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		talk(r.Context(), c)
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

func TestAnswersTheServersHeartbeat(t *testing.T) {
	tests := []struct {
		name, beat, want string
	}{
		{name: "without ts", beat: `{"type":"heartbeat"}`, want: `{"type":"heartbeat_ack"}`},
		{name: "ts returns unchanged", beat: `{"type":"heartbeat","ts":1790000000123.5}`, want: `{"type":"heartbeat_ack","ts":1790000000123.5}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			answers := make(chan string, 1)
			target := serve(t, func(ctx context.Context, c *websocket.Conn) {
				if err := c.Write(ctx, websocket.MessageText, []byte(test.beat)); err != nil {
					t.Error(err)
				}
				_, answer, err := c.Read(ctx)
				if err != nil {
					t.Error(err)
				}
				answers <- string(answer)
			})
			_ = run(t.Context(), target, 0, 10*time.Second) // ends with the server's connection
			if got := <-answers; got != test.want {
				t.Errorf("answer = %s, want %s", got, test.want)
			}
		})
	}
}

func TestBeatsItself(t *testing.T) {
	beats := make(chan string, 1)
	target := serve(t, func(ctx context.Context, c *websocket.Conn) {
		_, beat, err := c.Read(ctx)
		if err != nil {
			t.Error(err)
		}
		beats <- string(beat)
	})
	_ = run(t.Context(), target, 10*time.Millisecond, 10*time.Second) // ends with the server's connection
	if got := <-beats; got != `{"type":"heartbeat"}` {
		t.Errorf("beat = %s", got)
	}
}

// A server that says nothing must be given up, which is what the example is for.
func TestGivesUpASilentServer(t *testing.T) {
	target := serve(t, func(ctx context.Context, c *websocket.Conn) {
		_, _, _ = c.Read(ctx) // until the client goes
	})
	if err := run(t.Context(), target, 0, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want %v", err, context.DeadlineExceeded)
	}
}
