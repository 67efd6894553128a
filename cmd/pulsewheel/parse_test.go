package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/server"
)

// call runs a command that ends by itself.
func call(environ []string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(process{args: args, environ: environ, stdout: &out, stderr: &errs})
	return code, out.String(), errs.String()
}

// writeFile makes a file for one test and returns its path.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The names are a promise to scripts, in this order to the reader of the help.
func TestOptionNames(t *testing.T) {
	want := []string{
		"listen", "path", "node-name", "echo", "loops", "workers", "inline-batch",
		"heartbeat-interval", "heartbeat-timeout", "heartbeat-mode", "heartbeat-min", "heartbeat-max", "json-heartbeats",
		"handshake-timeout", "handshake-size-limit", "message-size-limit", "max-fragments", "max-backpressure", "control-rate-limit", "message-rate-limit", "compression", "allowed-origins",
		"connection-limit", "connection-limit-per-ip", "connection-rate-limit", "socket-send-buffer", "socket-receive-buffer",
		"drain-delay", "drain-rate", "reconnect-rate", "shutdown-timeout",
		"admin-listen", "admin-token-file", "admin-hosts", "stats-interval", "overload-load-factor", "memory-high", "log-format", "log-level", "config",
	}
	in := parse(process{args: []string{"check-config"}})
	flags := optionFlags(in.model)
	var got []string
	for _, flag := range flags {
		got = append(got, flag.Name)
		if flag.Group == nil || flag.Help == "" {
			t.Errorf("--%s has no group or no help", flag.Name)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("options\n%v\nwant\n%v", got, want)
	}
	if fields := reflect.TypeFor[options]().NumField(); fields != len(flags) {
		t.Errorf("%d fields, %d flags: check-config and reload pair them by position", fields, len(flags))
	}
	code, help, _ := call(nil, "serve", "--help")
	if code != exitOK {
		t.Errorf("serve --help exits %d", code)
	}
	for _, name := range want {
		if !strings.Contains(help, "--"+name) {
			t.Errorf("the help doesn't name --%s", name)
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "pw.yaml", "loops: 3\nworkers: 30\nmax-fragments: 300\nlisten: [':1', ':2']\n")
	tests := []struct {
		name    string
		environ []string
		args    []string
		want    options // the fields below only
	}{
		{"defaults", nil, nil, options{Loops: 0, Workers: 0, MaxFragments: 1024, Listen: []string{":8080"}}},
		{"file over defaults", nil, []string{"--config", file}, options{Loops: 3, Workers: 30, MaxFragments: 300, Listen: []string{":1", ":2"}}},
		{
			"environment over file",
			[]string{"PULSEWHEEL_LOOPS=2", "PULSEWHEEL_LISTEN=:3, :4", "PULSEWHEEL_CONFIG=" + file},
			nil,
			options{Loops: 2, Workers: 30, MaxFragments: 300, Listen: []string{":3", ":4"}},
		},
		{
			"flags over environment",
			[]string{"PULSEWHEEL_LOOPS=2", "PULSEWHEEL_WORKERS=20", "PULSEWHEEL_LISTEN=:3"},
			[]string{"--loops=1", "--listen", ":5", "--listen", ":6", "--config", file},
			options{Loops: 1, Workers: 20, MaxFragments: 300, Listen: []string{":5", ":6"}},
		},
		{
			"the flag names the file",
			[]string{"PULSEWHEEL_CONFIG=/nowhere"},
			[]string{"--config", file},
			options{Loops: 3, Workers: 30, MaxFragments: 300, Listen: []string{":1", ":2"}},
		},
		{"a flag may be the default", []string{"PULSEWHEEL_LOOPS=2"}, []string{"--loops=0"}, options{MaxFragments: 1024, Listen: []string{":8080"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := parse(process{args: append([]string{"serve"}, test.args...), environ: test.environ})
			if len(in.problems) > 0 {
				t.Fatal(in.problems)
			}
			got := in.options
			if got.Loops != test.want.Loops || got.Workers != test.want.Workers || got.MaxFragments != test.want.MaxFragments ||
				!reflect.DeepEqual(got.Listen, test.want.Listen) {
				t.Errorf("loops %d, workers %d, max-fragments %d, listen %v", got.Loops, got.Workers, got.MaxFragments, got.Listen)
			}
		})
	}
}

// Whatever is wrong is told at once, a line each, and the exit code is 2.
func TestProblems(t *testing.T) {
	file := writeFile(t, "pw.yaml", "loops: many\nheartbeat-intervall: 3s\necho: true\necho: false\npath: {a: b}\nworkers:\nconfig: x\n"+
		"max-fragments: [1, 2]\nlisten: [[':1']]\nlog-level: loud\n")
	broken := writeFile(t, "broken.yaml", "a: [")
	list := writeFile(t, "list.yaml", "- a\n")
	two := writeFile(t, "two.yaml", "path: /a\n---\npath: /b\n")
	shortToken := writeFile(t, "token", "short\n")
	tests := []struct {
		name    string
		environ []string
		args    []string
		want    []string // each is part of one line, in any order; and there are no more lines
	}{
		{"no command", nil, nil, []string{"expected one of", "--help"}},
		{"unknown command", nil, []string{"srve", "--echo"}, []string{"srve", "--help"}},
		{
			"flags", nil,
			[]string{"check-config", "--nope", "3", "--loops", "two", "extra", "--heartbeat-timeout=-1s", "--echo=perhaps", "--path"},
			[]string{"--nope", "--loops", "extra", "--heartbeat-timeout", "--echo", "--path: needs a value"},
		},
		{
			"values", nil,
			[]string{
				"check-config", "--heartbeat-mode=pong", "--json-heartbeats=on", "--log-format=xml", "--message-size-limit=1.5KiB", "--max-backpressure=3GiB",
				"--workers=-1", "--max-fragments=3000000000", "--handshake-timeout=0", "--reconnect-rate=0", "--heartbeat-interval=25", "--overload-load-factor=NaN",
			},
			[]string{
				"--heartbeat-mode", "--json-heartbeats", "--log-format", "--message-size-limit", "--max-backpressure", "--workers", "--max-fragments",
				"--handshake-timeout", "--reconnect-rate", "--heartbeat-interval", "--overload-load-factor",
			},
		},
		{
			"what the server says", nil,
			[]string{"check-config", "--path=ws", "--heartbeat-interval=1h", "--allowed-origins=example.com", "--loops=1000"},
			[]string{`path "ws"`, "heartbeat-timeout", "allowed-origins", "loops 1000"},
		},
		{
			"parser and server together", nil,
			[]string{"check-config", "--path=ws", "--workers=x"},
			[]string{`path "ws"`, "--workers"},
		},
		{
			"environment",
			[]string{"PULSEWHEEL_LOOPS=x", "PULSEWHEEL_NOPE=1", "PULSEWHEEL_loops=1", "PULSEWHEEL_HELP=1", "PULSEWHEEL_ECHO=", "OTHER=1"},
			[]string{"check-config"},
			[]string{"PULSEWHEEL_LOOPS", "PULSEWHEEL_NOPE", "PULSEWHEEL_loops", "PULSEWHEEL_HELP", "PULSEWHEEL_ECHO"},
		},
		{
			"file", nil,
			[]string{"check-config", "--config", file},
			[]string{
				file + ":1: loops", file + `:2: "heartbeat-intervall"`, file + ":4: echo", file + ":5: path", file + ":6: workers", file + ":7: config",
				file + ":8: max-fragments", file + ":9: listen", file + ":10: log-level",
			},
		},
		{"no file", nil, []string{"check-config", "--config", "/nowhere/pw.yaml"}, []string{"/nowhere/pw.yaml"}},
		{"not a file", nil, []string{"check-config", "--config", t.TempDir()}, []string{"directory"}},
		{"broken file", nil, []string{"check-config", "--config", broken}, []string{broken}},
		{"file of another kind", nil, []string{"check-config", "--config", list}, []string{list + ":1"}},
		{"two documents", nil, []string{"check-config", "--config", two}, []string{"more than one document"}},
		{"exposed", nil, []string{"check-config", "--admin-listen", ":8081"}, []string{"without a token"}},
		{"exposed with a bad token", nil, []string{"check-config", "--admin-listen", ":8081", "--admin-token-file", shortToken}, []string{"16 characters"}},
		{"no token file", nil, []string{"check-config", "--admin-token-file", "/nowhere/token"}, []string{"/nowhere/token"}},
		{"admin address", nil, []string{"check-config", "--admin-listen", "localhost"}, []string{"host:port"}},
		{"listen nowhere", nil, []string{"check-config", "--listen="}, []string{"at least one address"}},
		{"control characters", nil, []string{"check-config", "--node-name=a\nb", "--x\ny"}, []string{"--node-name", "--x y"}},
		{"options of version", nil, []string{"version", "--echo"}, []string{"--echo"}},
		{"strange arguments", nil, []string{"check-config", "-", "-é", "--=", "--"}, []string{"argument -", "flag -\ufffd", "flag --"}},
	}
	for _, test := range tests {
		for _, command := range []string{"check-config", "serve"} {
			t.Run(test.name+"/"+command, func(t *testing.T) {
				args := append([]string(nil), test.args...)
				if len(args) > 0 && args[0] == "check-config" {
					args[0] = command
				}
				code, stdout, stderr := call(test.environ, args...)
				if code != exitUsage || stdout != "" {
					t.Errorf("exit %d, stdout %q", code, stdout)
				}
				lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
				for _, want := range test.want {
					if !strings.Contains(stderr, want) {
						t.Errorf("nothing says %q", want)
					}
				}
				if len(lines) != len(test.want) {
					t.Errorf("%d lines, want %d:\n%s", len(lines), len(test.want), stderr)
				}
				for _, line := range lines {
					if !strings.HasPrefix(line, "pulsewheel: ") {
						t.Errorf("line %q doesn't say who speaks", line)
					}
				}
			})
		}
	}
}

// Kubernetes gives every pod such variables for a service called pulsewheel; they must not keep the server from starting.
func TestServiceLinksAreIgnored(t *testing.T) {
	environ := []string{
		"PULSEWHEEL_SERVICE_HOST=10.0.0.1", "PULSEWHEEL_SERVICE_PORT=80", "PULSEWHEEL_SERVICE_PORT_WS=80", "PULSEWHEEL_PORT=tcp://10.0.0.1:80",
		"PULSEWHEEL_PORT_80_TCP=tcp://10.0.0.1:80", "PULSEWHEEL_PORT_80_TCP_ADDR=10.0.0.1", "PULSEWHEEL_ADMIN_SERVICE_HOST=10.0.0.2", "PULSEWHEEL_ADMIN_PORT=tcp://10.0.0.2:81",
	}
	if code, _, stderr := call(environ, "check-config"); code != exitOK {
		t.Errorf("exit %d: %s", code, stderr)
	}
	for _, flag := range optionFlags(parse(process{args: []string{"serve"}}).model) {
		if suffix := strings.TrimPrefix(environName(flag.Name), environPrefix); isServiceLink(suffix) {
			t.Errorf("the variable of --%s looks like a service link", flag.Name)
		}
	}
}

// 0 is "none" on the command line; in Config that is a negative value, and a zero is the default.
func TestZeroMeansNone(t *testing.T) {
	in := parse(process{args: []string{
		"serve", "--heartbeat-timeout=0", "--message-size-limit=0", "--max-fragments=0", "--max-backpressure=0", "--control-rate-limit=0",
		"--inline-batch=0", "--socket-send-buffer=0", "--socket-receive-buffer=0", "--shutdown-timeout=0",
	}})
	if len(in.problems) > 0 {
		t.Fatal(in.problems)
	}
	cfg := in.options.serverConfig()
	for name, value := range map[string]int{
		"heartbeat-timeout": int(cfg.HeartbeatTimeout), "message-size-limit": cfg.MessageSizeLimit, "max-fragments": cfg.MaxFragments,
		"max-backpressure": cfg.MaxBackpressure, "control-rate-limit": cfg.ControlRateLimit, "inline-batch": cfg.InlineBatch,
		"socket-send-buffer": cfg.SocketSendBuffer, "socket-receive-buffer": cfg.SocketReceiveBuffer,
	} {
		if value >= 0 {
			t.Errorf("%s = %d, want a negative value", name, value)
		}
	}
	if cfg.ShutdownTimeout <= 0 || cfg.ShutdownTimeout > time.Millisecond {
		t.Errorf("shutdown-timeout = %v, want next to nothing", cfg.ShutdownTimeout)
	}
}

// changedFlags sets every option to another value than its default.
func changedFlags(t *testing.T) []string {
	t.Helper()
	return []string{
		"--listen=127.0.0.1:1", "--listen=unix:/tmp/a", "--path=/x", "--node-name=a: 'b' #c", "--echo", "--loops=3", "--workers=5", "--inline-batch=0",
		"--heartbeat-interval=90s", "--heartbeat-timeout=1h", "--heartbeat-mode=text", "--heartbeat-min=1s500ms", "--heartbeat-max=3m", "--json-heartbeats=off",
		"--handshake-timeout=1s", "--handshake-size-limit=1000", "--message-size-limit=1MiB", "--max-fragments=7", "--max-backpressure=0", "--control-rate-limit=1", "--message-rate-limit=2", "--compression",
		"--allowed-origins=https://a.example,https://*.b.example", "--connection-limit=100", "--connection-limit-per-ip=4", "--connection-rate-limit=6",
		"--socket-send-buffer=4KiB", "--socket-receive-buffer=4097", "--drain-delay=1s", "--drain-rate=9", "--reconnect-rate=11", "--shutdown-timeout=2m",
		"--admin-listen=[::1]:9", "--admin-token-file=" + writeFile(t, "token", "0123456789abcdef\n"), "--admin-hosts=a,b", "--stats-interval=0",
		"--overload-load-factor=0.5", "--memory-high=75.5%", "--log-format=json", "--log-level=error",
	}
}

// Every option that is about the server arrives in its Config, and none was forgotten in changedFlags.
func TestEveryOptionArrives(t *testing.T) {
	defaults := parse(process{args: []string{"serve"}})
	changed := parse(process{args: append([]string{"serve"}, changedFlags(t)...)})
	if len(changed.problems) > 0 {
		t.Fatal(changed.problems)
	}
	names := changedOptions(defaults, changed)
	if want := len(optionFlags(changed.model)) - 1; len(names) != want { // all but --config
		t.Errorf("%d options changed, want %d: %v", len(names), want, names)
	}
	before, after := reflect.ValueOf(defaults.options.serverConfig()), reflect.ValueOf(changed.options.serverConfig())
	for i := range before.NumField() {
		switch name := before.Type().Field(i).Name; name {
		case "Upgrade", "HandlerInline", "Logger", "TrustedOrigins": // not options
		default:
			if reflect.DeepEqual(before.Field(i).Interface(), after.Field(i).Interface()) {
				t.Errorf("no option reaches Config.%s", name)
			}
		}
	}
	if _, err := server.New(changed.options.serverConfig(), nil); err != nil {
		t.Error(err)
	}
}

// What check-config prints is a file that says the same.
func TestCheckConfigRoundTrip(t *testing.T) {
	tests := []struct {
		name string
		args []string
	}{
		{"defaults", nil},
		{"everything changed", changedFlags(t)},
		{"odd strings", []string{"--node-name=yes", "--admin-listen=", "--path=/~null"}},
		{"number as a string", []string{"--node-name=007"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, first, stderr := call(nil, append([]string{"check-config"}, test.args...)...)
			if code != exitOK || stderr != "" {
				t.Fatalf("exit %d: %s", code, stderr)
			}
			file := writeFile(t, "pw.yaml", first)
			code, second, stderr := call(nil, "check-config", "--config", file)
			if code != exitOK || second != first {
				t.Errorf("exit %d: %s\nfirst:\n%s\nsecond:\n%s", code, stderr, first, second)
			}
			direct := parse(process{args: append([]string{"serve"}, test.args...)})
			again := parse(process{args: []string{"serve", "--config", file}})
			again.options.Config = ""
			if direct.options.NodeName == "" {
				again.options.NodeName = "" // check-config prints the host's name
			}
			if names := changedOptions(direct, again); len(names) > 0 {
				t.Errorf("changed on the way: %v", names)
			}
		})
	}
}

func TestCheckConfigHidesTheToken(t *testing.T) {
	token := writeFile(t, "token", "very-secret-token-0123456789\n")
	code, stdout, stderr := call(nil, "check-config", "--admin-listen=:8081", "--admin-token-file="+token)
	if code != exitOK || strings.Contains(stdout+stderr, "very-secret") || !strings.Contains(stdout, token) {
		t.Errorf("exit %d, stdout %s, stderr %s", code, stdout, stderr)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := call(nil, "version")
	if code != exitOK || !strings.HasPrefix(stdout, "pulsewheel ") || !strings.Contains(stdout, "commit ") || !strings.Contains(stdout, "go1.") {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

func TestParseSize(t *testing.T) {
	tests := []struct {
		text string
		want size
		ok   bool
	}{
		{"0", 0, true},
		{"1", 1, true},
		{"512B", 512, true},
		{"64KiB", 64 << 10, true},
		{"64kib", 64 << 10, true},
		{"64K", 64 << 10, true},
		{"1MiB", 1 << 20, true},
		{"1m", 1 << 20, true},
		{"1GiB", 1 << 30, true},
		{"2147483647", sizeMax, true},
		{"2147483648", 0, false},
		{"2GiB", 0, false},
		{"99999999999999999999", 0, false},
		{"", 0, false},
		{"B", 0, false},
		{"KiB", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5MiB", 0, false},
		{"1 KiB", 0, false},
		{"1KB", 0, false},
		{"0x10", 0, false},
		{"1_000", 0, false},
	}
	for _, test := range tests {
		t.Run("name "+test.text, func(t *testing.T) {
			got, err := parseSize(test.text)
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("%q: %d, %v", test.text, got, err)
			}
			if err == nil {
				if back, err := parseSize(got.String()); back != got || err != nil {
					t.Errorf("%v printed and read: %d, %v", got, back, err)
				}
			}
		})
	}
}

func TestFormatDuration(t *testing.T) {
	tests := []struct {
		d    time.Duration
		want string
	}{
		{0, "0s"},
		{25 * time.Second, "25s"},
		{75 * time.Second, "1m15s"},
		{10 * time.Minute, "10m"},
		{time.Hour, "1h"},
		{time.Hour + time.Second, "1h0m1s"},
		{20 * time.Minute, "20m"},
		{20 * time.Hour, "20h"},
		{1500 * time.Millisecond, "1.5s"},
		{100 * time.Minute, "1h40m"},
	}
	for _, test := range tests {
		t.Run(test.want, func(t *testing.T) {
			if got := formatDuration(test.d); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
			if back, err := parseDuration(test.want); back != test.d || err != nil {
				t.Errorf("read back: %v, %v", back, err)
			}
		})
	}
}

// FuzzParse: no argument, variable or file makes the parser panic; it ends with a command or with problems, and a
// configuration that it prints is one that it takes.
func FuzzParse(f *testing.F) {
	f.Add("serve\x00--loops\x00x", "PULSEWHEEL_LOOPS=1", "loops: 1\n")
	f.Add("check-config\x00--listen=:1,:2\x00--echo", "PULSEWHEEL_PATH=/x\x00PULSEWHEEL_NOPE=", "listen: [a, b]\npath: /y\n")
	f.Add("check-config\x00--\x00-\x00-h\x00--=\x00-é", "PULSEWHEEL_=", "a: &a [*a]\n<<: {b: c}\n")
	f.Fuzz(func(t *testing.T, args, environ, file string) {
		path := filepath.Join(t.TempDir(), "pw.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		p := process{args: strings.Split(args, "\x00"), environ: strings.Split(environ, "\x00"), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
		p.environ = append(p.environ, "PULSEWHEEL_CONFIG="+path)
		in := parse(p)
		if !in.help && in.command == "" && len(in.problems) == 0 {
			t.Fatal("neither a command nor a problem")
		}
		if in.command != commandServe && in.command != commandCheckConfig || len(in.problems) > 0 {
			return
		}
		var out, errs bytes.Buffer
		p.stdout, p.stderr = &out, &errs
		if checkConfig(p, in) != exitOK {
			return
		}
		again := writeFile(t, "again.yaml", out.String())
		if code, second, stderr := call(nil, "check-config", "--config", again); code != exitOK || second != out.String() {
			t.Fatalf("exit %d: %s\n%s\n%s", code, stderr, out.String(), second)
		}
	})
}
