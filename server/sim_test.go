package server

import (
	"errors"
	"flag"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// TestSim runs whole lives of a loop with a simulated kernel, clock, pools, peers and application, one for each seed, and checks
// them against what was promised. A failure prints its seed; -seed N runs that one alone and prints what happened in it.

var (
	simSeed  = flag.Uint64("seed", 0, "replay one seed of TestSim")
	simSeeds = flag.Int("seeds", 0, "how many seeds TestSim runs (default 6000; with the race detector 400)")
)

// simConfig is what a seed decides before anything runs.
type simConfig struct {
	seed        uint64
	verbose     bool
	inline      bool // the handler never blocks
	unix        bool
	inlineBatch int
	mode        HeartbeatMode

	interval, timeout, handshake time.Duration
	nap                          time.Duration // of a handler, at most
	idle                         time.Duration // some peers come this much later: the loop has had nothing to do for long
	slack                        time.Duration // that an expiry may take longer in this world

	backpressure, messageMax    int
	inMax, outMax, bufferBytes  int
	decoderWorkers, decoderRoom int
	handlerWorkers, handlerRoom int

	// Of 1000.
	saturation, bustle, lag, lateTicks, dawdling, panicking, stalls, watches, aborts int

	drains, cuts bool // the server is shut down, and in the end by force
	judges       bool // Config.Upgrade is set
	limit        int
	perAddress   int
	crowd        int // peers
	meddling     int // times that the application does something of its own accord
	descriptors  int
	messageRate  int
	stingy       int
	compression  bool
}

// simControlRate is Config.ControlRateLimit.
const simControlRate = 20

// simLag is how often, of 1000, time passes although others could run; in some worlds it is far more.
const simLag = 20

// newSimConfig draws a world. Most of them have most of the troubles, none has all.
func newSimConfig(seed uint64, r *rand.Rand) simConfig {
	maybe := func(of100, least, most int) int {
		if r.IntN(100) >= of100 {
			return 0
		}
		return least + r.IntN(most-least+1)
	}
	c := simConfig{
		seed: seed, inline: r.IntN(2) == 0, unix: r.IntN(4) == 0, mode: []HeartbeatMode{HeartbeatPing, HeartbeatPing, HeartbeatText, HeartbeatNone}[r.IntN(4)],
		inlineBatch:  []int{-1, -1, 1, 8}[r.IntN(4)],
		interval:     time.Duration(300+r.IntN(500)) * time.Millisecond,
		handshake:    time.Duration(300+r.IntN(700)) * time.Millisecond,
		backpressure: []int{-1, 2048, 4096, 16 << 10, 64 << 10}[r.IntN(5)], messageMax: []int{200, 2000, 8000}[r.IntN(3)],
		inMax: 60 + r.IntN([]int{500, 20_000, 150_000}[r.IntN(3)]), outMax: 60 + r.IntN([]int{500, 20_000}[r.IntN(2)]), bufferBytes: 1024 << r.IntN(5),
		decoderWorkers: 1 + r.IntN(3), decoderRoom: 1 + r.IntN(4),
		handlerWorkers: 1 + r.IntN(4), handlerRoom: 1 + r.IntN(8),
		saturation: maybe(40, 100, 700), bustle: r.IntN(600), lag: simLag + maybe(30, 100, 800),
		watches: maybe(10, 20, 200), aborts: maybe(10, 20, 300), lateTicks: maybe(30, 20, 500), dawdling: maybe(50, 10, 300),
		panicking: maybe(20, 5, 50), stalls: maybe(20, 1, 20),
		drains: r.IntN(6) == 0, cuts: r.IntN(2) == 0, judges: r.IntN(3) == 0,
		limit: maybe(20, 2, 8), perAddress: maybe(10, 2, 5), crowd: 1 + r.IntN(12), meddling: r.IntN(40),
		descriptors: maybe(15, 2, 6), stingy: maybe(50, 10, 90),
	}
	c.messageRate = maybe(15, 200, 2000)
	c.timeout = 2*c.interval + time.Duration(300+r.IntN(1500))*time.Millisecond
	c.idle = time.Duration(maybe(20, 1, 30)) * time.Minute
	c.compression = r.IntN(3) == 0
	c.nap = 300 * time.Millisecond
	if r.IntN(3) == 0 {
		c.nap, c.dawdling = 2*c.timeout, c.dawdling/5
	}
	if c.inlineBatch < c.crowd {
		c.slack = 5 * tick // a loan that waits for a decoder can't be looked at by the loop
		if c.saturation > 0 {
			c.slack = 40 * tick
		}
	}
	return c
}

// newSimWorld builds the server of a seed by hand, as New and start do.
func newSimWorld(seed uint64, verbose bool) (*simWorld, error) {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	w := &simWorld{simConfig: newSimConfig(seed, r), rand: r, byConn: make(map[Conn]*simPeer), words: make(map[uint32]word)}
	w.verbose = verbose
	cfg := Config{
		HandlerInline: w.inline, InlineBatch: w.inlineBatch, HeartbeatInterval: w.interval, HeartbeatTimeout: w.timeout, HeartbeatMode: w.mode,
		HandshakeTimeout: w.handshake, HandshakeSizeLimit: 1024, MessageSizeLimit: w.messageMax, MaxBackpressure: w.backpressure,
		MaxFragments: -1, ControlRateLimit: simControlRate, MessageRateLimit: w.messageRate, ConnectionLimit: 1000, ConnectionLimitPerIP: w.perAddress,
		Compression: w.compression, Loops: 1, NodeName: "sim", Logger: slog.New(slog.DiscardHandler),
	}
	if w.limit > 0 {
		cfg.ConnectionLimit = w.limit
	}
	if w.judges {
		cfg.Upgrade = w.upgrade
	}
	s, err := New(cfg, simApp{w})
	if err != nil {
		return nil, err
	}
	k := newSimKernel(r)
	k.point, k.pass, k.spoil, k.watches, k.aborts = w.point, w.pass, 100, w.watches, w.aborts
	if w.descriptors > 0 {
		k.fdsMax = w.descriptors
	}
	w.kernel, w.server = k, s
	s.began = time.Unix(0, 0)
	s.clock = func() time.Time { return s.began.Add(k.clock) }
	s.decoderCount, s.decoders, s.handlers = w.decoderWorkers, &simDecoders{w}, &simHandlers{w}
	s.senders.New = func() any { return &runner{server: s, kind: countBatchesLoop, public: &s.elsewhere} }
	l := newLoop(s, 0, k)
	l.ids = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	l.runner.buf = l.runner.buf[:w.bufferBytes]
	s.loops, w.loop = []*loop{l}, l
	for range w.decoderWorkers {
		x := newRunner(s, countBatchesPool)
		x.buf = x.buf[:w.bufferBytes]
		s.workers = append(s.workers, x)
	}
	w.workers = make([]bool, w.decoderWorkers)
	w.port = k.listenPort()
	w.port.stingy = w.stingy
	if err := l.listen(w.port, w.unix); err != nil {
		return nil, err
	}
	s.state.Store(stateServing)
	close(s.started)
	w.invite()
	return w, nil
}

// invite puts the peers, the application's own doings and the shutdown on the agenda.
func (w *simWorld) invite() {
	for id := range w.crowd {
		p := &simPeer{w: w, id: id, kind: simKind(w.rand.IntN(int(simKinds)))}
		if w.chance(300) {
			p.kind = simKind(w.rand.IntN(int(simSilent))) // more of the good ones
		}
		if !w.unix {
			p.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(w.rand.IntN(3))}), uint16(1000+id))
			if w.chance(300) {
				p.from = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(id)}), uint16(1000+id))
			}
		}
		p.manners()
		w.peers = append(w.peers, p)
		late := time.Duration(w.rand.IntN(2)) * w.idle
		w.after(late+w.between(0, w.timeout), p.name()+" connects", p.connect)
	}
	for range w.meddling {
		late := time.Duration(w.rand.IntN(2)) * w.idle
		w.after(late+w.between(0, 3*w.timeout), "the application meddles", func() { w.spawn("application", w.meddle) })
	}
	if w.drains {
		w.after(w.idle+w.between(w.timeout/2, 3*w.timeout), "shutdown", func() {
			w.server.closing.Store(true)
			w.loop.post(task{kind: taskDo, do: func(l *loop) { l.startDrain(20) }})
			if w.cuts {
				w.after(w.between(0, time.Second), "shutdown by force", func() { w.cutting = true })
			}
		})
	}
}

