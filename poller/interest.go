package poller

// Token is what a registration is called by: 64 bits that the poller stores as
// event data and never looks into. A caller that puts a generation into it can
// tell an event of a closed connection from one of its successor in the same
// slot, which a descriptor number cannot.
type Token uint64

// TokenReserved is the first of the tokens that the poller keeps for itself
// (its timer and its wake-up); it and all above it cannot be registered and are
// never reported.
const TokenReserved Token = 1<<64 - 16

const (
	tokenTimer Token = TokenReserved + iota
	tokenWake
)

// Interest says what to report about a descriptor, and how often.
//
//	bit 0 Readable       bytes, a connection to accept, or the end of the stream
//	bit 1 Writable       room to write, or the end of connecting
//	bit 2 EdgeTriggered  once per change instead of as long as it holds
type Interest uint8

// Connections are registered once with all three; listeners with Readable alone,
// since a batch of accepts may leave some waiting.
const (
	Readable Interest = 1 << iota
	Writable
	EdgeTriggered

	interestAll = Readable | Writable | EdgeTriggered
)

// Readiness says what a descriptor is ready for. It is a hint, and may be
// spurious: the read or write decides.
//
//	bit 0 CanRead   a read will not block: bytes, the end of the stream or an error
//	bit 1 CanWrite  a write will not block: room, or an error
//	bit 2 Hangup    the peer has ended its direction, or the socket is broken;
//	                bytes that came before may still wait to be read
type Readiness uint8

// The bits of Readiness.
const (
	CanRead Readiness = 1 << iota
	CanWrite
	Hangup
)

// Event is the readiness of one registration. A Wait holds at most one Event per
// descriptor.
type Event struct {
	Token Token
	Ready Readiness
}
