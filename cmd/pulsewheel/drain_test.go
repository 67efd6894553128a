package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParsePercent(t *testing.T) {
	tests := []struct {
		name, text string
		want       percent
		ok         bool
	}{
		{"usual", "90%", 90, true},
		{"bare", "75", 75, true},
		{"a part", "0.5%", 0.5, true},
		{"none", "0", 0, true},
		{"all", "100%", 100, true},
		{"more than all", "101%", 0, false},
		{"negative", "-1%", 0, false},
		{"no number", "NaN%", 0, false},
		{"a size", "1GiB", 0, false},
		{"nothing", "", 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parsePercent(test.text)
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// A running server is drained and taken back, over TCP with a token and over a Unix socket, the address out of the server's own file.
func TestDrainAndUndrain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := "unix:" + filepath.Join(dir, "admin.sock")
	config := filepath.Join(dir, "pw.yaml")
	if err := os.WriteFile(config, []byte("admin-listen: "+socket+"\nheartbeat-interval: 20s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		serve []string
		admin func(admin string) []string
	}{
		{"TCP with a token", []string{"--admin-token-file=" + token}, func(admin string) []string { return []string{"--admin-listen=" + admin, "--admin-token-file=" + token} }},
		{"Unix socket out of the file", []string{"--admin-listen=" + socket}, func(string) []string { return []string{"--config=" + config} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := startProgram(t, test.serve...)
			address, admin := p.listening()
			c, r, _ := upgrade(t, address)
			code, out, problems := call(nil, append([]string{"drain"}, test.admin(admin)...)...)
			if code != exitOK || out != "the server drains\n" {
				t.Fatalf("drain: %d %q %q", code, out, problems)
			}
			if goodbye, err := r.Peek(4); err != nil || int(goodbye[2])<<8|int(goodbye[3]) != 1012 {
				t.Errorf("Close frame %x, %v; want 1012", goodbye, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if _, _, response := upgrade(t, address); response.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("while draining: %s", response.Status)
			}
			if code, out, problems := call(nil, append([]string{"undrain"}, test.admin(admin)...)...); code != exitOK {
				t.Fatalf("undrain: %d %q %q", code, out, problems)
			}
			c, _, response := upgrade(t, address)
			if response.StatusCode != http.StatusSwitchingProtocols {
				t.Errorf("after it: %s", response.Status)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			p.signal(syscall.SIGTERM)
			p.exit(exitOK)
		})
	}
}

func TestDrainFaults(t *testing.T) {
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nobody there", []string{"drain", "--admin-listen=127.0.0.1:1"}, exitFault, "refused"},
		{"no socket", []string{"undrain", "--admin-listen=unix:/nowhere/admin.sock"}, exitFault, "/nowhere/admin.sock"},
		{"no token file", []string{"drain", "--admin-token-file=/nowhere"}, exitUsage, "/nowhere"},
		{"an option of serve", []string{"drain", "--echo"}, exitUsage, "--echo"},
		{"a strange address", []string{"drain", "--admin-listen=a b"}, exitFault, "admin-listen"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// The environment of the server means nothing here, but for the two options.
			code, _, problems := call([]string{"PULSEWHEEL_HEARTBEAT_INTERVAL=20s"}, test.args...)
			if code != test.code || !strings.Contains(problems, test.want) {
				t.Errorf("%d %q", code, problems)
			}
		})
	}
}

// The doctor's answer is for persons or for scripts, and its exit code tells whether something is short.
func TestDoctor(t *testing.T) {
	code, out, _ := call(nil, "doctor", "--connections=1", "--json")
	var result struct {
		Connections int
		Findings    []struct{ Check, State string }
		Short       bool
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.Connections != 1 || len(result.Findings) < 10 {
		t.Errorf("%v: %s", err, out)
	}
	if want := map[bool]int{false: exitOK, true: exitFault}[result.Short]; code != want {
		t.Errorf("exit %d, want %d", code, want)
	}
	if code, out, _ := call(nil, "doctor", "--connections=2000000000"); code != exitFault || !strings.Contains(out, "LimitNOFILE=") {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, args := range [][]string{{"--connections=0"}, {"--url=http://a"}, {"--patience=x"}, {"--nothing"}} {
		if code, _, problems := call(nil, append([]string{"doctor"}, args...)...); code != exitUsage || problems == "" {
			t.Errorf("%v: exit %d, %q", args, code, problems)
		}
	}
}

// A probe of the server itself: it is silent as asked, and patience ends first.
func TestDoctorProbesAServer(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	address, _ := p.listening()
	start := time.Now()
	_, out, _ := call(nil, "doctor", "--connections=1", "--json", "--patience=500ms", "--url=ws://"+address+"/ws")
	if !strings.Contains(out, `"outcome": "outlived"`) || !strings.Contains(out, `"frames": 0`) || time.Since(start) < 500*time.Millisecond {
		t.Errorf("after %v: %s", time.Since(start), out)
	}
	p.signal(syscall.SIGTERM)
	p.exit(exitOK)
}
