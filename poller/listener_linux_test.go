package poller

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestBacklog reads the backlog back: for a listening socket the kernel keeps it
// where tcp_info has its count of selective acknowledgements.
func TestBacklog(t *testing.T) {
	for given, want := range map[int]int{0: backlogMax(), 7: 7, 1 << 30: backlogMax()} {
		l := listen(t, "127.0.0.1:0", ListenOptions{Backlog: given})
		info, err := unix.GetsockoptTCPInfo(l.FD(), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		if int(info.Sacked) != want {
			t.Errorf("backlog %d became %d, want %d", given, info.Sacked, want)
		}
	}
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
