// Package doctor tells what stands between a host and the connections that it is to hold, and what to do about it.
//
// [Examine] compares the kernel's limits with a number of connections: descriptors, queues, memory, connection tracking, clock. Each
// [Finding] says what there is, what is needed, by how much it is short, and the exact line that sets it. [Probe] opens a WebSocket
// through whatever stands in front of a server, stays silent, and tells when it is cut and whose limit that is: [KnownLimits] has
// the defaults of proxies and load balancers. [MemoryGroups] finds the control groups that bound the memory of this process.
//
// # Concurrency
//
// No function keeps state; all may be called from anywhere. Probe blocks until the connection ends or its context does.
//
// # Ownership of memory
//
// What is returned belongs to the caller.
//
// # Limits
//
// Files are read up to 64 KiB. A probe takes messages of at most 64 KiB and a response head of 16 KiB; a peer that sends more
// has ended the silence that was to be measured.
//
// # Portability
//
// The limits are those of Linux, out of /proc and /sys. What a system doesn't tell is reported as unknown, and nothing is short for it.
package doctor
