// Package monitor shows what a server does: metrics, figures, health, profiles and pages over HTTP, a line of statistics in the
// log, and an alarm when the machine has more to do than it can.
//
// It reads a [Source] (a *server.Server is one) and changes nothing. [New] makes a Monitor; Serve answers HTTP on a listener
// from [Listen], and Run writes the line and watches the load. Each works without the other.
//
//	GET /metrics        Prometheus: Source.Stats once a scrape, the Go runtime and the process
//	GET /api/v1/stats   the same figures as JSON
//	GET /healthz        200 while the process answers
//	GET /readyz         200, or 503 with the reason
//	GET /debug/pprof/   profiles
//	GET /client.js      the browser client, and at / and /demo a page that uses it
//
// The alarm follows the 1-minute load average: `system overloaded` when it reaches the factor times the online cores, `system
// recovered` when it is below nine tenths of that, each once.
//
// # Access
//
// Health is open to everyone who reaches the port; probes can't carry tokens. Everything else asks two questions. The Host
// header must be a loopback name, the address that the connection came in on, or a configured name: a web page whose name was
// rebound to this address sends its own name. With a token every request must bear it; without one [CheckAddress] refuses
// addresses off loopback. On a Unix socket the file's permissions (0660) decide and Host means nothing.
//
// # Concurrency
//
// All methods are safe for concurrent use. Run and Serve block, each in a goroutine of the caller's.
//
// # Ownership of memory
//
// Stats are taken as a value that the Source never touches again.
//
// # Limits
//
// See limits.go: connections, header bytes and the time for each part of a request are bounded, since the descriptors kept
// beside the WebSocket connections are few.
//
// # Portability
//
// The load average comes from /proc/loadavg and the online cores from sysfs; elsewhere than on Linux there is no alarm.
package monitor
