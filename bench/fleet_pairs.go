package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// grow starts one pair after the other, each when the one before has all its connections, so that two processes at a time
// are busy. The next server starts beforehand: its size without connections is taken when it has come to rest.
func (f *fleet) grow(ctx context.Context) error {
	from := time.Now()
	next, err := f.startPair(ctx, 0)
	for i := 0; next != nil && err == nil; i++ {
		p := next
		if next, err = f.startPair(ctx, i+1); err != nil {
			return err
		}
		if p.empty.resident, p.empty.anonymous, err = p.process.memory(); err != nil {
			return err
		}
		if err := f.crew.hire(f.clientCommand(i, p)...); err != nil {
			return err
		}
		most := meetWithin
		if f.o.rate > 0 {
			most += time.Duration(float64(f.shares[i]) / f.o.rate * float64(time.Second))
		}
		opened := func() bool { return f.crew.hands[i].last.Point == "opened" }
		if err := f.watch(ctx, most, opened, func() { f.show("opening", f.held, f.o.connections) }); err != nil {
			return err
		}
		if !opened() {
			return fmt.Errorf("%w %d did not open its connections within %v", errCrew, i+1, most)
		}
		f.held += f.shares[i]
	}
	f.opening = time.Since(from)
	return err
}

// startPair starts the server of pair i; nil if there is none, or no memory for it.
func (f *fleet) startPair(ctx context.Context, i int) (*pair, error) {
	if i == len(f.shares) || f.stopped != "" {
		return nil, nil
	}
	available, err := memoryAvailable()
	if err != nil {
		return nil, err
	}
	// The pair before this one may still be growing.
	need := 2*int64(f.shares[i])*2*connectionKiB<<10 + pairKiB<<10
	if available-need < int64(f.o.reserve) {
		f.stopped = fmt.Sprintf("memory: %d MiB are available, a further pair of processes needs %d, and %s are left alone (--memory-reserve)",
			available>>20, need>>20, f.o.reserve.String())
		return nil, nil
	}
	p, err := f.startServer(ctx)
	if err != nil {
		return nil, fmt.Errorf("server %d: %w", i+1, err)
	}
	f.pairs = append(f.pairs, p)
	return p, nil
}

// startServer starts a server that has no client yet.
func (f *fleet) startServer(ctx context.Context) (*pair, error) {
	server, err := startServer(ctx, f.command)
	if err != nil {
		return nil, err
	}
	p := &pair{server: server, process: process{pid: server.cmd.Process.Pid}}
	audit, note, err := newAudit("http://" + server.admin)
	if err != nil {
		_ = server.end() // the counters that it did not tell are the error
		return nil, err
	}
	if audit == nil {
		f.report.note("%s", note)
	}
	p.audit = audit
	return p, nil
}

// servers are all that run: those of the pairs, and the one without connections.
func (f *fleet) servers() []*pair {
	if f.control == nil {
		return nil
	}
	return append(slices.Clone(f.pairs), f.control)
}

// clientCommand is how pair i's client is started.
func (f *fleet) clientCommand(i int, p *pair) []string {
	return []string{
		f.self, handCommand, "0", "heartbeat", "--target", "ws://" + p.server.address + "/ws",
		"--connections", strconv.Itoa(f.shares[i]), "--rate", strconv.FormatFloat(f.o.rate, 'f', -1, 64),
		"--interval", f.o.interval.String(), "--late-after", f.o.lateAfter.String(),
		"--settle", f.o.settle.String(), "--duration", f.o.duration.String(), "--admin", "http://" + p.server.admin,
	}
}

// show is how far a stage is.
func (f *fleet) show(stage string, have, want int) {
	f.bar.show(int64(time.Since(f.base)), stage, have, want)
}

// await waits until all clients stand at a point, which is to take so long.
func (f *fleet) await(ctx context.Context, stage, point string, length time.Duration) error {
	from := time.Now()
	show := func() { f.show(stage, int(time.Since(from).Milliseconds()), int(length.Milliseconds())) }
	if err := f.watch(ctx, length+meetWithin, func() bool { return f.crew.at(point) }, show); err != nil {
		return err
	}
	return f.crew.missing(point, length+meetWithin)
}

