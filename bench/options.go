package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// spareDescriptors is what the process needs beside its connections: standard streams, the poller's, /proc, perf.
	spareDescriptors = 40
	// rateLeast and rateMost bound what happens on a plan, a second: below, nothing would for a quarter of an hour; above, the
	// gaps are less than the clock's grain.
	rateLeast, rateMost = 0.001, 1e9
	// spanMost bounds every length of time that is waited for.
	spanMost = 30 * 24 * time.Hour
	// factorMost bounds how many times a bound may be: what is beyond is none.
	factorMost = 1e6
)

// options are a scenario's flags, read and checked.
type options struct {
	// Of every scenario.
	target      target
	targetURL   string
	connections int
	duration    time.Duration
	rate        float64 // operations a second of the whole run; 0 as many as possible
	pid         int
	adminURL    string
	jsonFile    string
	syscalls    bool
	opening     int // connections being opened at one time
	openRate    float64
	openTimeout time.Duration
	settle      time.Duration
	processes   int // of the load, at least
	perProcess  int // connections of one process at most; 0: what descriptors allow
	sources     addressList
	index       int // of this process among those of the run; 0: the leader

	// Of idle.
	steps    stepList
	echoOnce bool
	// echoSettle is the rest between those echoes and the next sample.
	echoSettle time.Duration

	// Of heartbeat.
	mode           string
	interval       time.Duration
	askInterval    bool
	lateAfter      time.Duration
	clientInterval time.Duration

	// Of echo.
	size     int
	pipeline int
	text     bool

	// Of churn and hostile.
	guests  int // slots beside those of the connections; prepare knows how many
	timeout time.Duration
	slack   time.Duration

	// Of churn.
	churnRate float64 // a minute
	life      time.Duration

	// Of broadcast.
	broadcasts int
	every      time.Duration
	within     time.Duration

	// Of observed.
	cpuMost time.Duration // a second

	// Of hostile.
	echoing          bool // this process' connections do, and are not beaten
	standBack        bool // a process of attackers has a core only while no other wants it
	hostile          int
	hostileRate      float64 // arrivals a second; 0 at once
	kinds            kindList
	handshakeTimeout time.Duration
	again            time.Duration
	factor           float64
	atLeast          int // hostile peers that are to be there at any time once all have come
	pairs            int
}

// rule is one thing that flags must not be, and what to say then.
type rule struct {
	broken bool
	text   string
}

// parseOptions reads a scenario's flags. Every error it returns is of the caller's making.
func parseOptions(sc scenario, args []string, stderr io.Writer) (*options, error) {
	o := &options{opening: 256, openTimeout: 10 * time.Second, duration: 10 * time.Second, settle: 3 * time.Second, size: 128, pipeline: 1}
	sc.defaults(o)
	fs := flag.NewFlagSet("bench "+sc.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error becomes one line of ours
	fs.StringVar(&o.targetURL, "target", "", "the server's `URL`, ws://HOST:PORT/PATH")
	fs.IntVar(&o.connections, "connections", o.connections, "how many to open")
	fs.DurationVar(&o.duration, "duration", o.duration, durationMeaning(sc.name))
	fs.Float64Var(&o.rate, "rate", o.rate, rateMeaning(sc.name))
	fs.IntVar(&o.pid, "pid", 0, "process id of the server on this machine, for its memory and CPU")
	fs.StringVar(&o.adminURL, "admin", "", adminMeaning(sc.name))
	fs.StringVar(&o.jsonFile, "json", "", "writes the result as one JSON object to this `file`; - is standard output")
	fs.BoolVar(&o.syscalls, "syscalls", false, "counts the server's system calls with perf in a span of its own (needs --pid)")
	fs.IntVar(&o.opening, "opening", o.opening, "connections being opened at one time")
	fs.DurationVar(&o.openTimeout, "open-timeout", o.openTimeout, "a connection not upgraded after this has failed")
	fs.DurationVar(&o.settle, "settle", o.settle, "rest before memory is sampled or a span begins")
	fs.Var(&o.sources, "sources", "this host's `addresses` to connect from, comma-separated, in turn: one has too few ports for very many connections")
	fs.IntVar(&o.processes, "processes", 1, "client processes at least; there are as many as the descriptors of all connections need")
	fs.IntVar(&o.perProcess, "per-process", 0, "connections of one client process at most; 0: as many as its descriptor limit allows")
	sc.flags(fs, o)
	if err := parseFlags(fs, args, stderr); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%w: unexpected argument %q", errUsage, fs.Arg(0))
	}
	if err := o.check(sc); err != nil {
		return nil, err
	}
	t, err := parseTarget(o.targetURL, o.query())
	o.target = t
	o.target.sources = o.sources
	return o, err
}

// parseFlags reads args; asked for help it lists the flags.
func parseFlags(fs *flag.FlagSet, args []string, stderr io.Writer) error {
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stderr, "%s:\n", fs.Name())
		fs.SetOutput(stderr)
		fs.PrintDefaults()
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w (see %s --help)", errUsage, err, fs.Name())
	}
	return nil
}

// rateMeaning says what --rate counts in the scenario.
func rateMeaning(name string) string {
	switch name {
	case "echo":
		return "messages a second over all connections, latency from the intended time of sending; 0: a closed loop"
	case "hostile":
		return "messages a second over the healthy connections that echo, latency from the intended time of sending"
	}
	return "connections opened a second; 0: as many as possible"
}