// simTurnsMax is more than any seed needs: a loop that takes more spins.
const simTurnsMax = 200_000

// live runs the world until everybody is gone.
func (w *simWorld) live() {
	l := w.loop
	l.owner.take()
	l.clock.start(w.kernel.now())
	for turns := 0; ; turns++ {
		err := l.turn()
		w.checkTurn()
		switch {
		case len(w.faults) > 0:
			return
		case w.done():
			return
		case errors.Is(err, errSimEnded):
			w.fault("nothing will ever happen again, and not all is done")
			return
		case err != nil:
			w.fault("turn: %v", err)
			return
		case turns > simTurnsMax:
			w.fault("the loop spins")
			return
		}
	}
}

// done says whether all connections are gone and nobody has anything left to do.
func (w *simWorld) done() bool {
	if len(w.agenda)+len(w.actors)+len(w.batches)+len(w.waiting)+len(w.loop.parked)+w.loop.table.used > 0 || w.kernel.ready() {
		return false
	}
	for _, p := range w.peers {
		if p.sock == nil || !p.sock.closed {
			return false
		}
	}
	return true
}

// checkTurn checks what holds after every turn.
func (w *simWorld) checkTurn() {
	l := w.loop
	w.faults = append(w.faults, w.kernel.faults...)
	w.kernel.faults = nil
	for slot := range l.table.slots.Load() {
		r := l.table.at(slot)
		word := r.load()
		if w.verbose && w.words[slot] != word {
			w.words[slot] = word
			w.note("slot %d: word %#x, phase %d, descriptor %d, heard %d ms of %d", slot, uint64(word), r.phase(), r.fd, r.heard.Load(), l.now.ms)
		}
		if r.fd >= 0 && word&bitLinger != 0 {
			w.checkClosing(slot, r, w.kernel.sockets[r.fd])
		}
		if r.fd < 0 || word&bitHeld != 0 {
			continue
		}
		if _, armed := l.wheel.Deadline(slot); !armed {
			w.fault("slot %d, word %#x, phase %d: no timer is armed", slot, uint64(word), r.phase())
		}
		if word&bitSend != 0 && word&bitBlocked == 0 || word&bitsInput != 0 && word&(bitStopped|bitBusy) == 0 || word&bitClose != 0 {
			w.fault("slot %d, word %#x: work that nobody does", slot, uint64(word))
		}
		unsent, have := int(r.unsent.Load()), 0
		if s := l.sides.of(slot, r); s != nil {
			have = len(s.pending) + len(s.sending) - s.sent
		}
		if unsent != have {
			w.fault("slot %d: %d bytes unsent are counted, %d are there", slot, unsent, have)
		}
		most := max(w.backpressure, w.messageMax+16) + loanMessagesMax*(wsframe.ControlBytesMax+4) + 512
		if w.backpressure > 0 && unsent > most {
			w.fault("slot %d: %d bytes unsent, at most %d may be", slot, unsent, most)
		}
		w.checkSocket(slot, word, unsent, w.kernel.sockets[r.fd])
	}
}

