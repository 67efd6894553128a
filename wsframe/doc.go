// Package wsframe is the WebSocket protocol (RFC 6455) on bytes that were already read.
//
// A [Decoder] turns the bytes of one connection into messages and control frames, however the network cut them up. It
// takes what is there, returns at most one [Message] a call and never waits: a server without a goroutine per
// connection calls it with each read, and a peer that stops in the middle of a frame holds a few dozen bytes, not a
// worker. The Append functions are the other direction; they extend a slice that the caller owns. [ParseHead],
// [CheckUpgrade] and [AppendUpgrade] do the same for the opening handshake. [AppendRequest], [CheckResponse],
// [AppendMasked] and Limits.Client are the client's side of the protocol, for load generators and tests.
//
// A whole unfragmented frame is unmasked where it lies and passed on without a copy. Everything else (a frame that
// arrives in parts, a message of several frames, a control frame between them) is collected in one buffer per
// Decoder: the message first, the part of a control frame behind it. So an idle connection needs neither the buffer
// nor the Decoder: when [Decoder.Idle] says so, both can be dropped.
//
// Masks and the answer to the handshake are the work of github.com/gobwas/ws. Its blocking readers are not used:
// they need a goroutine per connection.
//
// # Concurrency
//
// A Decoder belongs to one goroutine at a time. [Limits] and [HeadLimits] are read only and may be shared. There is
// no package state; the functions may be called from anywhere.
//
// # Ownership of memory
//
// [Decoder.Next] writes into its input (unmasking) and its payloads alias the input or the Decoder's buffer: they are
// valid until the next call on the Decoder or until the caller reuses the input. The buffer comes from Limits.Grow
// and goes back through [Decoder.Release]. A [Head] holds slices of the bytes it was parsed from. Decoding whole
// frames, encoding, ParseHead and a CheckUpgrade that passes allocate nothing; errors are preallocated values.
//
// # Limits
//
// A declared length is compared with Limits.MessageBytesMax when the header is complete, before any memory is asked
// for; memory then grows with what arrived, by doubling, never with what was announced. Frames of a message, empty
// frames, the bytes, lines and fields of a request head have bounds of their own. The zero value of each is "none".
//
// What breaks RFC 6455 is answered by a [ProtocolError] that carries the close code to send: 1002, 1007 for text that
// is not UTF-8 (found with the first impossible byte), 1008 for too many fragments, 1009 for too many bytes. The
// minimal encoding of lengths that section 5.2 asks for is enforced. Extensions are not negotiated yet, so each of
// the reserved bits is an error; they are judged in one place, checkBits.
//
// A request head is read as RFC 9112 asks of a server and more strictly than most do: CRLF alone ends lines, there
// are no folded lines, no blanks before a colon, no control characters, no leading empty line. Responses carry no
// Date, since this package has no clock.
//
// # Portability
//
// Nothing here depends on the operating system or on the size of int: a length that int cannot hold is too big.
package wsframe
