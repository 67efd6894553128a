package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// broadcastArgs is a small broadcast on a peer.
func broadcastArgs(p *peer, admin string, more ...string) []string {
	return append([]string{
		"broadcast", "--target", p.url(), "--admin", admin, "--connections", "10", "--broadcasts", "3", "--every", "200ms",
		"--duration", "1700ms", "--interval", "800ms", "--settle", "100ms",
	}, more...)
}

func TestBroadcast(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
	}{
		{"one process", nil},
		{"three processes", []string{"--per-process", "4"}},
		{"large", []string{"--size", "100000"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, peerOptions{pingEvery: 800 * time.Millisecond, broadcasting: broadcasting{can: true}})
			o := bench(t, broadcastArgs(p, p.admin(t), tt.args...)...)
			if o.code != exitOK {
				t.Fatalf("exit %d: %s", o.code, o.stderr)
			}
			if n := o.number(t, "deliveries"); n != 30 {
				t.Errorf("%v deliveries of 3 broadcasts to 10", n)
			}
			if _, ok := o.json["last_has_it_us"]; ok == o.withheld("last_has_it_us") {
				t.Errorf("last_has_it_us is there: %v, withheld %v", ok, o.json["withheld"])
			}
			for _, key := range []string{"answered_us", "beats_per_100ms_deviation", "beats_per_100ms_deviation_before", "beats"} {
				o.number(t, key)
			}
		})
	}
}

// TestBroadcastFindsFaults: each way in which a broadcast may go wrong is told in one line.
func TestBroadcastFindsFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		peer broadcasting
		code int
		want string
	}{
		{"no such endpoint", broadcasting{}, exitUsage, "has no /api/v1/broadcast: this server can't be told to broadcast"},
		{"forbidden", broadcasting{can: true, status: 403}, exitUsage, "/api/v1/broadcast answers 403 Forbidden"},
		{"does not say how many", broadcasting{can: true, vague: true}, exitUsage, "does not say how many it reached"},
		{"another server's", broadcasting{can: true, deaf: true}, exitUsage, "is it the same server?"},
		{"forgets one", broadcasting{can: true, forgets: true}, exitFailed, "3 deliveries were missing"},
		{"sends twice", broadcasting{can: true, twice: true}, exitFailed, "deliveries came twice"},
		{"sends something else", broadcasting{can: true, changes: true}, exitFailed, "messages came changed"},
		{"counts wrongly", broadcasting{can: true, miscount: true}, exitFailed, "the server counted 11 as reached by a broadcast, 10 were open"},
		{"killed midway", broadcasting{can: true, endsAt: 2}, exitFailed, "10 connections were lost"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, peerOptions{pingEvery: 400 * time.Millisecond, broadcasting: tt.peer})
			o := bench(t, broadcastArgs(p, p.admin(t), "--within", "2s", "--interval", "400ms", "--duration", "600ms")...)
			if o.code != tt.code || !strings.Contains(o.lastOf(), tt.want) {
				t.Errorf("exit %d, %q; want exit %d and %q", o.code, o.stderr, tt.code, tt.want)
			}
		})
	}
}

// TestBroadcastPayloadTellsItself: number and time come back, and nothing else is taken for a broadcast.
func TestBroadcastPayloadTellsItself(t *testing.T) {
	at := time.Unix(7, 5)
	p := broadcastPayload(200, 3, at)
	if number, ns, ok := parseBroadcast(p); !ok || number != 3 || ns != at.UnixNano() || len(p) != 200 {
		t.Errorf("%d, %d, %v of %d bytes", number, ns, ok, len(p))
	}
	if p = broadcastPayload(broadcastBytesLeast, 1, at); len(p) != broadcastBytesLeast {
		t.Errorf("%d bytes, want the least, %d", len(p), broadcastBytesLeast)
	}
	for _, other := range [][]byte{nil, []byte(`{"type":"heartbeat"}`), p[:len(p)-1], bytes.Repeat([]byte("b"), 100)} {
		if _, _, ok := parseBroadcast(other); ok {
			t.Errorf("%q was taken for a broadcast", other)
		}
	}
}
