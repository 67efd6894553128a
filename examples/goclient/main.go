// Command goclient holds a connection to Pulsewheel and beats in both directions with text messages, over an ordinary WebSocket library.
//
//	go run . -target ws://127.0.0.1:8080/ws
//
// Most Go programs need none of it. The server's pings are answered by the library while something reads the connection, and that keeps
// it alive. What a library doesn't do by itself is to notice that the server is gone: a read waits for ever. A deadline on every read, and a
// beat of one's own that makes the server say something before it passes, are all that is missing; where pings get through,
// websocket.Conn.Ping is such a beat. The text heartbeat does the same across what answers or swallows ping frames, and it is what a
// server whose mode is text sends.
//
// A program that comes back waits a random time of up to a second, doubled at each failure up to a minute, or as long as the close reason
// says after "retry-after=". This is a module of its own, so that the library is no requirement of who embeds the server.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/coder/websocket"
)

// heartbeatBytesMax is the longest message that the server takes for one of its protocol.
const heartbeatBytesMax = 512

// heartbeat is a message of the protocol. TS stays as it came, so that an answer returns it unchanged.
type heartbeat struct {
	Type string          `json:"type"`
	TS   json.RawMessage `json:"ts,omitempty"`
}

// beat sends a heartbeat every interval, until the context ends or a write fails.
func beat(ctx context.Context, c *websocket.Conn, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := c.Write(ctx, websocket.MessageText, []byte(`{"type":"heartbeat"}`)); err != nil {
				return // the read ends as well, and says why
			}
		}
	}
}

// listen calls handle for each message and answers the server's heartbeats. It returns when the connection ends or nothing at all has
// come for as long as silence.
func listen(ctx context.Context, c *websocket.Conn, silence time.Duration, handle func([]byte)) error {
	for {
		deadline, cancel := context.WithTimeout(ctx, silence)
		kind, data, err := c.Read(deadline)
		cancel()
		if err != nil {
			return err
		}
		var message heartbeat
		if kind != websocket.MessageText || len(data) > heartbeatBytesMax || json.Unmarshal(data, &message) != nil {
			message.Type = "" // an ordinary message, whatever it looks like
		}
		switch message.Type {
		case "heartbeat":
			slog.Info("server beats")
			answer, err := json.Marshal(heartbeat{Type: "heartbeat_ack", TS: message.TS})
			if err != nil {
				return err
			}
			if err := c.Write(ctx, websocket.MessageText, answer); err != nil {
				return err
			}
		case "heartbeat_ack":
			slog.Info("acknowledged")
		default:
			handle(data)
		}
	}
}

// run connects and stays until the connection ends, which is an error unless the context ended it.
func run(ctx context.Context, target string, interval, silence time.Duration) error {
	c, _, err := websocket.Dial(ctx, target+"?heartbeat=text", nil)
	if err != nil {
		return err
	}
	defer c.CloseNow()
	if interval > 0 {
		go beat(ctx, c, interval)
	}
	// The first message is the server's hello, which tells what it granted.
	err = listen(ctx, c, silence, func(data []byte) { slog.Info("message", "data", string(data)) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func main() {
	target := flag.String("target", "ws://127.0.0.1:8080/ws", "address of the server")
	interval := flag.Duration("interval", 5*time.Second, "between this client's own heartbeats; 0 none")
	silence := flag.Duration("silence", 15*time.Second, "after which the server is given up; longer than its interval or one's own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *target, *interval, *silence); err != nil {
		slog.Error("connection ended", "error", err)
		os.Exit(1)
	}
}
