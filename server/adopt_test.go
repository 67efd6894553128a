package server

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// adopting is an HTTP server that hands its /sockets/ to s.
func adopting(t *testing.T, s *running, tls bool) (addr string, results chan error) {
	t.Helper()
	results = make(chan error, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("/sockets/", func(w http.ResponseWriter, r *http.Request) {
		err := s.Adopt(w, r)
		if err != nil {
			w.Header().Set("Connection", "close")
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		results <- err
	})
	h := httptest.NewUnstartedServer(mux)
	h.Config.ErrorLog = log.New(io.Discard, "", 0) // an answer after a hijack, which net/http drops
	if tls {
		h.StartTLS()
	} else {
		h.Start()
	}
	t.Cleanup(h.Close)
	return h.Listener.Addr().String(), results
}

func TestAdopt(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		opens := make(chan *Request, 10)
		s := v.start(t, Config{Listen: []string{"none"}, Upgrade: func(r *Request) (Accept, error) {
			if r.RawQuery == "refused" {
				return Accept{}, &RefusalError{Status: 402, Body: "pay first"}
			}
			return Accept{User: r.Header.Get("X-User"), Protocol: r.Protocols[0]}, nil
		}}, hooks{
			open: func(c Conn, r *Request) {
				opens <- r
				_ = c.Send(Text, []byte("hello "+c.User()+" from "+c.RemoteAddr().String()))
			},
			message: func(c Conn, op Op, data []byte) { _ = c.Send(op, data) },
		})
		addr, results := adopting(t, s, false)
		p := newPeer(t, connect(t, addr))
		// Frames that come with the head lie in the buffer of net/http.
		early := append(masked(wsframe.Text, true, "early"), masked(wsframe.Binary, true, strings.Repeat("x", 10_000))...)
		p.write(append([]byte(upgradeRequest("/sockets/7?q=1", "X-User: ann", "Sec-WebSocket-Protocol: chat")), early...))
		p.readUpgrade()
		if err := receive(t, "Adopt", results); err != nil {
			t.Fatalf("Adopt: %v", err)
		}
		if !strings.Contains(p.response, "\r\nSec-WebSocket-Protocol: chat\r\n") {
			t.Errorf("response\n%s", p.response)
		}
		r := receive(t, "Open", opens)
		if r.Path != "/sockets/7" || r.RawQuery != "q=1" || r.Host != "example.com" || r.RemoteAddr.String() != p.LocalAddr().String() {
			t.Errorf("request %+v", r)
		}
		p.expect(wsframe.Text, "hello ann from "+p.LocalAddr().String())
		p.expect(wsframe.Text, "early")
		p.expect(wsframe.Binary, strings.Repeat("x", 10_000))
		p.send(wsframe.Text, "later")
		p.expect(wsframe.Text, "later")
		p.send(wsframe.Close, "\x03\xe8")
		p.expectClose(1000)

		refused := roundTrip(t, addr, upgradeRequest("/sockets/7?refused"))
		if refused.status != "402 Payment Required" || refused.body != "pay first\n" {
			t.Errorf("%q %q", refused.status, refused.body)
		}
		if plain := roundTrip(t, addr, "GET /sockets/7 HTTP/1.1\r\nHost: x\r\n\r\n"); plain.status != "426 Upgrade Required" {
			t.Errorf("a plain request: %q", plain.status)
		}
	})
}

func TestAdoptRefuses(t *testing.T) {
	s := start(t, Config{HandlerInline: true}, Echo{})
	t.Run("TLS", func(t *testing.T) {
		addr, results := adopting(t, s, true)
		client := http.Client{Transport: &http.Transport{TLSClientConfig: insecure()}}
		defer client.CloseIdleConnections()
		response, err := client.Get("https://" + addr + "/sockets/")
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if err := receive(t, "Adopt", results); !errors.Is(err, ErrTLS) || response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("Adopt: %v, status %d", err, response.StatusCode)
		}
	})
	t.Run("no hijacker", func(t *testing.T) {
		err := s.Adopt(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/sockets/", nil))
		if !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Adopt: %v", err)
		}
	})
	t.Run("not serving yet", func(t *testing.T) {
		idle, err := New(Config{}, Echo{})
		if err != nil {
			t.Fatal(err)
		}
		if err := idle.Adopt(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)); !errors.Is(err, ErrNotServing) {
			t.Errorf("Adopt: %v", err)
		}
	})
	t.Run("shut down", func(t *testing.T) {
		ended := start(t, Config{Listen: []string{"none"}, HandlerInline: true}, Echo{})
		if err := ended.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := ended.Adopt(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)); !errors.Is(err, ErrClosed) {
			t.Errorf("Adopt: %v", err)
		}
	})
}

// TestAdoptWhileShuttingDown: a connection that is adopted as the server ends is closed with it, not forgotten.
func TestAdoptWhileShuttingDown(t *testing.T) {
	each(t, variants(), func(t *testing.T, v variant) {
		for range 10 {
			s := v.start(t, Config{Listen: []string{"none"}}, Echo{})
			addr, results := adopting(t, s, false)
			shut := make(chan error, 1)
			const peers = 20
			ends := make(chan struct{}, peers)
			for i := range peers {
				p := newPeer(t, connect(t, addr))
				p.write([]byte(upgradeRequest("/sockets/")))
				if i == peers/2 {
					go func() { shut <- s.Shutdown(t.Context()) }()
				}
				go func() {
					buf := make([]byte, 1024)
					for {
						if _, err := p.Read(buf); err != nil {
							_ = p.Close()
							ends <- struct{}{}
							return
						}
					}
				}()
			}
			for range peers {
				receive(t, "Adopt", results)
			}
			if err := receive(t, "Shutdown", shut); err != nil {
				t.Fatal(err)
			}
			for range peers {
				receive(t, "the end of a connection", ends)
			}
		}
	})
}
