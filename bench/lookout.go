package main

import (
	"sync"
	"time"
)

// lookEvery is how often the server is looked at. Each look at its own counts is a request that it answers, and memory
// that it takes: more would measure the looking.
const lookEvery = 500 * time.Millisecond

// look is what can be seen of the server from outside at one moment. What is not known is -1.
type look struct {
	rss         int64 // bytes
	descriptors int
	active      int            // connections, by its own count
	goroutines  int            // known only to a thorough look, since asking costs the server milliseconds
	heapObjects int            // in use after a collection; likewise known only to a thorough look
	closed      map[string]int // connections ended, by its own count, by reason
	rejected    map[string]int // handshakes that came to nothing, likewise
	err         error
}

// lookout looks at the server again and again while the client's loop goes on: an answer may take its time, and a beat
// must not wait for it.
type lookout struct {
	// Immutable after startLookout.
	server  *process // nil without --pid
	admin   *admin   // nil without --admin
	looks   chan look
	stopped chan struct{} // closed by stop
	turn    sync.Mutex    // one look at a time: the question of one would be among the descriptors of the other

	// Owned by the scenario.
	latest look
	most   look // the largest of each figure since reset; the counts by reason are not kept
	errs   int  // looks that failed
	err    error
}

// startLookout begins with one look, so that what can't be seen at all is told before anything is measured.
func startLookout(server *process, a *admin) (*lookout, error) {
	l := &lookout{server: server, admin: a, looks: make(chan look), stopped: make(chan struct{})}
	first := l.look(a != nil)
	if first.err != nil {
		return nil, first.err
	}
	l.take(first)
	go l.watch()
	return l, nil
}

// look gathers one look. A thorough one has the server collect its garbage, which costs it milliseconds.
func (l *lookout) look(thorough bool) look {
	l.turn.Lock()
	defer l.turn.Unlock()
	k := look{rss: -1, descriptors: -1, active: -1, goroutines: -1, heapObjects: -1}
	// Descriptors before anything is asked, since the question itself takes one; memory at last, after a collection.
	if l.server != nil {
		if k.descriptors, k.err = l.server.descriptors(); k.err != nil {
			return k
		}
	}
	if l.admin != nil {
		if k.err = l.ask(&k, thorough); k.err != nil {
			return k
		}
	}
	if l.server != nil {
		k.rss, k.err = l.server.rss()
	}
	return k
}

// ask adds what the server itself says.
func (l *lookout) ask(k *look, thorough bool) error {
	stats, err := l.admin.stats()
	if err != nil {
		return err
	}
	k.active, k.closed, k.rejected = stats.Active, stats.Closed, stats.Rejected
	if !thorough {
		return nil
	}
	r, err := l.admin.runtime()
	if err != nil {
		return err
	}
	k.goroutines, k.heapObjects = r.goroutines, r.heapObjects
	return nil
}

// watch runs on a goroutine of its own until stop. It looks again only when the look before has been fetched.
func (l *lookout) watch() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.stopped:
			return
		case <-ticker.C:
		}
		k := l.look(false)
		select {
		case l.looks <- k:
		case <-l.stopped:
			return
		}
	}
}

// stop ends the goroutine; a look under way ends by itself.
func (l *lookout) stop() { close(l.stopped) }

// fetch takes what has been seen meanwhile. The scenario calls it some ten times a second.
func (l *lookout) fetch() {
	for {
		select {
		case k := <-l.looks:
			l.take(k)
		default:
			return
		}
	}
}

func (l *lookout) take(k look) {
	if k.err != nil {
		l.errs++
		l.err = k.err
		return
	}
	l.latest = k
	l.most.rss = max(l.most.rss, k.rss)
	l.most.descriptors = max(l.most.descriptors, k.descriptors)
	l.most.active = max(l.most.active, k.active)
}

// now looks at once, for the samples before and after, and forgets what was the most so far.
func (l *lookout) now() (look, error) {
	k := l.look(l.admin != nil)
	if k.err != nil {
		return k, k.err
	}
	l.take(k)
	l.most = k
	return k, nil
}