// durationMeaning says what --duration is in the scenario.
func durationMeaning(name string) string {
	switch name {
	case "storm":
		return "how long all are held before they drop and reconnect"
	case "broadcast":
		return "length of the measured span; at least what its broadcasts take"
	}
	return "length of the measured span"
}

// adminMeaning says what --admin is for in the scenario.
func adminMeaning(name string) string {
	about := "the `URL` of the server's admin listener, http://HOST:PORT, for its own counts: they are compared with those of the harness"
	if name == "broadcast" {
		about += "; broadcasts are asked for there"
	}
	return about
}

// query is what the scenario asks of the server in the URL.
func (o *options) query() url.Values {
	q := url.Values{}
	if o.mode != "" {
		q.Set("heartbeat", o.mode)
	}
	if o.askInterval {
		q.Set("heartbeat_interval", o.interval.String())
	}
	return q
}

// check refuses what cannot be run, with the value in the message.
func (o *options) check(sc scenario) error {
	name := sc.name
	if name != "echo" && name != "hostile" {
		o.openRate = o.rate
	}
	if n := len(o.steps); n > 0 {
		o.connections = o.steps[n-1]
	}
	_, adminOK := adminBase(o.adminURL)
	rules := []rule{
		{!adminOK && o.adminURL != "", fmt.Sprintf("--admin %q is not http://HOST:PORT", o.adminURL)},
		{o.connections < 1, fmt.Sprintf("--connections %d is less than 1", o.connections)},
		durationRule(o.duration),
		rateRule("--rate", o.rate),
		{o.opening < 1 || o.opening > guestsMax, fmt.Sprintf("--opening %d is not between 1 and %d", o.opening, guestsMax)},
		spanRule("--open-timeout", o.openTimeout, 1, spanMost),
		{o.processes < 1 || o.processes > partsMax, fmt.Sprintf("--processes %d is not between 1 and %d", o.processes, partsMax)},
		{o.processes > o.connections, fmt.Sprintf("--processes %d are more than --connections %d", o.processes, o.connections)},
		{o.perProcess < 0, fmt.Sprintf("--per-process %d is negative", o.perProcess)},
		spanRule("--settle", o.settle, 0, spanMost),
		spanRule("--echo-settle", o.echoSettle, 0, spanMost),
		spanRule("--late-after", o.lateAfter, 0, spanMost),
		{o.syscalls && o.pid == 0, "--syscalls needs --pid"},
		{o.pid < 0, fmt.Sprintf("--pid %d is no process id", o.pid)},
		{o.size < 0 || o.size > sizeMax, fmt.Sprintf("--size %d is not between 0 and %d", o.size, sizeMax)},
		{o.pipeline < 1 || o.pipeline > pipelineMax, fmt.Sprintf("--pipeline %d is not between 1 and %d", o.pipeline, pipelineMax)},
		{o.pipeline > 1 && o.rate > 0 && name == "echo", "--pipeline belongs to the closed loop: leave out --rate"},
		{o.mode != "" && o.mode != "ping" && o.mode != "text", fmt.Sprintf("--mode %q is neither ping nor text", o.mode)},
		spanRule("--client-interval", o.clientInterval, 0, spanMost),
	}
	if sc.prepare != nil {
		rules = append(rules, sc.prepare(o)...)
	}
	return broken(rules)
}

// broken is the first rule that does not hold, as an error; nil: all do.
func broken(rules []rule) error {
	for _, r := range rules {
		if r.broken {
			return fmt.Errorf("%w: %s", errUsage, r.text)
		}
	}
	return nil
}

// rateRule takes a number of things a second, or 0 for as many as possible. Not-a-number is in no range.
func rateRule(name string, rate float64) rule {
	return rule{rate != 0 && !(rate >= rateLeast && rate <= rateMost), fmt.Sprintf("%s %v is neither 0 nor between %v and %v", name, rate, rateLeast, rateMost)}
}

// spanRule takes a length of time from least to most.
func spanRule(name string, d, least, most time.Duration) rule {
	return rule{d < least || d > most, fmt.Sprintf("%s %v is not between %v and %v", name, d, least, most)}
}

func durationRule(d time.Duration) rule { return spanRule("--duration", d, 1, spanMost) }

// intervalRule takes the interval of a server whose beats are watched.
func intervalRule(d time.Duration) rule { return spanRule("--interval", d, time.Millisecond, spanMost) }

// roundsMax bounds --rounds.
const roundsMax = 1000

// roundsRule takes how often those that are compared have their turns.
func roundsRule(n int) rule {
	return rule{n < 1 || n > roundsMax, fmt.Sprintf("--rounds %d is not between 1 and %d", n, roundsMax)}
}

// addressList is a flag of IP addresses, comma-separated.
type addressList []netip.Addr

func (l *addressList) String() string {
	var parts []string
	for _, a := range *l {
		parts = append(parts, a.String())
	}
	return strings.Join(parts, ",")
}

func (l *addressList) Set(text string) error {
	*l = nil
	for part := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return fmt.Errorf("%q is no IP address", part)
		}
		*l = append(*l, a)
	}
	return nil
}

// stepList is a flag of rising numbers, comma-separated.
type stepList []int

func (s *stepList) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(*s)), " ", ","), "[]")
}

func (s *stepList) Set(text string) error {
	*s = nil
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || (len(*s) > 0 && n <= (*s)[len(*s)-1]) {
			return errors.New("not a rising list such as 2000,18000")
		}
		*s = append(*s, n)
	}
	return nil
}
