package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// guard is how a test's server deals with peers that misbehave, and how it fails to. The zero value bears everything.
type guard struct {
	handshakeTimeout time.Duration // 408
	silenceTimeout   time.Duration // 4408
	writeTimeout     time.Duration // 1013 by way of a reset
	messageBytes     int           // 1009
	fragments        int           // 1008
	pings            int           // of one connection in all: 1008

	rude        bool // resets instead of a Close frame
	leak        bool // keeps the descriptors of those that left
	miscount    bool // tells of one more end than there was
	killAt      int  // ends everything with this many connections accepted
	evictAt     int  // ends all that stand when this many have ended
	slowFrom    int  // echoes late while it has had so many connections
	noBeatsFrom int  // sends no beats while it has had so many
}

// broadcasting is how a test's server broadcasts, or fails to. The zero value can't.
type broadcasting struct {
	can      bool
	status   int  // of the answer, instead of 200
	vague    bool // does not say how many it reached
	deaf     bool // says so and reaches nobody
	forgets  bool // leaves one connection out
	twice    bool // sends everything twice
	changes  bool // sends something else of the same mark
	miscount bool // says one more than it reached
	endsAt   int  // ends everything at the broadcast of this number
}

// guarded does what the server promises, in times fit for a test.
func guarded() guard {
	return guard{
		handshakeTimeout: 300 * time.Millisecond, silenceTimeout: 500 * time.Millisecond, writeTimeout: 500 * time.Millisecond,
		messageBytes: 64 << 10, fragments: 1024, pings: 20,
	}
}

// reasoned is an end with the reason that is counted.
type reasoned struct {
	reason   string
	rejected bool
}

func (e *reasoned) Error() string { return e.reason }

func (g *guard) limits() wsframe.Limits {
	return wsframe.Limits{MessageBytesMax: g.messageBytes, FragmentsMax: g.fragments}
}

func (g *guard) handshake(c net.Conn) {
	if g.handshakeTimeout > 0 {
		_ = c.SetReadDeadline(time.Now().Add(g.handshakeTimeout))
	}
	if g.writeTimeout > 0 { // the kernel's own buffers would take megabytes before a write waits
		_ = errors.Join(c.(*net.TCPConn).SetReadBuffer(16<<10), c.(*net.TCPConn).SetWriteBuffer(16<<10))
	}
}

// late answers a head that did not come in time. Package http may take what came until then for a malformed line.
func (g *guard) late(c net.Conn, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	_, _ = c.Write([]byte("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
	return &reasoned{"timeout", true}
}

// silence allows for so much of it from now on.
func (g *guard) silence(c net.Conn) {
	deadline := time.Time{}
	if g.silenceTimeout > 0 {
		deadline = time.Now().Add(g.silenceTimeout)
	}
	_ = c.SetReadDeadline(deadline)
}

func (g *guard) silent(c net.Conn, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return g.close(c, wsframe.CloseHeartbeatLost, "expired")
}

func (g *guard) patience(c net.Conn) {
	if g.writeTimeout > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(g.writeTimeout))
	}
}

// flooded counts the control frames of one connection.
func (g *guard) flooded(c net.Conn, controls int) error {
	if g.pings == 0 || controls <= g.pings {
		return nil
	}
	return g.close(c, wsframe.ClosePolicy, "policy")
}

func (g *guard) violated(c net.Conn, err error) error {
	var perr *wsframe.ProtocolError
	if !errors.As(err, &perr) {
		return err
	}
	return g.close(c, perr.Code, "policy")
}

// close sends a Close frame and drains what still comes, since closing with unread input would reset the connection.
func (g *guard) close(c net.Conn, code wsframe.CloseCode, reason string) error {
	t := c.(*net.TCPConn)
	if g.rude {
		_ = t.SetLinger(0)
		return &reasoned{reason, false}
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write(wsframe.AppendClose(nil, code, reason))
	_ = t.CloseWrite()
	if reason != "expired" {
		_, _ = io.Copy(io.Discard, c)
	}
	return &reasoned{reason, false}
}

// end closes a connection and counts why.
func (p *peer) end(c net.Conn, why error) {
	g := &p.o.guard
	reason, rejected := "end", false
	var named *reasoned
	switch {
	case errors.As(why, &named):
		reason, rejected = named.reason, named.rejected
	case errors.Is(why, os.ErrDeadlineExceeded):
		reason = "slow_consumer"
		_ = c.(*net.TCPConn).SetLinger(0)
	case errors.Is(why, syscall.ECONNRESET), errors.Is(why, syscall.EPIPE):
		reason = "reset"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.leak {
		p.kept = append(p.kept, c)
	} else {
		_ = c.Close()
	}
	delete(p.conns, c)
	delete(p.upgraded, c)
	counts := p.closed
	if rejected {
		counts = p.rejected
	}
	counts[reason]++
	if g.miscount && counts["end"] == 1 {
		counts["end"]++
	}
	if g.evictAt > 0 && total(p.closed) == g.evictAt {
		for other := range p.conns {
			_ = other.Close()
		}
	}
}

// disturbed tells that so many connections have come; 0: never.
func (p *peer) disturbed(from int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return from > 0 && p.accepted >= from
}

// disturb keeps an echo waiting.
func (p *peer) disturb() {
	if p.disturbed(p.o.guard.slowFrom) {
		time.Sleep(300 * time.Millisecond) // the fault to be found is a server that is late
	}
}

// admin serves the peer's counts as the admin listener of the server does, and returns its address.
func (p *peer) admin(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/stats", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"active": len(p.conns), "closed_by_reason": p.closed, "rejected_by_reason": p.rejected})
	})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# TYPE go_goroutines gauge\ngo_goroutines 7\ngo_memstats_heap_objects 1000\n")
	})
	mux.HandleFunc("/debug/pprof/heap", func(http.ResponseWriter, *http.Request) {})
	if p.o.broadcasting.can {
		mux.HandleFunc("POST /api/v1/broadcast", p.broadcast)
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// broadcast sends the body to every connection that has been upgraded, as the admin listener of the server does.
func (p *peer) broadcast(w http.ResponseWriter, r *http.Request) {
	b := &p.o.broadcasting
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Query().Get("binary") != "1" || r.Header.Get("Content-Type") != "application/octet-stream" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if b.status != 0 {
		w.WriteHeader(b.status)
		return
	}
	if b.vague {
		_, _ = io.WriteString(w, "{}")
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	number, _, ok := parseBroadcast(body)
	first := ok && number == 0 // by which the harness sees that it can: asked for again where it met nobody
	if b.endsAt > 0 && b.endsAt == number {
		go p.kill()
	}
	if b.changes && !first {
		body = body[:len(body)-1]
	}
	reached := 0
	for c := range p.upgraded {
		if b.deaf || b.forgets && !first && reached == len(p.upgraded)-1 {
			break
		}
		reached++
		frame := wsframe.AppendFrame(nil, wsframe.Binary, body)
		if b.twice {
			frame = append(frame, frame...)
		}
		_, _ = c.Write(frame)
	}
	if b.miscount && !first {
		reached++
	}
	_ = json.NewEncoder(w).Encode(map[string]int{"reached": reached})
}
