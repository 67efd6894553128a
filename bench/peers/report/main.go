// Command report runs the product, the floors and the peers through the scenarios of the load harness, in rotation, and
// writes what came out: results.json with every figure of every round, results.md with one table of medians and ranges,
// and charts.png.
//
// All three are brought up to date after every scenario, so that a run which fails midway leaves what it had. A run of some
// scenarios leaves the figures of the others where they are, with the machine and the versions that they come from. With --run=false only table and charts are written anew. Run it in the project's root folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	resultsFile = "results.json"
	tableFile   = "results.md"
	chartsFile  = "charts.png"

	resultsFolder = "bench/results"
	quickFolder   = "bin/results"
)

var errUsage = errors.New("wrong call")

// options are the command line.
type options struct {
	bin       string
	node      string
	results   string
	rounds    int
	duration  time.Duration
	scenarios []string
	servers   []string
	run       bool
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := dispatch(ctx, os.Args[1:], os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "report: %v\n", err)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "report: %v\n", err)
		os.Exit(1)
	}
}

// parseOptions reads the command line. Every error it returns is of the caller's making.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var scenarioList, serverList string
	fs := flag.NewFlagSet("report", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.bin, "bin", "bin", "`folder` of pulsewheel, bench, floor and floor-c, with the peers in its folder peers")
	fs.StringVar(&o.node, "node", "bench/peers/ws", "`folder` of the peer in JavaScript")
	fs.StringVar(&o.results, "results", "", "`folder` to write to: "+resultsFolder+", or with --quick "+quickFolder)
	fs.IntVar(&o.rounds, "rounds", 5, fmt.Sprintf("how often each server has its turn in a scenario; in those of memory and expiry at most %d times", steadyRoundsMax))
	quick := fs.Bool("quick", false, "the short form: one round of a second each of "+strings.Join(quickNames(), ",")+", to see that all of it runs")
	fs.DurationVar(&o.duration, "duration", time.Second, "length of the measured spans of echo and heartbeat, of the latter an interval at least")
	fs.StringVar(&scenarioList, "scenarios", "", "only these of `"+strings.Join(scenarioNames(), ",")+"`")
	fs.StringVar(&serverList, "servers", "", "only these of `"+strings.Join(serverNames(), ",")+"`")
	fs.BoolVar(&o.run, "run", true, "measure; otherwise only write table and charts from "+resultsFile)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("%w: unexpected argument %q", errUsage, fs.Arg(0))
	case o.rounds < 1 || o.rounds > roundsMax:
		return o, fmt.Errorf("%w: --rounds %d is not between 1 and %d", errUsage, o.rounds, roundsMax)
	case o.duration <= 0 || o.duration > durationMost:
		return o, fmt.Errorf("%w: --duration %v is not between 0 and %v", errUsage, o.duration, durationMost)
	}
	if o.results == "" {
		o.results = resultsFolder
		if *quick { // its figures are not worth keeping
			o.results = quickFolder
		}
	}
	if *quick {
		o.rounds, o.duration = 1, time.Second
		if scenarioList == "" {
			scenarioList = strings.Join(quickNames(), ",")
		}
	}
	var err error
	if o.scenarios, err = choose("--scenarios", scenarioList, scenarioNames()); err != nil {
		return o, err
	}
	o.servers, err = choose("--servers", serverList, serverNames())
	return o, err
}

// choose reads a list of names, in the order of all; an empty list means all.
func choose(option, list string, all []string) ([]string, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	for _, name := range wanted {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("%w: %s: there is no %q, only %s", errUsage, option, name, strings.Join(all, ","))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !slices.Contains(wanted, name) }), nil
}

func dispatch(ctx context.Context, args []string, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	r, err := loadResults(filepath.Join(o.results, resultsFile))
	if err != nil {
		return err
	}
	if o.run {
		return measure(ctx, o, r, stderr)
	}
	if len(r.Scenarios) == 0 {
		return fmt.Errorf("%w: %s has no results yet", errUsage, o.results)
	}
	return r.show(o.results)
}

// show writes the table and the charts.
func (r *results) show(folder string) error {
	if err := os.WriteFile(filepath.Join(folder, tableFile), []byte(r.markdown()), 0o644); err != nil {
		return err
	}
	return r.charts(filepath.Join(folder, chartsFile))
}
