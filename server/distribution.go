package server

// Native are observations in the exponential buckets of a Prometheus native histogram of schema 2: bucket i holds what is above
// 2^((i-1)/4) and at most 2^(i/4) seconds, so each bound is 19 % above the one before.
type Native struct {
	Zero      uint64   // observations up to ZeroBound
	ZeroBound float64  // seconds: 2^((Least-1)/4)
	Least     int      // index of Counts[0]
	Counts    []uint64 // none beyond them
}

// NativeSchema is the schema of every Native.
const NativeSchema = 2

// Distribution is one set of observations in both kinds of buckets.
type Distribution struct {
	Histogram
	Native Native
}

// Distributions are what a server observed beside its counts, over its life.
type Distributions struct {
	RTT           Native       // what Stats.RTT has in classic buckets
	WheelLateness Native       // likewise
	Handshake     Distribution // from accept to the upgrade, to the millisecond
	Lifetime      Distribution // of connections that ended, to the second

	// By reason: how long a connection that ended had been without a byte in and without a heartbeat out. Proxies cut what is idle
	// for a fixed time, so the buckets are narrow around the limits that are known.
	Silence map[string]Histogram
	// Lifetime of connections that ended without a Close frame, with the same buckets: some proxies limit that.
	CutLifetime Histogram
}
