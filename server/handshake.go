package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// handshake reads the request head out of data, all that has arrived so far, and answers it once it is complete. used is 0 until
// then, and after it the length of the head: behind it may stand frames that came in the same packet.
func (x *runner) handshake(data []byte) (used int) {
	scanned := 0
	if s := x.loop.sides.of(x.slot, x.r); s != nil {
		scanned = s.scanned
	}
	head, used, err := wsframe.ParseHead(data, &scanned, x.server.policy.Load().head)
	if err != nil {
		var refusal *wsframe.Refusal
		errors.As(err, &refusal)
		x.refuse(refusal, rejectMalformed)
		return len(data)
	}
	if used == 0 {
		if scanned > 0 {
			x.loop.sides.ensure(x.slot, x.r).scanned = scanned
		}
		return 0
	}
	return x.request(&head, used)
}

// request answers a complete request: with the health of the server, a refusal, the upgrade, or by asking Config.Upgrade. It
// returns how much of the input is used.
func (x *runner) request(h *wsframe.Head, headBytes int) (used int) {
	if !x.r.flag(flagAdopted) {
		switch {
		case isHealthPath(h.Path):
			x.health(h)
			return headBytes
		case string(h.Path) == x.server.cfg.Path:
		default:
			x.refuse(&wsframe.Refusal{Status: http.StatusNotFound, Text: "no such path"}, rejectPath)
			return headBytes
		}
	}
	if refusal := wsframe.CheckUpgrade(h); refusal != nil {
		x.refuse(refusal, rejectMalformed)
		return headBytes
	}
	wish, refusal := parseWish(h.RawQuery)
	if refusal != nil {
		x.refuse(refusal, rejectHeartbeat)
		return headBytes
	}
	if origin, count := h.Header("Origin"); count > 1 || count == 1 && !x.server.policy.Load().origins.allow(string(origin), string(h.Host)) {
		text := "origin " + strconv.QuoteToASCII(string(origin)) + " is not allowed for host " + strconv.QuoteToASCII(string(h.Host))
		x.refuseUpgrade(h, wish, &wsframe.Refusal{Status: http.StatusForbidden, Reason: "origin", Text: text}, rejectOrigin)
		return headBytes
	}
	if refusal, why := x.server.enter(x.loop, x.slot, x.r); refusal != nil {
		x.refuseUpgrade(h, wish, refusal, why)
		return headBytes
	}
	if x.server.cfg.Upgrade == nil {
		x.upgrade(h, wish, Accept{})
		return headBytes
	}
	request := x.newRequest(h)
	x.loop.sides.ensure(x.slot, x.r).request = request
	x.r.setPhase(phaseUpgrade)
	if x.server.inline {
		x.answer(h, wish, x.server.judge(request))
		return headBytes
	}
	// It may block, so it is asked on the handler pool. The head stays in front of what is left: the answer needs it.
	x.submit(delivery{kind: deliverUpgrade, request: request})
	return 0
}

// verdict goes on with a request that Config.Upgrade has judged on the handler pool.
func (x *runner) verdict(data []byte) (used int) {
	shard := x.loop.sides.shard(x.slot)
	shard.mu.Lock()
	var v *verdict
	if s := shard.ofLocked(x.r); s != nil {
		v, s.verdict = s.verdict, nil
	}
	shard.mu.Unlock()
	if v == nil {
		x.halted = true // input came before it
		return 0
	}
	scanned := 0
	head, used, err := wsframe.ParseHead(data, &scanned, x.server.policy.Load().head)
	if err != nil || used == 0 {
		panic("server: a request head that was parsed once doesn't parse again")
	}
	wish, _ := parseWish(head.RawQuery) // it was parsed once
	x.answer(&head, wish, *v)
	return used
}

// answer carries out what Config.Upgrade said.
func (x *runner) answer(h *wsframe.Head, wish wish, v verdict) {
	var refusal *RefusalError
	switch {
	case v.panicked:
		x.refuse(&wsframe.Refusal{Status: http.StatusInternalServerError, Text: "internal error"}, rejectPanic)
	case errors.As(v.err, &refusal):
		status := refusal.Status
		if status < 400 || status > 599 {
			status = http.StatusForbidden
		}
		header := fields(refusal.Header)
		if status == http.StatusUnauthorized && refusal.Header.Get("WWW-Authenticate") == "" {
			header = append(header, [2]string{"WWW-Authenticate", "Bearer"}) // RFC 9110, section 15.5.2: a 401 names a challenge
		}
		x.refuseUpgrade(h, wish, &wsframe.Refusal{Status: status, Reason: "refused", Text: printable(refusal.Body), Header: header}, rejectUpgrade)
	case v.err != nil:
		x.server.log.Debug("upgrade refused", "error", v.err)
		x.refuse(&wsframe.Refusal{Status: http.StatusInternalServerError, Text: "internal error"}, rejectUpgrade)
	default:
		x.upgrade(h, wish, v.accept)
	}
}

