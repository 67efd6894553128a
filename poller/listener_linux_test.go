package poller

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestBacklog reads the backlog back, for which the kernel keeps what it was cut to.
func TestBacklog(t *testing.T) {
	for given, want := range map[int]int{0: backlogMax(), 7: 7, 1 << 30: backlogMax()} {
		l := listen(t, "127.0.0.1:0", ListenOptions{Backlog: given})
		if waiting, limit := l.Queue(); waiting != 0 || limit != want {
			t.Errorf("backlog %d: %d of %d wait, want 0 of %d", given, waiting, limit, want)
		}
	}
}

// TestQueue: who has connected and isn't accepted waits.
func TestQueue(t *testing.T) {
	l := listen(t, "127.0.0.1:0", ListenOptions{Backlog: 7})
	for n := range 3 {
		connect(t, dialable(l), ConnectOptions{})
		if waiting, limit := l.Queue(); waiting != n+1 || limit != 7 {
			t.Errorf("%d of %d wait, want %d of 7", waiting, limit, n+1)
		}
	}
	acceptOne(t, l)
	if waiting, _ := l.Queue(); waiting != 2 {
		t.Errorf("%d wait after one was accepted, want 2", waiting)
	}
	if waiting, limit := listenNetwork(t, "unix", ListenOptions{}).Queue(); waiting != 0 || limit != 0 {
		t.Errorf("a Unix socket: %d of %d wait, want 0 of 0, which is unknown", waiting, limit)
	}
	// Close may come while others look.
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for {
			if _, limit := l.Queue(); limit == 0 {
				return
			}
		}
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-looked
}

// TestSockaddr decodes what the kernel writes, including what loopback doesn't show.
func TestSockaddr(t *testing.T) {
	tests := []struct {
		name string
		raw  sockaddr
		want string
	}{
		{"Unix", sockaddr{0: unix.AF_UNIX}, "invalid AddrPort"},
		{"nothing", sockaddr{}, "invalid AddrPort"},
		{"IPv4", sockaddr{0: unix.AF_INET, 2: 1, 3: 2, 4: 10, 7: 9}, "10.0.0.9:258"},
		{"mapped", sockaddr{0: unix.AF_INET6, 3: 80, 18: 255, 19: 255, 20: 10, 23: 9}, "10.0.0.9:80"},
		{"IPv6", sockaddr{0: unix.AF_INET6, 3: 80, 8: 0x20, 9: 1, 23: 7, 24: 3}, "[2001::7]:80"},
		{"link-local", sockaddr{0: unix.AF_INET6, 3: 80, 8: 0xfe, 9: 0x80, 23: 7, 24: 3}, "[fe80::7%3]:80"},
	}
	for _, test := range tests {
		if got := test.raw.addrPort().String(); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
