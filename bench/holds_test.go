package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// startProduct starts the server of this repository, with further options, and returns what every scenario against it is called with.
func startProduct(t *testing.T, more ...string) (running *runningServer, common []string) {
	t.Helper()
	if !slices.Contains(more, "--heartbeat-interval") {
		more = append([]string{"--heartbeat-interval", "1s", "--heartbeat-timeout", "3s"}, more...)
	}
	running, err := startServer(t.Context(), append([]string{
		product(t), "serve", "--listen", "{addr}", "--admin-listen", "{admin}", "--echo", "--handshake-timeout", "500ms", "--log-level", "error",
	}, more...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.end(); err != nil {
			t.Error(err)
		}
	})
	return running, []string{
		"--target", "ws://" + running.address + "/ws", "--admin", "http://" + running.admin, "--pid", strconv.Itoa(running.cmd.Process.Pid),
		"--connections", "100", "--settle", "200ms",
	}
}

// TestPulsewheelHolds runs every scenario, in full but small, against the server of this repository: what the peers of
// the other tests do is what they were told, and this one has to know by itself. Its counters agree with what was done. The times
// are such that neither side has to have a core at any moment: a beat is missed half a second after it was due, and what is
// to be seen within a deadline may be seen 4 s later.
func TestPulsewheelHolds(t *testing.T) {
	t.Parallel()
	visited := map[string]bool{"churn": true, "hostile": true}
	tests := []struct {
		name   string
		server []string // options that it has beside those of the others
		args   []string
	}{
		{"idle", nil, []string{"idle", "--duration", "1500ms", "--echo-once", "--echo-settle", "200ms", "--processes", "2"}},
		{"heartbeat", nil, []string{"heartbeat", "--interval", "1s", "--duration", "2s"}},
		{"heartbeat as text", nil, []string{"heartbeat", "--interval", "1s", "--duration", "2s", "--mode", "text", "--processes", "2"}},
		{"heartbeats of the client", nil, []string{"heartbeat", "--interval", "1s", "--client-interval", "2500ms", "--duration", "3s"}},
		// An interval that a busy machine doesn't keep a client waiting for.
		{"heartbeats of the client alone", []string{"--heartbeat-interval", "3s", "--heartbeat-timeout", "9s"}, []string{
			"heartbeat", "--interval", "3s", "--client-interval", "400ms", "--duration", "4s",
		}},
		{"echo", nil, []string{"echo", "--duration", "600ms", "--pipeline", "3"}},
		{"echo at a rate", nil, []string{"echo", "--duration", "2500ms", "--rate", "500", "--size", "20000", "--processes", "3"}},
		{"storm", nil, []string{"storm"}},
		{"churn", nil, []string{"churn", "--interval", "1s", "--timeout", "3s", "--slack", "4s", "--duration", "2s", "--churn-rate", "6000", "--life", "500ms"}},
		{"hostile", []string{"--heartbeat-interval", "600ms", "--heartbeat-timeout", "2s"}, []string{
			"hostile", "--interval", "600ms", "--timeout", "2s", "--slack", "4s", "--duration", "3s", "--rate", "200", "--hostile", "90", "--stand-back=false",
			"--handshake-timeout", "500ms", "--again", "500ms", "--factor", "0",
		}},
		{"broadcast", nil, []string{"broadcast", "--interval", "1s", "--broadcasts", "3", "--every", "300ms", "--duration", "1500ms", "--per-process", "40"}},
		{"observed", nil, []string{
			"observed", "--interval", "1s", "--late-after", "500ms", "--pairs", "2", "--duration", "2500ms", "--cpu-most", "0s", "--processes", "2",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, common := startProduct(t, tt.server...)
			o := bench(t, append(append([]string(nil), tt.args...), common...)...)
			if o.code != exitOK {
				t.Fatalf("exit %d: %s\n%s", o.code, o.stderr, o.stdout)
			}
			if n := o.number(t, "counters_compared"); n < 20 {
				t.Errorf("%v counters compared", n)
			}
			if n := o.number(t, "opened_in_all"); n < 100 {
				t.Errorf("%v opened of 100", n)
			}
			switch {
			case visited[tt.name]:
				if before, most := o.number(t, "server_descriptors_before"), o.number(t, "server_descriptors_most"); most <= before {
					t.Errorf("%v descriptors before and %v at most: nobody came", before, most)
				}
				o.number(t, "server_rss_bytes_after")
			case tt.name == "heartbeats of the client alone":
				if beats, acks := o.number(t, "beats"), o.number(t, "acks"); beats > 0 || acks < 800 {
					t.Errorf("%v beats of the server and %v acknowledgements, want none and some 1,000", beats, acks)
				}
			case tt.name == "heartbeats of the client":
				// In 2.5 s one of the client and two of the server, each an interval behind what was there before.
				if beats := o.number(t, "beats"); beats < 150 || beats > 300 {
					t.Errorf("%v beats of the server, want some 240", beats)
				}
			case tt.name == "broadcast":
				if n := o.number(t, "deliveries"); n != 300 {
					t.Errorf("%v deliveries of 3 broadcasts to 100", n)
				}
			case tt.name == "observed":
				for _, key := range []string{"scrapes", "lists", "events"} {
					if n := o.number(t, key); n < 4 {
						t.Errorf("%v %s in two spans of 2.5 s", n, key)
					}
				}
			}
		})
	}
}