// checkClosing checks that a closing goes on when the socket tells something, or in the next turn.
func (w *simWorld) checkClosing(slot uint32, r *record, s *simSocket) {
	if !s.added || s.edge || slices.Contains(w.loop.lingering, slot) {
		return
	}
	if r.phase() == phaseDrain && (len(s.in) > 0 || s.fin || s.reset) {
		w.fault("slot %d: %d bytes, end %v, reset %v in the socket of a closing connection, and nobody will look", slot, len(s.in), s.fin, s.reset)
	}
	if r.phase() == phaseFlush && !s.wantsRoom {
		w.fault("slot %d: %d bytes of a closing connection are unsent, and nobody will write", slot, r.unsent.Load())
	}
}

// checkSocket checks that what waits in the socket of a free connection, or for it, will be told by an edge or is remembered.
func (w *simWorld) checkSocket(slot uint32, word word, unsent int, s *simSocket) {
	if !s.added || s.edge {
		return
	}
	if waits := len(s.in) > 0 || s.fin || s.reset; waits && word&bitsInput == 0 {
		w.fault("slot %d, word %#x: %d bytes, end %v, reset %v in the socket, and nobody will look", slot, uint64(word), len(s.in), s.fin, s.reset)
	}
	if unsent > 0 && (word&bitBlocked == 0 || !s.wantsRoom) {
		w.fault("slot %d, word %#x: %d bytes unsent, and nobody will write", slot, uint64(word), unsent)
	}
}

