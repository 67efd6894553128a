// Command gorilla is an echo server with heartbeats on github.com/gorilla/websocket, set up for many connections.
package main

import (
	"bytes"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/pulsewheel/pulsewheel/bench/peers/peer"
)

// bufferBytes holds a message of the benchmarks with its header, so that one read and one write carry it. The
// documentation advises buffers no larger than the messages.
const bufferBytes = 256

// server is what all connections share.
type server struct {
	options  peer.Options
	upgrader websocket.Upgrader
	ping     *websocket.PreparedMessage
	messages sync.Pool // of *bytes.Buffer, held while a message is echoed
}

// conn is one connection. The library allows one writer at a time: the echo and the heartbeat.
type conn struct {
	ws *websocket.Conn
	mu sync.Mutex // guards writing
}

func main() {
	s := &server{
		options: peer.ParseFlags(),
		upgrader: websocket.Upgrader{
			ReadBufferSize: bufferBytes,
			// A pool, because most connections are silent most of the time: none of them keeps a write buffer.
			WriteBufferSize: bufferBytes,
			WriteBufferPool: &sync.Pool{},
		},
		messages: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
	var err error
	// Encoded once; WriteControl would allocate a frame and a timer for each ping.
	if s.ping, err = websocket.NewPreparedMessage(websocket.PingMessage, nil); err != nil {
		peer.Fail(err)
	}
	http.HandleFunc(peer.Path, s.upgrade)
	peer.Fail(http.ListenAndServe(s.options.Listen, nil))
}

// upgrade leaves the connection to a new goroutine: one that stayed here would keep the request and the stack that
// net/http has grown.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request) {
	ws, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	ws.SetReadLimit(peer.MessageBytesMax) // the library has no bound of its own
	s.expire(ws)
	go s.serve(&conn{ws: ws})
}

// expire sets a deadline that pongs move on, as the library's examples do.
func (s *server) expire(ws *websocket.Conn) {
	if s.options.HeartbeatTimeout == 0 {
		return
	}
	_ = ws.SetReadDeadline(s.options.Deadline()) // fails only on a lost connection
	ws.SetPongHandler(func(string) error { return ws.SetReadDeadline(s.options.Deadline()) })
}

func (s *server) serve(c *conn) {
	stop := s.options.Beat(func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ws.WritePreparedMessage(s.ping)
	})
	for s.echo(c) == nil {
	}
	stop()
	_ = c.ws.Close() // it is lost already
}

// echo waits without a buffer and takes one only while a message passes; ReadMessage would allocate for each.
func (s *server) echo(c *conn) error {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return err
	}
	message := s.messages.Get().(*bytes.Buffer)
	defer s.messages.Put(message)
	message.Reset()
	if _, err := message.ReadFrom(r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ws.WriteMessage(kind, message.Bytes())
}
