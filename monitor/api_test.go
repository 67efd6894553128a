package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// serveWebSockets runs a real server until the test ends; the query names the user.
func serveWebSockets(t testing.TB, cfg server.Config) (*server.Server, string) {
	t.Helper()
	cfg.Listen = []string{"127.0.0.1:0"}
	cfg.ConnectionLimit = 15_000
	cfg.HandlerInline = true
	cfg.ShutdownTimeout = time.Millisecond
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Upgrade = func(r *server.Request) (server.Accept, error) { return server.Accept{User: r.Query().Get("user")}, nil }
	s, err := server.New(cfg, server.Echo{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	select {
	case <-s.Started():
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, server.ErrClosed) {
			t.Error(err)
		}
	})
	return s, s.Addrs()[0].String()
}

// socket is a client's WebSocket, by hand.
type socket struct {
	net.Conn
	t       testing.TB
	in      []byte
	decoder wsframe.Decoder
}

func dialWebSocket(t testing.TB, address, target string) *socket {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be closed already
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var key [16]byte
	if _, err := c.Write(wsframe.AppendRequest(nil, address, target, key, nil)); err != nil {
		t.Fatal(err)
	}
	s := &socket{Conn: c, t: t}
	for {
		n, status, err := wsframe.CheckResponse(s.in, key)
		if err != nil || n > 0 && status != http.StatusSwitchingProtocols {
			t.Fatalf("upgrade: status %d, %v", status, err)
		}
		if n > 0 {
			s.in = s.in[n:]
			return s
		}
		s.fill()
	}
}

func (s *socket) fill() {
	s.t.Helper()
	buf := make([]byte, 4096)
	n, err := s.Read(buf)
	if err != nil {
		s.t.Fatalf("read: %v after %q", err, s.in)
	}
	s.in = append(s.in, buf[:n]...)
}

// next is the next message or control frame.
func (s *socket) next() (op wsframe.Opcode, payload string) {
	s.t.Helper()
	for {
		m, n, ok, err := s.decoder.Next(&wsframe.Limits{Client: true}, s.in)
		if err != nil {
			s.t.Fatal(err)
		}
		s.in = s.in[n:]
		if ok {
			return m.Opcode, string(m.Payload)
		}
		s.fill()
	}
}

// eventually waits for a condition that no event tells of.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !condition() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// listed counts the connections that can be listed and sent to: each is among them a moment after its 101.
func listed(s *server.Server) (n int) {
	for range s.Conns() {
		n++
	}
	return n
}

// call asks the API of a monitor without a network; changes come with the content type that they need.
func call(h http.Handler, method, path, body string, headers ...string) (status int, answer map[string]any) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "localhost"
	r.Header.Set("Content-Type", "application/octet-stream")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	_ = json.Unmarshal(w.Body.Bytes(), &answer) // no JSON is an answer without members
	return w.Code, answer
}

// errorCode is the code of an answer that tells of a fault.
func errorCode(answer map[string]any) string {
	fault, _ := answer["error"].(map[string]any)
	if message, _ := fault["message"].(string); message == "" {
		return ""
	}
	code, _ := fault["code"].(string)
	return code
}

func quietMonitor(source Source) *Monitor {
	return New(Config{Logger: slog.New(slog.DiscardHandler)}, source)
}

