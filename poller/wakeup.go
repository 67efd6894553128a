package poller

import "sync/atomic"

// wakeup decides which Wake has to disturb the kernel. Its state:
//
//	         park                       Wake (kicks the backend)
//	running ──────▶ parked ───────────────────────────▶ woken
//	   ▲ └──────────────────────────────────────────────▲ │
//	   │              Wake (no system call)                │
//	   └──────────── unpark: Wait returns ◀────────────────┘
//
// A Wake while running needs no kick: the owner asks park before it sleeps, and
// park refuses when woken. A Wake while parked kicks once; further ones find
// woken. Only the owner leaves woken, on its way out of Wait, so that whatever
// was posted before a Wake is looked at after the Wait that the Wake ended.
type wakeup struct {
	state atomic.Uint32
}

const (
	running uint32 = iota
	parked
	woken
)

// request notes a Wake and reports whether the owner sleeps and must be kicked.
// It swaps even if woken already, since only a write that the owner's unpark
// observes orders the caller's earlier writes before the owner's later reads.
func (w *wakeup) request() (kick bool) {
	return w.state.Swap(woken) == parked
}

// park reports whether the owner may sleep (on); not if a Wake came.
func (w *wakeup) park() bool {
	return w.state.CompareAndSwap(running, parked) || w.state.Load() == parked
}

// unpark ends a Wait.
func (w *wakeup) unpark() {
	if w.state.Load() != running {
		w.state.Swap(running)
	}
}
