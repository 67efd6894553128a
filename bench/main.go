package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// Exit codes: the check held, it did not, the call was wrong or the target out of reach.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

var (
	// errCheck marks a scenario that ran and whose own check does not hold.
	errCheck = errors.New("check failed")
	// errUsage marks a wrong call or a target out of reach: nothing was measured.
	errUsage = errors.New("wrong call")
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program without the process: its arguments, its two streams, its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	err := dispatch(args, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "bench: %s\n", oneLine(err))
		return exitUsage
	default:
		fmt.Fprintf(stderr, "bench: %s\n", oneLine(err))
		return exitFailed
	}
}

// oneLine keeps a joined error on the one line that a script looks at.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func dispatch(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		printUsage(stderr)
		return fmt.Errorf("%w: no scenario named", errUsage)
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		printUsage(stdout)
		return nil
	case "compare":
		return compare(args[1:], stdout, stderr)
	case commitsCommand:
		return runCommits(args[1:], stdout, stderr)
	case fleetCommand:
		return runFleet(args[1:], stdout, stderr)
	case handCommand:
		return runHand(args[1:], stdout, stderr)
	}
	sc, err := scenarioNamed(args[0])
	if err != nil {
		return err
	}
	opts, err := parseOptions(sc, args[1:], stderr)
	if err != nil {
		return err
	}
	return runScenario(sc, opts, args[1:], stdout, stderr)
}

// printUsage lists what there is to run.
func printUsage(w io.Writer) {
	fmt.Fprint(w, "usage: bench SCENARIO --target ws://HOST:PORT/PATH [flags]\n"+
		"       bench fleet [flags]\n"+
		"       bench compare --servers \"NAME=COMMAND,...\" SCENARIO [flags]\n"+
		"       bench commits [flags] OLD [NEW]\n\nscenarios:\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, sc := range scenarios() {
		fmt.Fprintf(table, "  %s\t%s\n", sc.name, sc.about)
	}
	fmt.Fprintf(table, "  %s\t%s\n", fleetCommand, fleetAbout)
	_ = table.Flush() // the same stream as above: nobody is left to tell
	fmt.Fprint(w, "\n`bench SCENARIO --help` lists a scenario's flags.\n")
}

// scenario is one thing to measure.
type scenario struct {
	name  string
	about string
	// defaults fills what the scenario does unless told otherwise, before the flags are read.
	defaults func(*options)
	// flags registers what only this scenario understands.
	flags func(*flag.FlagSet, *options)
	// prepare derives what follows from the flags, and returns what is wrong with them; nil: nothing of its own.
	prepare func(*options) []rule
	// split divides it among processes that hold at most so many connections each; nil: evenly.
	split func(sc scenario, o *options, most int) ([]*options, error)
	// run drives the client and fills the report.
	run func(*session) error
}

// scenarios lists them in the order in which the documentation does.
func scenarios() []scenario {
	return []scenario{
		{
			name: "idle", about: "opens, holds, answers pings: memory and CPU of connections that say nothing",
			defaults: idleDefaults, flags: idleFlags, run: runIdle,
		},
		{
			name: "heartbeat", about: "beats of the server (and of the client): how many, how even, how late, at what cost",
			defaults: heartbeatDefaults, flags: heartbeatFlags, prepare: prepareHeartbeat, run: runHeartbeat,
		},
		{
			name: "echo", about: "messages there and back, as fast as they return or at a fixed rate",
			defaults: echoDefaults, flags: echoFlags, run: runEcho,
		},
		{
			name: "storm", about: "as many upgrades as possible, then all drop and reconnect at once",
			defaults: stormDefaults, flags: stormFlags, run: runStorm,
		},
		{
			name: "churn", about: "holds connections while others come, live a random time and vanish: by FIN, by RST, silently",
			defaults: churnDefaults, flags: churnFlags, prepare: prepareChurn, run: runChurn,
		},
		{
			name: "hostile", about: "halves, drips, floods and readers that don't read, beside healthy connections that must not notice",
			defaults: hostileDefaults, flags: hostileFlags, prepare: prepareHostile, split: splitHostile, run: runHostile,
		},
		{
			name: "broadcast", about: "one message to all, through the admin listener: until the last has it, and what becomes of the beats",
			defaults: broadcastDefaults, flags: broadcastFlags, prepare: prepareBroadcast, run: runBroadcast,
		},
		{
			name: "observed", about: "beats while the server is scraped, its live page open, its connections listed: what that costs it",
			defaults: observedDefaults, flags: observedFlags, prepare: prepareObserved, run: runObserved,
		},
	}
}

func scenarioNamed(name string) (scenario, error) {
	for _, sc := range scenarios() {
		if sc.name == name {
			return sc, nil
		}
	}
	return scenario{}, fmt.Errorf("%w: no scenario is called %q (see bench help)", errUsage, name)
}
