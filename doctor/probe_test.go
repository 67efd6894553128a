package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// upgrading accepts a WebSocket by hand and hands over its connection and the query that was asked.
func upgrading(after func(c net.Conn, query string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		head := "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " +
			r.Header.Get("Sec-WebSocket-Key") + "\r\n\r\n"
		scanned := 0
		parsed, _, err := wsframe.ParseHead([]byte(head), &scanned, wsframe.HeadLimits{Bytes: 4096, LineBytes: 1024, Headers: 20})
		if err != nil || wsframe.CheckUpgrade(&parsed) != nil {
			return
		}
		answer, err := wsframe.AppendUpgrade(nil, &parsed, wsframe.Accept{})
		if err != nil {
			return
		}
		_, _ = c.Write(answer)
		after(c, r.URL.RawQuery)
	}
}

func TestProbe(t *testing.T) {
	tests := []struct {
		name     string
		handler  http.HandlerFunc
		patience time.Duration
		outcome  Outcome
		frames   int
		text     string
	}{
		{"cut", upgrading(func(net.Conn, string) {}), 10 * time.Second, Cut, 0, "no limit that is known"},
		{"closed by the server", upgrading(func(c net.Conn, _ string) {
			_, _ = c.Write(wsframe.AppendClose(nil, wsframe.CloseHeartbeatLost, "heartbeat-timeout"))
		}), 10 * time.Second, Closed, 1, `code 4408 "heartbeat-timeout"`},
		{"outlives patience", upgrading(func(c net.Conn, _ string) { _, _ = c.Read(make([]byte, 1)) }), 200 * time.Millisecond, Outlived, 0, "still open"},
		{"not silent", upgrading(func(c net.Conn, _ string) { _, _ = c.Write(wsframe.AppendFrame(nil, wsframe.Ping, nil)) }), 10 * time.Second, Cut, 1, "1 frames came"},
		{"junk", upgrading(func(c net.Conn, _ string) { _, _ = c.Write([]byte{0xff, 0xff, 0xff}) }), 10 * time.Second, Cut, 1, "frames came"},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, 10 * time.Second, Refused, 0, "status 403"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, secure := range []bool{false, true} {
				s := httptest.NewUnstartedServer(test.handler)
				var trust *tls.Config
				if secure {
					s.StartTLS()
					roots := x509.NewCertPool()
					roots.AddCert(s.Certificate())
					trust = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
				} else {
					s.Start()
				}
				ctx, cancel := context.WithTimeout(t.Context(), test.patience)
				p, err := Probe(ctx, strings.Replace(s.URL, "http", "ws", 1)+"/ws", trust)
				cancel()
				s.Close()
				if err != nil || p.Outcome != test.outcome || p.Frames != test.frames || !strings.Contains(p.Text, test.text) {
					t.Errorf("TLS %v: %+v, %v", secure, p, err)
				}
			}
		})
	}
}

// A server of this project is asked to be silent, unless the caller asks otherwise.
func TestProbeAsksForSilence(t *testing.T) {
	queries := make(chan string, 1)
	s := httptest.NewServer(upgrading(func(_ net.Conn, query string) { queries <- query }))
	defer s.Close()
	base := strings.Replace(s.URL, "http", "ws", 1) + "/ws"
	tests := []struct{ name, url, want string }{
		{"no query", base, silentQuery},
		{"another query", base + "?room=7", "room=7&" + silentQuery},
		{"asked otherwise", base + "?heartbeat=ping", "heartbeat=ping"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Probe(t.Context(), test.url, nil); err != nil {
				t.Fatal(err)
			}
			if got := <-queries; got != test.want {
				t.Errorf("query %q, want %q", got, test.want)
			}
		})
	}
}

func TestProbeNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := Probe(t.Context(), "ws://"+address+"/ws", nil)
	if err != nil || p.Outcome != Refused || !p.IsShort(time.Second) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestCheckURL(t *testing.T) {
	tests := []struct {
		name, url string
		ok        bool
	}{
		{"plain", "ws://localhost:8080/ws", true},
		{"secure", "wss://example.com", true},
		{"query", "wss://example.com/ws?a=b", true},
		{"http", "http://example.com", false},
		{"no host", "ws:///ws", false},
		{"nothing", "", false},
		{"user", "ws://a:b@example.com/", false},
		{"a line more", "ws://example.com/\r\nX: y", false},
		{"a space", "ws://example.com/a b", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := CheckURL(test.url); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrURL) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A cut at a known time names who is known for it.
func TestJudge(t *testing.T) {
	tests := []struct {
		name         string
		silent, life time.Duration
		want         string
	}{
		{"nginx", 60 * time.Second, 2 * time.Minute, "nginx"},
		{"nginx, a little later", 61 * time.Second, 61 * time.Second, "nginx"},
		{"Cloudflare", 100 * time.Second, 101 * time.Second, "Cloudflare"},
		{"NLB", 350 * time.Second, 400 * time.Second, "NLB"},
		{"GCP counts from the opening", 30 * time.Second, 30 * time.Second, "no heartbeat helps"},
		{"GCP, after some words", 5 * time.Second, 30 * time.Second, "Google"},
		{"nobody", 45 * time.Second, 45 * time.Second, "no limit that is known"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := Probed{Outcome: Cut, Silent: test.silent, Life: test.life}
			p.judge()
			if !strings.Contains(p.Text, test.want) {
				t.Errorf("%q", p.Text)
			}
			if p.IsShort(25*time.Second) != (test.silent < 27*time.Second || test.life == 30*time.Second) {
				t.Errorf("IsShort: %v", p.IsShort(25*time.Second))
			}
		})
	}
}

// What tells nothing is no success, and a Close frame that comes soon is none either, whoever sent it.
func TestIsShort(t *testing.T) {
	const interval = 25 * time.Second
	for _, test := range []struct {
		name   string
		probed Probed
		want   bool
	}{
		{"refused", Probed{Outcome: Refused}, true},
		{"stopped", Probed{Outcome: Stopped, Life: time.Hour}, true},
		{"too little patience", Probed{Outcome: Outlived, Life: 5 * time.Second}, true},
		{"patience enough", Probed{Outcome: Outlived, Life: interval}, false},
		{"closed soon", Probed{Outcome: Closed, Silent: 2 * time.Second, Life: time.Hour}, true},
		{"closed by the server's own timeout", Probed{Outcome: Closed, Silent: 75 * time.Second, Life: 75 * time.Second}, false},
	} {
		if got := test.probed.IsShort(interval); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// A probe that is canceled says that it knows nothing, at whatever moment.
func TestProbeStopped(t *testing.T) {
	open := make(chan struct{}, 1)
	s := httptest.NewServer(upgrading(func(c net.Conn, _ string) {
		open <- struct{}{}
		_, _ = c.Read(make([]byte, 1))
	}))
	defer s.Close()
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-open
			cancel()
		}()
		p, err := Probe(ctx, strings.Replace(s.URL, "http", "ws", 1)+"/ws", nil)
		cancel()
		if err != nil || p.Outcome != Stopped && p.Outcome != Refused || !p.IsShort(time.Second) {
			t.Fatalf("%+v, %v", p, err)
		}
	}
}