// checkEnd checks what must be left when everybody is gone: nothing.
func (w *simWorld) checkEnd() {
	l, s, k := w.loop, w.server, w.kernel
	w.over = true
	zero := func(what string, n int) {
		if n != 0 {
			w.fault("%d %s are left over", n, what)
		}
	}
	zero("timers", l.wheel.Len())
	zero("slots", l.table.used)
	zero("admissions", int(s.taken.Load()))
	zero("addresses", len(s.admission.addresses))
	zero("addresses in the handshake", len(s.admission.knocking))
	zero("counted handshakes", int(s.handshaking.Load()))
	zero("active connections", int(l.active.Load()))
	zero("handshakes", int(l.handshakes.Load()))
	zero("loans in the ring", len(l.ring))
	zero("ready loans", len(l.ready))
	zero("lingering connections", len(l.lingering))
	zero("slowed loans", len(l.slowed))
	zero("parked deliveries", len(l.parked))
	zero("tasks", len(l.tasks)+len(l.posted))
	zero("shares of heartbeats", int(l.budget.shares[0]))
	zero("descriptors", k.opened-k.closed)
	for i := range l.sides.shards {
		shard := &l.sides.shards[i]
		zero("sides", len(shard.items)-len(shard.free))
	}
	for slot := range l.table.slots.Load() {
		zero("bits of a free slot", int(l.table.at(slot).load()<<generationShift>>generationShift))
		zero("unsent bytes of a free slot", int(l.table.at(slot).unsent.Load()))
	}
	opened, codes := 0, make(map[uint16]int)
	for _, p := range w.peers {
		p.judge()
		if p.opened {
			opened++
			codes[p.code]++
		}
	}
	w.checkStats(opened, codes)
}

// checkStats compares the server's counters with what the peers and the application saw.
func (w *simWorld) checkStats(opened int, codes map[uint16]int) {
	st := w.server.Stats()
	equal := func(what string, got, want uint64) {
		if got != want {
			w.fault("Stats: %s is %d, want %d", what, got, want)
		}
	}
	closed, rejected := uint64(0), uint64(0)
	for _, n := range st.Closed {
		closed += n
	}
	for _, n := range st.Rejected {
		rejected += n
	}
	shed, health := uint64(w.port.shed), w.loop.runner.public.totals[countRejected+count(rejectHealth)].Load()
	for _, x := range w.server.workers {
		health += x.public.totals[countRejected+count(rejectHealth)].Load()
	}
	equal("Total", st.Total, uint64(opened))
	equal("the sum of Closed", closed, uint64(opened))
	equal("the sum of Rejected and Total", rejected+health+st.Total, uint64(w.kernel.opened)+shed)
	// The kernel may find out first that a peer can't be reached: then nobody is told a code.
	equal("Expired", st.Expired-min(st.Expired-min(st.Expired, uint64(codes[4408])), st.Closed["unreachable"]), uint64(codes[4408]))
	if w.panics == 0 || w.inline { // messages behind the one at which a handler panicked are not delivered
		equal("MessagesIn", st.MessagesIn, w.got)
	}
	equal("MessagesOut", st.MessagesOut, w.sent)
	equal("BytesOut", st.BytesOut, w.kernel.written)
	equal("Panics", st.Panics, w.panics)
}

// simRun lives one seed and returns what was wrong with it.
func simRun(t *testing.T, seed uint64, verbose bool) *simWorld {
	t.Helper()
	w, err := newSimWorld(seed, verbose)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	w.live()
	if len(w.faults) == 0 {
		w.checkEnd()
	}
	return w
}

func TestSim(t *testing.T) {
	if *simSeed != 0 {
		w := simRun(t, *simSeed, true)
		if t.Log(w.report()); len(w.faults) > 0 {
			t.Fail()
		}
		return
	}
	seeds := *simSeeds
	if seeds == 0 {
		seeds = 6000
		if reflect.TypeFor[owner]().Size() > 0 {
			seeds = 400 // with the race detector each costs ten times as much
		}
	}
	failures := 0
	for seed := uint64(1); seed <= uint64(seeds) && failures < simFailuresMax; seed++ {
		if w := simRun(t, seed, false); len(w.faults) > 0 {
			failures++
			t.Errorf("seed %d (go test ./server -run 'TestSim$' -seed %d):\n%s", seed, seed, w.report())
		}
	}
}

// FuzzSim is TestSim with seeds that nobody has seen: the state machine of a connection, in every interleaving that a world makes.
func FuzzSim(f *testing.F) {
	for _, seed := range []uint64{1, 15676, 1 << 40} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		if w := simRun(t, seed, false); len(w.faults) > 0 {
			t.Errorf("seed %d (go test ./server -run 'TestSim$' -seed %d):\n%s", seed, seed, w.report())
		}
	})
}

// simFailuresMax is how many failed seeds are enough to see what is wrong.
const simFailuresMax = 8

// TestSimIsDeterministic: a seed that fails can be replayed only if it does the same each time.
func TestSimIsDeterministic(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		first, second := simRun(t, seed, true), simRun(t, seed, true)
		if len(first.journal) == 0 || !slices.Equal(first.journal, second.journal) {
			t.Errorf("seed %d: two runs, two histories", seed)
		}
	}
}
