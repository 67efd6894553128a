package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The server that everything is compared with, the same in its second turn of each round, the one with a protocol of its
// own, and the program that loads them.
const (
	product    = "pulsewheel"
	again      = product + "-again"
	centrifuge = "centrifuge"
	harness    = "bench"
)

// server is one that takes part.
type server struct {
	name string
	// module is the library that the peer is about, to look up its version; empty for our own and for Node's.
	module string
	// silent ones have no echo.
	silent bool
	// expires: it ends connections that it doesn't hear, in the way that its authors show.
	expires bool
}

// servers lists them in the order of the table: what can be had at least, the product, the peers.
func servers() []server {
	return []server{
		{name: "floor-c"},
		{name: "floor"},
		{name: product, expires: true},
		{name: "gorilla", module: "github.com/gorilla/websocket", expires: true},
		{name: "gws", module: "github.com/lxzan/gws", expires: true},
		{name: "coder", module: "github.com/coder/websocket", expires: true},
		{name: "gobwas", module: "github.com/gobwas/ws", expires: true},
		{name: "gobwas-epoll", module: "github.com/gobwas/ws"},
		{name: centrifuge, module: "github.com/centrifugal/centrifuge", silent: true, expires: true}, // its messages are commands of its own protocol
		{name: "ws", expires: true},
	}
}

func serverNames() []string {
	var names []string
	for _, s := range servers() {
		names = append(names, s.name)
	}
	return names
}

// file is the program of a server, or what Node runs; likewise of the harness.
func (o options) file(name string) string {
	switch name {
	case harness, "floor-c", "floor", product:
		file := filepath.Join(o.bin, name)
		if filepath.IsAbs(file) {
			return file
		}
		return "." + string(filepath.Separator) + file // else a bare name would be looked up in PATH
	case "ws":
		return filepath.Join(o.node, "server.mjs")
	}
	return filepath.Join(o.bin, "peers", name)
}

// command is how the harness starts a server. No interval means no beats, but for the product: it keeps its default of
// 25 s, since beats are what it is for. No timeout means that silence is borne, but by the product: it expires at three
// intervals.
func (o options) command(name string, interval, timeout time.Duration) string {
	words := []string{o.file(name), "--listen", "{addr}"}
	switch name {
	case "ws":
		words = append([]string{"node"}, words...)
	case product:
		words = append([]string{words[0], "serve"}, append(words[1:], "--admin-listen=", "--echo")...)
		if timeout == 0 {
			timeout = 3 * interval
		}
	}
	if timeout > 0 {
		words = append(words, "--heartbeat-timeout", timeout.String())
	}
	if interval > 0 {
		words = append(words, "--heartbeat-interval", interval.String())
	}
	return strings.Join(words, " ")
}

// scenario is one run of `bench compare`.
type scenario struct {
	name     string
	args     []string      // of the harness' scenario, its name first
	interval time.Duration // at which the servers beat
	timeout  time.Duration // after which they give up who is silent; 0: only the product does
	timed    bool          // its measured span has the length that the caller asked for, an interval at least
	echo     bool          // it needs servers that echo
	steady   bool          // fewer rounds tell it: steadyRoundsMax
	atOnce   bool          // its servers are measured beside each other: it rests, and that takes long
	quick    bool          // it is part of the short form
}

const (
	// pacedRate is the messages a second of the scenarios that compare latencies.
	pacedRate = "10000"
	// steadyRoundsMax bounds the rounds of memory and of expiry, whose ranges are narrow beside the differences. The time is for
	// what CPU is measured in.
	steadyRoundsMax = 3
	// roundsMax and durationMost bound --rounds and --duration.
	roundsMax    = 100
	durationMost = time.Hour
)

// scenarios lists what is measured.
func scenarios() []scenario {
	list := []scenario{}
	for _, n := range []string{"100", "1000", "10000"} {
		list = append(list,
			// As fast as the answers come: how many, and at what cost.
			scenario{
				name: "echo-" + n, timed: true, echo: true, quick: n == "1000",
				args: []string{"echo", "--connections", n, "--settle", "500ms", "--syscalls"},
			},
			// At a rate that all of them bear, so that the latency is not that of the queue which a closed loop makes.
			scenario{
				name: "paced-" + n, timed: true, echo: true, quick: n == "1000",
				args: []string{"echo", "--connections", n, "--settle", "500ms", "--rate", pacedRate},
			},
		)
	}
	steps := []string{"--connections", "18000", "--steps", "2000,18000", "--duration", "100ms"}
	return append(list,
		scenario{
			name: "heartbeat-10000", interval: 2 * time.Second, timed: true,
			args: []string{"heartbeat", "--connections", "10000", "--interval", "2s", "--settle", "500ms", "--syscalls"},
		},
		scenario{
			name: "heartbeat-3000", interval: time.Second, timed: true, quick: true,
			args: []string{"heartbeat", "--connections", "3000", "--interval", "1s", "--settle", "500ms", "--syscalls"},
		},
		// The timeout is the one that all of them can have: ws gives up at the second beat in a row that finds no answer, centrifuge not
		// later, the product not sooner.
		scenario{
			name: "churn", steady: true, interval: time.Second, timeout: 2 * time.Second,
			args: []string{
				"churn", "--connections", "1000", "--interval", "1s", "--timeout", "2s", "--churn-rate", "12000", "--life", "2s",
				"--settle", "500ms", "--duration", "5s",
			},
		},
		scenario{name: "idle", steady: true, quick: true, args: append([]string{"idle", "--settle", "1s"}, steps...)},
		// Two beats on each connection before memory is sampled.
		scenario{name: "idle-beating-1s", steady: true, interval: time.Second, args: append([]string{"idle", "--settle", "2500ms"}, steps...)},
		scenario{
			name: "idle-echo-20s", steady: true, echo: true, atOnce: true,
			args: append([]string{"idle", "--settle", "1s", "--echo-once", "--echo-settle", "20s"}, steps...),
		},
		scenario{name: "storm", quick: true, args: []string{"storm", "--settle", "500ms"}},
	)
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return names
}

