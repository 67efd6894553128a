//go:build integration

package prometheus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// patience is how long anything here may take.
const patience = 60 * time.Second

// need tells what is missing, since a test that doesn't run must not look like one that passed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is needed (on Debian: apt-get install prometheus): %v", program, err)
	}
}

func promtool(t *testing.T, input []byte, arguments ...string) {
	t.Helper()
	need(t, "promtool")
	cmd := exec.CommandContext(t.Context(), "promtool", arguments...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", arguments, err, out)
	}
}

func TestRulesByPromtool(t *testing.T) {
	promtool(t, nil, "check", "rules", "rules.yml", "alerts.yml")
	promtool(t, nil, "check", "config", "prometheus.yml")
	promtool(t, nil, "test", "rules", "alerts_test.yml")
}

// start runs a program until the test ends and returns its first line of standard error that has a part.
func start(t *testing.T, part, name string, arguments ...string) string {
	t.Helper()
	cmd := exec.Command(name, arguments...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, ended := make(chan string, 1), make(chan struct{})
	var log bytes.Buffer
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if strings.Contains(lines.Text(), part) {
				select {
				case found <- lines.Text():
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-ended
		_ = cmd.Wait() // how it ends is not the subject
		if t.Failed() {
			t.Logf("%s:\n%s", name, log.String())
		}
	})
	select {
	case line := <-found:
		return line
	case <-ended:
		t.Fatalf("%s ended:\n%s", name, log.String())
	case <-time.After(patience):
		t.Fatalf("%s doesn't start", name)
	}
	return ""
}

// startServer builds and runs the shipped server, with some connections of which one has gone.
func startServer(t *testing.T) (admin string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "pulsewheel")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/pulsewheel").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	line := start(t, `"listening"`, binary, "serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json",
		"--heartbeat-interval=1s", "--heartbeat-timeout=3s", "--shutdown-timeout=1s")
	var record struct {
		Addresses []string
		Admin     string
	}
	if err := json.Unmarshal([]byte(line), &record); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := net.Dial("tcp", record.Addresses[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() }) // it may be closed already
		if _, err := c.Write(wsframe.AppendRequest(nil, "localhost", "/ws", [16]byte{}, nil)); err != nil {
			t.Fatal(err)
		}
		go answer(c)
	}
	return record.Admin
}

// answer answers each ping of the server, as any client does.
func answer(c net.Conn) {
	var decoder wsframe.Decoder
	var in []byte
	buf := make([]byte, 4096)
	for upgraded := false; ; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		if !upgraded {
			head, _, _ := wsframe.CheckResponse(in, [16]byte{})
			if upgraded = head > 0; !upgraded {
				continue
			}
			in = in[head:]
		}
		for {
			m, used, ok, err := decoder.Next(&wsframe.Limits{Client: true}, in)
			in = in[used:]
			if !ok || err != nil {
				break
			}
			if m.Opcode == wsframe.Ping {
				_, _ = c.Write(wsframe.AppendMasked(nil, wsframe.Pong, true, m.Payload, [4]byte{}))
			}
		}
	}
}

// get asks for a text.
func get(ctx context.Context, address string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return string(body), err
}

// query asks Prometheus and returns how many series answer.
func query(ctx context.Context, base, expression string) (int, error) {
	body, err := get(ctx, base+"/api/v1/query?query="+url.QueryEscape(expression))
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct{ Result []any }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return 0, err
	}
	return len(answer.Data.Result), nil
}

// eventually asks again until Prometheus has what is wanted.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Goal: what is shipped works together. A real Prometheus scrapes the real server, takes its native histograms, evaluates every rule, and
// every query of the dashboard is one that it understands.
func TestWithPrometheus(t *testing.T) {
	need(t, "prometheus")
	admin := startServer(t)
	metrics, err := get(t.Context(), "http://"+admin+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, []byte(metrics), "check", "metrics")

	folder := t.TempDir()
	for _, name := range []string{"rules.yml", "alerts.yml", "prometheus.yml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.NewReplacer("127.0.0.1:8081", admin, "15s", "1s").Replace(string(text))
		if err := os.WriteFile(filepath.Join(folder, name), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, "Server is ready", "prometheus", "--config.file="+filepath.Join(folder, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(folder, "data"),
		"--web.listen-address="+address, "--enable-feature=native-histograms")
	base := "http://" + address

	some := func(expression string) {
		t.Helper()
		eventually(t, expression, func() error {
			n, err := query(t.Context(), base, expression)
			if err == nil && n == 0 {
				err = errors.New("no series")
			}
			return err
		})
	}
	some(`up{job="pulsewheel"} == 1`)
	some(`pulsewheel_connections == 3`)
	some(`instance:pulsewheel_heartbeats_sent:rate1m > 0`)
	some(`histogram_count(pulsewheel_heartbeat_rtt_seconds) > 0`) // native
	some(`histogram_quantile(0.99, rate(pulsewheel_heartbeat_rtt_seconds[1m])) > 0`)
	for _, expression := range dashboardQueries(t) {
		if _, err := query(t.Context(), base, expression); err != nil {
			t.Errorf("dashboard: %s: %v", expression, err)
		}
	}
	eventually(t, "rules", func() error {
		body, err := get(t.Context(), base+"/api/v1/rules")
		if err != nil {
			return err
		}
		if strings.Contains(body, `"health":"err"`) {
			t.Fatalf("a rule fails: %s", body)
		}
		if strings.Contains(body, `"health":"unknown"`) {
			return errors.New("not all evaluated yet")
		}
		return nil
	})
}

// dashboardQueries are the expressions of the dashboard, its variables filled in.
func dashboardQueries(t *testing.T) (queries []string) {
	t.Helper()
	text, err := os.ReadFile("../grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Fatal("dashboard.json is no JSON")
	}
	for _, found := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllStringSubmatch(string(text), -1) {
		var expression string
		if err := json.Unmarshal([]byte(found[1]), &expression); err != nil {
			t.Fatal(err)
		}
		queries = append(queries, strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(expression))
	}
	if len(queries) < 10 {
		t.Fatalf("%d queries in the dashboard", len(queries))
	}
	return queries
}