// watch waits for something to come about, for so long at most, and looks after everything meanwhile.
func (f *fleet) watch(ctx context.Context, most time.Duration, done func() bool, show func()) error {
	patience := time.NewTimer(most)
	defer patience.Stop()
	ticker := time.NewTicker(fleetLook)
	defer ticker.Stop()
	for !done() {
		select {
		case a := <-f.crew.news:
			if err := f.crew.hear(a); err != nil {
				return err
			}
		case <-ticker.C:
			show()
			if err := f.lookAfter(); err != nil {
				return err
			}
		case <-patience.C:
			return nil // what is missing is the caller's to say
		case <-ctx.Done():
			return errInterrupted
		}
	}
	return nil
}

// lookAfter ends a run in which a server has ended, or which takes the memory that was to be left alone.
func (f *fleet) lookAfter() error {
	for i, p := range f.servers() {
		if p.server.ended() {
			return fmt.Errorf("%w %d (process %d) ended midway: %s", errServer, i+1, p.process.pid, lastLine(p.server.output.String()))
		}
	}
	available, err := memoryAvailable()
	if err != nil {
		return err
	}
	if available < int64(f.o.reserve)/2 {
		return fmt.Errorf("%w: memory ran short at %d connections: %d MiB are available, %s were to be left alone (--memory-reserve)",
			errServer, f.held, available>>20, f.o.reserve.String())
	}
	return nil
}

// usage reads the CPU account of all servers, and the time.
func (f *fleet) usage(of func(*pair) *usage) (time.Time, error) {
	at := time.Now()
	for _, p := range f.pairs {
		u, err := p.process.usage()
		if err != nil {
			return at, err
		}
		*of(p) = u
	}
	return at, nil
}

// weigh reads the memory of all processes, and of the machine.
func (f *fleet) weigh() (err error) {
	if f.availableHeld, err = memoryAvailable(); err != nil {
		return err
	}
	for _, p := range f.servers() {
		if p.full.resident, p.full.anonymous, err = p.process.memory(); err != nil {
			return err
		}
	}
	for i, p := range f.pairs {
		client := process{pid: f.crew.hands[i].cmd.Process.Pid}
		if p.client, _, err = client.memory(); err != nil {
			return err
		}
	}
	return nil
}

// ask asks the servers how many connections they have expired, and hold.
func (f *fleet) ask() error {
	for i, p := range f.pairs {
		s, err := newAdmin("http://" + p.server.admin).stats()
		if err != nil {
			return fmt.Errorf("server %d: %w", i+1, err)
		}
		f.expired += s.Expired
		f.active += s.Active
	}
	return nil
}

// auditCounters compares each server's counters with what its client did.
func (f *fleet) auditCounters() error {
	compared := 0
	for i, p := range f.pairs {
		if p.audit == nil {
			continue
		}
		var client struct{ Traffic traffic }
		if err := json.Unmarshal(f.crew.hands[i].last.Found, &client); err != nil {
			return fmt.Errorf("%w %d: %w", errCrew, i+1, err)
		}
		if err := p.audit.compare(&client.Traffic); err != nil {
			return fmt.Errorf("server %d: %w", i+1, err)
		}
		compared += p.audit.compared
		for _, problem := range p.audit.problems {
			f.report.require(false, "server %d: %s", i+1, problem)
		}
	}
	f.report.add("counters_compared", float64(compared))
	return nil
}

