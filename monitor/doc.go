// Package monitor shows what a server does and lets an operator act on it: metrics, figures, health, profiles, an API and a live page
// over HTTP, a line of statistics in the log, and one state of overload made of several signs.
//
// It reads a [Source] (a *server.Server is one). [New] makes a Monitor; Serve answers HTTP on a listener from [Listen], and Run writes the
// line, watches for overload and looks where connections end. Each works without the other. What a Source offers beyond its figures is
// used as well: with [Control] the API lists, kicks, sends and drains.
//
//	GET /                         the live page, fed by GET /events (server-sent events, one a second)
//	GET /metrics                  Prometheus: counted by the server, summed at each scrape; the Go runtime and the process
//	GET /api/v1/stats             the same figures as JSON
//	GET /api/v1/connections       pages of connections, by cursor; /{id}: one of them, DELETE kicks it
//	POST …/connections/{id}/send, …/users/{user}/send, …/broadcast: the body as one message
//	POST /api/v1/drain            begins a drain, DELETE ends it
//	GET /healthz, /readyz         200 while the process answers; 200, or 503 with the reason
//	GET /debug/pprof/, /debug/statsviz/   profiles, charts of the runtime
//	GET /client.js, /demo         the browser client, and a page to try it
//
// Overload (overload.go) has its signs and figures in docs/metrics.md. Load average, waiting tasks and accept queues only alarm; lateness,
// full pools and memory make the server refuse new connections. Connections that end without a Close frame are compared with the
// idle limits of known proxies (idlelimits.go), and the log and the page say in words what is found.
//
// # Access
//
// Health is open to everyone who reaches the port; probes can't carry tokens. Everything else asks three questions. The Host header
// must be a loopback name, the address that the connection came in on, or a configured name: a web page whose name was rebound to this
// address sends its own. A browser must not say that a page of another origin asks. With a token every request must bear it, as a bearer
// token or as the password of HTTP's basic scheme, which browsers can; without one [CheckAddress] refuses addresses off loopback.
// Changes need the bearer token or a content type that no page can send unasked. On a Unix socket the file's permissions (0660) decide.
//
// # Concurrency
//
// All methods are safe for concurrent use. Run and Serve block, each in a goroutine of the caller's. Everything is read from the server's
// atomics, on the goroutine that asks: no loop is held up. Snapshots for pages are made once a second for all of them, while there are any.
//
// # Ownership of memory
//
// Stats are taken as a value that the Source never touches again.
//
// # Limits
//
// See limits.go: connections, pages that are open, header and body bytes, entries of a listing and the time for each part of a request are
// bounded, since the descriptors kept beside the WebSocket connections are few. Where all connections of the listener are taken, a new one
// takes the place of the longest silent (crowd.go), so that a probe is answered at once; what lasts (pages, charts, profiles, scrapes) is
// answered with 503 beyond its bound. A page of the listing may be short, even empty, while it has a cursor.
//
// # Portability
//
// What the kernel tells comes from /proc and /sys, and is missing elsewhere than on Linux; the other signs of overload work everywhere.
package monitor
