package monitor

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/server"
)

// registeredPaths are those of all patterns in the package's source, and what the subtrees among them have.
func registeredPaths(t *testing.T) []string {
	t.Helper()
	paths := []string{
		"/debug/pprof/cmdline", "/debug/pprof/profile", "/debug/pprof/trace", "/debug/pprof/heap", "/debug/pprof/heap?seconds=9", "/debug/pprof/goroutine?debug=2",
		"/debug/pprof/nothing", "/debug/statsviz/ws", "/debug/statsviz/nothing", "/api/v1/nothing",
	}
	for _, file := range []string{"routes.go", "api.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?:\.Handle|\.HandleFunc|\bon)\("([^"]+)"`).FindAllStringSubmatch(string(source), -1)
		if len(found) < 6 {
			t.Fatalf("%d patterns in %s: they are written in another way now", len(found), file)
		}
		for _, match := range found {
			pattern := match[1]
			path := strings.NewReplacer("{$}", "", "{id}", "0123456789abcdef", "{user}", "ann").Replace(pattern[strings.Index(pattern, "/"):])
			if !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// junkFor makes requests to a path that no client would send, or would not wait for; those in answered are whole.
func junkFor(path string) (answered, unanswered []string) {
	const host = "Host: localhost\r\n"
	line := func(method, rest string) string { return method + " " + path + " HTTP/1.1\r\n" + rest }
	for _, method := range []string{"BREW", "get", "PATCH", "TRACE", "PUT", "OPTIONS"} {
		answered = append(answered, line(method, host+"Connection: close\r\n\r\n"))
	}
	for _, kind := range []string{"text/plain", ";;;", "multipart/form-data", "application/x-www-form-urlencoded; charset", "\xff\xfe"} {
		answered = append(answered, line("POST", host+"Connection: close\r\nContent-Type: "+kind+"\r\nContent-Length: 5\r\n\r\n%\xff\x00=;"))
	}
	answered = append(
		answered,
		line("GET", host+"X: "+strings.Repeat("x", 2*headerBytesMax)+"\r\n\r\n"),
		line("GET", host+strings.Repeat("X-Y: z\r\n", headerBytesMax/4)+"\r\n"),
		line("GET", host+"no colon\r\n\r\n"),
		line("GET", "\r\n"),
		line("GET", host+"Host: other\r\n\r\n"),
		line("POST", host+"Content-Length: -1\r\n\r\n"),
		line("POST", host+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
		line("DELETE", host+"Connection: close\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
		line("GET", host+"Authorization: Basic \xff\r\nAuthorization: Bearer\r\nCookie: =\r\nSec-Fetch-Site: \xff\r\n\r\n"),
		strings.Replace(line("GET", host+"\r\n"), "HTTP/1.1", "HTTP/9.9", 1),
		"GET "+path+"\x01%zz HTTP/1.1\r\n"+host+"\r\n",
	)
	whole := line("GET", host+"\r\n")
	unanswered = append(
		unanswered,
		whole, // whoever asks has gone, even where the answer would take half a minute
		whole+whole+whole[:len(whole)/2],
		whole[:len(whole)/3], whole[:len(whole)-2],
		line("GET", host+"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"),
		line("GET", host+"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\xff\xff\xff"),
		line("POST", host+"Content-Type: text/plain\r\nContent-Length: 1000000\r\n\r\nhalf"),
		line("POST", host+"Content-Type: text/plain\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"),
		line("DELETE", host+"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{"),
	)
	return answered, unanswered
}

// Goal: whatever arrives over a real connection, at any path, nobody panics, and nothing is held when the peers have gone: no descriptor, no
// goroutine. Method: junk of every kind at every pattern that is registered; some of it stays open until all is sent.
func TestJunkAtEveryRoute(t *testing.T) {
	s, address := serveWebSockets(t, server.Config{})
	dialWebSocket(t, address, "/ws?user=ann")
	var log syncBuffer
	addr := serveMonitor(t, New(Config{Logger: newJSONLogger(&log)}, s))
	if got := ask(t, addr, "GET", "/debug/statsviz/"); got.status != http.StatusOK { // what it starts stays until the end
		t.Fatal(got.status)
	}
	descriptors, goroutines := openDescriptors(t), runtime.NumGoroutine()
	var held []io.Closer
	for _, path := range registeredPaths(t) {
		answered, unanswered := junkFor(path)
		for _, request := range answered {
			c := dialRaw(t, addr, request)
			status, err := statusLine(t, c)
			if err == nil && (!strings.HasPrefix(status, "HTTP/1.1 ") || strings.Contains(status, " 500 ")) || os.IsTimeout(err) {
				t.Errorf("%.60q was answered with %q, %v", request, status, err)
			}
			_ = c.Close() // Only the answer matters.
		}
		for i, request := range unanswered {
			c := dialRaw(t, addr, request)
			if i%2 == 0 {
				_ = c.Close() // The peer doesn't wait.
				continue
			}
			held = append(held, c)
		}
	}
	promptly(t, addr, "junk")
	for _, c := range held {
		_ = c.Close() // likewise
	}
	eventually(t, fmt.Sprintf("no more than %d descriptors and %d goroutines", descriptors, goroutines), func() bool {
		return openDescriptors(t) <= descriptors && runtime.NumGoroutine() <= goroutines
	})
	for _, record := range log.lines(t) {
		if text := fmt.Sprint(record["msg"]); strings.Contains(text, "panic") {
			t.Error(text)
		}
	}
}
