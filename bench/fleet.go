package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// A fleet holds more connections on one machine than one process may have descriptors: pairs of a server process and a client
// process, each with its share. The clients are hands that run the scenario heartbeat; the leader holds no connection, starts
// one pair after the other, and adds up.

const (
	fleetCommand = "fleet"
	fleetAbout   = "many servers and clients on one machine, to hold a total beyond one process' descriptors"
	// pairDescriptors is what the leader needs for a pair: those of a hand, and for the server two pipes and what tells of its end.
	pairDescriptors = handDescriptors + 3
	// pairKiB is what a server process and a client process take before they have a connection.
	pairKiB = 40 << 10
	// fleetLook is how often a waiting leader looks after memory and servers.
	fleetLook = 250 * time.Millisecond
	// serverSource is where the source of the server's program is, seen from the project's root folder.
	serverSource = "./cmd/pulsewheel"
)

// fleetOptions are its flags, read and checked.
type fleetOptions struct {
	server      string
	serverArgs  string
	connections int
	perProcess  int
	interval    time.Duration
	timeout     time.Duration
	duration    time.Duration
	lateAfter   time.Duration
	settle      time.Duration
	rate        float64
	reserve     byteSize
	bytesMost   float64
	jsonFile    string
}

// byteSize is a flag such as 512MiB.
type byteSize int64

func (b *byteSize) String() string { return fmt.Sprintf("%dMiB", int64(*b)>>20) }

func (b *byteSize) Set(text string) error {
	for unit, shift := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		var n int64
		var err error
		if number, ok := strings.CutSuffix(text, unit); ok {
			if n, err = strconv.ParseInt(number, 10, 64); err != nil || n < 0 || n > 1<<20 {
				break
			}
			*b = byteSize(n << shift)
			return nil
		}
	}
	return errors.New("not a size such as 512MiB or 2GiB")
}

func parseFleet(args []string, stderr io.Writer) (*fleetOptions, error) {
	o := &fleetOptions{reserve: 1 << 30}
	fs := flag.NewFlagSet("bench "+fleetCommand, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error becomes one line of ours
	fs.StringVar(&o.server, "server", "", "`program` of the server; without it that of this project is built, or found in PATH")
	fs.StringVar(&o.serverArgs, "server-args", "", "further options for it, split at blanks")
	fs.IntVar(&o.connections, "connections", 200_000, "how many to hold, over all servers")
	fs.IntVar(&o.perProcess, "per-process", 0, "connections of one server at most; 0: what the descriptor limit allows")
	fs.DurationVar(&o.interval, "interval", time.Minute, "the servers' heartbeat interval; their timeout is three times it")
	fs.DurationVar(&o.duration, "duration", 2*time.Minute, "how long all are held and measured")
	fs.DurationVar(&o.lateAfter, "late-after", 100*time.Millisecond, "a beat this much behind the interval is late")
	fs.DurationVar(&o.settle, "settle", 3*time.Second, "rest between the first beats and the measured span")
	fs.Float64Var(&o.rate, "rate", 0, "connections opened a second; 0: as many as possible")
	fs.Var(&o.reserve, "memory-reserve", "available memory below which the fleet stops growing")
	fs.Float64Var(&o.bytesMost, "bytes-most", 0, "the check fails if the servers' memory rises by more `bytes` a connection than this; 0: any")
	fs.StringVar(&o.jsonFile, "json", "", "writes the result as one JSON object to this `file`; - is standard output")
	if err := parseFlags(fs, args, stderr); err != nil {
		return nil, err
	}
	o.timeout = 3 * o.interval
	rules := []rule{
		{fs.NArg() > 0, fmt.Sprintf("unexpected argument %q", fs.Arg(0))},
		{o.connections < 1, fmt.Sprintf("--connections %d is less than 1", o.connections)},
		{o.perProcess < 0, fmt.Sprintf("--per-process %d is negative", o.perProcess)},
		spanRule("--interval", o.interval, 10*time.Millisecond, spanMost),
		durationRule(o.duration),
		spanRule("--settle", o.settle, 0, spanMost),
		spanRule("--late-after", o.lateAfter, 0, spanMost),
		rateRule("--rate", o.rate),
		{!(o.bytesMost >= 0 && o.bytesMost <= factorMost), fmt.Sprintf("--bytes-most %v is not between 0 and %v", o.bytesMost, factorMost)},
	}
	return o, broken(rules)
}

// fleet is a run. Everything of it belongs to the goroutine of run.
type fleet struct {
	o       *fleetOptions
	command []string // of a server
	self    string   // this program
	shares  []int    // connections of each pair
	pairs   []*pair
	control *pair // a server without connections, as old as the others: what they grow by with time alone is not the connections'
	crew    *crew // the clients, in the order of pairs
	report  *report
	bar     *progress
	base    time.Time
	stopped string // why it has fewer connections than it was to have; empty: it doesn't

	available, availableHeld int64 // memory of the machine, before the first pair and with all connections
	held                     int   // connections
	expired, active          int   // as the servers count
	opening                  time.Duration
}

// pair is a server and, as a hand of the crew with the same index, its client.
type pair struct {
	server        *runningServer
	process       process
	audit         *audit // nil: it has no counters to compare
	empty, full   memory
	before, after usage
	client        int64 // resident memory of the client process
}

type memory struct{ resident, anonymous int64 }

// runFleet is the subcommand.
func runFleet(args []string, stdout, stderr io.Writer) error {
	o, err := parseFleet(args, stderr)
	if err == nil {
		err = checkWritable(o.jsonFile)
	}
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	f := &fleet{o: o, bar: newProgress(stderr), base: time.Now(), report: &report{Scenario: fleetCommand}}
	if f.self, err = os.Executable(); err != nil {
		return err
	}
	if err := f.share(); err != nil {
		return err
	}
	program, remove, err := findServer(ctx, o.server)
	if err != nil {
		return err
	}
	defer remove()
	f.command = append([]string{
		program, "serve", "--listen", "{addr}", "--admin-listen", "{admin}", "--stats-interval", "0",
		"--heartbeat-interval", o.interval.String(), "--heartbeat-timeout", o.timeout.String(),
	}, strings.Fields(o.serverArgs)...)
	f.report.Target = fmt.Sprintf("%d x %s", len(f.shares), strings.Join(f.command, " "))
	f.crew = newCrew(len(f.shares), func() {}) // nobody sleeps in a poller here
	defer f.end()
	err = f.run(ctx)
	f.bar.done()
	switch {
	case err != nil && ctx.Err() != nil:
		return errInterrupted
	case errors.Is(err, errProcessGone): // the watch over the servers knows what it said
		return errors.Join(f.lookAfter(), err)
	case err != nil:
		return err
	}
	return f.report.publish(o.jsonFile, stdout)
}

// serverSpare is what a server on so many cores needs of its descriptor limit beside connections: its reserve (server.DescriptorReserve), which
// counts four descriptors for each of its loops, one to two cores, and as much again for what the harness asks of its admin listener.
func serverSpare(cores int) int { return 128 + 4*max(1, cores/2) }

// share divides the connections among as few pairs as descriptors allow.
func (f *fleet) share() error {
	most, err := (&options{perProcess: f.o.perProcess}).most()
	if err != nil {
		return err
	}
	if f.o.perProcess == 0 {
		most -= serverSpare(runtime.GOMAXPROCS(0)) - spareDescriptors // a server needs more beside its connections than a client
	}
	if most < 1 {
		return fmt.Errorf("%w: the descriptor limit leaves no room for connections: raise it (ulimit -n)", errUsage)
	}
	n := ceilDiv(f.o.connections, most)
	if n > partsMax {
		return fmt.Errorf("%w: %d connections with %d a process are more than %d pairs: raise the descriptor limit (ulimit -n) or lower --connections",
			errUsage, f.o.connections, most, partsMax)
	}
	limit, err := poller.DescriptorLimit()
	if err != nil {
		return err
	}
	if need := uint64(spareDescriptors + (n+1)*pairDescriptors); need > limit {
		return fmt.Errorf("%w: %d pairs of processes need %d descriptors in this one, its limit is %d: raise it (ulimit -n) or lower --connections",
			errUsage, n, need, limit)
	}
	for i := range n {
		f.shares = append(f.shares, portion(f.o.connections, i, n))
	}
	return nil
}

// findServer is the program to start; remove clears away what was built for it.
func findServer(ctx context.Context, named string) (program string, remove func(), err error) {
	remove = func() {}
	if named != "" {
		program, err = exec.LookPath(named)
		if err != nil {
			return "", remove, fmt.Errorf("%w: --server: %w", errUsage, err)
		}
		return program, remove, nil
	}
	if _, err := os.Stat(serverSource); err != nil {
		if program, err = exec.LookPath("pulsewheel"); err != nil {
			return "", remove, fmt.Errorf("%w: no server: name one with --server, or run this in the project's root folder", errUsage)
		}
		return program, remove, nil
	}
	dir, err := os.MkdirTemp("", "bench-fleet-")
	if err != nil {
		return "", remove, err
	}
	remove = func() { _ = os.RemoveAll(dir) } // a leftover in the temporary folder is no reason to fail
	program = filepath.Join(dir, "pulsewheel")
	if out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, serverSource).CombinedOutput(); err != nil {
		remove()
		return "", func() {}, fmt.Errorf("%w: go build %s: %s", errUsage, serverSource, lastLine(string(out)))
	}
	return program, remove, nil
}

