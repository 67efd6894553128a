// Package wsframe is the WebSocket protocol (RFC 6455, with permessage-deflate of RFC 7692) on bytes that were already
// read.
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
// Compression is agreed on by [NegotiateDeflate] and never takes context over, so that a connection has to remember
// one [Deflate] of 4 bits. A compressed message is assembled like any other and inflated when it is whole, by the
// [Inflater] of whoever decodes; [Deflater] compresses what is sent, for everybody.
//
// Masks and the answer to the handshake are the work of github.com/gobwas/ws, whose blocking readers are not used: they
// need a goroutine per connection. github.com/klauspost/compress compresses, the standard library inflates.
//
// # Concurrency
//
// A Decoder or an Inflater belongs to one goroutine at a time. [Limits] and [HeadLimits] are read only and may be
// shared, and so may a Deflater. There is no package state; the functions may be called from anywhere.
//
// # Ownership of memory
//
// [Decoder.Next] writes into its input (unmasking) and its payloads alias the input or the Decoder's buffer: they are
// valid until the next call on the Decoder or until the caller reuses the input. The buffers of Decoder and Inflater come
// from Limits.Grow and go back through Release. A [Head] holds slices of the bytes it was parsed from. Decoding whole
// frames, encoding, ParseHead and a CheckUpgrade that passes allocate nothing; errors are preallocated values.
//
// # Limits
//
// A declared length is compared with Limits.MessageBytesMax when the header is complete, before any memory is asked
// for; memory then grows with what arrived or was inflated, by doubling, never with what was announced. Frames of a
// message, empty frames, the bytes, lines and fields of a request head have bounds of their own. Zero is "none".
//
// What breaks a rule is answered by a [ProtocolError] with the close code to send: 1002, 1007 for text that is not UTF-8
// (found with the first impossible byte) and what is not deflate, 1008 for too many fragments or deflate blocks, 1009 for
// too many bytes.
// Lengths must have their minimal encoding (RFC 6455, section 5.2). Reserved bits are judged in one place, checkBits.
//
// A request head is read as RFC 9112 asks of a server and more strictly than most do: CRLF alone ends lines, there
// are no folded lines, no blanks before a colon, no control characters, no leading empty line. Responses carry no Date.
//
// # Portability
//
// Nothing here depends on the operating system or on the size of int: a length that int cannot hold is too big.
package wsframe
