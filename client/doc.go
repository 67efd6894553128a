// Package client carries Pulsewheel's JavaScript client and its demonstration
// page inside the Go binary.
//
// The client itself is pulsewheel.js, one ES module without dependencies that
// browsers and Node run as it stands; README.md describes it and
// pulsewheel.d.ts holds its types. This package embeds that file and demo.html
// unchanged, so that the admin listener can serve both offline and a binary
// always ships the client it was tested with. Nothing is built, bundled or
// minified: what a browser loads is the file in this folder.
//
// The page imports ./client.js, so it is served from the folder in which
// [Script] answers to the name client.js. Its style and its script are inline,
// and it opens WebSocket connections to another port than its own: a
// Content-Security-Policy for it needs 'unsafe-inline' for both, 'self' for
// scripts, and ws: and wss: in connect-src.
//
// # Concurrency
//
// Both functions return constants of the binary and are safe everywhere.
//
// # Ownership of memory
//
// The returned strings are immutable and point into the binary's own data:
// nothing is copied or allocated.
//
// # Limits
//
// None of its own. The client's bounds (its queue, its timers, its back-off)
// are named at the top of pulsewheel.js.
//
// # Portability
//
// Go: any platform. JavaScript: browsers with private class members (2021 and
// later) and Node 20 or later, where a WebSocket class is passed in.
package client
