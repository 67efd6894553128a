// Package poller tells which of very many sockets are ready, and makes and moves
// the non-blocking sockets themselves.
//
// A Poller is a set of registrations: descriptor, token, interest. Wait parks the
// calling goroutine until some are ready and fills the caller's slice with (token,
// readiness) pairs. The package owns no loop, calls nobody back and starts no
// goroutine. A connection is registered once, with Readable, Writable and
// EdgeTriggered, and never touched again until it is closed:
//
//   - Draining. An edge comes once per change. After CanRead, read until
//     ErrWouldBlock, io.EOF or a short read (see Read for when that isn't enough);
//     after ErrWouldBlock from Write, CanWrite comes when there is room.
//   - Bytes and the end of the stream may come as one event: after Hangup read to
//     io.EOF or an error, however short a read was, for no further edge will come.
//   - Spurious events. An event is a hint; the following read may say ErrWouldBlock.
//   - Stale events. One Wait may return an event of a connection that the caller
//     closes while it serves the events before it, and the kernel may by then have
//     given the same descriptor to another connection. Events carry tokens, not
//     descriptors: a token with a generation makes the stale one harmless.
//
// # Concurrency
//
// A Poller and a Listener belong to one goroutine at a time. Only Poller.Wake and
// Listener.Queue may be called from any goroutine, at any time. The functions on plain descriptors
// may be called from any goroutine; who may use a descriptor is the caller's rule.
//
// # Ownership of memory
//
// The caller owns every slice it passes; none is kept after the call. Wait, Read,
// Write, Writev, Peek and Accept allocate nothing. A Poller holds some 4 KiB
// and nothing per registration (with kqueue 40 bytes per descriptor number).
//
// # Limits
//
// One Wait returns at most EventsPerWaitMax events, one Writev takes eight
// buffers. Tokens from TokenReserved on are the poller's own. With descriptors
// exhausted, Accept answers ErrDescriptors and Shed turns one connection away. A
// registration costs the kernel 208 bytes of fs.epoll.max_user_watches.
//
// # Portability
//
// Linux (amd64, arm64, riscv64; any other of Go's builds too): epoll, with the
// epoll descriptor itself parked in the runtime's poller, see poller_epoll.go.
// Timers are as precise as the kernel's. darwin and freebsd: kqueue, with the
// goroutine blocked in kevent and deadlines rounded up to milliseconds. There a
// second Add isn't noticed, Wake, Writev and Accept allocate, and the ports of a
// source address aren't shared over destinations. No other system is supported.
package poller