// upgrade makes the connection a WebSocket: the 101, the terms of its heartbeats, and from here on it is live.
func (x *runner) upgrade(h *wsframe.Head, wish wish, accept Accept) {
	r, l := x.r, x.loop
	answer := wsframe.Accept{Protocol: accept.Protocol, Header: fields(accept.Header)}
	if x.server.cfg.Compression {
		var d wsframe.Deflate
		d, answer.Extensions = wsframe.NegotiateDeflate(h)
		r.setDeflate(d)
	}
	out, err := x.upgrader.Append(x.out, h, answer)
	if err != nil {
		x.server.log.Error("upgrade impossible", "error", err)
		x.refuse(&wsframe.Refusal{Status: http.StatusInternalServerError, Text: "internal error"}, rejectUpgrade)
		return
	}
	x.out = out
	mode, interval, timeout := x.server.grant(wish, accept)
	if mode != HeartbeatNone {
		r.interval.Store(millis(interval))
	}
	r.timeout.Store(millis(timeout))
	r.setMode(mode)
	if !r.flag(flagUnix) && (timeout != max(0, x.server.cfg.HeartbeatTimeout) || r.flag(flagAdopted)) {
		// A precaution, and no reason to refuse the connection: what counts is the heartbeat.
		_ = l.sys.setUserTimeout(int(r.fd), userTimeout(timeout))
	}
	x.keepAccepted(accept)
	if wish.mode == HeartbeatText {
		r.setFlag(flagStamped)
		x.out = x.server.appendHello(x.out, connID(r.id.Load()), interval, timeout)
	}
	r.setPhase(phaseOpen)
	r.setFlag(flagOpened)
	l.active.Add(1)
	l.handshakes.Add(-1)
	x.server.countHandshake(l, x.slot, r, -1)
	x.tally[countOpened]++
	x.flush() // nothing that anybody sends may come before the 101
	r.step(word.open)
	l.tell(x, task{kind: taskOpened, slot: x.slot, generation: r.load().generation(), interval: r.interval.Load()})
	if x.server.plain {
		return
	}
	request := x.takeRequest(h)
	if x.server.inline {
		x.handleOpen(request)
		return
	}
	x.submit(delivery{kind: deliverOpen, request: request})
}

