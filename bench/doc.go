// Command bench puts load on a WebSocket server over TCP and measures what it costs there.
//
//	go run ./bench echo --target ws://127.0.0.1:8080/ws --pid $(pidof pulsewheel) --connections 1000
//
// A scenario is a script that runs top-down (runEcho, runHeartbeat, runIdle, …): open connections, rest,
// measure a span, report, judge. Beneath it a client holds all connections on one poller and turns one loop; what
// a scenario wants to hear of, it hears through hooks. What it sends without being answered follows a plan made
// beforehand (pacer), so a server that stalls is not spared the messages that were due meanwhile. Connections that come
// and go or misbehave are guests, looked after by a host, and counted apart from those that must bear them. The server's memory,
// CPU and system calls are read from outside, from /proc and perf; it may be written in anything.
//
// Where one process' descriptors are too few, the same script runs in several, in lockstep: the leader, which alone looks at the
// server and reports, and its hands, which hand over what they found (crew, hand, parts). What would be the client's own doing is withheld
// (calibrate). The command compare starts several servers, one after another and round after round, and sets their figures side
// by side; fleet starts many servers and their clients at once; commits compares the benchmarks of two commits.
//
// # Concurrency
//
// One goroutine runs the scenario and the client's loop. It is parked as the server's loops are, so on a small machine
// the client costs no more than what it measures. The exceptions wait for other processes: each one that was started has a
// goroutine (launch), and so have a hand's leader, perf, the lookout's questions to the server and the speaker's, and the
// three observers of a watcher. What they find comes through a channel and a wake-up of the poller, or when they have ended; the
// lookout's first and last questions, and the audit's, are asked by the scenario itself, one at a time.
//
// # Ownership of memory
//
// A connection is a record of some 200 bytes in a slice; buffers belong to the loop. Only an unfinished message, or
// bytes that a full socket did not take, are kept per connection while they last.
//
// # Limits
//
// One process holds what its descriptor limit allows, less spareDescriptors; one run has partsMax processes. Against a target on 127.0.0.0/8 it takes
// a new source address every portsPerSource connections. A message has at most sizeMax bytes, an answer to an upgrade
// headBytesMax, a message of the server messageBytesMax.
//
// # Portability
//
// The load runs wherever package poller does. Memory and CPU of the server need Linux' /proc; system calls need
// perf and the right to use it.
package main