// One life through the API: listed, shown, sent to, kicked.
func TestAPI(t *testing.T) {
	s, address := serveWebSockets(t, server.Config{Loops: 2})
	h := quietMonitor(s).Handler()
	ann, bob := dialWebSocket(t, address, "/ws?user=ann/a%25b"), dialWebSocket(t, address, "/ws?user=bob")
	eventually(t, "two connections", func() bool { return listed(s) == 2 })

	status, answer := call(h, "GET", "/api/v1/connections", "")
	list, _ := answer["connections"].([]any)
	if _, more := answer["cursor"]; status != 200 || len(list) != 2 || more {
		t.Fatalf("list: %d %v", status, answer)
	}
	_, answer = call(h, "GET", "/api/v1/connections?user=bob&limit=1", "")
	list, _ = answer["connections"].([]any)
	if len(list) != 1 {
		t.Fatalf("list of one user: %v", answer)
	}
	c, _ := list[0].(map[string]any)
	id, _ := c["id"].(string)
	if len(id) != 16 || c["user"] != "bob" || c["mode"] != "ping" || c["interval_ms"] != 25000.0 || c["timeout_ms"] != 75000.0 ||
		c["unsent_bytes"] != 0.0 || c["rtt_ms"] != nil || c["address"] != bob.LocalAddr().String() {
		t.Errorf("connection %v", c)
	}
	if status, one := call(h, "GET", "/api/v1/connections/"+id, ""); status != 200 || one["id"] != id || one["user"] != "bob" {
		t.Errorf("one: %d %v", status, one)
	}

	reach := func(path, body string, want float64) {
		t.Helper()
		if status, answer := call(h, "POST", path, body); status != 200 || answer["reached"] != want {
			t.Errorf("%s: %d %v, want %v reached", path, status, answer, want)
		}
	}
	expect := func(s *socket, op wsframe.Opcode, want string) {
		t.Helper()
		if got, payload := s.next(); got != op || payload != want {
			t.Errorf("got %v %q, want %v %q", got, payload, op, want)
		}
	}
	reach("/api/v1/connections/"+id+"/send", "to bob ✓", 1)
	expect(bob, wsframe.Text, "to bob ✓")
	reach("/api/v1/users/"+url.PathEscape("ann/a%b")+"/send?binary=1", "\xff\x00", 1)
	expect(ann, wsframe.Binary, "\xff\x00")
	reach("/api/v1/users/eve/send", "nobody", 0)
	reach("/api/v1/broadcast", "", 2)
	expect(ann, wsframe.Text, "")
	expect(bob, wsframe.Text, "")

	if status, answer := call(h, "DELETE", "/api/v1/connections/"+id, ""); status != 200 || answer["kicked"] != id {
		t.Errorf("kick: %d %v", status, answer)
	}
	if op, payload := bob.next(); op != wsframe.Close || payload != "\x11\x33kicked" {
		t.Errorf("kicked with %v %q", op, payload)
	}
	if err := bob.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "one connection", func() bool { return s.Stats().Active == 1 })
	if status, answer := call(h, "GET", "/api/v1/connections/"+id, ""); status != 404 || errorCode(answer) != "no_connection" {
		t.Errorf("who is gone: %d %v", status, answer)
	}
}

// Pages are bounded, go on by cursor, and hold everybody once.
func TestAPIPages(t *testing.T) {
	s, address := serveWebSockets(t, server.Config{Loops: 2})
	h := quietMonitor(s).Handler()
	for range 23 {
		dialWebSocket(t, address, "/ws")
	}
	eventually(t, "all open", func() bool { return listed(s) == 23 })
	for _, limit := range []int{1, 5, 22, 23, 1000, 1_000_000} {
		seen := map[string]bool{}
		cursor := ""
		for range 30 {
			_, answer := call(h, "GET", fmt.Sprintf("/api/v1/connections?limit=%d&cursor=%s", limit, cursor), "")
			list, _ := answer["connections"].([]any)
			if len(list) > min(limit, listLimitMax) {
				t.Fatalf("%d on a page of %d", len(list), limit)
			}
			for _, each := range list {
				id := each.(map[string]any)["id"].(string)
				if seen[id] {
					t.Errorf("limit %d: %s twice", limit, id)
				}
				seen[id] = true
			}
			if cursor, _ = answer["cursor"].(string); cursor == "" {
				break
			}
		}
		if len(seen) != 23 || cursor != "" {
			t.Errorf("limit %d: %d connections, then cursor %q", limit, len(seen), cursor)
		}
	}
}

// What is asked wrongly is answered with a status and a code, as JSON.
func TestAPIErrors(t *testing.T) {
	s, address := serveWebSockets(t, server.Config{})
	dialWebSocket(t, address, "/ws")
	h := New(Config{MessageBytesMax: 10, Logger: slog.New(slog.DiscardHandler)}, s).Handler()
	const nobody = "0123456789abcdef"
	tests := []struct {
		name, method, path, body string
		status                   int
		code                     string
	}{
		{"limit 0", "GET", "/api/v1/connections?limit=0", "", 400, "bad_limit"},
		{"limit negative", "GET", "/api/v1/connections?limit=-1", "", 400, "bad_limit"},
		{"limit junk", "GET", "/api/v1/connections?limit=x", "", 400, "bad_limit"},
		{"cursor junk", "GET", "/api/v1/connections?cursor=%21%21", "", 400, "bad_cursor"},
		{"cursor of another version", "GET", "/api/v1/connections?cursor=AgA", "", 400, "bad_cursor"},
		{"cursor cut", "GET", "/api/v1/connections?cursor=AQ", "", 400, "bad_cursor"},
		{"cursor with more behind", "GET", "/api/v1/connections?cursor=AQEB", "", 400, "bad_cursor"},
		{"nobody", "GET", "/api/v1/connections/" + nobody, "", 404, "no_connection"},
		{"junk id", "GET", "/api/v1/connections/%00", "", 404, "no_connection"},
		{"kick nobody", "DELETE", "/api/v1/connections/" + nobody, "", 404, "no_connection"},
		{"send to nobody", "POST", "/api/v1/connections/" + nobody + "/send", "x", 404, "no_connection"},
		{"not UTF-8", "POST", "/api/v1/broadcast", "\xff", 400, "not_utf8"},
		{"too large", "POST", "/api/v1/broadcast", "12345678901", 413, "too_large"},
		{"binary junk", "POST", "/api/v1/broadcast?binary=perhaps", "x", 400, "bad_binary"},
		{"method", "PUT", "/api/v1/broadcast", "x", 405, "method"},
		{"path", "GET", "/api/v2/stats", "", 404, "not_found"},
		{"root of the API", "GET", "/api/", "", 404, "not_found"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if status, answer := call(h, test.method, test.path, test.body); status != test.status || errorCode(answer) != test.code {
				t.Errorf("%d %v, want %d %s", status, answer, test.status, test.code)
			}
		})
	}
}

