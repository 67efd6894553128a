package server

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
	"github.com/pulsewheel/pulsewheel/pool"
	"github.com/pulsewheel/pulsewheel/wsframe"
)

// Server holds WebSocket connections. Make one with New, run it with Serve, end it with Shutdown. All methods are safe for
// concurrent use.
type Server struct {
	// Immutable after New.
	cfg          Config
	handler      Handler
	inline       bool // the handler never blocks
	plain        bool // the handler needs no Open
	log          *slog.Logger
	began        time.Time
	clock        func() time.Time
	inlineBatch  int
	decoderCount int
	textBeat     []byte
	pingLead     []byte
	started      chan struct{}
	stopped      chan struct{}

	// Immutable once started is closed.
	loops    []*loop
	addrs    []net.Addr
	queues   []*poller.Listener // for their Queue; the loops own them
	workers  []*runner          // of the decoder pool, by worker
	decoders decoders
	handlers handlers

	// Any goroutine, by their own rules.
	assembly  buffers // messages that come in pieces
	batches   batchPool
	deflater  wsframe.Deflater
	senders   sync.Pool // runners of goroutines that send
	admission admission
	panicLog  logLimit
	slowLog   logLimit

	// Atomic.
	policy        atomic.Pointer[policy]
	overload      atomic.Pointer[Overload]
	state         atomic.Int32
	closing       atomic.Bool
	taken         atomic.Int64 // admitted connections, those in the upgrade included
	handshaking   atomic.Int64 // accepted connections that aren't upgraded yet
	retrySlots    atomic.Uint64
	handlerPanics atomic.Uint64
	elsewhere     published // what senders on other goroutines counted
}

const (
	stateNew int32 = iota
	stateServing
	stateDraining // Shutdown was called; connections are still accepted for DrainDelay
	stateStopped
)

// New makes a server. The error lists everything that is wrong with the configuration. Without a handler messages are counted
// and dropped.
func New(cfg Config, handler Handler) (*Server, error) {
	cfg, err := cfg.defaulted()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, handler: handler, inline: cfg.HandlerInline, log: cfg.Logger,
		clock:   time.Now, //nolint:forbidigo // the one place where the real clock comes in
		started: make(chan struct{}), stopped: make(chan struct{}),
		inlineBatch: max(0, cfg.InlineBatch),
		textBeat:    wsframe.AppendFrame(nil, wsframe.Text, []byte(`{"type":"heartbeat"}`)),
		pingLead:    wsframe.AppendHeader(nil, wsframe.Ping, true, pingBytes),
		admission: admission{
			perAddress: max(0, cfg.ConnectionLimitPerIP), addresses: make(map[netip.Prefix]int32), knocking: make(map[netip.Prefix]int32),
			rate: perSecond(cfg.ConnectionRateLimit), retries: perSecond(cfg.ReconnectRate),
		},
	}
	s.began = s.clock()
	if s.handler == nil {
		s.handler, s.inline = discard{}, true
	}
	switch s.handler.(type) {
	case Echo, discard:
		s.plain = true
	}
	p, err := s.newPolicy(&s.cfg)
	if err != nil {
		return nil, err
	}
	s.policy.Store(p)
	s.decoderCount = runtime.GOMAXPROCS(0)
	s.senders.New = func() any { return &runner{server: s, kind: countBatchesLoop, public: &s.elsewhere} }
	return s, nil
}

// since is the time that the server has run.
func (s *Server) since() time.Duration { return s.clock().Sub(s.began) }

// Serve listens and runs the loops until Shutdown. It returns ErrClosed then, and an error at once if it can't listen.
func (s *Server) Serve() error {
	if !s.state.CompareAndSwap(stateNew, stateServing) {
		return ErrClosed
	}
	defer close(s.stopped)
	if err := s.start(); err != nil {
		s.state.Store(stateStopped)
		return err
	}
	close(s.started)
	ended := make(chan error, len(s.loops))
	for _, l := range s.loops {
		go func() { ended <- l.run() }()
	}
	var errs []error
	for range s.loops {
		if err := <-ended; err != nil {
			errs = append(errs, err)
			s.stopLoops() // one loop can't go on: the others would hold half of a server
		}
	}
	s.state.Store(stateStopped)
	s.stop()
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return ErrClosed
}

// start opens loops, pools and listeners, and closes them again if one can't be opened.
func (s *Server) start() (err error) {
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	for index := range s.cfg.Loops {
		system, err := openSys(s.began, s.clock)
		if err != nil {
			return fmt.Errorf("event loop: %w", err)
		}
		s.loops = append(s.loops, newLoop(s, index, system))
	}
	if err := s.startPools(); err != nil {
		return err
	}
	for i, address := range s.cfg.Listen {
		if address == "none" {
			continue
		}
		in, err := poller.Listen(address, poller.ListenOptions{
			SendBufferBytes: max(0, s.cfg.SocketSendBuffer), ReceiveBufferBytes: max(0, s.cfg.SocketReceiveBuffer),
			UserTimeout: userTimeout(s.cfg.HeartbeatTimeout),
		})
		if err != nil {
			return err // it names the address
		}
		if err := s.loops[i%len(s.loops)].listen(in, strings.HasPrefix(address, "unix:")); err != nil {
			_ = in.Close() // the error that counts is the one before
			return fmt.Errorf("listen on %s: %w", address, err)
		}
		s.addrs, s.queues = append(s.addrs, in.Addr()), append(s.queues, in)
	}
	return nil
}

