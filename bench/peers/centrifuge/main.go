// Command centrifuge is a server with heartbeats on github.com/centrifugal/centrifuge and its WebSocket handler.
//
// Its clients speak the library's own protocol: a connect command first, then commands in JSON or Protobuf, each with a
// reply. A plain WebSocket client is left with what lies below that protocol: the upgrade, holding the connection, and
// native pings, which the library offers to tools that don't know the protocol. So there is no echo: a message that is
// no command ends the connection. And since no connect command comes, a connection is not in the hub and has no
// timers of presence or expiry: what is measured here is the least that the library costs.
package main

import (
	"context"
	"errors"
	"math"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/pulsewheel/pulsewheel/bench/peers/peer"
)

// bufferBytes holds the small messages of this library's protocol.
const bufferBytes = 256

func main() {
	options := peer.ParseFlags()
	if err := serve(options); err != nil && !errors.Is(err, http.ErrServerClosed) {
		peer.Fail(err)
	}
}

func serve(options peer.Options) error {
	node, err := centrifuge.New(centrifuge.Config{
		// The client of the benchmarks never sends its connect command.
		ClientStaleCloseDelay: math.MaxInt64,
	})
	if err != nil {
		return err
	}
	if err := node.Run(); err != nil {
		return err
	}
	ping := options.HeartbeatInterval
	if ping == 0 {
		ping = 24 * time.Hour // zero would be the default of 25 s; a native ping can't be switched off
	}
	pong := ping * 4 / 5 // must be less than the interval
	if options.HeartbeatTimeout > 0 {
		// A connection is ended when so much more than the interval has passed since the pong before. A ping moves the deadline
		// on, so the one must not come near the other: pings of two a timeout are a twentieth further apart.
		ping = max(ping, options.HeartbeatTimeout*21/40)
		pong = options.HeartbeatTimeout - ping
	}
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		ReadBufferSize:  bufferBytes,
		WriteBufferSize: bufferBytes,
		// The library's own advice for many silent connections, as is the next one: no write buffer and no deep stack stay
		// with a connection.
		UseWriteBufferPool:         true,
		ProcessCommandsOffReadLoop: true,
		PingPongConfig: centrifuge.PingPongConfig{
			PingInterval: ping,
			PongTimeout:  pong,
		},
	})
	http.HandleFunc(peer.Path, func(w http.ResponseWriter, r *http.Request) {
		// What such a tool adds to its URL. Pings of the library's protocol go only to those who have connected in it.
		r.URL.RawQuery = "cf_ws_frame_ping_pong=true"
		handler.ServeHTTP(w, r)
	})
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	server := &http.Server{Addr: options.Listen}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return server.ListenAndServe()
}
