//go:build linux

package peers_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience bounds whatever a test waits for.
const patience = 10 * time.Second

// peers lists the servers as one would start them. The one in JavaScript is in node_test.go, since it needs node.
func peers() []contestant {
	var list []contestant
	for _, name := range []string{"gorilla", "gws", "coder", "gobwas", "gobwas-epoll"} {
		list = append(list, contestant{name: name, echo: true, expires: name != "gobwas-epoll"})
	}
	return append(list, contestant{name: "centrifuge", expires: true})
}

type contestant struct {
	name    string
	echo    bool
	expires bool     // it ends who is silent
	command []string // empty: the package of that name is built
}

// TestPeers holds every peer to what the harness relies on: echoes of either kind, of any size, in fragments, and pings at
// the interval while nothing else happens.
func TestPeers(t *testing.T) {
	for _, c := range peers() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.check(t)
		})
	}
}

func (c contestant) check(t *testing.T) {
	command := c.command
	if len(command) == 0 {
		program := filepath.Join(t.TempDir(), c.name)
		if out, err := exec.Command("go", "build", "-o", program, "./"+c.name).CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		command = []string{program}
	}
	conn := connect(t, start(t, append(slices.Clone(command), "--heartbeat-interval", "100ms")))
	if c.echo {
		checkEcho(t, conn)
	}
	checkPings(t, conn, 100*time.Millisecond)
	if c.expires {
		address := start(t, append(slices.Clone(command), "--heartbeat-interval", "500ms", "--heartbeat-timeout", "1s"))
		silent, heard := connect(t, address), connect(t, address)
		checkPings(t, heard, 500*time.Millisecond)
		checkExpired(t, silent)
	}
}

// start starts a server on a free port and returns its address.
func start(t *testing.T, command []string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(command[0], append(command[1:], "--listen", address)...)
	var said bytes.Buffer
	server.Stderr = &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // fails only if it has ended
		_ = server.Wait()
		if t.Failed() {
			t.Logf("the server said: %s", said.String())
		}
	})
	return address
}

// connect tries until the server listens.
func connect(t *testing.T, address string) *websocket.Conn {
	tries := time.NewTicker(20 * time.Millisecond)
	defer tries.Stop()
	for begun := time.Now(); ; <-tries.C {
		conn, _, err := websocket.DefaultDialer.Dial("ws://"+address+"/ws", nil)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
		if time.Since(begun) > patience {
			t.Fatal(err)
		}
	}
}

func checkEcho(t *testing.T, conn *websocket.Conn) {
	for _, test := range []struct {
		name string
		kind int
		size int
	}{
		{"empty", websocket.TextMessage, 0},
		{"text", websocket.TextMessage, 20},
		{"binary of the benchmarks", websocket.BinaryMessage, 128},
		{"larger than any read buffer", websocket.BinaryMessage, 200_000}, // the client sends it in fragments of 4 KiB
	} {
		want := bytes.Repeat([]byte{'x'}, test.size)
		w, err := conn.NextWriter(test.kind)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		_, err = w.Write(want)
		if err := errors.Join(err, w.Close(), conn.SetReadDeadline(time.Now().Add(patience))); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		kind, got, err := conn.ReadMessage()
		if err != nil || kind != test.kind || !bytes.Equal(got, want) {
			t.Fatalf("%s: got kind %d, %d bytes, %v; want kind %d, %d bytes", test.name, kind, len(got), err, test.kind, len(want))
		}
	}
}

// checkPings counts pings of which each but the first follows the one before at the interval, within what a busy machine
// may do to either end.
func checkPings(t *testing.T, conn *websocket.Conn, interval time.Duration) {
	const pings = 5
	var at []time.Time
	answer := conn.PingHandler()
	conn.SetPingHandler(func(payload string) error {
		if at = append(at, time.Now()); len(at) == pings {
			return conn.Close()
		}
		return answer(payload)
	})
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, _, err := conn.ReadMessage()
	if len(at) < pings {
		t.Fatalf("%d pings, then %v", len(at), err)
	}
	if took := at[pings-1].Sub(at[0]); took < (pings-2)*interval || took > 20*interval {
		t.Errorf("%d intervals of %v took %v", pings-1, interval, took)
	}
}

// checkExpired wants the end of a connection that has been silent for longer than the timeout. What it was sent meanwhile is
// read without an answer.
func checkExpired(t *testing.T, conn *websocket.Conn) {
	raw := conn.NetConn()
	if err := raw.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, raw)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent connection is held %v beyond its timeout", patience)
	}
}
