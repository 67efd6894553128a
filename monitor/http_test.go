package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// serveMonitor serves on a port of loopback and stops with the test.
func serveMonitor(t *testing.T, m *Monitor) net.Addr {
	t.Helper()
	return serveMonitorOn(t, m, "127.0.0.1:0")
}

func serveMonitorOn(t *testing.T, m *Monitor, address string) net.Addr {
	t.Helper()
	l, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := m.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr()
}

// answer is what a request brought.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask makes one request on a connection of its own; headers are pairs, and Host is one of them.
func ask(t *testing.T, addr net.Addr, method, path string, headers ...string) answer {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
		},
	}}
	host := addr.String()
	if addr.Network() == "unix" {
		host = "socket"
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(body)}
}

func TestMetrics(t *testing.T) {
	addr := serveMonitor(t, New(Config{Version: "v1", Revision: "abc"}, newFixedSource()))
	got := ask(t, addr, "GET", "/metrics")
	if got.status != http.StatusOK {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	for _, line := range []string{
		`pulsewheel_connections 7`,
		`pulsewheel_connections_limit 1000`,
		`pulsewheel_handshakes 2`,
		`pulsewheel_connections_opened_total 19`,
		`pulsewheel_connections_closed_total{reason="expired"} 3`,
		`pulsewheel_connections_closed_total{reason="client"} 9`,
		`pulsewheel_handshakes_rejected_total{reason="origin"} 4`,
		`pulsewheel_heartbeats_sent_total{mode="ping"} 40`,
		`pulsewheel_heartbeats_sent_total{mode="text"} 2`,
		`pulsewheel_heartbeats_received_total{mode="pong"} 39`,
		`pulsewheel_heartbeats_received_total{mode="ack"} 1`,
		`pulsewheel_heartbeat_rtt_seconds_bucket{le="0.001"} 5`,
		`pulsewheel_heartbeat_rtt_seconds_bucket{le="0.01"} 7`,
		`pulsewheel_heartbeat_rtt_seconds_bucket{le="+Inf"} 8`,
		`pulsewheel_heartbeat_rtt_seconds_sum 0.5`,
		`pulsewheel_heartbeat_rtt_seconds_count 8`,
		`pulsewheel_wheel_lateness_seconds_count 8`,
		`pulsewheel_messages_total{direction="in"} 11`,
		`pulsewheel_messages_total{direction="out"} 12`,
		`pulsewheel_traffic_bytes_total{direction="in"} 130`,
		`pulsewheel_traffic_bytes_total{direction="out"} 140`,
		`pulsewheel_batches_total{runner="loop"} 15`,
		`pulsewheel_batches_total{runner="pool"} 16`,
		`pulsewheel_handler_panics_total 1`,
		`pulsewheel_loop_connections{loop="0"} 3`,
		`pulsewheel_loop_connections{loop="1"} 4`,
		`pulsewheel_overloaded 0`,
		`pulsewheel_draining 0`,
	} {
		if !strings.Contains(got.body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	for _, name := range []string{`pulsewheel_build_info{goversion="go`, "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(got.body, "\n"+name) {
			t.Errorf("no metric %s", name)
		}
	}
	problems, err := promlint.New(strings.NewReader(got.body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "pulsewheel_") {
			t.Errorf("promlint: %s: %s", problem.Metric, problem.Text)
		}
	}
}

// A rate needs the zero before the first event, so the modes are there before anything was counted.
func TestMetricsBeginAtZero(t *testing.T) {
	addr := serveMonitor(t, New(Config{}, &fixedSource{}))
	got := ask(t, addr, "GET", "/metrics")
	for _, line := range []string{
		`pulsewheel_heartbeats_sent_total{mode="ping"} 0`,
		`pulsewheel_heartbeats_received_total{mode="text"} 0`,
		`pulsewheel_heartbeat_rtt_seconds_count 0`,
	} {
		if !strings.Contains(got.body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

func TestStats(t *testing.T) {
	source := newFixedSource()
	addr := serveMonitor(t, New(Config{Version: "v1"}, source))
	got := ask(t, addr, "GET", "/api/v1/stats")
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, header %v", got.status, got.header)
	}
	var figures map[string]any
	if err := json.Unmarshal([]byte(got.body), &figures); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"active": 7.0, "total": 19.0, "limit": 1000.0, "handshakes": 2.0, "heartbeats_sent": 42.0, "heartbeats_received": 51.0, "expired": 3.0,
		"rejected": 5.0, "bytes_in": 130.0, "bytes_out": 140.0, "messages_in": 11.0, "messages_out": 12.0, "panics": 1.0, "overloaded": false,
		"draining": false, "uptime_seconds": 90.0, "node": "n1", "version": "v1",
	}
	for name, value := range want {
		if figures[name] != value {
			t.Errorf("%s = %v, want %v", name, figures[name], value)
		}
	}
	if reasons, ok := figures["closed_by_reason"].(map[string]any); !ok || reasons["client"] != 9.0 {
		t.Errorf("closed_by_reason = %v", figures["closed_by_reason"])
	}
}

func TestRoutes(t *testing.T) {
	addr := serveMonitor(t, New(Config{}, newFixedSource()))
	tests := []struct {
		name, method, path string
		status             int
		contentType        string
	}{
		{"health", "GET", "/healthz", 200, "text/plain; charset=utf-8"},
		{"ready", "HEAD", "/readyz", 200, "text/plain; charset=utf-8"},
		{"client", "GET", "/client.js", 200, "text/javascript; charset=utf-8"},
		{"demo", "GET", "/demo", 200, "text/html; charset=utf-8"},
		{"root", "GET", "/", 200, "text/html; charset=utf-8"},
		{"pprof index", "GET", "/debug/pprof/", 200, "text/html; charset=utf-8"},
		{"pprof goroutines", "GET", "/debug/pprof/goroutine?debug=1", 200, "text/plain; charset=utf-8"},
		{"pprof heap", "GET", "/debug/pprof/heap", 200, "application/octet-stream"},
		{"unknown", "GET", "/nothing", 404, "text/plain; charset=utf-8"},
		{"change", "POST", "/api/v1/stats", 405, "application/json"},
		{"API unknown", "GET", "/api/v1/nothing", 404, "application/json"},
		{"runtime charts", "GET", "/debug/statsviz/", 200, "text/html; charset=utf-8"},
		{"health changed", "POST", "/healthz", 405, "text/plain; charset=utf-8"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := ask(t, addr, test.method, test.path)
			if got.status != test.status || got.header.Get("Content-Type") != test.contentType {
				t.Errorf("%d %s, want %d %s", got.status, got.header.Get("Content-Type"), test.status, test.contentType)
			}
		})
	}
}

func TestReadyTellsWhyNot(t *testing.T) {
	source := newFixedSource()
	source.ready = errors.New("draining")
	addr := serveMonitor(t, New(Config{}, source))
	if got := ask(t, addr, "GET", "/readyz"); got.status != http.StatusServiceUnavailable || got.body != "draining\n" {
		t.Errorf("%d %q", got.status, got.body)
	}
	if got := ask(t, addr, "GET", "/healthz"); got.status != http.StatusOK {
		t.Errorf("healthz says %d while draining", got.status)
	}
}

func TestHostHeader(t *testing.T) {
	addr := serveMonitor(t, New(Config{Hosts: []string{"pw.internal"}}, newFixedSource()))
	tests := []struct {
		name, host string
		status     int
	}{
		{"bound address", addr.String(), 200},
		{"loopback name", "localhost:1", 200},
		{"loopback name in capitals", "LocalHost", 200},
		{"another loopback address", "127.5.5.5", 200},
		{"IPv6 loopback", "[::1]:8081", 200},
		{"configured", "PW.internal:8081", 200},
		{"rebound name", "evil.example", 403},
		{"name that begins like loopback", "127.0.0.1.evil.example", 403},
		{"name that ends like loopback", "evil.localhost.example", 403},
		{"another address", "192.0.2.1", 403},
		{"wildcard", "0.0.0.0", 403},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := ask(t, addr, "GET", "/api/v1/stats", "Host", test.host); got.status != test.status {
				t.Errorf("%d, want %d", got.status, test.status)
			}
			if got := ask(t, addr, "GET", "/healthz", "Host", test.host); got.status != http.StatusOK {
				t.Errorf("healthz: %d", got.status)
			}
		})
	}
}

