package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// repeatsMost bounds how often a server's turn is taken again.
const repeatsMost = 2

// againSuffix is added to the name of the first server when it takes part a second time.
const againSuffix = "-again"

// contestant is one server of a comparison.
type contestant struct {
	name    string
	command []string // {addr} and {port} stand for where to listen
}

// contestantStart finds where one NAME=COMMAND of a list begins: commas occur in commands too.
var contestantStart = regexp.MustCompile(`(?:^|,)\s*([A-Za-z0-9_.+-]+)=`)

// parseContestants reads "NAME=COMMAND,NAME=COMMAND". A command is split at blanks; there is no shell.
func parseContestants(text string) ([]contestant, error) {
	var list []contestant
	seen := map[string]bool{}
	at := contestantStart.FindAllStringSubmatchIndex(text, -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		c := contestant{name: text[m[2]:m[3]], command: strings.Fields(text[m[1]:end])}
		if len(c.command) == 0 || seen[c.name] {
			return nil, fmt.Errorf("%w: --servers: %q is empty or named twice", errUsage, c.name)
		}
		if !strings.Contains(strings.Join(c.command, " "), "{addr}") && !strings.Contains(strings.Join(c.command, " "), "{port}") {
			return nil, fmt.Errorf("%w: --servers: the command of %q says neither {addr} nor {port}", errUsage, c.name)
		}
		seen[c.name] = true
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: --servers wants \"NAME=COMMAND,NAME=COMMAND\" with {addr} in each command", errUsage)
	}
	return list, nil
}

// comparison runs one scenario against several servers in rotation.
type comparison struct {
	servers  []contestant
	rounds   int
	path     string
	scenario scenario
	args     []string // of the scenario
	figures  []string // that are wanted; nil: all
	self     string   // this program
	dir      string   // for the results of single runs
	stderr   io.Writer
	results  *results
}