// liar is an admin listener in front of another, which tells of one more as soon as there was a connection.
func liar(t *testing.T, base, series string) (url string) {
	t.Helper()
	a := newAdmin(base)
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(countersPrefix+series) + ` (\d+)$`)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := a.get(r.URL.Path)
		if err != nil || !line.Match(body) {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if parseMetrics(body, countersPrefix)["connections_opened_total"] > 0 {
			body = line.ReplaceAllFunc(body, func(found []byte) []byte {
				name, value, _ := cutLast(string(found), " ")
				n, _ := strconv.Atoi(value) // digits, by the expression
				return []byte(name + " " + strconv.Itoa(n+1))
			})
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestCountersOffByOneAreFound: a counter that is wrong by one fails the run with a line that names it and both numbers.
func TestCountersOffByOneAreFound(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, series, want string }{
		{"opened", "connections_opened_total", "connections_opened_total: the harness counts 100, the server 101"},
		{"closed", `connections_closed_total{reason="client"}`, `connections_closed_total{reason="client"}: the harness counts 100, the server 101`},
		{"closed otherwise", `connections_closed_total{reason="kicked"}`, `{reason="kicked"}: the harness counts 0, the server 1`},
		{"rejected", `handshakes_rejected_total{reason="rate"}`, "handshakes_rejected_total: the harness counts 0, the server 1"},
		{"beats", `heartbeats_sent_total{mode="ping"}`, `heartbeats_sent_total{mode="ping"}: the harness counts`},
		{"answers", `heartbeats_received_total{mode="pong"}`, `heartbeats_received_total{mode="pong"}: the harness counts`},
		{"messages in", `messages_total{direction="in"}`, `messages_total{direction="in"}: the harness counts 100, the server 101`},
		{"messages out", `messages_total{direction="out"}`, `messages_total{direction="out"}: the harness counts 100, the server 101`},
		{"bytes in", `traffic_bytes_total{direction="in"}`, `traffic_bytes_total{direction="in"}: the harness counts`},
		{"bytes out", `traffic_bytes_total{direction="out"}`, `traffic_bytes_total{direction="out"}: the harness counts`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			running, common := startProduct(t)
			o := bench(t, append(append([]string{"idle"}, common...), "--admin", liar(t, "http://"+running.admin, tt.series),
				"--steps", "100", "--settle", "0s", "--duration", "10ms", "--echo-once", "--echo-settle", "0s")...)
			if o.code != exitFailed || !strings.Contains(o.lastOf(), tt.want) {
				t.Errorf("exit %d, %q; want exit %d and %q", o.code, o.stderr, exitFailed, tt.want)
			}
		})
	}
}