// keepAccepted keeps what the application gave the connection.
func (x *runner) keepAccepted(accept Accept) {
	limit, standard := accept.MessageSizeLimit, x.server.policy.Load().limits
	most := standard.MessageBytesMax
	lower := limit > 0 && (most == 0 || limit < most)
	if accept.User == "" && accept.Value == nil && !lower {
		return
	}
	shard := x.loop.sides.shard(x.slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	s := shard.ensureLocked(x.r)
	s.user, s.value = accept.User, accept.Value
	if lower {
		limits := *standard
		limits.MessageBytesMax, limits.Deflate = limit, x.r.deflate() != 0
		s.limits = &limits
	}
}

func (x *runner) handleOpen(request *Request) {
	defer x.contain()
	x.server.handler.Open(x.conn(), request)
}

// takeRequest returns the request for Open, which Config.Upgrade may have seen already.
func (x *runner) takeRequest(h *wsframe.Head) *Request {
	if s := x.loop.sides.of(x.slot, x.r); s != nil && s.request != nil {
		request := s.request
		s.request = nil
		return request
	}
	return x.newRequest(h)
}

func (x *runner) newRequest(h *wsframe.Head) *Request {
	request := &Request{
		Method: string(h.Method), Path: string(h.Path), RawQuery: string(h.RawQuery), Host: string(h.Host),
		Header: make(http.Header), RemoteAddr: x.loop.remoteAddr(x.slot, x.r),
	}
	for name, value := range h.Each {
		request.Header.Add(string(name), string(value))
	}
	for protocol := range h.Protocols {
		request.Protocols = append(request.Protocols, string(protocol))
	}
	return request
}

// refuse ends a handshake with a plain response.
func (x *runner) refuse(refusal *wsframe.Refusal, why rejection) {
	x.end(ending{reject: why, reply: wsframe.AppendRefusal(nil, refusal)})
}

// refuseUpgrade ends a handshake whose request was a valid upgrade. A browser can't see the status of a refused one: to who
// asked, the answer is an upgrade that closes at once.
func (x *runner) refuseUpgrade(h *wsframe.Head, wish wish, refusal *wsframe.Refusal, why rejection) {
	code := wsframe.CloseCode(0)
	switch refusal.Status {
	case http.StatusUnauthorized:
		code = wsframe.CloseToken
	case http.StatusForbidden:
		code = wsframe.CloseKicked
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		code = wsframe.CloseOverload
	}
	if !wish.closeErrors || code == 0 {
		x.refuse(refusal, why)
		return
	}
	// A client that offers subprotocols wants one, or it fails the connection before it sees the code.
	accept := wsframe.Accept{}
	for protocol := range h.Protocols {
		accept.Protocol = string(protocol)
		break
	}
	reply, err := wsframe.AppendUpgrade(nil, h, accept)
	if err != nil {
		x.refuse(refusal, why)
		return
	}
	reason := refusal.Reason
	if i := slices.IndexFunc(refusal.Header, func(field [2]string) bool { return strings.EqualFold(field[0], "Retry-After") }); i >= 0 {
		reason += "; retry-after=" + refusal.Header[i][1]
	}
	x.end(ending{reject: why, reply: wsframe.AppendClose(reply, code, reason)})
}

// health answers the checks of balancers, past every limit.
func (x *runner) health(h *wsframe.Head) {
	reply := x.server.health(h)
	if reply == nil {
		x.refuse(&wsframe.Refusal{Status: http.StatusMethodNotAllowed, Text: "GET only", Header: [][2]string{{"Allow", "GET, HEAD"}}}, rejectMalformed)
		return
	}
	x.end(ending{reject: rejectHealth, reply: reply})
}

const readyPath = "/readyz"

// isHealthPath says whether a path is one of the checks of balancers.
func isHealthPath(path []byte) bool { return string(path) == "/healthz" || string(path) == readyPath }

// health answers a check; nil: neither to GET nor to HEAD, and there are no others.
func (s *Server) health(h *wsframe.Head) (reply []byte) {
	if m := string(h.Method); m != http.MethodGet && m != http.MethodHead {
		return nil
	}
	status, body := http.StatusOK, "ok\n"
	if string(h.Path) == readyPath {
		if err := s.Ready(); err != nil {
			status, body = http.StatusServiceUnavailable, err.Error()+"\n"
		}
	}
	reply = wsframe.AppendResponse(nil, status, "text/plain; charset=utf-8", body, nil)
	if string(h.Method) == http.MethodHead {
		reply = reply[:len(reply)-len(body)] // what GET would say, without the body (RFC 9110, section 9.3.2)
	}
	return reply
}

// atTheDoor is what a connection is told that isn't let in: how the server is, if that is what it asks and has asked by now.
func (s *Server) atTheDoor(refusal *wsframe.Refusal, health *bool) func(request []byte) []byte {
	return func(request []byte) []byte {
		scanned := 0
		head, used, err := wsframe.ParseHead(request, &scanned, s.policy.Load().head)
		if err == nil && used > 0 && isHealthPath(head.Path) {
			if reply := s.health(&head); reply != nil {
				*health = true
				return reply
			}
		}
		return wsframe.AppendRefusal(nil, refusal)
	}
}

// wish is what a client asks for in its query.
type wish struct {
	mode        HeartbeatMode
	interval    time.Duration // 0: nothing
	closeErrors bool
}

// parseWish reads ?heartbeat=ping|text|none&heartbeat_interval=30s&errors=close; a bare number is seconds.
func parseWish(query []byte) (w wish, refusal *wsframe.Refusal) {
	if len(query) == 0 {
		return w, nil
	}
	bad := func(text string) (wish, *wsframe.Refusal) {
		return w, &wsframe.Refusal{Status: http.StatusBadRequest, Text: text}
	}
	values, err := url.ParseQuery(string(query))
	for _, name := range [...]string{"heartbeat", "heartbeat_interval"} {
		if len(values[name]) > 1 {
			return bad(name + ": more than once")
		}
	}
	if err != nil { // of the pairs that can't be parsed, only ours are ours to judge
		for pair := range strings.SplitSeq(string(query), "&") {
			name, _, _ := strings.Cut(pair, "=")
			if _, err := url.ParseQuery(pair); err != nil && (name == "heartbeat" || name == "heartbeat_interval") {
				return bad(name + ": it can't be parsed")
			}
		}
	}
	w.closeErrors = values.Get("errors") == "close"
	if values.Has("heartbeat") {
		mode, ok := ParseHeartbeatMode(values.Get("heartbeat"))
		if !ok {
			return bad("heartbeat: ping, text or none")
		}
		w.mode = mode
	}
	if values.Has("heartbeat_interval") {
		d, ok := parseInterval(values.Get("heartbeat_interval"))
		if !ok {
			return bad("heartbeat_interval: a duration such as 30s, or seconds")
		}
		w.interval = max(d, 1)
	}
	return w, nil
}

// parseInterval reads a duration or a bare number of seconds. What is longer than any interval granted is that long.
func parseInterval(text string) (time.Duration, bool) {
	if strings.Trim(text, "0123456789.") == "" && text != "" {
		seconds, err := strconv.ParseFloat(text, 64) // which by itself knows inf, 0x1p5 and 1e3 too
		return time.Duration(min(seconds, negotiatedTimeoutMax.Seconds()) * float64(time.Second)), err == nil || errors.Is(err, strconv.ErrRange)
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 0
}

// grant decides a connection's heartbeats: what the server does by default, what the client asked for within the bounds, and what the
// application wants, each over the one before. The timeout keeps its proportion to the interval.
func (s *Server) grant(wish wish, accept Accept) (mode HeartbeatMode, interval, timeout time.Duration) {
	mode, interval, timeout = s.cfg.HeartbeatMode, s.cfg.HeartbeatInterval, max(0, s.cfg.HeartbeatTimeout)
	if wish.mode != HeartbeatDefault {
		mode = wish.mode
	}
	if accept.HeartbeatMode != HeartbeatDefault {
		mode = accept.HeartbeatMode
	}
	granted := interval
	if wish.interval != 0 {
		granted = min(max(wish.interval, s.cfg.HeartbeatMin), s.cfg.HeartbeatMax)
	}
	if accept.HeartbeatInterval > 0 {
		granted = max(accept.HeartbeatInterval, heartbeatIntervalLeast)
	}
	if granted != interval && timeout > 0 {
		timeout = time.Duration(float64(granted) * (float64(timeout) / float64(interval)))
		timeout = max(min(timeout, negotiatedTimeoutMax), 2*granted)
	}
	if accept.HeartbeatTimeout > 0 {
		timeout = max(accept.HeartbeatTimeout, 2*granted)
	}
	return mode, granted, timeout
}

// appendHello appends the message that tells a client of text heartbeats what it was granted.
func (s *Server) appendHello(dst []byte, id string, interval, timeout time.Duration) []byte {
	hello, err := json.Marshal(struct {
		Type     string `json:"type"`
		ID       string `json:"id"`
		Interval int64  `json:"interval_ms"`
		Timeout  int64  `json:"timeout_ms"`
		Node     string `json:"node"`
	}{"hello", id, interval.Milliseconds(), timeout.Milliseconds(), s.cfg.NodeName})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return wsframe.AppendFrame(dst, wsframe.Text, hello)
}

// userTimeout is how long the kernel tries to deliver what was written: a little longer than the connection may be silent, so that it agrees with
// the heartbeat and never comes first. 0: as long as it likes.
func userTimeout(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return 0
	}
	return timeout + closeTimeout
}

func millis(d time.Duration) uint32 { return uint32(d / time.Millisecond) }

// printable makes a text of strangers fit for one line of ASCII.
func printable(text string) string {
	quoted := strconv.QuoteToASCII(text)
	return quoted[1 : len(quoted)-1]
}

// fields is a header in a fixed order.
func fields(header http.Header) [][2]string {
	if len(header) == 0 {
		return nil
	}
	list := make([][2]string, 0, len(header))
	for name, values := range header {
		for _, value := range values {
			list = append(list, [2]string{name, value})
		}
	}
	slices.SortStableFunc(list, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return list
}

// remoteAddr is where a connection comes from; zero for a Unix socket.
func (l *loop) remoteAddr(slot uint32, r *record) netip.AddrPort {
	if peer := r.peer.Load(); peer != 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(peer >> 24), byte(peer >> 16), byte(peer >> 8), byte(peer)}), r.port())
	}
	shard := l.sides.shard(slot)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s := shard.ofLocked(r); s != nil {
		return s.peer
	}
	return netip.AddrPort{}
}
