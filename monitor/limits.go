package monitor

import "time"

const (
	// Connections to the admin listener at once. The server keeps 64 descriptors for everything that isn't a WebSocket
	// connection; a flood here must leave some of them.
	connectionsMax = 32
	// Of them, pages that are fed with events, and runtime charts: both stay open.
	listenersMax = 12
	chartsMax    = 4
	// And profiles, each of which lasts as long as its request says. With scrapesMax these are 24: the other eight places are always
	// free, or held by somebody who says nothing and makes room.
	profilesMax = 4
	// A connection may lose its place to a new one when it has been without a request for so long: most send one as soon as they are
	// open, and an answer takes a moment to leave.
	idleGrace = 20 * time.Millisecond
	// Or when its peer hasn't taken anything of an answer for so long.
	stalledAfter = time.Second
	// After which a client that found all places taken may ask again.
	retryAfterSeconds = "5"
	// A request head: a bearer token and what browsers send.
	headerBytesMax = 16 << 10
	// A client that is slow to send its request holds one of the few connections.
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// Prometheus scrapes every 15 to 60 s and connects anew when it must.
	idleTimeout = 15 * time.Second
	// A client that doesn't read its answer. Profiles that take longer move their own deadline.
	writeTimeout = 30 * time.Second

	// Scrapes at once; a further one is answered with 503.
	scrapesMax = 4

	// Connections on a page of the listing: unless asked otherwise, and at most.
	listLimitDefault = 100
	listLimitMax     = 1000
	// A message to be sent, where Config.MessageBytesMax doesn't say.
	messageBytesMaxDefault = 1 << 20

	// The kernel recomputes the load average every 5 s (LOAD_FREQ), and its averages of waiting every 2 s.
	loadInterval = 5 * time.Second
	// What decides about refusing connections is looked at more often: a reconnect storm arrives within a second.
	pressureInterval = time.Second
	// Of pages that are open.
	liveInterval = time.Second
	// Round trips and lateness on the page are those of so many intervals.
	liveWindow = 10
	// Points that a page finds when it opens, one every loadInterval: ten minutes.
	historyPoints = 120
	// The page tells what ended within this time. A reading every loadInterval, so two more than fit into it.
	endsWindow   = time.Minute
	endsReadings = int(endsWindow/loadInterval) + 2

	// An alarm ends below this share of the load at which it began, so that a load at the limit doesn't ring it again and again.
	recoveryShare = 0.9

	// Percent of the last 10 s in which some task waited for a core. A machine at work has half of it; at four fifths every wake-up waits.
	cpuPressureBegin = 80
	cpuPressureEnd   = 60
	// The same for memory: a fifth means that the machine reads its own programs from disk again and again.
	memoryPressureBegin = 20
	memoryPressureEnd   = 10
	// Timers fire in ticks of 20 ms. At five ticks heartbeats are late for everybody; below two all is well.
	latenessBegin        = 100 * time.Millisecond
	latenessEnd          = 40 * time.Millisecond
	latenessObservations = 4 // in a second; of fewer the least counts
	// Of a listener's accept queue: at all of it the kernel drops connections.
	acceptQueueBegin = 0.9
	acceptQueueEnd   = 0.5
	// Of the worker pools' queues, or of the loops that wait for a decoder.
	saturationBegin = 0.9
	saturationEnd   = 0.5
	// Below MemoryHigh by this share of the whole: what was refused must not come back at once.
	memoryHysteresis = 0.03

	// Where connections end is looked at once a minute, over the last ten.
	idleInterval = time.Minute
	idleWindow   = 10
	// So many connections cut within the window, and so much of them at one time, are no coincidence.
	idleEndsLeast  = 20
	idleShareLeast = 0.3
)