// quickNames are the scenarios of the short form.
func quickNames() []string {
	var names []string
	for _, s := range scenarios() {
		if s.quick {
			names = append(names, s.name)
		}
	}
	return names
}

// takes says whether a server can take part.
func (sc scenario) takes(s server) bool {
	return (!sc.echo || !s.silent) && (sc.timeout == 0 || s.expires)
}

// contestants lists who takes part, as NAME=COMMAND. The product comes first: the first is who takes part twice.
func (sc scenario) contestants(o options) []string {
	var list []string
	for _, s := range servers() {
		if !slices.Contains(o.servers, s.name) || !sc.takes(s) {
			continue
		}
		entry := s.name + "=" + o.command(s.name, sc.interval, sc.timeout)
		if s.name == product {
			list = slices.Insert(list, 0, entry)
			continue
		}
		list = append(list, entry)
	}
	return list
}

// calls lists the calls of the harness, by their arguments: one with all servers in rotation, or one for each.
func (sc scenario) calls(o options) [][]string {
	list := sc.contestants(o)
	if len(list) == 0 {
		return nil
	}
	control := strings.HasPrefix(list[0], product+"=")
	groups := []string{strings.Join(list, ",")}
	if sc.atOnce {
		groups = list
		if control {
			groups = append(groups, again+strings.TrimPrefix(list[0], product))
			control = false
		}
	}
	var calls [][]string
	for _, group := range groups {
		call := []string{"compare", "--rounds", strconv.Itoa(sc.rounds(o)), "--json", "-", "--figures", strings.Join(sc.figures(), ",")}
		if control {
			call = append(call, "--control")
		}
		calls = append(calls, append(append(call, "--servers", group), sc.arguments(o)...))
	}
	return calls
}

// figures are those of it that the table has.
func (sc scenario) figures() []string {
	var list []string
	for _, line := range rows() {
		if line.scenario == sc.name && !slices.Contains(list, line.figure) {
			list = append(list, line.figure)
		}
	}
	return list
}

func (sc scenario) rounds(o options) int {
	if sc.steady {
		return min(o.rounds, steadyRoundsMax)
	}
	return o.rounds
}

// arguments are those of the harness' scenario. A span shorter than the interval would have beats of some connections only.
func (sc scenario) arguments(o options) []string {
	if !sc.timed {
		return sc.args
	}
	return append(slices.Clone(sc.args), "--duration", max(o.duration, sc.interval).String())
}

// measure runs the chosen scenarios. Each one's figures are kept, and shown, before the next begins.
func measure(ctx context.Context, o options, r *results, stderr io.Writer) error {
	p := o.provenance()
	for _, sc := range scenarios() {
		if !slices.Contains(o.scenarios, sc.name) {
			continue
		}
		fmt.Fprintf(stderr, "== %s\n", sc.name)
		begun := time.Now()
		found, err := sc.measure(ctx, o, p, stderr)
		if err == nil {
			r.Scenarios[sc.name] = found
			err = errors.Join(r.save(filepath.Join(o.results, resultsFile)), r.show(o.results))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
		fmt.Fprintf(stderr, "== %s took %v\n", sc.name, time.Since(begun).Round(time.Second))
	}
	return nil
}

// measure runs one scenario. A server that did not pass the scenario's check has its figures, and the check's words
// under problems.
func (sc scenario) measure(ctx context.Context, o options, p provenance, stderr io.Writer) (outcome, error) {
	found := newOutcome(sc.rounds(o), p)
	calls := sc.calls(o)
	if len(calls) == 0 {
		return found, fmt.Errorf("%w: none of the chosen servers can take part", errUsage)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	progress := &shared{w: stderr}
	parts, errs := make([]outcome, len(calls)), make([]error, len(calls))
	var running sync.WaitGroup
	for i, call := range calls {
		found.Commands = append(found.Commands, shellLine(append([]string{o.file(harness)}, call...)))
		running.Go(func() {
			if parts[i], errs[i] = o.harness(ctx, call, progress); errs[i] != nil {
				cancel() // a part of the servers is no comparison
			}
		})
	}
	running.Wait()
	for _, part := range parts {
		found.join(part)
	}
	return found, firstCause(errs)
}

// firstCause is the error that isn't the cancelling of the others, if there is one.
func firstCause(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

// harness runs it to its end and reads what it found.
func (o options) harness(ctx context.Context, args []string, stderr io.Writer) (found outcome, err error) {
	command := exec.CommandContext(ctx, o.file(harness), args...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) } // it has a server to end
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, stderr
	ran := command.Run()
	if err := ctx.Err(); err != nil {
		return found, err
	}
	var exit *exec.ExitError
	if ran != nil && (!errors.As(ran, &exit) || out.Len() == 0) {
		return found, ran
	}
	return found, json.Unmarshal(out.Bytes(), &found)
}

// shared lets several processes write to one writer, as much at a time as each gives.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(text)
}

// shellLine quotes what a shell would split or expand.
func shellLine(words []string) string {
	var quoted []string
	for _, word := range words {
		if strings.ContainsAny(word, " {}*?$&;<>|()'\"") {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		quoted = append(quoted, word)
	}
	return strings.Join(quoted, " ")
}
