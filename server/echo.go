package server

// Echo is a Handler that answers every message with itself: for demonstrations, conformance suites and load tests. It never
// blocks, so it may run inline.
type Echo struct{}

var _ Handler = Echo{}

// Open does nothing.
func (Echo) Open(Conn, *Request) {}

// Message sends the message back.
func (Echo) Message(c Conn, op Op, data []byte) {
	_ = c.Send(op, data) // a peer that is gone or doesn't read has its own ending
}

// Close does nothing.
func (Echo) Close(Conn, uint16, string) {}

// discard is the handler of a server without one: it counts and forgets.
type discard struct{}

func (discard) Open(Conn, *Request)        {}
func (discard) Message(Conn, Op, []byte)   {}
func (discard) Close(Conn, uint16, string) {}
