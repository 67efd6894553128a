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
	"time"
)

// The server that everything is compared with, the same in its second turn of each round, the one that can't take every part,
// and the program that loads them.
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
}

// servers lists them in the order of the table: what can be had at least, the product, the peers.
func servers() []server {
	return []server{
		{name: "floor-c"},
		{name: "floor"},
		{name: product},
		{name: "gorilla", module: "github.com/gorilla/websocket"},
		{name: "gws", module: "github.com/lxzan/gws"},
		{name: "coder", module: "github.com/coder/websocket"},
		{name: "gobwas", module: "github.com/gobwas/ws"},
		{name: "gobwas-epoll", module: "github.com/gobwas/ws"},
		{name: centrifuge, module: "github.com/centrifugal/centrifuge"},
		{name: "ws"},
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
		return "." + string(filepath.Separator) + filepath.Join(o.bin, name) // else a bare name would be looked up in PATH
	case "ws":
		return filepath.Join(o.node, "server.mjs")
	}
	return filepath.Join(o.bin, "peers", name)
}

// command is how the harness starts a server. No interval means no beats, but for the product: it keeps its default of
// 25 s, since beats are what it is for.
func (o options) command(name string, interval time.Duration) string {
	words := []string{o.file(name), "--listen", "{addr}"}
	switch name {
	case "ws":
		words = append([]string{"node"}, words...)
	case product:
		words = append([]string{words[0], "serve"}, append(words[1:], "--admin-listen=", "--echo")...)
		if interval > 0 {
			words = append(words, "--heartbeat-timeout", (3 * interval).String())
		}
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
	timed    bool          // its measured span has the length that the caller asked for
	echo     bool          // it needs servers that echo
	quick    bool          // it is part of the short form
}

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
		scenario{name: "idle", quick: true, args: append([]string{"idle", "--settle", "1s"}, steps...)},
		// Two beats on each connection before memory is sampled.
		scenario{name: "idle-beating", interval: 2 * time.Second, args: append([]string{"idle", "--settle", "5s"}, steps...)},
		scenario{name: "idle-echo", echo: true, args: append([]string{"idle", "--settle", "1s", "--echo-once", "--echo-settle", "6s"}, steps...)},
		scenario{name: "storm", quick: true, args: []string{"storm", "--settle", "500ms"}},
	)
}

// pacedRate is the messages a second of the scenarios that compare latencies.
const pacedRate = "10000"

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

// contestants is the list of servers for `bench compare --servers`.
func (sc scenario) contestants(o options) string {
	var list []string
	for _, name := range o.servers {
		if sc.echo && name == centrifuge {
			continue // its messages are commands of its own protocol
		}
		entry := name + "=" + o.command(name, sc.interval)
		if name == product { // who is first takes part twice
			list = slices.Insert(list, 0, entry)
			continue
		}
		list = append(list, entry)
	}
	return strings.Join(list, ",")
}

// measure runs the chosen scenarios and keeps each one's figures before the next begins.
func measure(ctx context.Context, o options, r *results, stderr io.Writer) error {
	for _, sc := range scenarios() {
		if !slices.Contains(o.scenarios, sc.name) {
			continue
		}
		fmt.Fprintf(stderr, "== %s\n", sc.name)
		found, err := sc.measure(ctx, o, stderr)
		if err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
		r.take(sc.name, found)
		r.Machine = thisMachine()
		r.takeVersions(o)
		if err := r.save(filepath.Join(o.results, resultsFile)); err != nil {
			return err
		}
	}
	return nil
}

// measure runs one comparison. A server that did not pass the scenario's check has its figures, and the check's words
// under problems.
func (sc scenario) measure(ctx context.Context, o options, stderr io.Writer) (outcome, error) {
	list := sc.contestants(o)
	if list == "" {
		return outcome{}, fmt.Errorf("%w: none of the chosen servers can take part", errUsage)
	}
	args := sc.args
	if sc.timed {
		args = append(slices.Clone(args), "--duration", o.duration.String())
	}
	comparing := []string{"compare", "--rounds", strconv.Itoa(o.rounds), "--json", "-", "--servers", list}
	if slices.Contains(o.servers, product) {
		comparing = append(comparing, "--control")
	}
	command := exec.CommandContext(ctx, o.file(harness), append(comparing, args...)...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) } // it has a server to end
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, stderr
	ran := command.Run()
	var exit *exec.ExitError
	if ran != nil && (!errors.As(ran, &exit) || out.Len() == 0) {
		return outcome{}, ran
	}
	found := outcome{Rounds: o.rounds, Args: args}
	return found, json.Unmarshal(out.Bytes(), &found)
}
