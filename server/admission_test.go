package server

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

func TestConnectionLimit(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{ConnectionLimit: 2, ReconnectRate: 1}, Echo{})
		first := s.dial(t, "/ws")
		s.dial(t, "/ws")
		for i := range 4 {
			r := roundTrip(t, s.addr, upgradeRequest("/ws"))
			// One retry slot a second: each of the refused is sent a second further away, less what has passed since.
			near, far := fmt.Sprintf("Retry-After: %d", max(1, i)), fmt.Sprintf("Retry-After: %d", i+1)
			if r.status != "503 Service Unavailable" || !r.has(near) && !r.has(far) {
				t.Errorf("number %d: %q%s, want a 503 with %s", i, r.status, r.header, far)
			}
		}
		p := s.dial(t, "/ws?errors=close")
		reason, delay, _ := strings.Cut(p.expectClose(wsframe.CloseOverload), "; retry-after=")
		if n, err := strconv.Atoi(delay); reason != "limit" || err != nil || n < 4 || n > 5 {
			t.Errorf("reason %q, delay %q", reason, delay)
		}
		_ = p.Close()
		await(t, "they are counted", func() bool { return s.Stats().Rejected["limit"] == 5 })
		first.send(wsframe.Close, "")
		first.expectClose(wsframe.CloseNoStatus)
		_ = first.Close()
		await(t, "there is room", func() bool { return s.Ready() == nil })
		s.dial(t, "/ws")
	})
}

func TestConnectionLimitPerIP(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		s := v.start(t, Config{ConnectionLimitPerIP: 2}, Echo{})
		from := func(address string) *peer {
			t.Helper()
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: patience}
			c, err := dialer.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			p := newPeer(t, c)
			p.write([]byte(upgradeRequest("/ws")))
			return p
		}
		first := from("127.0.0.1")
		first.readUpgrade()
		from("127.0.0.1").readUpgrade()
		refused := from("127.0.0.1")
		if r := readResponse(t, refused); r.status != "429 Too Many Requests" || !strings.Contains(r.header, "Retry-After: ") {
			t.Errorf("%q%s", r.status, r.header)
		}
		_ = refused.Close()
		from("127.0.0.2").readUpgrade()
		_ = first.Close()
		await(t, "the first is gone", func() bool { return s.Stats().Active == 2 })
		from("127.0.0.1").readUpgrade()
		await(t, "one is counted as refused", func() bool { return s.Stats().Rejected["address"] == 1 })
	})
}

func TestAddressPrefix(t *testing.T) {
	for _, tt := range []struct {
		name, a, b string
		same       bool
	}{
		{"one IPv4 address", "192.0.2.1", "192.0.2.1", true},
		{"two IPv4 addresses", "192.0.2.1", "192.0.2.2", false},
		{"one /64", "2001:db8::1", "2001:db8::ffff:0:0:1", true},
		{"two /64", "2001:db8::1", "2001:db8:0:1::1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, okA := addressPrefix(netip.MustParseAddr(tt.a))
			b, okB := addressPrefix(netip.MustParseAddr(tt.b))
			if !okA || !okB || (a == b) != tt.same {
				t.Errorf("%v and %v: same is %v, want %v", a, b, a == b, tt.same)
			}
		})
	}
	if _, ok := addressPrefix(netip.Addr{}); ok {
		t.Error("a Unix socket counts as an address")
	}
}

func TestConnectionRateLimit(t *testing.T) {
	each(t, runners(), func(t *testing.T, v variant) {
		const rate = 10
		s := v.start(t, Config{ConnectionRateLimit: rate, ReconnectRate: rate}, Echo{})
		began := time.Now()
		taken, refused := 0, 0
		var retryAfter string
		for refused == 0 && taken < 10*rate {
			c := connect(t, s.addr)
			p := newPeer(t, c)
			p.write([]byte(upgradeRequest("/ws")))
			m, status, err := 0, 0, error(nil)
			for m == 0 && err == nil {
				if err = p.fill(time.Now().Add(patience)); err == nil {
					m, status, err = wsframe.CheckResponse(p.in, sampleKey())
				}
			}
			switch {
			case err != nil:
				t.Fatal(err)
			case status == 101:
				taken++
			case status == 503:
				refused++
				_, retryAfter, _ = strings.Cut(string(p.in), "\r\nRetry-After: ")
				_ = c.Close()
			}
		}
		// A burst of a second's worth, and what the time since then allows.
		if most := rate + 1 + int(time.Since(began).Seconds()*rate); refused == 0 || taken < rate || taken > most {
			t.Errorf("%d taken and %d refused, want %d to %d taken", taken, refused, rate, most)
		}
		if !strings.HasPrefix(retryAfter, "1\r\n") {
			t.Errorf("Retry-After %.10q, want 1", retryAfter)
		}
		await(t, "they are counted", func() bool { return s.Stats().Rejected["rate"] == uint64(refused) })
		await(t, "the next second brings room", func() bool {
			p := newPeer(t, connect(t, s.addr))
			defer p.Close()
			p.write([]byte(upgradeRequest("/ws?errors=close")))
			p.readUpgrade()
			m, err := p.read(time.Now().Add(50 * time.Millisecond))
			return err != nil && m.Opcode != wsframe.Close // silence: it was taken
		})
	})
}

func TestMeter(t *testing.T) {
	m := perSecond(4)
	for i := range 4 {
		if !m.take(time.Second) {
			t.Fatalf("number %d of a burst of 4 is refused", i+1)
		}
	}
	if m.take(time.Second) {
		t.Error("number 5 of a burst of 4 is taken")
	}
	if m.take(time.Second + 249*time.Millisecond) {
		t.Error("taken before its time")
	}
	if !m.take(time.Second+250*time.Millisecond) || m.take(time.Second+250*time.Millisecond) {
		t.Error("a quarter of a second is worth one")
	}
	none := perSecond(0)
	for range 100 {
		if !none.take(0) {
			t.Fatal("no limit, and refused")
		}
	}
}