// TestCountersAreBounded: what can't be known exactly is compared within its bounds, and not at all beyond them.
func TestCountersAreBounded(t *testing.T) {
	tests := []struct {
		name   string
		change func(*traffic)
		after  string // beside what a run with one connection leaves
		want   string // of the problems; empty: none
	}{
		{"nothing abandoned", func(*traffic) {}, "", ""},
		{"one abandoned, a beat under way", func(t *traffic) { t.Closed, t.Abandoned = map[string]int{endLeft: 1}, 1 }, "left", ""},
		{"a FIN that became a reset", func(t *traffic) { t.Closed = map[string]int{endLeft: 1} }, "reset", ""},
		{"counted for another reason", func(*traffic) {}, "reset", `{reason="end|reset"}: the harness counts 0, the server 1`},
		{"ended without a word", func(t *traffic) { t.Closed, t.Unclear = map[string]int{}, 1 }, "reset", ""},
		{"an open given up", func(t *traffic) { t.Opened, t.Closed, t.Undone = 0, map[string]int{}, 1 }, "", ""},
		{"two beats too many", func(t *traffic) { t.Pings = 2 }, "", `{mode="ping"}: the harness counts 2, the server 3`},
		{"a flood unheard", func(t *traffic) { t.Hostile, t.BytesSent = 1, 1<<20 }, "", ""},
		{"more heard than a flood sent", func(t *traffic) { t.Hostile, t.BytesSent = 1, 5 }, "", `{direction="in"}: the harness counts 0 to 5, the server 60`},
	}
	const closing = `pulsewheel_connections_closed_total{reason="`
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reason := map[string]string{"": "client", "left": "end", "reset": "reset"}[tt.after]
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "pulsewheel_connections 0\npulsewheel_handshakes 0\npulsewheel_connections_opened_total 1\n"+
					closing+reason+"\"} 1\npulsewheel_heartbeats_sent_total{mode=\"ping\"} 3\npulsewheel_heartbeats_received_total{mode=\"pong\"} 3\n"+
					"pulsewheel_messages_total{direction=\"in\"} 1\npulsewheel_messages_total{direction=\"out\"} 1\n"+
					"pulsewheel_traffic_bytes_total{direction=\"in\"} 60\npulsewheel_traffic_bytes_total{direction=\"out\"} 200\n")
			}))
			defer s.Close()
			sent := newTraffic()
			sent.Opened, sent.Pings, sent.Pongs, sent.Sent, sent.Received, sent.BytesSent, sent.BytesReceived = 1, 3, 3, 1, 1, 60, 200
			sent.Closed[endGoodbye] = 1
			tt.change(&sent)
			a := &audit{admin: newAdmin(s.URL), before: counters{}}
			if err := a.compare(&sent); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(a.problems, "; "); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("problems %q, want %q", got, tt.want)
			}
		})
	}
}

// TestCountersOfOthers: a server without counters, or one that others use, is not compared, and the report says so.
func TestCountersOfOthers(t *testing.T) {
	t.Parallel()
	p := startPeer(t, peerOptions{})
	o := bench(t, "idle", "--target", p.url(), "--admin", p.admin(t), "--connections", "3", "--settle", "0s", "--duration", "10ms")
	if o.code != exitOK || !strings.Contains(o.stdout, "has no counters of connections") {
		t.Errorf("exit %d: %s\n%s", o.code, o.stderr, o.stdout)
	}
	_, common := startProduct(t, "--heartbeat-mode", "none") // else it would expire one that is not served
	k, err := newClient(&options{target: parsedTarget(t, common[1]), connections: 1, opening: 1, openTimeout: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	defer k.close() //nolint:errcheck // the test ends
	if err := k.reach(); err != nil {
		t.Fatal(err)
	}
	o = bench(t, append([]string{"idle", "--duration", "10ms"}, common...)...)
	if o.code != exitOK || !strings.Contains(o.stdout, "has 1 connections of others") {
		t.Errorf("exit %d: %s\n%s", o.code, o.stderr, o.stdout)
	}
}

// parsedTarget is the target of a URL.
func parsedTarget(t *testing.T, url string) target {
	t.Helper()
	to, err := parseTarget(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return to
}
