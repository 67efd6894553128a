package monitor

import (
	"log"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// registry holds the metrics of the server, the Go runtime and the process. It is the Monitor's own: several may live in one
// process.
func (m *Monitor) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(m), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// scrapeLog is where promhttp tells of a failed scrape.
func (m *Monitor) scrapeLog() *log.Logger {
	return slog.NewLogLogger(m.cfg.Logger.Handler(), slog.LevelWarn)
}

// collector turns one reading of Stats into metrics at each scrape. Nothing is counted twice and nothing on the way of a
// message: the counters are the server's own.
type collector struct {
	monitor *Monitor
	all     []*prometheus.Desc // those below, for Describe

	connections        *prometheus.Desc
	connectionsLimit   *prometheus.Desc
	handshakes         *prometheus.Desc
	opened             *prometheus.Desc
	closed             *prometheus.Desc
	rejected           *prometheus.Desc
	heartbeatsSent     *prometheus.Desc
	heartbeatsReceived *prometheus.Desc
	stretch            *prometheus.Desc
	slowed             *prometheus.Desc
	rtt                *prometheus.Desc
	lateness           *prometheus.Desc
	messages           *prometheus.Desc
	trafficBytes       *prometheus.Desc
	batches            *prometheus.Desc
	panics             *prometheus.Desc
	loopConnections    *prometheus.Desc
	handshakeSeconds   *prometheus.Desc
	lifetime           *prometheus.Desc
	silence            *prometheus.Desc
	loopsStarved       *prometheus.Desc
	handlersQueued     *prometheus.Desc
	handlersSaturated  *prometheus.Desc
	turnAge            *prometheus.Desc
	lost               *prometheus.Desc
	acceptQueue        *prometheus.Desc
	acceptQueueLimit   *prometheus.Desc
	overloaded         *prometheus.Desc
	overloadReason     *prometheus.Desc
	refusing           *prometheus.Desc
	draining           *prometheus.Desc
	buildInfo          *prometheus.Desc
	kernel             kernelDescs
}

var _ prometheus.Collector = (*collector)(nil)

func newCollector(m *Monitor) *collector {
	var all []*prometheus.Desc
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc("pulsewheel_"+name, help, labels, nil)
		all = append(all, d)
		return d
	}
	c := &collector{
		monitor:            m,
		connections:        desc("connections", "Upgraded connections now."),
		connectionsLimit:   desc("connections_limit", "Connections that the server would hold."),
		handshakes:         desc("handshakes", "Accepted connections that aren't upgraded yet."),
		opened:             desc("connections_opened_total", "Upgraded connections ever."),
		closed:             desc("connections_closed_total", "Ended connections by reason.", "reason"),
		rejected:           desc("handshakes_rejected_total", "Refused or failed handshakes by reason.", "reason"),
		heartbeatsSent:     desc("heartbeats_sent_total", "Heartbeats that the server began, by mode.", "mode"),
		heartbeatsReceived: desc("heartbeats_received_total", "Heartbeats from peers: begun by them (ping, text) or answers (pong, ack).", "mode"),
		stretch:            desc("heartbeat_stretch_ratio", "Factor on heartbeat intervals of the event loop that is most behind time; 1 is none."),
		rtt:                desc("heartbeat_rtt_seconds", "Time from a heartbeat of the server to its answer."),
		lateness:           desc("wheel_lateness_seconds", "Time from a timer's deadline to its firing."),
		messages:           desc("messages_total", "Whole data messages.", "direction"),
		trafficBytes:       desc("traffic_bytes_total", "Bytes of frames in, and all bytes written, responses to handshakes included.", "direction"),
		batches:            desc("batches_total", "Batches of ready connections by who served them.", "runner"),
		slowed:             desc("reads_slowed_total", "Pauses in reading a peer that sends more messages a second than it may."),
		panics:             desc("handler_panics_total", "Panics of the handler, each of which closed its connection."),
		loopConnections:    desc("loop_connections", "Connections of each event loop.", "loop"),
		handshakeSeconds:   desc("handshake_duration_seconds", "Time from accept to the upgrade."),
		lifetime:           desc("connection_lifetime_seconds", "Lifetime of connections that ended."),
		silence:            desc("connection_silence_seconds", "Time from the last byte of a connection to its end, by the reason of that.", "reason"),
		loopsStarved:       desc("loops_starved", "Event loops with connections that wait for a decoder."),
		handlersQueued:     desc("handlers_queued", "Deliveries that wait for a handler."),
		handlersSaturated:  desc("handlers_saturated_total", "Deliveries that the full handler pool didn't take at once."),
		turnAge:            desc("loop_turn_age_seconds", "For how long the event loop that is busy longest has been at its present turn."),
		lost:               desc("loop_lost_seconds_total", "Turns and delays so long that timers don't count them; of the event loop that lost most."),
		acceptQueue:        desc("accept_queue", "Connections that wait to be accepted, at the listener that is fullest."),
		acceptQueueLimit:   desc("accept_queue_limit", "Connections that may wait there before the kernel drops them; 0: not known."),
		overloaded:         desc("overloaded", "1 while the overload alarm rings."),
		overloadReason:     desc("overload_reason", "1 for each sign that the alarm rings for.", "reason"),
		refusing:           desc("overload_refusing", "1 while new connections are refused because of overload."),
		draining:           desc("draining", "1 while the server empties itself."),
		buildInfo:          desc("build_info", "What was built; always 1.", "version", "revision", "goversion"),
	}
	c.kernel = newKernelDescs(desc)
	c.all = all
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.monitor.source.Stats()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	byLabel := func(d *prometheus.Desc, counts map[string]uint64) {
		for value, n := range counts {
			counter(d, n, value)
		}
	}
	gauge(c.connections, float64(s.Active))
	gauge(c.connectionsLimit, float64(s.Limit))
	gauge(c.handshakes, float64(s.Handshakes))
	counter(c.opened, s.Total)
	byLabel(c.closed, s.Closed)
	byLabel(c.rejected, s.Rejected)
	byLabel(c.heartbeatsSent, withZeros(s.HeartbeatsSent, "ping", "text"))
	byLabel(c.heartbeatsReceived, withZeros(s.HeartbeatsReceived, "ping", "pong", "text", "ack"))
	gauge(c.stretch, max(1, s.HeartbeatStretch)) // before the server runs there is none
	if source, ok := c.monitor.source.(observed); ok {
		c.collectDistributions(ch, &s, source.Distributions())
	} else {
		ch <- histogram(c.rtt, s.RTT)
		ch <- histogram(c.lateness, s.WheelLateness)
	}
	counter(c.messages, s.MessagesIn, "in")
	counter(c.messages, s.MessagesOut, "out")
	counter(c.trafficBytes, s.BytesIn, "in")
	counter(c.trafficBytes, s.BytesOut, "out")
	counter(c.batches, s.BatchesLoop, "loop")
	counter(c.batches, s.BatchesPool, "pool")
	counter(c.slowed, s.Slowed)
	counter(c.panics, s.Panics)
	for i, n := range s.LoopConnections {
		gauge(c.loopConnections, float64(n), strconv.Itoa(i))
	}
	if p, known := c.monitor.pressure(); known {
		gauge(c.loopsStarved, float64(p.LoopsStarved))
		gauge(c.handlersQueued, float64(p.HandlersQueued))
		counter(c.handlersSaturated, p.HandlersSaturated)
		gauge(c.turnAge, p.TurnAge.Seconds())
		ch <- prometheus.MustNewConstMetric(c.lost, prometheus.CounterValue, p.Lost.Seconds())
		gauge(c.acceptQueue, float64(p.AcceptQueue))
		gauge(c.acceptQueueLimit, float64(p.AcceptQueueLimit))
	}
	overload := c.monitor.verdict()
	gauge(c.overloaded, oneIf(overload.overloaded()))
	gauge(c.refusing, oneIf(overload.shed))
	for _, sign := range overloadSigns() {
		rings := slices.ContainsFunc(overload.reasons, func(r overloadReason) bool { return r.sign == sign })
		gauge(c.overloadReason, oneIf(rings), sign)
	}
	gauge(c.draining, oneIf(s.Draining))
	gauge(c.buildInfo, 1, c.monitor.cfg.Version, c.monitor.cfg.Revision, runtime.Version())
	c.kernel.collect(ch, c.monitor.kernel)
}

// withZeros adds what hasn't been counted yet: a rate needs the zero before the first event.
func withZeros(counts map[string]uint64, values ...string) map[string]uint64 {
	out := make(map[string]uint64, len(values))
	for _, value := range values {
		out[value] = 0
	}
	maps.Copy(out, counts)
	return out
}

func oneIf(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}
