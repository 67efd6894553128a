package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// peerOptions are the ways in which a test's server behaves or misbehaves. The zero value echoes.
type peerOptions struct {
	status      int           // refuses the upgrade with it
	answer      string        // answers the upgrade with this instead
	pingEvery   time.Duration // pings each connection
	textBeats   bool          // beats as JSON instead
	corrupt     bool          // echoes something else
	mute        bool          // reads and says nothing
	noAcks      bool          // leaves the client's heartbeats unanswered
	splitHead   bool          // sends the answer to the upgrade in two parts
	killAfter   int           // ends everything with this many messages read
	stallAfter  int           // with this many messages read stands still for stallFor
	stallFor    time.Duration
	refuseAfter int  // connections after which upgrades are answered 503
	closeFirst  bool // sends Close right after the upgrade

	broadcasting broadcasting // through the admin listener

	guard guard // against peers that misbehave
}

// peer is a small server on the standard library, a goroutine per connection, so that the client is tested against
// something that shares nothing with its loop.
type peer struct {
	o        peerOptions
	listener net.Listener
	stopped  chan struct{}

	mu       sync.Mutex
	conns    map[net.Conn]bool
	upgraded map[net.Conn]bool
	messages int
	accepted int
	latest   string // address that a connection came from

	closed   map[string]int // by reason, as the admin listener of the server counts them
	rejected map[string]int
	kept     []net.Conn // that guard.leak doesn't close
	running  sync.WaitGroup
}

func listenPeer(address string, o peerOptions) (*peer, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &peer{o: o, listener: l, stopped: make(chan struct{}), conns: map[net.Conn]bool{}, upgraded: map[net.Conn]bool{}, closed: map[string]int{}, rejected: map[string]int{}}
	p.running.Add(1)
	go p.accept()
	return p, nil
}

// startPeer is listenPeer for the length of a test.
func startPeer(t *testing.T, o peerOptions) *peer {
	t.Helper()
	p, err := listenPeer("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		p.running.Wait()
	})
	return p
}

func (p *peer) url() string { return "ws://" + p.listener.Addr().String() + "/ws" }

// open counts the connections that are upgraded now.
func (p *peer) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.upgraded)
}

// kill ends the listener and every connection, as the end of a process does.
func (p *peer) kill() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	for _, c := range p.kept {
		_ = c.Close()
	}
}

func (p *peer) accept() {
	defer p.running.Done()
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns[c] = true
		p.accepted++
		p.latest = c.RemoteAddr().String()
		nth := p.accepted
		if nth == p.o.guard.killAt {
			go p.kill()
		}
		p.mu.Unlock()
		p.running.Go(func() {
			p.end(c, p.serve(c, nth)) // it ends when the client or kill closes it, or when the guard wants it
		})
	}
}

var errRefused = errors.New("refused")

func (p *peer) serve(c net.Conn, nth int) error {
	r := bufio.NewReader(c)
	p.o.guard.handshake(c)
	request, err := http.ReadRequest(r)
	if err != nil {
		return p.o.guard.late(c, err)
	}
	status := p.o.status
	if p.o.refuseAfter > 0 && nth > p.o.refuseAfter {
		status = http.StatusServiceUnavailable
	}
	if status != 0 {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status, http.StatusText(status))
		return errRefused
	}
	if p.o.answer != "" {
		_, err := c.Write([]byte(p.o.answer))
		return errors.Join(errRefused, err)
	}
	if err := p.upgrade(c, request); err != nil {
		return err
	}
	p.mu.Lock()
	p.upgraded[c] = true
	p.mu.Unlock()
	if p.o.closeFirst {
		_, err := c.Write(wsframe.AppendClose(nil, wsframe.CloseRestart, "restart"))
		return err
	}
	if p.o.pingEvery > 0 {
		go p.beat(c)
	}
	var d wsframe.Decoder
	buf, controls, limits := make([]byte, 64*1024), 0, p.o.guard.limits()
	for {
		p.o.guard.silence(c)
		n, err := r.Read(buf)
		if err != nil {
			return p.o.guard.silent(c, err)
		}
		for in := buf[:n]; len(in) > 0; {
			m, used, ok, err := d.Next(&limits, in)
			if err != nil {
				return p.o.guard.violated(c, err)
			}
			in = in[used:]
			if !ok {
				break
			}
			if m.Opcode == wsframe.Ping {
				controls++
			}
			if err := p.o.guard.flooded(c, controls); err != nil {
				return err
			}
			if err := p.answer(c, m); err != nil {
				return err
			}
		}
	}
}

func (p *peer) upgrade(c net.Conn, request *http.Request) error {
	raw := []byte("GET " + request.URL.RequestURI() + " HTTP/1.1\r\nHost: " + request.Host + "\r\n")
	for name, values := range request.Header {
		raw = fmt.Appendf(raw, "%s: %s\r\n", name, values[0])
	}
	raw = append(raw, "\r\n"...)
	scanned := 0
	head, _, err := wsframe.ParseHead(raw, &scanned, wsframe.HeadLimits{})
	if err != nil {
		return err
	}
	out, err := wsframe.AppendUpgrade(nil, &head, wsframe.Accept{})
	if err != nil {
		return err
	}
	if p.o.splitHead {
		if _, err := c.Write(out[:20]); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond) // so that the kernel does not join the two parts into one segment
		out = out[20:]
	}
	_, err = c.Write(out)
	return err
}

// answer echoes data, acknowledges heartbeats and leaves control frames alone.
func (p *peer) answer(c net.Conn, m wsframe.Message) error {
	if m.Opcode.IsControl() || p.o.mute {
		return nil
	}
	p.mu.Lock()
	p.messages++
	kill := p.o.killAfter > 0 && p.messages == p.o.killAfter
	if p.o.stallAfter > 0 && p.messages == p.o.stallAfter {
		time.Sleep(p.o.stallFor) // with the lock: nobody else goes on
	}
	p.mu.Unlock()
	if kill {
		p.kill()
		return errRefused
	}
	payload := m.Payload
	switch string(payload) {
	case `{"type":"heartbeat_ack"}`:
		return nil
	case `{"type":"heartbeat"}`:
		if p.o.noAcks {
			return nil
		}
		payload = []byte(`{"type":"heartbeat_ack"}`)
	}
	if p.o.corrupt {
		payload[0] ^= 1
	}
	p.disturb()
	p.o.guard.patience(c)
	_, err := c.Write(wsframe.AppendFrame(nil, m.Opcode, payload))
	return err
}

// beat sends beats until the connection is closed. A frame is one write, so it does not mix with an echo.
func (p *peer) beat(c net.Conn) {
	frame := wsframe.AppendFrame(nil, wsframe.Ping, []byte("hi"))
	if p.o.textBeats {
		frame = wsframe.AppendFrame(nil, wsframe.Text, []byte(`{"type":"heartbeat"}`))
	}
	ticker := time.NewTicker(p.o.pingEvery)
	defer ticker.Stop()
	for range ticker.C {
		if p.disturbed(p.o.guard.noBeatsFrom) {
			continue
		}
		if _, err := c.Write(frame); err != nil {
			return
		}
	}
}