// compare is the subcommand: A B C, A B C, … then medians and ranges.
func compare(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("bench compare", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error becomes one line of ours
	servers := fs.String("servers", "", "`NAME=COMMAND,...`; {addr} in a command is replaced by 127.0.0.1:PORT, {port} by PORT")
	rounds := fs.Int("rounds", 5, "how often each server has its turn")
	control := fs.Bool("control", false, "the first server takes part a second time: a difference counts only beyond what its two turns differ by")
	path := fs.String("path", "/ws", "path of the servers' endpoint")
	jsonFile := fs.String("json", "", "writes all figures as one JSON object to this `file`; - is standard output")
	figures := fs.String("figures", "", "`names` of the figures that are wanted, comma-separated: only for these is a turn taken again; empty: for any")
	if err := parseFlags(fs, args, stderr); err != nil {
		return err
	}
	list, err := parseContestants(*servers)
	if err != nil {
		return err
	}
	if err := broken([]rule{
		roundsRule(*rounds),
		{!strings.HasPrefix(*path, "/"), fmt.Sprintf("--path %q does not begin with /", *path)},
		{fs.NArg() == 0, "bench compare --servers … [--rounds N] [--path /ws] SCENARIO [flags]: the scenario is missing"},
	}); err != nil {
		return err
	}
	sc, err := scenarioNamed(fs.Arg(0))
	if err != nil {
		return err
	}
	if *control {
		list = append(list, contestant{name: list[0].name + againSuffix, command: list[0].command})
	}
	c := &comparison{servers: list, rounds: *rounds, path: *path, scenario: sc, args: fs.Args()[1:], stderr: stderr}
	if *figures != "" {
		c.figures = strings.Split(*figures, ",")
	}
	c.results = newResults(sc.name, list)
	c.results.control = *control
	if err := errors.Join(c.checkArgs(), checkWritable(*jsonFile)); err != nil {
		return err
	}
	if err := c.runAll(); err != nil {
		return err
	}
	return c.results.publish(*jsonFile, stdout)
}

// checkArgs tries the scenario's flags before anything is started, and refuses those that are the comparison's to set.
func (c *comparison) checkArgs() error {
	for _, a := range c.args {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if strings.HasPrefix(a, "-") && (name == "target" || name == "pid" || name == "json") {
			return fmt.Errorf("%w: --%s is set by compare for each server", errUsage, name)
		}
	}
	o, err := parseOptions(c.scenario, c.scenarioArgs("ws://127.0.0.1:1"+c.path, os.Getpid(), "-"), c.stderr)
	if err != nil {
		return err
	}
	c.results.paced = o.rate > 0
	return nil
}

func (c *comparison) scenarioArgs(url string, pid int, file string) []string {
	return append([]string{"--target", url, "--pid", strconv.Itoa(pid), "--json", file}, c.args...)
}

// runAll runs the rotation. A run whose check does not hold is reported at the end; one that cannot begin ends it.
func (c *comparison) runAll() (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if c.self, err = os.Executable(); err != nil {
		return err
	}
	if c.dir, err = os.MkdirTemp("", "bench-compare-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir) //nolint:errcheck // a leftover in the temporary folder is no reason to fail
	for round := range c.rounds {
		for _, i := range turnsOf(round, len(c.servers)) {
			fmt.Fprintf(c.stderr, "round %d of %d: %s\n", round+1, c.rounds, c.servers[i].name)
			if err := c.turn(ctx, i); err != nil {
				return fmt.Errorf("%s: %w", c.servers[i].name, err)
			}
		}
	}
	return nil
}

// turnsOf is the order of a round: each begins with another server, and every second one goes backwards. What a server leaves behind
// for the next one, in the kernel above all, then befalls none of them in every round.
func turnsOf(round, servers int) []int {
	order := make([]int, servers)
	for i := range order {
		order[i] = (round + i) % servers
	}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// turn is one server's part of a round. A run of which the client was the limit is repeated: a moment's trouble of the machine in one
// round would leave the figure without any. What the client is the limit of by its nature is withheld in the end.
func (c *comparison) turn(ctx context.Context, i int) error {
	for repeat := 0; ; repeat++ {
		text, err := c.runOne(ctx, i)
		if err != nil {
			return err
		}
		var run struct {
			Withheld []string `json:"withheld"`
		}
		if err := json.Unmarshal(text, &run); err != nil {
			return err
		}
		missed := slices.DeleteFunc(run.Withheld, func(key string) bool { return !c.wants(key) })
		if len(missed) == 0 || repeat == repeatsMost {
			return c.results.take(i, text)
		}
		fmt.Fprintf(c.stderr, "  again, %s: the client was the limit of %s\n", c.servers[i].name, strings.Join(missed, ", "))
		c.results.repeats[i]++
	}
}

// wants says whether a figure that a run withholds is one of those wanted, or has one of them in it: a latency is withheld whole.
func (c *comparison) wants(withheld string) bool {
	return c.figures == nil || slices.ContainsFunc(c.figures, func(key string) bool {
		return key == withheld || strings.HasPrefix(key, withheld+"_")
	})
}

// runOne starts a server, has a fresh process of this program run the scenario, ends the server and returns the JSON object.
func (c *comparison) runOne(ctx context.Context, i int) (text []byte, err error) {
	server, err := startServer(ctx, c.servers[i].command)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	file := filepath.Join(c.dir, "result.json")
	args := c.scenarioArgs("ws://"+server.address+c.path, server.cmd.Process.Pid, file)
	load := exec.CommandContext(ctx, c.self, append([]string{c.scenario.name}, args...)...)
	var complaint bytes.Buffer
	load.Stderr = &complaint
	ran := load.Run()
	if ctx.Err() != nil {
		return nil, errInterrupted
	}
	var exit *exec.ExitError
	if ran != nil && (!errors.As(ran, &exit) || exit.ExitCode() != exitFailed) {
		return nil, fmt.Errorf("%w (%w)", errors.New(lastLine(complaint.String())), ran)
	}
	if text, err = os.ReadFile(file); err != nil {
		return nil, errors.New(lastLine(complaint.String()))
	}
	return text, os.Remove(file)
}

// lastLine is the last line of what a process said: by convention its reason to end.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
