package server

import (
	"fmt"
	"net"
	"net/http"
	"syscall"

	"github.com/pulsewheel/pulsewheel/poller"
)

// Adopt takes over the connection of an upgrade request that net/http accepted, for programs that have an HTTP server already. The
// server's own rules decide on the request (but for the path) and answer it. TLS is refused with ErrTLS.
func (s *Server) Adopt(w http.ResponseWriter, r *http.Request) error {
	if r.TLS != nil {
		return ErrTLS
	}
	select {
	case <-s.started:
	default:
		return ErrNotServing
	}
	if s.state.Load() != stateServing {
		return ErrClosed
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("hijack: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the descriptor lives on under another number
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return ErrTLS
	}
	input := appendRequest(nil, r)
	if n := buffered.Reader.Buffered(); n > 0 {
		rest, err := buffered.Peek(n)
		if err != nil {
			return fmt.Errorf("adopt: %w", err)
		}
		input = append(input, rest...)
	}
	if len(input) > readBytes {
		return fmt.Errorf("adopt: %d bytes of head and frames before the upgrade, at most %d", len(input), readBytes)
	}
	fd, peer, err := poller.Detach(raw)
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	_, unix := conn.LocalAddr().(*net.UnixAddr)
	if !s.lighter(s.loops[0]).post(task{kind: taskDo, do: func(l *loop) { l.admit(fd, peer, unix, input) }}) {
		_ = poller.Close(fd) // the server ended meanwhile
		return ErrClosed
	}
	return nil
}

// appendRequest writes down the head of a request as it came, so that an adopted connection goes the way of all others.
func appendRequest(dst []byte, r *http.Request) []byte {
	dst = append(dst, r.Method+" "+r.URL.RequestURI()+" "+r.Proto+"\r\nHost: "+r.Host+"\r\n"...)
	for name, values := range r.Header {
		for _, value := range values {
			dst = append(dst, name+": "+value+"\r\n"...)
		}
	}
	return append(dst, "\r\n"...)
}
