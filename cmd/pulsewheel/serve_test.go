package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is a running server in a process of its own, with its log as records.
type program struct {
	t       *testing.T
	command *exec.Cmd
	records chan map[string]any // closed at the end of the log
	raw     chan string         // lines that are no records
}

// startProgram runs the program with a JSON log on free ports of loopback.
func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	base := []string{"serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json", "--stats-interval=0", "--overload-load-factor=0", "--loops=1"}
	p := &program{t: t, command: exec.Command(os.Args[0], append(base, args...)...), records: make(chan map[string]any, 1000), raw: make(chan string, 1000)}
	p.command.Env = append(os.Environ(), beTheProgram+"=1")
	stderr, err := p.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.records)
		defer close(p.raw)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var record map[string]any
			if json.Unmarshal(lines.Bytes(), &record) == nil {
				p.records <- record
			} else {
				p.raw <- lines.Text()
			}
		}
	}()
	t.Cleanup(func() {
		if p.command.ProcessState == nil {
			_ = p.command.Process.Kill() // the test has failed before it could end it
			_ = p.command.Wait()
		}
	})
	return p
}

// await returns the next record with a message.
func (p *program) await(message string) map[string]any {
	p.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case record, ok := <-p.records:
			if !ok {
				p.t.Fatalf("the log ended before %q", message)
			}
			if record["msg"] == message {
				return record
			}
		case <-deadline:
			p.t.Fatalf("no %q in time", message)
		}
	}
}

func (p *program) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end and checks the code, and that nothing but records was written.
func (p *program) exit(code int) {
	p.t.Helper()
	for range p.records { // until the pipe ends: Wait closes it
	}
	for line := range p.raw {
		p.t.Errorf("stderr: %s", line)
	}
	var failed *exec.ExitError
	if err := p.command.Wait(); err != nil && !errors.As(err, &failed) {
		p.t.Fatal(err)
	}
	if got := p.command.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d", got, code)
	}
}

// address and admin are taken from the line that tells of the start.
func (p *program) listening() (address, admin string) {
	p.t.Helper()
	record := p.await("listening")
	addresses, _ := record["addresses"].([]any)
	if len(addresses) == 0 {
		p.t.Fatalf("no address in %v", record)
	}
	admin, _ = record["admin"].(string)
	return fmt.Sprint(addresses[0]), admin
}

// upgrade opens a WebSocket connection with bytes of our own.
func upgrade(t *testing.T, address string, headers ...string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	network, host := "tcp", address
	if strings.HasPrefix(address, "/") {
		network, host = "unix", "localhost"
	}
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be closed already
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	request := "GET /ws HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, r, response
}

// get asks the admin listener.
func get(t *testing.T, admin, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// One life: start, an echo, the figures of it, SIGTERM, the Close frame with 1012, exit 0.
func TestServe(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "--echo", "--node-name=n7")
	address, admin := p.listening()
	c, r, response := upgrade(t, address)
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", response.Status)
	}
	if _, err := c.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'}); err != nil { // text "hi", masked with zeros
		t.Fatal(err)
	}
	echo := make([]byte, 4)
	if _, err := io.ReadFull(r, echo); err != nil || string(echo) != "\x81\x02hi" {
		t.Fatalf("echo %q, %v", echo, err)
	}

	if status, body := get(t, admin, "/readyz"); status != http.StatusOK {
		t.Errorf("readyz: %d %s", status, body)
	}
	wanted := func(body string) bool {
		return strings.Contains(body, `"active":1,`) && strings.Contains(body, `"node":"n7"`) && strings.Contains(body, `"messages_in":1,`)
	}
	status, body := get(t, admin, "/api/v1/stats")
	for end := time.Now().Add(5 * time.Second); !wanted(body) && time.Now().Before(end); { // counts are published after the turn that sent the echo
		status, body = get(t, admin, "/api/v1/stats")
	}
	if status != http.StatusOK || !wanted(body) {
		t.Errorf("stats: %d %s", status, body)
	}
	if status, body := get(t, admin, "/metrics"); status != http.StatusOK || !strings.Contains(body, "\npulsewheel_connections 1\n") {
		t.Errorf("metrics: %d", status)
	}

	p.signal(syscall.SIGTERM)
	goodbye := make([]byte, 4)
	if _, err := io.ReadFull(r, goodbye); err != nil || goodbye[0] != 0x88 || int(goodbye[2])<<8|int(goodbye[3]) != 1012 {
		t.Errorf("Close frame %x, %v; want 1012", goodbye, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	p.exit(exitOK)
}

// The default policy takes browsers from the admin listener's own pages and refuses strangers.
func TestServeTrustsItsOwnPages(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	address, admin := p.listening()
	_, port, err := net.SplitHostPort(admin)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, origin string
		status       int
	}{
		{"admin page", "http://" + admin, 101},
		{"admin page by name", "http://localhost:" + port, 101},
		{"stranger", "http://evil.example", 403},
	}
	for _, test := range tests {
		c, _, response := upgrade(t, address, "Origin: "+test.origin)
		if response.StatusCode != test.status {
			t.Errorf("%s: %s, want %d", test.name, response.Status, test.status)
		}
		if err := c.Close(); err != nil { // or the server would wait for an answer to its Close frame
			t.Error(err)
		}
	}
	p.signal(syscall.SIGINT)
	p.exit(exitOK)
}

