package monitor

import "time"

const (
	// Connections to the admin listener at once. The server keeps 64 descriptors for everything that isn't a WebSocket
	// connection; a flood here must leave some of them.
	connectionsMax = 32
	// A request head: a bearer token and what browsers send.
	headerBytesMax = 16 << 10
	// A client that is slow to send its request holds one of the few connections.
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// Prometheus scrapes every 15 to 60 s and connects anew when it must.
	idleTimeout = 15 * time.Second
	// A client that doesn't read its answer. Profiles that take longer move their own deadline.
	writeTimeout = 30 * time.Second

	// Scrapes at once; a further one is answered with 503.
	scrapesMax = 4

	// The kernel recomputes the load average every 5 s (LOAD_FREQ).
	loadInterval = 5 * time.Second
	// An alarm ends below this share of the load at which it began, so that a load at the limit doesn't ring it again and again.
	recoveryShare = 0.9
)
