package monitor

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/arl/statsviz"
)

// runtimeCharts serves the charts of the Go runtime. The package collects once a second from its making on, so it is made when somebody
// looks for the first time; and it never closes a connection that it took over, so that is done here.
type runtimeCharts struct {
	// Shared; mu guards.
	mu     sync.Mutex
	charts *statsviz.Server
	conns  map[*chartConn]struct{}
	places int // taken: one for each of conns, and for each request on its way there
	ended  bool
}

// serve answers below /debug/statsviz/.
func (c *runtimeCharts) serve(w http.ResponseWriter, r *http.Request) {
	charts, err := c.get()
	if err != nil {
		refuse(w, r, http.StatusServiceUnavailable, "ending", err.Error())
		return
	}
	if r.URL.Path != "/debug/statsviz/ws" {
		charts.Index()(w, r)
		return
	}
	if !c.reserve() {
		refuseFull(w, r, "enough runtime charts are open")
		return
	}
	writer := &chartWriter{ResponseWriter: w, charts: c}
	charts.Ws()(writer, r)
	if !writer.taken {
		c.release() // it was no request for a WebSocket
	}
}

// reserve takes one of the places, or tells that there is none.
func (c *runtimeCharts) reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places >= chartsMax {
		return false
	}
	c.places++
	return true
}

func (c *runtimeCharts) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places--
}

func (c *runtimeCharts) get() (*statsviz.Server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil, errors.New("shutting down")
	}
	if c.charts == nil {
		charts, err := statsviz.NewServer()
		if err != nil {
			return nil, err
		}
		c.charts, c.conns = charts, map[*chartConn]struct{}{}
	}
	return c.charts, nil
}

// end stops the collecting and closes what is open.
func (c *runtimeCharts) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.charts != nil {
		_ = c.charts.Close() // it only cancels
	}
	for conn := range c.conns {
		_ = conn.Conn.Close() // Nobody waits for the last chart.
	}
	c.places -= len(c.conns)
	clear(c.conns)
}

// chartWriter gives a chartConn to who takes the connection over.
type chartWriter struct {
	http.ResponseWriter
	charts *runtimeCharts
	taken  bool // the connection has its place until it is closed
}

// Hijack implements http.Hijacker.
func (w *chartWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := w.charts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil, nil, errors.New("shutting down")
	}
	inner, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	conn := &chartConn{Conn: inner, charts: c}
	c.conns[conn] = struct{}{}
	w.taken = true
	return conn, rw, nil
}

// chartConn closes itself when its peer has gone, which only a write tells.
type chartConn struct {
	net.Conn
	charts *runtimeCharts
}

func (c *chartConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil { //nolint:forbidigo // a deadline of the kernel's, not a decision by the clock
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close() // The error of writing says more.
	}
	return n, err
}

func (c *chartConn) Close() error {
	c.charts.mu.Lock()
	if _, open := c.charts.conns[c]; open {
		delete(c.charts.conns, c)
		c.charts.places--
	}
	c.charts.mu.Unlock()
	return c.Conn.Close()
}