// A second signal ends at once, however long the drain would take.
func TestServeSecondSignal(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "--drain-delay=1h")
	_, admin := p.listening()
	p.signal(syscall.SIGTERM)
	p.await("shutting down")
	for status := 0; status != http.StatusServiceUnavailable; { // the signal's log line comes just before the drain begins
		status, _ = get(t, admin, "/readyz")
	}
	p.signal(syscall.SIGTERM)
	p.exit(exitFault)
}

func TestServeReload(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pw.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log-level: info\n")
	p := startProgram(t, "--config", file)
	p.listening()

	write("log-level: warn\nworkers: 3\nallowed-origins: [\"https://app.example\"]\n")
	p.signal(syscall.SIGHUP)
	record := p.await("configuration reloaded")
	if fmt.Sprint(record["changed"]) != "[allowed-origins log-level]" || fmt.Sprint(record["needs_restart"]) != "[workers]" {
		t.Errorf("reloaded: %v", record)
	}

	write("log-level: loud\n")
	p.signal(syscall.SIGHUP)
	if record := p.await("configuration not reloaded"); !strings.Contains(fmt.Sprint(record["problems"]), "loud") {
		t.Errorf("not reloaded: %v", record)
	}

	p.signal(syscall.SIGTERM)
	for record := range p.records { // The level is warn now: nothing is told of a clean end.
		t.Errorf("log at level warn: %v", record)
	}
	p.exit(exitOK)
}

func TestServeOnUnixSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startProgram(t, "--listen=unix:"+filepath.Join(dir, "ws.sock"), "--admin-listen=unix:"+filepath.Join(dir, "admin.sock"))
	record := p.await("listening")
	want := fmt.Sprintf("[127.0.0.1:0 unix:%s]", filepath.Join(dir, "ws.sock"))
	if admin := record["admin"]; admin != "unix:"+filepath.Join(dir, "admin.sock") {
		t.Errorf("admin %v", admin)
	}
	if addresses := fmt.Sprint(record["addresses"]); !strings.HasSuffix(addresses, want[strings.Index(want, " "):]) {
		t.Errorf("addresses %s", addresses)
	}
	c, _, response := upgrade(t, filepath.Join(dir, "ws.sock"))
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("upgrade: %s", response.Status)
	}
	if err := c.Close(); err != nil { // or the server would wait for an answer to its Close frame
		t.Error(err)
	}
	p.signal(syscall.SIGTERM)
	p.exit(exitOK)
}

// What the host refuses is one line and exit code 1.
func TestServeFaults(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() // Nothing was accepted.
	tests := []struct {
		name string
		args []string
		want string // part of the error
	}{
		{"taken port", []string{"--listen=" + taken.Addr().String()}, "in use"},
		{"taken admin port", []string{"--admin-listen=" + taken.Addr().String()}, "in use"},
		{"unbindable path", []string{"--listen=unix:/nowhere/ws.sock"}, "/nowhere/ws.sock"},
		{"unbindable admin path", []string{"--admin-listen=unix:/nowhere/admin.sock"}, "/nowhere/admin.sock"},
		{"address of another host", []string{"--listen=192.0.2.1:0"}, "192.0.2.1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := startProgram(t, test.args...)
			var records []map[string]any
			for record := range p.records {
				records = append(records, record)
			}
			if len(records) != 1 || records[0]["level"] != "ERROR" || !strings.Contains(fmt.Sprint(records[0]["error"]), test.want) {
				t.Errorf("log %v, want one error with %q", records, test.want)
			}
			p.exit(exitFault)
		})
	}
}

// Whoever reads the log may end: the connections stay, and so does the clean end.
func TestServeOutlivesItsLog(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "ws.sock")
	command := exec.Command(os.Args[0], "serve", "--listen=unix:"+socket, "--admin-listen=", "--stats-interval=0", "--loops=1")
	command.Env = append(os.Environ(), beTheProgram+"=1")
	command.Stderr = writer
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() }) // it has ended, unless the test failed
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(reader).ReadString('\n'); err != nil { // the line that tells of the start
		t.Fatal(err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM} { // each of them is told in the log
		if err := command.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := command.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// A limit that the descriptors don't allow is taken, with a warning.
func TestServeWarnsOfDescriptors(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "--connection-limit=2000000000")
	p.listening()
	if record := p.await("connection-limit exceeds what the descriptor limit allows"); record["level"] != "WARN" {
		t.Errorf("%v", record)
	}
	p.signal(syscall.SIGTERM)
	p.exit(exitOK)
}
