package server

import "time"

// Every bound of the server stands here, with its reason. Those that an operator may move are the defaults of Config; the others
// are part of the design.
const (
	// Heartbeats: 25 s is shorter than the idle limit of every common proxy (nginx and AWS ALB cut at 60 s), and three of them
	// must go unanswered before a peer counts as dead.
	defaultHeartbeatInterval = 25 * time.Second
	defaultHeartbeatTimeout  = 75 * time.Second
	// What a client may ask for: below 5 s beats cost more than they tell, above 10 min they no longer fit the wheel.
	defaultHeartbeatMin = 5 * time.Second
	defaultHeartbeatMax = 10 * time.Minute
	// A negotiated timeout is never longer, however long the interval asked for.
	negotiatedTimeoutMax = 30 * time.Minute
	// A heartbeat interval shorter than two ticks could not be kept.
	heartbeatIntervalLeast = 2 * tick

	// Handshake: from accept to the end of the upgrade, and the bytes of a request head. Browsers send below 2 KiB without cookies.
	defaultHandshakeTimeout   = 5 * time.Second
	defaultHandshakeSizeLimit = 8 << 10
	handshakeLineBytesMax     = 4 << 10 // one header line, or half of the head if that is more: a cookie may fill it
	handshakeHeadersMax       = 100     // CVE-2024-37890: a header count must have an end

	// Input: a whole message, the frames it may come in, and those of them that may be empty (CVE-2026-48779: tiny fragments
	// amplify what a peer makes the server hold).
	defaultMessageSizeLimit = 64 << 10
	defaultMaxFragments     = 1024
	emptyFragmentsMax       = 64
	defaultControlRateLimit = 20
	// Of the data messages that a rate limit allows in a second, all may come at once.
	messageBurstMicros = uint64(time.Second / time.Microsecond)

	// Output: bytes a connection may hold unsent. Above half of it the server stops reading that connection.
	defaultMaxBackpressure = 64 << 10
	defaultSocketBuffer    = 64 << 10

	// Closing: from the Close frame to close(2), however slow the peer is.
	closeTimeout = 5 * time.Second

	defaultShutdownTimeout = 30 * time.Second
	defaultDrainRateLeast  = 1000
	defaultReconnectRate   = 5000
	// Of the shutdown timeout, the part in which all connections are told to go; the rest is for their Close frames.
	drainShare = 0.8

	// The wheel: 32,768 slots of 20 ms are 655 s, so that no interval of at most 10 minutes ever needs a second round.
	tick       = 20 * time.Millisecond
	wheelSlots = 32768
	// Of the window that a beat may go to, how many slots are looked at.
	slotProbes = 16
	// Of the ranks in the layout of a crowd that comes in, how many may be left out in a row.
	firstRanks = 4
	// With less than a heartbeat in so many ticks no crowd is worth dissolving.
	sparseTicks = 8
	// A heartbeat whose next slot is crowded goes to an earlier one, but not before an eighth of its interval: the answer to the one under way
	// shall be there by then. So many slots are looked at.
	rearmLeast = 8
	gapScan    = 64
	// Where intervals differ: how many heartbeats a slot must have more than another, beyond what each should have. With 1 more of
	// them move for little; with 3 the surplus of 100 ms reaches 10.5 % of the mean (TestCrowd).
	levelLeast = 2
	// A crowd is a quarter of what a second should hold, and some more, that finds no room within a second.
	crowdLeast     = 16
	ticksPerSecond = int64(time.Second / tick)

	// Overload: intervals are stretched by an eighth for each second in which timers fire later than a tenth of a second, at most twofold, and
	// shrink by half as much for each in which they are within two ticks: slower, so that it doesn't swing.
	stretchPause = time.Second
	stretchAbove = 100 * time.Millisecond
	stretchBelow = 2 * tick
	stretchMost  = 2 * stretchOne
	stretchUp    = stretchOne / 8
	stretchDown  = stretchOne / 16

	// A turn of the loop: bounded steps, so that no kind of work starves another.
	eventsPerWait  = 256
	acceptsPerTurn = 64
	tasksPerTurn   = 4096
	firesOnTime    = 16   // a tenth of a millisecond of heartbeats
	firesBehind    = 1024 // of a loop that is later than firesBehindAfter
	loansPerTurn   = 1024

	// Timers of a tick that take longer than this are more than a loop gets done in passing.
	firesBehindAfter = tick / 4

	// A loan: what one connection may have served before it queues again behind the others.
	loanBytesMax    = 64 << 10
	loanMessagesMax = 64
	// What the messages of one batch, all that a loop serves in a turn or a part of what the pool does, may inflate to before further compressed
	// input waits for the next: a thousand bytes may become a million, in a millisecond or more.
	batchExpandedMax = 1 << 20
	readBytes        = 64 << 10 // the read buffer of a loop or of a decoder worker

	// Batches for the decoder pool: long enough to pay for the hand-off, short enough to spread.
	batchLoans      = 32
	decoderQueue    = 1024 // batches that wait for a decoder, beyond it the loop keeps them
	handlerQueue    = 4096 // deliveries that wait for a handler, beyond it the loan waits in the loop's ring
	handlersPerCore = 64
	// Ready connections that a loop serves itself: all that one wait reports. Measured on two cores, 8, 32 and 64 cost 0.2–0.8 µs and 0.3–0.5
	// system calls an echo more than 256 (docs/performance.md): beyond it a loop is falling behind, and batches go to the pool.
	defaultInlineBatch = eventsPerWait

	// The process itself stood still: a lateness beyond both is taken out of the connections' time (ARCHITECTURE: Stalls).
	stallLeast = max(250*time.Millisecond, 4*tick)

	// Of a turn or a batch: when a connection was last heard from is known to this.
	heardSlack = 2 * time.Millisecond

	// Accepted connections beyond the limit that are heard: a health check, or who is told precisely why it can't come in. Further ones are turned
	// away at once. They are part of descriptorReserve.
	handshakesBeyond = 16

	// Descriptors kept for what isn't a connection: of every loop (epoll, its gate, its timer, the wake-up), of every listener (its socket, and what it
	// gives up to answer EMFILE), and of all else: admin, logs, profiles, a backend.
	descriptorsPerLoop     = 4
	descriptorsPerListener = 2
	descriptorReserve      = 64

	// The text heartbeat: more bytes make it ordinary data.
	jsonHeartbeatBytesMax = 512
	jsonTimestampBytesMax = 64

	// Of loops that differ by less than a tenth and this, none gets connections that another accepted.
	balanceSlack = 16
	// Of log lines that a peer can cause.
	logLinesPerSecond = 5

	recordBytes = 64
	pageRecords = 1024
	pagesMax    = 1 << 14 // 16,777,216 connections a loop: 24 bits of a token
	sideShards  = 64
	loopsMax    = 255 // 8 bits of a token, less the poller's reserved tokens
)
