// Command gws is an echo server with heartbeats on github.com/lxzan/gws, set up for many connections.
package main

import (
	"bufio"
	"net"
	"net/http"

	"github.com/lxzan/gws"

	"github.com/pulsewheel/pulsewheel/bench/peers/peer"
)

// bufferBytes holds a message of the benchmarks with its header, so that one read carries it. Write buffers are the
// library's, pooled.
const bufferBytes = 256

// echo is the library's event handler.
type echo struct {
	gws.BuiltinEventHandler // answers Close
	options                 peer.Options
}

// OnOpen sets the first deadline.
func (e *echo) OnOpen(socket *gws.Conn) { e.expire(socket) }

// expire sets a deadline that pongs move on, as the documentation does it with the pings of a client.
func (e *echo) expire(socket *gws.Conn) {
	if e.options.HeartbeatTimeout > 0 {
		_ = socket.SetDeadline(e.options.Deadline()) // fails only on a lost connection
	}
}

// OnMessage echoes from the library's own buffer, which goes back to its pool afterwards. What fails here also ends
// ReadLoop.
func (*echo) OnMessage(socket *gws.Conn, message *gws.Message) {
	defer message.Close() //nolint:errcheck // it can't fail
	_ = socket.WriteMessage(message.Opcode, message.Bytes())
}

// OnPing answers a client's ping.
func (*echo) OnPing(socket *gws.Conn, payload []byte) { _ = socket.WritePong(payload) }

// OnPong is the sign of life.
func (e *echo) OnPong(socket *gws.Conn, _ []byte) { e.expire(socket) }

func main() {
	options := peer.ParseFlags()
	// The library's own server: it reads the request from the same pooled reader that the connection then uses, while
	// net/http would bring buffers of its own.
	server := gws.NewServer(&echo{options: options}, &gws.ServerOption{
		ReadBufferSize:     bufferBytes,
		ReadMaxPayloadSize: peer.MessageBytesMax, // the library's own bound is 16 MiB
		// One message at a time on the connection's own goroutine. In parallel is for handlers that block; the channel that
		// it would need is as short as can be.
		ParallelEnabled: false,
		ParallelGolimit: 1,
	})
	server.OnError = func(conn net.Conn, _ error) { _ = conn.Close() } // half a request; no line of log for each
	server.OnRequest = func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		if r.URL.Path != peer.Path {
			_ = conn.Close()
			return
		}
		socket, err := server.GetUpgrader().UpgradeFromConn(conn, br, r)
		if err != nil {
			return // the upgrader has answered
		}
		// On a new goroutine, as the documentation advises: this one holds the request and a stack that parsing it has grown.
		go func() {
			stop := options.Beat(func() error { return socket.WritePing(nil) })
			socket.ReadLoop()
			stop()
		}()
	}
	peer.Fail(server.Run(options.Listen))
}
