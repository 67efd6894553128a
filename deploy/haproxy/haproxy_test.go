//go:build integration

package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// Goal: the mission's high availability in its first form. Two nodes stand behind HAProxy with the configuration of this folder, and a hundred
// clients beat through it. One node is killed; its clients come back on the other within seconds, and those of the other notice nothing.

const clients = 100

// node is a server process.
type node struct {
	address string
	name    string
	cmd     *exec.Cmd
}

func TestClientsOfAKilledNodeReturnOnTheOther(t *testing.T) {
	binary := build(t)
	a, b := startNode(t, binary, "a"), startNode(t, binary, "b")
	proxy := startProxy(t, a, b)

	fleet := newFleet(t, "ws://"+proxy+"/ws")
	fleet.await(t, func(by map[string]int) bool { return by["a"]+by["b"] == clients })
	before := fleet.byNode()
	if before["a"] < clients/4 || before["b"] < clients/4 {
		t.Fatalf("connections by node: %v: leastconn should have spread them", before)
	}
	stayed := fleet.generations("b")

	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	fleet.await(t, func(by map[string]int) bool { return by["b"] == clients })
	t.Logf("%d clients of the killed node were back on the other after %v", before["a"], time.Since(killed).Round(time.Millisecond))

	for id, generation := range stayed {
		if got := fleet.generation(id); got != generation {
			t.Errorf("client %d was on the node that lived and reconnected all the same", id)
		}
	}
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "pulsewheel")
	out, err := exec.Command("go", "build", "-o", binary, "../../cmd/pulsewheel").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func start(t *testing.T, cmd *exec.Cmd, ready func() error) {
	t.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%v:\n%s", cmd.Args, output.String())
		}
	})
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := ready()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v is not ready: %v\n%s", cmd.Args, err, output.String())
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // another process is starting: there is no event to wait for
	}
}

func startNode(t *testing.T, binary, name string) *node {
	t.Helper()
	n := &node{address: freeAddress(t), name: name}
	n.cmd = exec.Command(binary, "serve", "--listen", n.address, "--admin-listen=", "--node-name", name,
		"--heartbeat-mode", "text", "--heartbeat-interval", "1s", "--heartbeat-timeout", "3s")
	start(t, n.cmd, func() error { return probe("http://" + n.address + "/readyz") })
	return n
}

func startProxy(t *testing.T, a, b *node) string {
	t.Helper()
	address := freeAddress(t)
	cmd := exec.Command("haproxy", "-db", "-f", "haproxy.cfg")
	cmd.Env = append(os.Environ(), "BIND="+address, "NODE_A="+a.address, "NODE_B="+b.address)
	start(t, cmd, func() error { return probe("http://" + address + "/readyz") })
	return address
}

func probe(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

// fleet is a number of clients that reconnect for as long as the test runs.
type fleet struct {
	url string

	// mu guards the rest.
	mu       sync.Mutex
	node     [clients]string // where each is connected; empty: nowhere
	connects [clients]int    // how often it connected
	changed  chan struct{}
}

func newFleet(t *testing.T, url string) *fleet {
	t.Helper()
	f := &fleet{url: url, changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for id := range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				_ = f.connect(ctx, id) // whatever ended it, the client comes back
				f.set(id, "")
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(50+10*(id%20)) * time.Millisecond):
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); all.Wait() })
	return f
}

// connect holds one connection: it learns its node from the hello and acknowledges heartbeats until the connection ends.
func (f *fleet) connect(ctx context.Context, id int) error {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", strings.TrimSuffix(strings.TrimPrefix(f.url, "ws://"), "/ws"))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	key := [16]byte{byte(id)}
	if _, err := conn.Write(wsframe.AppendRequest(nil, "test", "/ws?heartbeat=text&heartbeat_interval=5s", key, nil)); err != nil {
		return err
	}
	var buf []byte
	limits, decoder, upgraded := &wsframe.Limits{Client: true}, wsframe.Decoder{}, false
	chunk := make([]byte, 4096)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := conn.Read(chunk)
		if err != nil {
			return err
		}
		buf = append(buf, chunk[:n]...)
		if !upgraded {
			n, status, err := wsframe.CheckResponse(buf, key)
			if err != nil || n > 0 && status != http.StatusSwitchingProtocols {
				return fmt.Errorf("upgrade: status %d: %w", status, errors.Join(err, io.ErrUnexpectedEOF))
			}
			upgraded = n > 0
			buf = buf[n:]
		}
		for upgraded && len(buf) > 0 {
			m, n, ok, err := decoder.Next(limits, buf)
			if err != nil {
				return err
			}
			buf = buf[n:]
			if !ok {
				break
			}
			if err := f.message(conn, id, m); err != nil {
				return err
			}
		}
	}
}

func (f *fleet) message(conn net.Conn, id int, m wsframe.Message) error {
	switch text := string(m.Payload); {
	case m.Opcode == wsframe.Close:
		return io.EOF
	case strings.Contains(text, `"hello"`):
		_, rest, _ := strings.Cut(text, `"node":"`)
		node, _, _ := strings.Cut(rest, `"`)
		f.set(id, node)
	case strings.Contains(text, `"heartbeat"`):
		_, err := conn.Write(wsframe.AppendMasked(nil, wsframe.Text, true, []byte(`{"type":"heartbeat_ack"}`), [4]byte{1, 2, 3, 4}))
		return err
	}
	return nil
}

func (f *fleet) set(id int, node string) {
	f.mu.Lock()
	f.node[id] = node
	if node != "" {
		f.connects[id]++
	}
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *fleet) byNode() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	by := make(map[string]int)
	for _, node := range f.node {
		if node != "" {
			by[node]++
		}
	}
	return by
}

// generations are those of the clients on a node.
func (f *fleet) generations(node string) map[int]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make(map[int]int)
	for id, on := range f.node {
		if on == node {
			list[id] = f.connects[id]
		}
	}
	return list
}

func (f *fleet) generation(id int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.connects[id]
}

// await waits until the connections by node are as wanted.
func (f *fleet) await(t *testing.T, wanted func(by map[string]int) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !wanted(f.byNode()) {
		select {
		case <-f.changed:
		case <-deadline:
			t.Fatalf("connections by node after 20 s: %v", f.byNode())
		}
	}
}
