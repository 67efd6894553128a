package server

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// admission decides which upgrades are taken. A decision costs a few atomic operations, and a lock only with a limit for each
// address.
type admission struct {
	// Immutable.
	perAddress int // 0: none

	// Shared; mu guards.
	mu        sync.Mutex
	addresses map[netip.Prefix]int32 // connections, where perAddress counts them
	knocking  map[netip.Prefix]int32 // likewise those in the handshake
	rate      meter                  // accepted upgrades
	retries   meter                  // retry slots handed out
}

// meter is a token bucket in its shortest form (GCRA): the time at which everything taken so far is paid off.
type meter struct {
	step  time.Duration // of one; 0: no limit
	burst time.Duration
	paid  time.Duration
}

// perSecond is a meter of so many a second with a burst of as many.
func perSecond(n int) meter {
	if n <= 0 {
		return meter{}
	}
	return meter{step: time.Second / time.Duration(n), burst: time.Second}
}

// take takes one if there is one.
func (m *meter) take(now time.Duration) bool {
	if m.step == 0 {
		return true
	}
	paid := max(m.paid, now)
	if paid+m.step-now > m.burst {
		return false
	}
	m.paid = paid + m.step
	return true
}

// wait takes one in any case and tells how long until it is due, at most limit.
func (m *meter) wait(now, limit time.Duration) time.Duration {
	paid := max(m.paid, now)
	if paid-now < limit {
		m.paid = paid + m.step
	}
	return paid - now
}

// retryAfterMax bounds what a refused client is told to wait.
const retryAfterMax = 2 * time.Minute

// knock says how a connection is refused that was just accepted: before it has said anything, so that handshakes which never end take neither
// all descriptors nor all of what one address may have. Who is let in counts from admit to the end of its handshake.
func (s *Server) knock(peer netip.Addr) (*wsframe.Refusal, rejection) {
	if s.handshaking.Load()+s.taken.Load() >= s.policy.Load().connections+handshakesBeyond {
		return s.unavailable("limit"), rejectLimit
	}
	a := &s.admission
	if a.perAddress == 0 {
		return nil, rejectNone
	}
	prefix, ok := addressPrefix(peer)
	if !ok {
		return nil, rejectNone
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if int(a.knocking[prefix]) < a.perAddress {
		return nil, rejectNone
	}
	return a.addressRefusalLocked(s.since()), rejectAddress
}

// countHandshake counts a handshake that begins (1) or ends (-1).
func (s *Server) countHandshake(l *loop, slot uint32, r *record, by int32) {
	s.handshaking.Add(int64(by))
	a := &s.admission
	if prefix, ok := a.counts(l, slot, r); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		addLocked(a.knocking, prefix, by)
	}
}

// addressRefusalLocked refuses an address that has enough.
func (a *admission) addressRefusalLocked(now time.Duration) *wsframe.Refusal {
	return &wsframe.Refusal{
		Status: http.StatusTooManyRequests, Reason: "address-limit", Text: "too many connections from this address",
		Header: [][2]string{{"Retry-After", a.retryAfterLocked(now)}},
	}
}

// enter admits the connection under way, or says how it is refused. Who entered leaves when reaped.
func (s *Server) enter(l *loop, slot uint32, r *record) (*wsframe.Refusal, rejection) {
	if s.closing.Load() {
		return s.unavailable("draining"), rejectDraining
	}
	if s.shedding() {
		return s.unavailable("overload"), rejectOverload
	}
	if s.taken.Add(1) > s.policy.Load().connections {
		s.taken.Add(-1)
		return s.unavailable("limit"), rejectLimit
	}
	now := s.since() // not the loop's clock: a decoder may run this
	a := &s.admission
	prefix, counted := a.counts(l, slot, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	if counted && int(a.addresses[prefix]) >= a.perAddress {
		s.taken.Add(-1)
		return a.addressRefusalLocked(now), rejectAddress
	}
	if !a.rate.take(now) {
		s.taken.Add(-1)
		return &wsframe.Refusal{
			Status: http.StatusServiceUnavailable, Reason: "rate-limit", Text: "too many connections at once",
			Header: [][2]string{{"Retry-After", a.retryAfterLocked(now)}},
		}, rejectRate
	}
	if counted {
		addLocked(a.addresses, prefix, 1)
	}
	r.setFlag(flagEntered)
	return nil, rejectNone
}

// unavailable refuses with 503 and a retry slot.
func (s *Server) unavailable(reason string) *wsframe.Refusal {
	s.admission.mu.Lock()
	defer s.admission.mu.Unlock()
	return &wsframe.Refusal{
		Status: http.StatusServiceUnavailable, Reason: reason, Text: "no room at the moment",
		Header: [][2]string{{"Retry-After", s.admission.retryAfterLocked(s.since())}},
	}
}

// leave is enter taken back.
func (s *Server) leave(l *loop, slot uint32, r *record) {
	if !r.flag(flagEntered) {
		return
	}
	s.taken.Add(-1)
	a := &s.admission
	if prefix, ok := a.counts(l, slot, r); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		addLocked(a.addresses, prefix, -1)
	}
}

// counts says under which prefix a connection is counted, if connections are counted by address at all.
func (a *admission) counts(l *loop, slot uint32, r *record) (netip.Prefix, bool) {
	if a.perAddress == 0 {
		return netip.Prefix{}, false
	}
	return addressPrefix(l.remoteAddr(slot, r).Addr())
}

// addLocked changes a count of admission. It keeps no zeros: addresses come without end.
func addLocked(counts map[netip.Prefix]int32, prefix netip.Prefix, by int32) {
	if counts[prefix] += by; counts[prefix] <= 0 {
		delete(counts, prefix)
	}
}

// retryAfterLocked spreads those who are refused over the seconds in which there will be room: as many a second as retry slots are handed out.
func (a *admission) retryAfterLocked(now time.Duration) string {
	return strconv.Itoa(1 + int(a.retries.wait(now, retryAfterMax)/time.Second))
}

// addressPrefix is what counts as one address: of IPv6 the /64 that one host has for itself.
func addressPrefix(address netip.Addr) (netip.Prefix, bool) {
	bits := 32
	if address.Is6() {
		bits = 64
	}
	prefix, err := address.Prefix(bits)
	return prefix, err == nil && prefix.IsValid()
}