func TestToken(t *testing.T) {
	const token = "0123456789abcdef"
	addr := serveMonitor(t, New(Config{Token: token}, newFixedSource()))
	tests := []struct {
		name, authorization string
		status              int
	}{
		{"right", "Bearer " + token, 200},
		{"scheme in small letters", "bearer " + token, 200},
		{"none", "", 401},
		{"wrong", "Bearer 0123456789abcdeg", 401},
		{"prefix", "Bearer 0123456789abcde", 401},
		{"longer", "Bearer " + token + "0", 401},
		{"scheme", "Basic " + token, 401},
		{"bare", token, 401},
		{"empty", "Bearer ", 401},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, path := range []string{"/metrics", "/api/v1/stats", "/debug/pprof/", "/", "/client.js"} {
				got := ask(t, addr, "GET", path, "Authorization", test.authorization)
				if got.status != test.status {
					t.Errorf("%s: %d, want %d", path, got.status, test.status)
				}
				if got.status == 401 && got.header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s: no WWW-Authenticate", path)
				}
			}
			if got := ask(t, addr, "GET", "/readyz", "Authorization", test.authorization); got.status != http.StatusOK {
				t.Errorf("readyz: %d", got.status)
			}
		})
	}
}

func TestCheckAddress(t *testing.T) {
	tests := []struct {
		name, address    string
		open, guardedErr bool // an error without a token, with one
	}{
		{"IPv4 loopback", "127.0.0.1:8081", false, false},
		{"IPv6 loopback", "[::1]:8081", false, false},
		{"name", "localhost:0", false, false},
		{"Unix socket", "unix:/run/pulsewheel.sock", false, false},
		{"every address", ":8081", true, false},
		{"every IPv4 address", "0.0.0.0:8081", true, false},
		{"an address", "192.0.2.1:8081", true, false},
		{"another name", "admin.example:8081", true, false},
		{"no port", "127.0.0.1", true, true},
		{"port too large", "127.0.0.1:65536", true, true},
		{"no path", "unix:", true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := CheckAddress(test.address, false); (err != nil) != test.open {
				t.Errorf("without a token: %v", err)
			}
			if err := CheckAddress(test.address, true); (err != nil) != test.guardedErr {
				t.Errorf("with a token: %v", err)
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")

	// A socket whose listener is gone without removing it, as after a crash.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}

	addr := serveMonitorOn(t, New(Config{}, newFixedSource()), "unix:"+path)
	if got := ask(t, addr, "GET", "/api/v1/stats", "Host", "anything"); got.status != http.StatusOK {
		t.Errorf("status %d", got.status)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen("unix:" + path); err == nil {
		t.Error("a socket in use was replaced")
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:" + file); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

func TestOrigins(t *testing.T) {
	tests := []struct {
		name string
		addr net.Addr
		want string
	}{
		{"loopback", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8081}, "[http://localhost:8081 http://127.0.0.1:8081 http://[::1]:8081]"},
		{"everywhere", &net.TCPAddr{IP: net.IPv4zero, Port: 8081}, "[]"},
		{"Unix socket", &net.UnixAddr{Name: "/x", Net: "unix"}, "[]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := fmt.Sprint(Origins(test.addr)); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// Requests that no client would send get an answer or an end, and the listener lives on.
func TestHostileRequests(t *testing.T) {
	addr := serveMonitor(t, New(Config{}, newFixedSource()))
	for _, request := range []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 2*headerBytesMax) + "\r\n\r\n",
		"GET /metrics HTTP/1.1\r\n\r\n",
		"GET /debug/pprof/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
		"GET //evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
		"GET /api/v1/stats HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
	} {
		line, err := statusLine(t, dialRaw(t, addr, request))
		if os.IsTimeout(err) || err == nil && !strings.HasPrefix(line, "HTTP/1.1 4") && !strings.HasPrefix(line, "HTTP/1.1 3") {
			t.Errorf("%.40q was answered with %q, %v", request, line, err)
		}
	}
	if got := ask(t, addr, "GET", "/healthz"); got.status != http.StatusOK {
		t.Errorf("healthz: %d", got.status)
	}
}
