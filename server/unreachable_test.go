//go:build integration && linux

package server

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

const namespaceVariable = "PULSEWHEEL_TEST_NAMESPACE"

// TestUnreachable cuts a network: the test runs once more inside a network namespace of its own, whose loopback it takes down with
// connections on it. Then no acknowledgement comes any more, and the ends are told apart from those of programs that don't answer. It needs
// ip(8), and to be root or to be allowed user namespaces.
func TestUnreachable(t *testing.T) {
	if os.Getenv(namespaceVariable) != "" {
		cutNetwork(t)
		return
	}
	c := exec.Command(os.Args[0], "-test.run", "^TestUnreachable$", "-test.v")
	c.Env = append(os.Environ(), namespaceVariable+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid := os.Getuid(); uid != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func cutNetwork(t *testing.T) {
	const interval, timeout = 200 * time.Millisecond, 800 * time.Millisecond
	link(t, "up")
	h, _, _, closes := reporter()
	s := start(t, Config{HeartbeatInterval: interval, HeartbeatMin: interval, HeartbeatTimeout: timeout, HandlerInline: true, Loops: 1}, h)
	silent := s.dial(t, "/ws")
	if got := receive(t, "Close", closes); got.code != 4408 {
		t.Errorf("a silent peer ended with %v", got)
	}
	if st := s.Stats(); st.Closed["expired"] != 1 || st.Expired != 1 {
		t.Errorf("closed %v: want a peer that acknowledges and doesn't answer to be expired", st.Closed)
	}
	_ = silent.Close()

	answering := []*peer{s.dial(t, "/ws"), s.dial(t, "/ws?heartbeat_interval=0.4")}
	s.on(t, func(l *loop) {
		for slot, want := range map[uint32]time.Duration{0: timeout, 1: 2 * timeout} {
			ms, err := syscall.GetsockoptInt(int(l.table.at(slot).fd), syscall.IPPROTO_TCP, 0x12) // TCP_USER_TIMEOUT
			if err != nil || time.Duration(ms)*time.Millisecond != want+closeTimeout {
				t.Errorf("slot %d: the kernel gives up after %d ms (%v), want %v", slot, ms, err, want+closeTimeout)
			}
		}
	})
	for _, p := range answering {
		if m := p.next(); m.Opcode != wsframe.Ping {
			t.Fatalf("got %v", m.Opcode)
		} else {
			p.send(wsframe.Pong, string(m.Payload))
		}
	}
	began := time.Now()
	link(t, "down")
	for range answering {
		if got := receive(t, "Close", closes); got.code != 4408 {
			t.Errorf("a peer that can't be reached ended with %v", got)
		}
	}
	if took := time.Since(began); took > 2*timeout+slack {
		t.Errorf("found out after %v", took)
	}
	await(t, "they are counted", func() bool { return s.Stats().Closed["unreachable"] == 2 })
	if st := s.Stats(); st.Expired != 3 || st.Closed["expired"] != 1 {
		t.Errorf("%d expired, closed %v", st.Expired, st.Closed)
	}
	link(t, "up")
}

// link sets the loopback of this namespace.
func link(t *testing.T, state string) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "set", "lo", state).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("ip link set lo %s: %w\n%s", state, err, out))
	}
}