// fill adds everything up and judges it.
func (f *fleet) fill(length time.Duration) error {
	all := found[heartbeatFound]{
		Tally: tally{Failures: map[string]int{}, Losses: map[string]int{}}, Traffic: newTraffic(),
		Own: heartbeatFound{Counts: beatCounts{Bins: make([]int, int64(f.o.duration)/binWidth), Lateness: newHistogram()}, RTT: newHistogram()},
	}
	if err := gathered(f.crew, &all); err != nil {
		return err
	}
	if err := f.auditCounters(); err != nil {
		return err
	}
	expired, active := f.expired, f.active
	o, r, t, counts := f.o, f.report, &all.Tally, &all.Own.Counts
	sp := span{to: int64(length), client: all.Client}
	var empty, full memory // of servers without connections, as old as these; of these
	var begun, clients int64
	for _, p := range f.pairs {
		begun += p.empty.resident
		empty.resident += f.control.full.resident
		empty.anonymous += f.control.full.anonymous
		full.resident += p.full.resident
		full.anonymous += p.full.anonymous
		clients += p.client
		sp.serverCPU += p.before.cpu(p.after)
		sp.serverUser += p.after.user - p.before.user
	}
	r.Connections, r.Failed, r.Lost, r.Failures, r.Losses = t.Opened, t.Failed, t.Lost, t.Failures, t.Losses
	r.DurationSeconds = length.Seconds()
	r.Server = &serverFigures{RSSBytes: full.resident, CPUSeconds: sp.serverCPU.Seconds(), UserSeconds: sp.serverUser.Seconds()}
	each := func(bytes int64) float64 { return float64(bytes) / float64(max(t.Active, 1)) }
	r.add("servers", float64(len(f.pairs)))
	r.add("held", float64(t.Active))
	r.comment("held", "(at the end; the servers count %d)", active)
	r.add("opens_per_second", float64(t.Opened)/f.opening.Seconds())
	r.comment("opens_per_second", "(one pair of processes after the other, their start included)")
	r.add("bytes_per_connection", each(full.resident-empty.resident))
	r.comment("bytes_per_connection", "(of the servers, resident, above one of the same age without connections, %.1f MiB each)", mebibytes(f.control.full.resident))
	r.add("bytes_per_connection_since_start", each(full.resident-begun))
	r.comment("bytes_per_connection_since_start", "(above what each had before its first connection, %.1f MiB)", mebibytes(begun)/float64(len(f.pairs)))
	r.add("anonymous_bytes_per_connection", each(full.anonymous-empty.anonymous))
	r.add("client_bytes_per_connection", each(clients))
	r.add("machine_bytes_per_connection", each(f.available-f.availableHeld))
	r.comment("machine_bytes_per_connection", "(of the machine's available memory: kernel, servers and clients)")
	counts.fill(r, &options{lateAfter: o.lateAfter, interval: o.interval}, float64(t.Active)*length.Seconds()/o.interval.Seconds(), length.Seconds())
	r.add("cpu_us_per_beat", sp.serverCPU.Seconds()*1e6/float64(max(counts.Beats, 1)))
	r.add("server_cores", sp.serverCores())
	r.comment("server_cores", "(of all servers)")
	r.add("client_cores", sp.clientCores())
	r.add("client_late_p99_us", sp.client.late99())
	r.add("expired_falsely", float64(expired))
	r.comment("expired_falsely", "(by the servers' own count: everybody answers)")
	f.judge(t, counts, sp, expired, each(full.resident-empty.resident))
	return nil
}

// judge says what does not hold.
func (f *fleet) judge(t *tally, counts *beatCounts, sp span, expired int, bytesEach float64) {
	o, r := f.o, f.report
	s := session{report: r}
	p99 := 0.0
	if r.LatencyUs != nil {
		p99 = r.LatencyUs.P99
	}
	if late := sp.client.late99(); late >= float64(o.lateAfter.Microseconds()) {
		r.note("the machine was busy: clients were up to %s late themselves (p99), and so were the servers; a Pulsewheel that is behind time stretches its intervals",
			us(late))
	}
	s.withholdFor(sp, dependents{what: "beats", latencies: timedBeats(p99, o.lateAfter)})
	r.require(f.stopped == "", "%d connections were asked for, %d are what this machine holds; %s", o.connections, f.held, f.stopped)
	r.require(t.Failed == 0, "%d connections could not be opened%s", t.Failed, mostly(t.Failures))
	r.require(t.Lost == 0, "%d connections were lost%s", t.Lost, mostly(t.Losses))
	r.require(expired == 0, "%d connections were expired though they answered", expired)
	r.require(counts.Beats > 0, "no beat in %v at an interval of %v", o.duration, o.interval)
	r.require(counts.Missed == 0, "%d beats were missed%s", counts.Missed, sp.client.excuse(o.interval))
	r.require(o.bytesMost == 0 || bytesEach <= o.bytesMost, "the servers' memory rose by %.0f bytes a connection, more than %.0f", bytesEach, o.bytesMost)
}
