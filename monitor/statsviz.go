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
	charts.Ws()(&chartWriter{ResponseWriter: w, charts: c}, r)
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
	clear(c.conns)
}

// chartWriter gives a chartConn to who takes the connection over.
type chartWriter struct {
	http.ResponseWriter
	charts *runtimeCharts
}

// Hijack implements http.Hijacker, at most for so many charts at once.
func (w *chartWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := w.charts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || len(c.conns) >= chartsMax {
		return nil, nil, errors.New("enough runtime charts are open")
	}
	inner, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	conn := &chartConn{Conn: inner, charts: c}
	c.conns[conn] = struct{}{}
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
	delete(c.charts.conns, c)
	c.charts.mu.Unlock()
	return c.Conn.Close()
}
