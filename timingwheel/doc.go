// Package timingwheel keeps very many timers, addressed by small integers, in a passive hashed timing wheel.
//
// The wheel is scheme 6 of George Varghese and Tony Lauck, "Hashed and Hierarchical Timing Wheels: Data Structures for
// the Efficient Implementation of a Timer Facility", SOSP 1987 (journal version: IEEE/ACM Transactions on Networking 5(6),
// 1997), with one restriction: a deadline lies less than one revolution ahead. A slot then holds the timers of exactly one
// tick, so a timer needs no count of rounds, no slot is ever sorted or scanned for what is due, and nothing cascades.
// A later deadline is clamped to the end of the revolution; the caller, who knows the true deadline, looks again then.
//
// Time is an int64 count of ticks. What a tick lasts, and when it begins, is the caller's business: the wheel reads no clock
// and starts no goroutine. The caller asks Next how long it may sleep, and calls Advance afterwards. Invariants, with
// now = Now() and n = the number of slots:
//
//   - slot i holds timers of the one tick t with t mod n == i and now <= t <= now+n-1;
//   - Schedule arms for now+1 ... now+n-1, so the slot of now holds only what a bounded Advance left over;
//   - bit i of the occupancy map is set if and only if slot i is not empty.
//
// A mark for every 64 slots that are not all empty stands above the occupancy map, so Next and Advance skip empty slots 4,096 at a time.
//
// # Choosing a tick
//
// The wheel counts the timers of each slot, so a caller with freedom can avoid crowds: Place looks at a few ticks of a window for one
// that holds less than its share. Each call looks at other ticks than the call before, in a fixed, repeatable sequence: a
// crowd that is placed at once spreads over the whole window and not over the few ticks of one look. The share of a tick is the caller's to
// say; shares that sum up to the number of timers, without rounding each up, make the flattest schedule.
//
// # Concurrency
//
// A Wheel belongs to one goroutine at a time; no method is safe beside another. Advance calls fire on the goroutine of
// its caller. fire may call every method but Advance.
//
// # Ownership of memory
//
// The wheel retains nothing of the caller's. A timer is 12 bytes without pointers, in pages of 4,096 (48 KiB) that
// are never moved, copied or returned, so growth costs one page at a time and the collector scans no timer. A slot is 8 bytes
// and a little over a bit. Memory follows the largest id ever armed or grown for. Nothing else is ever allocated.
//
// # Limits
//
// 8 to 1,048,576 slots, a power of two. Ids from 0 to 4,294,967,294. Ticks up to 1<<62. A tick's timers fire in the reverse
// of the order in which they were armed. Values outside the limits are bugs of the caller, and panic.
//
// # Portability
//
// Pure Go, standard library only, the same on every 64-bit platform.
package timingwheel
