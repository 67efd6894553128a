// Package server holds WebSocket connections by the million: it accepts and upgrades them, keeps them alive with heartbeats,
// expires the dead, and hands what they say to a [Handler].
//
// A connection that says nothing is a record of 64 bytes without a pointer, a timer of 12 bytes and a kernel socket: no
// goroutine, no buffer, no heap object, no Go timer. Whatever a connection needs for a moment (half a frame, unsent bytes)
// lives in a side table and in pooled buffers, and only for that moment. Event loops find out which sockets are ready and
// lend those connections, one holder at a time, to themselves or to a pool of decoders; the holder reads, decodes, answers heartbeats,
// calls the handler and writes all replies in one system call. loan.go has the state machine of a loan, loop.go the turn of a
// loop, closing.go how a connection ends, heartbeat.go who is beaten and when.
//
// # Concurrency
//
// Who owns what, and how others reach it:
//
//	goroutine         | owns                                          | talks through
//	------------------+-----------------------------------------------+---------------------------------------
//	loop              | its poller, listeners, wheel, ring, the       | loans; loop.post, the one way in
//	                  | lifecycle of its connections                  |
//	holder of a loan  | that connection's input, output and decoder   | returning the loan; loop.post
//	(loop, decoder,   |                                               |
//	sender)           |                                               |
//	handler,          | a Conn: a value of server and token           | Conn.Send, Conn.Close
//	application       |                                               |
//
// Every field is immutable, owned by a loop, owned by the holder of a loan, guarded by a lock, or atomic, and stands in a section
// that says so. Methods that belong to a loop's goroutine check it in builds with the race detector or the tag invariants.
//
// Handlers run on the handler pool, one call at a time and in order for each connection, unless [Config.HandlerInline] promises
// that they never block. All methods of Server and Conn may be called from anywhere.
//
// # Ownership of memory
//
// The data of [Handler.Message] is valid until it returns. Send copies. A read buffer belongs to a loop or a decoder worker; a
// connection has none. Records are in pages that never move and are reused, not freed.
//
// # Limits
//
// All bounds stand in limits.go with their reasons. What a peer can make the server hold: a request head (8 KiB), one message and the
// input read behind it (64 KiB each), and the outbox (MaxBackpressure, or one message). 255 loops, 16,777,216 connections each; timers have 20 ms ticks.
//
// # Portability
//
// Linux is what it is made for. It compiles where package poller does (kqueue systems).
package server