func TestAPIDrain(t *testing.T) {
	s, address := serveWebSockets(t, server.Config{})
	h := quietMonitor(s).Handler()
	c := dialWebSocket(t, address, "/ws")
	if status, answer := call(h, "POST", "/api/v1/drain", ""); status != 200 || answer["draining"] != true {
		t.Fatalf("drain: %d %v", status, answer)
	}
	if op, payload := c.next(); op != wsframe.Close || !strings.HasPrefix(payload, "\x03\xf4restart; retry-after=") {
		t.Errorf("got %v %q", op, payload)
	}
	if status, answer := call(h, "DELETE", "/api/v1/drain", ""); status != 200 || answer["draining"] != false {
		t.Fatalf("undrain: %d %v", status, answer)
	}
	dialWebSocket(t, address, "/ws")

	idle, err := server.New(server.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := call(quietMonitor(idle).Handler(), "POST", "/api/v1/drain", ""); status != 503 || errorCode(answer) != "not_serving" {
		t.Errorf("before Serve: %d %v", status, answer)
	}
}

// What is asked for again and again is told once in the log.
func TestDrainIsLoggedAtChanges(t *testing.T) {
	s, _ := serveWebSockets(t, server.Config{})
	var log syncBuffer
	h := New(Config{Logger: newJSONLogger(&log)}, s).Handler()
	for _, method := range []string{"DELETE", "POST", "POST", "POST", "DELETE", "DELETE", "POST"} {
		if status, answer := call(h, method, "/api/v1/drain", ""); status != 200 {
			t.Fatalf("%s: %d %v", method, status, answer)
		}
	}
	var told []any
	for _, record := range log.lines(t) {
		told = append(told, record["msg"])
	}
	if got, want := fmt.Sprint(told), "[drain begun by the admin listener drain ended by the admin listener drain begun by the admin listener]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// No web page can make a change, or have profiles made.
func TestCrossSite(t *testing.T) {
	s, _ := serveWebSockets(t, server.Config{})
	open := quietMonitor(s).Handler()
	guarded := New(Config{Token: "0123456789abcdef", Logger: slog.New(slog.DiscardHandler)}, s).Handler()
	const bearer, basic = "Bearer 0123456789abcdef", "Basic eDowMTIzNDU2Nzg5YWJjZGVm" // x:0123456789abcdef
	tests := []struct {
		name         string
		handler      http.Handler
		method, path string
		headers      []string
		status       int
	}{
		{"a form", open, "POST", "/api/v1/broadcast", []string{"Content-Type", "text/plain"}, 415},
		{"a form of fields", open, "POST", "/api/v1/broadcast", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"no type", open, "POST", "/api/v1/broadcast", []string{"Content-Type", ""}, 415},
		{"JSON", open, "POST", "/api/v1/broadcast", []string{"Content-Type", "application/json; charset=utf-8"}, 200},
		{"another origin", open, "POST", "/api/v1/broadcast", []string{"Origin", "http://evil.example"}, 403},
		{"another site by its own word", open, "POST", "/api/v1/broadcast", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"our own page", open, "POST", "/api/v1/broadcast", []string{"Origin", "http://localhost", "Sec-Fetch-Site", "same-origin"}, 200},
		{"a kick by a form", open, "DELETE", "/api/v1/drain", []string{"Content-Type", "text/plain"}, 415},
		{"an image that profiles", open, "GET", "/debug/pprof/goroutine", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"a link that profiles", open, "GET", "/debug/pprof/goroutine", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 403},
		{"another port that profiles", open, "GET", "/debug/pprof/goroutine", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"another port that reads", open, "GET", "/api/v1/stats", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"a word nobody knows", open, "GET", "/api/v1/stats", []string{"Sec-Fetch-Site", "elsewhere"}, 403},
		{"our page reads", open, "GET", "/api/v1/stats", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"an address typed", open, "GET", "/debug/pprof/goroutine", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, 200},
		{"a link from another port to the page", open, "GET", "/", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate"}, 200},
		{"a link to the page", open, "GET", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200},
		{"a program with the token", guarded, "POST", "/api/v1/broadcast", []string{"Authorization", bearer, "Content-Type", "text/plain"}, 200},
		{"a page with the password", guarded, "POST", "/api/v1/broadcast", []string{"Authorization", basic}, 200},
		{"a form with the password", guarded, "POST", "/api/v1/broadcast", []string{"Authorization", basic, "Content-Type", "text/plain"}, 415},
		{"the wrong password", guarded, "POST", "/api/v1/broadcast", []string{"Authorization", "Basic eDp5"}, 401},
		{"no password", guarded, "GET", "/api/v1/stats", nil, 401},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if status, answer := call(test.handler, test.method, test.path, "", test.headers...); status != test.status {
				t.Errorf("%d %v, want %d", status, answer, test.status)
			}
		})
	}
}

// A source that can only be looked at has no API beside its figures.
func TestAPIWithoutControl(t *testing.T) {
	h := quietMonitor(newFixedSource()).Handler()
	for _, path := range []string{"/api/v1/connections", "/api/v1/broadcast", "/api/v1/drain"} {
		if status, answer := call(h, "GET", path, ""); status != 404 || errorCode(answer) != "not_found" {
			t.Errorf("%s: %d %v", path, status, answer)
		}
	}
}

// fuzzedConns is how many connections FuzzAdmin's server has; a kick may take them.
const fuzzedConns = 3

// Goal: whatever reaches the admin listener gets an answer, nobody panics, and no descriptor stays. Method: the handler of a real server with
// connections, every method, junk in path, query, headers and body.
func FuzzAdmin(f *testing.F) {
	for _, path := range []string{
		"/", "/metrics", "/api/v1/stats", "/api/v1/connections?limit=2&cursor=AQE", "/api/v1/connections?user=%ff", "/api/v1/connections/0123456789abcdef",
		"/api/v1/connections/x/send?binary=1", "/api/v1/users/a%2Fb/send", "/api/v1/broadcast", "/api/v1/drain", "/debug/pprof/cmdline", "/debug/statsviz/", "/demo",
		"/client.js", "/healthz", "/readyz", "/api/v1/connections?cursor=AYCAgICAgICAgAE",
	} {
		for _, method := range []string{"GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"} {
			f.Add(method, path, "localhost", "application/json", "Bearer 0123456789abcdef", []byte("hello"))
		}
	}
	f.Add("GET", "//", "evil.example", "text/plain", "Basic !", []byte{0xff})
	s, address := serveWebSockets(f, server.Config{})
	for range fuzzedConns {
		dialWebSocket(f, address, "/ws?user=a")
	}
	m := New(Config{Token: "0123456789abcdef", Logger: slog.New(slog.DiscardHandler)}, s)
	f.Cleanup(m.charts.end)
	h := m.Handler()
	before := openDescriptors(f)
	f.Fuzz(func(t *testing.T, method, path, host, contentType, authorization string, body []byte) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(path, "/") || takesTime(u.Path) {
			return
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost", bytes.NewReader(body))
		if err != nil {
			return
		}
		r.URL, r.Host, r.RequestURI = u, host, path
		r.Header = http.Header{"Content-Type": {contentType}, "Authorization": {authorization}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 599 || w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s: status %d %s", method, path, w.Code, w.Body)
		}
		if strings.HasPrefix(u.Path, "/api/") && w.Code >= 400 && w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: status %d without JSON: %s", method, path, w.Code, w.Body)
		}
		if now := openDescriptors(t); now > before+fuzzedConns+4 { // the runtime may open one or two of its own
			t.Errorf("%d descriptors, %d at first", now, before)
		}
	})
}

// takesTime tells the paths that answer after seconds, by design, or never.
func takesTime(path string) bool {
	return path == "/events" || slices.Contains([]string{"profile", "trace", "heap", "allocs", "block", "mutex", "goroutine", "threadcreate"}, strings.TrimPrefix(path, "/debug/pprof/"))
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// BenchmarkList is what a page of the listing costs, on the goroutine that asks.
func BenchmarkList(b *testing.B) {
	s, address := serveWebSockets(b, server.Config{})
	for range 200 {
		dialWebSocket(b, address, "/ws")
	}
	h := quietMonitor(s).Handler()
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/connections?limit=100", http.NoBody)
		r.Host = "localhost"
		h.ServeHTTP(discardWriter{http.Header{}}, r)
	}
}