// run is the script. Whatever it started is the caller's to end.
func (f *fleet) run(ctx context.Context) error {
	var err error
	if f.available, err = memoryAvailable(); err != nil {
		return err
	}
	if f.control, err = f.startServer(ctx); err != nil {
		return fmt.Errorf("server without connections: %w", err)
	}
	if err := f.grow(ctx); err != nil {
		return err
	}
	if len(f.pairs) == 0 {
		return fmt.Errorf("%w: not one pair: %s", errUsage, f.stopped)
	}
	if err := f.crew.release("opened"); err != nil {
		return err
	}
	if err := f.await(ctx, "first beats", "begin", f.o.interval+f.o.settle); err != nil {
		return err
	}
	begun, err := f.usage(func(p *pair) *usage { return &p.before })
	if err != nil {
		return err
	}
	if err := f.crew.release("begin"); err != nil {
		return err
	}
	if err := f.await(ctx, "holding", "end", f.o.duration); err != nil {
		return err
	}
	ended, err := f.usage(func(p *pair) *usage { return &p.after })
	if err != nil {
		return err
	}
	if err := f.weigh(); err != nil {
		return err
	}
	if err := f.ask(); err != nil { // before the clients say goodbye
		return err
	}
	if err := f.crew.release("end"); err != nil {
		return err
	}
	if err := f.await(ctx, "collecting", foundPoint, drainFor); err != nil {
		return err
	}
	return f.fill(ended.Sub(begun))
}

// end ends the clients and then the servers, all of them that were started.
func (f *fleet) end() {
	f.bar.show(int64(time.Since(f.base)), "ending", 1, 1)
	f.crew.end()
	ended := make(chan struct{})
	for _, p := range f.servers() {
		go func() {
			_ = p.server.end() // one that did not end has been killed
			ended <- struct{}{}
		}()
	}
	for range f.servers() {
		<-ended
	}
	f.bar.done()
}
