// Command coder is an echo server with heartbeats on github.com/coder/websocket, set up for many connections.
package main

import (
	"bytes"
	"context"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/pulsewheel/pulsewheel/bench/peers/peer"
)

// server is what all connections share.
type server struct {
	options  peer.Options
	accept   websocket.AcceptOptions
	messages sync.Pool // of *bytes.Buffer, held while a message is echoed
}

func main() {
	s := &server{
		options: peer.ParseFlags(),
		// Stated, though it is the default: compression would cost a window per connection.
		accept:   websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled},
		messages: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
	http.HandleFunc(peer.Path, s.upgrade)
	peer.Fail(http.ListenAndServe(s.options.Listen, nil))
}

// upgrade leaves the connection to a new goroutine: one that stayed here would keep the request and the stack that
// net/http has grown. The buffers of net/http stay with the connection either way; the library has no setting for them.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &s.accept)
	if err != nil {
		return // Accept has answered
	}
	ws.SetReadLimit(peer.MessageBytesMax) // the library's own bound is 32 KiB
	go s.serve(ws)
}

func (s *server) serve(ws *websocket.Conn) {
	// A context that can't end: any other costs a registration of its end with each frame.
	ctx := context.Background()
	stop := s.options.Beat(func() error { return s.ping(ctx, ws) })
	for s.echo(ctx, ws) == nil {
	}
	stop()
	_ = ws.CloseNow() // it is lost already
}

// ping waits for the pong, and the library offers no other. The pong has what the timeout leaves of it after the interval
// since the one before; without it the connection is ended, as the library's examples do.
func (s *server) ping(ctx context.Context, ws *websocket.Conn) error {
	if s.options.HeartbeatTimeout == 0 {
		return ws.Ping(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.HeartbeatTimeout-s.options.HeartbeatInterval)
	defer cancel()
	err := ws.Ping(ctx)
	if err != nil {
		_ = ws.CloseNow() // it is lost already
	}
	return err
}

// echo waits without a buffer and takes one only while a message passes; Read would allocate for each.
func (s *server) echo(ctx context.Context, ws *websocket.Conn) error {
	kind, r, err := ws.Reader(ctx)
	if err != nil {
		return err
	}
	message := s.messages.Get().(*bytes.Buffer)
	defer s.messages.Put(message)
	message.Reset()
	if _, err := message.ReadFrom(r); err != nil {
		return err
	}
	return ws.Write(ctx, kind, message.Bytes())
}