// startPools opens the two pools: handlers that are stuck must not stop decoding.
func (s *Server) startPools() error {
	for range s.decoderCount {
		s.workers = append(s.workers, newRunner(s, countBatchesPool))
	}
	decoders, err := pool.New(s.decoderCount, decoderQueue, s.runBatch, func(_ *loans, value any, stack []byte) {
		panic(fmt.Sprintf("server: a decoder panicked: %v\n%s", value, stack)) // handlers are contained further in: this is our own fault
	})
	if err != nil {
		return fmt.Errorf("decoder pool: %w", err)
	}
	s.decoders = decoders
	handlers, err := pool.NewSerial(s.cfg.Workers, handlerQueue, s.runDelivery, func(_ poller.Token, _ delivery, value any, stack []byte) {
		panic(fmt.Sprintf("server: a delivery panicked: %v\n%s", value, stack))
	})
	if err != nil {
		return fmt.Errorf("handler pool: %w", err)
	}
	s.handlers = handlers
	return nil
}

// stop releases what start opened; the loops don't run.
func (s *Server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if s.decoders != nil {
		_ = s.decoders.Close(ctx)
	}
	s.offerLast(ctx)
	if s.handlers != nil {
		_ = s.handlers.Close(ctx) // a handler that is stuck can't be waited for
	}
	for _, l := range s.loops {
		l.closeListeners()
		_ = l.sys.close()
	}
}

// offerLast has the handlers told of the last connections' ends, where the saturated handler pool left them waiting.
func (s *Server) offerLast(ctx context.Context) {
	for _, l := range s.loops {
		for l.offerParked(); len(l.parked) > 0 && ctx.Err() == nil; l.offerParked() {
			_ = wait(ctx, tick, nil) // the condition looks at ctx itself
		}
	}
}

func (s *Server) stopLoops() {
	for _, l := range s.loops {
		l.post(task{kind: taskDo, do: func(l *loop) { l.stopping = true }})
	}
}

// Started is closed when the server listens.
func (s *Server) Started() <-chan struct{} { return s.started }

// Addrs are the bound addresses, once the server has started.
func (s *Server) Addrs() []net.Addr {
	select {
	case <-s.started:
		return s.addrs
	default:
		return nil
	}
}

// Ready says why the server should get no new connections: starting, draining, or at its limit. Nil: it should.
func (s *Server) Ready() error {
	select {
	case <-s.started:
	default:
		return errors.New("starting")
	}
	switch {
	case s.Draining():
		return errors.New("draining")
	case s.shedding():
		return errors.New("overloaded")
	case s.taken.Load() >= s.policy.Load().connections:
		return errors.New("at the connection limit")
	default:
		return nil
	}
}

// Shutdown ends the server: after DrainDelay the listeners close, then the connections at DrainRate (1012, with the second at which
// to come back), and after ShutdownTimeout or the end of ctx whatever is left. It returns when Serve does; a ctx that ends early is its error.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.state.CompareAndSwap(stateNew, stateStopped) {
		close(s.stopped) // Serve won't
		return nil
	}
	if !s.state.CompareAndSwap(stateServing, stateDraining) {
		select {
		case <-s.stopped:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-s.started:
	case <-s.stopped: // it couldn't start
		return nil
	}
	err := wait(ctx, s.cfg.DrainDelay, s.stopped)
	s.closing.Store(true)
	if err == nil {
		err = s.drain(ctx)
	}
	s.closeAll()
	_ = s.awaitEmpty(context.Background(), closeTimeout) // this context has no end
	s.stopLoops()
	<-s.stopped
	return err
}

// closeAll has every loop close what it has, and returns when they have begun: nobody comes in after that.
func (s *Server) closeAll() {
	begun := make(chan struct{}, len(s.loops))
	for _, l := range s.loops {
		if !l.post(task{kind: taskDo, do: func(l *loop) {
			l.closeAll()
			begun <- struct{}{}
		}}) {
			begun <- struct{}{} // it has ended already
		}
	}
	for range s.loops {
		<-begun
	}
}

// drain tells the connections to go and waits until they are gone.
func (s *Server) drain(ctx context.Context) error {
	rate := s.drainRate()
	for _, l := range s.loops {
		share := rate / float64(len(s.loops))
		l.post(task{kind: taskDo, do: func(l *loop) { l.startDrain(share) }})
	}
	return s.awaitEmpty(ctx, s.cfg.ShutdownTimeout)
}

// awaitEmpty waits until no connection is left, at most for limit.
func (s *Server) awaitEmpty(ctx context.Context, limit time.Duration) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	look := time.NewTicker(tick)
	defer look.Stop()
	for s.held() > 0 {
		select {
		case <-look.C:
		case <-deadline.C:
			return nil
		case <-s.stopped:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// wait sleeps, unless ctx or the server ends first.
func wait(ctx context.Context, d time.Duration, stopped <-chan struct{}) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Conns iterates over the open connections. Those that open or close meanwhile may or may not be among them.
func (s *Server) Conns() iter.Seq[Conn] {
	return func(yield func(Conn) bool) {
		select {
		case <-s.started:
		default:
			return
		}
		for _, l := range s.loops {
			for slot := range l.table.slots.Load() {
				w := l.table.at(slot).load()
				if w&bitLive != 0 && !yield(Conn{server: s, token: makeToken(l.index, slot, w.generation())}) {
					return
				}
			}
		}
	}
}

// Broadcast sends a message to every open connection and tells how many took it.
func (s *Server) Broadcast(op Op, data []byte) (reached int, err error) {
	p, err := Prepare(op, data)
	if err != nil {
		return 0, err
	}
	for c := range s.Conns() {
		if c.SendPrepared(p) == nil {
			reached++
		}
	}
	return reached, nil
}
