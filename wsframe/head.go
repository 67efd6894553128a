package wsframe

import "bytes"

// HeadLimits bounds a request head; 0 is none. All are answered with 431.
type HeadLimits struct {
	Bytes     int // of the whole head, its empty line included
	LineBytes int // of one line, its CRLF included
	Headers   int // lines after the request line
}

// Head is a parsed request head. Its slices alias the bytes that ParseHead was given and are valid as long as those
// do not change.
type Head struct {
	// Method is a token, upper and lower case distinguished.
	Method []byte
	// Path is the path of the target, as sent: percent escapes are not decoded. It begins with a slash.
	Path []byte
	// RawQuery is what follows the first question mark of the target.
	RawQuery []byte
	// Host is the authority the request is for: that of an absolute target, else of the Host header.
	Host []byte
	// Minor is 1 for HTTP/1.1, 0 for HTTP/1.0.
	Minor int

	fields []byte // the lines after the request line, each with its CRLF
	known  [fieldCount]field
}

// field is what ParseHead keeps of the header fields that an upgrade is judged by, so that this needs no search.
type field struct {
	value []byte // of its first line
	count int    // lines with its name
}

// fieldID numbers those fields; fieldOther is all the rest.
type fieldID uint8

const (
	fieldHost fieldID = iota
	fieldOrigin
	fieldUpgrade
	fieldConnection
	fieldContentLength
	fieldTransferEncoding
	fieldKey
	fieldVersion
	fieldProtocol
	fieldExtensions
	fieldCount
	fieldOther = fieldCount
)

const (
	nameHost       = "Host"
	nameUpgrade    = "Upgrade"
	nameConnection = "Connection"
	nameKey        = "Sec-WebSocket-Key"
	nameVersion    = "Sec-WebSocket-Version"
	nameProtocol   = "Sec-WebSocket-Protocol"
	nameExtensions = "Sec-WebSocket-Extensions"
	nameAccept     = "Sec-WebSocket-Accept"
)

// tlsHandshake is the first byte of a TLS ClientHello.
const tlsHandshake = 0x16

// ParseHead parses the request head that buf begins with, once it is complete, and returns its length n. With n == 0
// and no error more bytes are needed: call again with a longer buf that begins with the same bytes. *scanned is 0
// before the first call and remembers how far the search for the end got, so that a head that drips in byte by byte
// costs as much as one that arrives whole. err is always a *Refusal, with status 400 or 431.
//
// What can't become a head is refused without waiting for its end: too many bytes, a bare LF or CR, a first byte
// that no method begins with.
func ParseHead(buf []byte, scanned *int, lim HeadLimits) (head Head, n int, err error) {
	end, refusal := headEnd(buf, scanned, lim.Bytes)
	if refusal != nil {
		return Head{}, 0, refusal
	}
	if end == 0 {
		return Head{}, 0, nil
	}
	if refusal = head.parse(buf[:end], lim); refusal != nil {
		return Head{}, 0, refusal
	}
	return head, end, nil
}

// headEnd returns the length of the head at the beginning of buf, its empty line included, 0 if it is incomplete.
func headEnd(buf []byte, scanned *int, bytesMax int) (end int, refusal *Refusal) {
	if len(buf) == 0 {
		return 0, nil
	}
	if !isToken(buf[0]) {
		if buf[0] == tlsHandshake {
			return 0, errHeadTLS
		}
		return 0, errHeadRequestLine
	}
	search := buf
	if bytesMax > 0 {
		search = buf[:min(len(buf), bytesMax)]
	}
	at := *scanned
	for at < len(search) {
		line := search[at:]
		lf := bytes.IndexByte(line, '\n')
		if lf >= 0 {
			line = line[:lf]
		}
		cr := bytes.IndexByte(line, '\r')
		switch {
		case cr >= 0 && cr+1 < len(line):
			return 0, errHeadBareCR
		case lf >= 0 && cr < 0:
			// RFC 9112, 2.2 permits a recipient to take a bare LF for the end of a line. That two programs in a row
			// may differ on it is what smuggled requests are made of, and no WebSocket client sends one.
			return 0, errHeadBareLF
		case lf < 0 && cr < 0:
			*scanned = len(search)
		case lf < 0:
			// The LF of this CR may be under way.
			*scanned = at + cr
		}
		if lf < 0 {
			break
		}
		lf += at
		if lf >= 2 && search[lf-2] == '\n' {
			return lf + 1, nil
		}
		at = lf + 1
		*scanned = at
	}
	if bytesMax > 0 && len(buf) >= bytesMax {
		return 0, errHeadBytes
	}
	return 0, nil
}

// parse fills h from a complete head.
func (h *Head) parse(raw []byte, lim HeadLimits) *Refusal {
	line, rest := cutLine(raw)
	if tooLong(line, lim) {
		return errHeadLine
	}
	if refusal := h.parseRequestLine(line); refusal != nil {
		return refusal
	}
	h.fields = rest[:len(rest)-len(crlf)]
	headers := 0
	for rest = h.fields; len(rest) > 0; {
		line, rest = cutLine(rest)
		headers++
		switch {
		case tooLong(line, lim):
			return errHeadLine
		case lim.Headers > 0 && headers > lim.Headers:
			return errHeadHeaders
		}
		if refusal := h.parseField(line); refusal != nil {
			return refusal
		}
	}
	return h.checkHost()
}

const crlf = "\r\n"

// cutLine cuts the first line off p, which is known to hold whole lines that end in CRLF.
func cutLine(p []byte) (line, rest []byte) {
	i := bytes.IndexByte(p, '\n')
	return p[:i-1], p[i+1:]
}

func tooLong(line []byte, lim HeadLimits) bool {
	return lim.LineBytes > 0 && len(line)+len(crlf) > lim.LineBytes
}

// parseRequestLine reads "METHOD SP target SP HTTP/1.x" (RFC 9112, section 3) and takes the target apart.
func (h *Head) parseRequestLine(line []byte) *Refusal {
	method, rest, found := bytes.Cut(line, []byte(" "))
	target, version, foundVersion := bytes.Cut(rest, []byte(" "))
	if !found || !foundVersion || len(target) == 0 || !isTokens(method) {
		return errHeadRequestLine
	}
	switch string(version) {
	case "HTTP/1.1":
		h.Minor = 1
	case "HTTP/1.0":
		h.Minor = 0
	default:
		return errHeadVersion
	}
	for _, c := range target {
		// RFC 3986 has visible ASCII only in a URI, and RFC 9112 no fragment in a target.
		if c <= ' ' || c >= 0x7F || c == '#' {
			return errHeadTarget
		}
	}
	h.Method = method
	if target[0] != '/' {
		// RFC 9112, 3.2.2: a server MUST accept the absolute-form in requests, and use its host instead of the field's.
		authority, path, ok := cutAbsolute(target)
		if !ok {
			return errHeadTarget
		}
		h.Host = authority
		target = path
	}
	h.Path, h.RawQuery, _ = bytes.Cut(target, []byte("?"))
	if len(h.Path) == 0 {
		h.Path = []byte("/")
	}
	if !isEscaped(h.Path) {
		return errHeadTarget
	}
	return nil
}

// cutAbsolute takes an absolute target (scheme://authority/path?query) apart.
func cutAbsolute(target []byte) (authority, path []byte, ok bool) {
	scheme, rest, found := bytes.Cut(target, []byte("://"))
	if !found {
		return nil, nil, false
	}
	switch len(scheme) {
	case 2:
		ok = equalFold(scheme, "ws")
	case 3:
		ok = equalFold(scheme, "wss")
	case 4:
		ok = equalFold(scheme, "http")
	case 5:
		ok = equalFold(scheme, "https")
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	return rest[:end], rest[end:], ok && end > 0 && isHost(rest[:end])
}

// parseField judges one header line and notes it if it is of a known name.
func (h *Head) parseField(line []byte) *Refusal {
	// RFC 9112, 5.2: a server that receives an obs-fold MUST reject the message or replace the fold.
	if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
		return errHeadFold
	}
	colon := 0
	for colon < len(line) && isToken(line[colon]) {
		colon++
	}
	// RFC 9112, 5.1: whitespace between a field name and colon MUST be rejected; it is no token character.
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return errHeadField
	}
	name, value := line[:colon], trimBlanks(line[colon+1:])
	if !isValue(value) {
		return errHeadValue
	}
	id := identify(name)
	if id == fieldOther {
		return nil
	}
	f := &h.known[id]
	if f.count == 0 {
		f.value = value
	}
	f.count++
	return nil
}

// checkHost applies RFC 9112, 3.2: one Host in an HTTP/1.1 request, and a valid one. An HTTP/1.0 request may lack it,
// as the health checks of old balancers do.
func (h *Head) checkHost() *Refusal {
	f := &h.known[fieldHost]
	switch {
	case f.count > 1:
		return errHeadHostTwice
	case f.count == 0 && h.Minor > 0:
		return errHeadNoHost
	case !isHost(f.value):
		return errHeadHost
	}
	if h.Host == nil {
		h.Host = f.value
	}
	return nil
}

// identify returns the number of a field name.
func identify(name []byte) fieldID {
	var id fieldID
	var want string
	switch len(name) {
	case 4:
		id, want = fieldHost, nameHost
	case 6:
		id, want = fieldOrigin, "Origin"
	case 7:
		id, want = fieldUpgrade, nameUpgrade
	case 10:
		id, want = fieldConnection, nameConnection
	case 14:
		id, want = fieldContentLength, "Content-Length"
	case 17:
		id, want = fieldKey, nameKey
		if name[0]|0x20 == 't' {
			id, want = fieldTransferEncoding, "Transfer-Encoding"
		}
	case 21:
		id, want = fieldVersion, nameVersion
	case 22:
		id, want = fieldProtocol, nameProtocol
	case 24:
		id, want = fieldExtensions, nameExtensions
	default:
		return fieldOther
	}
	if !equalFold(name, want) {
		return fieldOther
	}
	return id
}

// Each calls yield with the name and value of each header line, in order, names as sent, until yield returns false.
// It can be ranged over.
func (h *Head) Each(yield func(name, value []byte) bool) {
	for rest := h.fields; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		name, value, _ := bytes.Cut(line, []byte(":"))
		if !yield(name, trimBlanks(value)) {
			return
		}
	}
}

// Header returns the value of the first line with that name, in whatever case, and the number of such lines.
func (h *Head) Header(name string) (value []byte, count int) {
	for n, v := range h.Each {
		if len(n) == len(name) && equalFold(n, name) {
			if count == 0 {
				value = v
			}
			count++
		}
	}
	return value, count
}

// Tokens calls yield with each element of a field that is a comma-separated list, over all its lines, until yield
// returns false; empty elements are left out (RFC 9110, section 5.6.1). It can be ranged over.
func (h *Head) Tokens(name string) func(yield func(token []byte) bool) {
	return func(yield func(token []byte) bool) {
		for n, v := range h.Each {
			if len(n) == len(name) && equalFold(n, name) && !eachToken(v, yield) {
				return
			}
		}
	}
}

// Protocols calls yield with each subprotocol that the client offers, in its order of preference.
func (h *Head) Protocols(yield func(protocol []byte) bool) { h.Tokens(nameProtocol)(yield) }

// lines reports whether yield returned true for the value of each line of a known field.
func (h *Head) lines(id fieldID, yield func(value []byte) bool) bool {
	f := &h.known[id]
	if f.count <= 1 {
		return f.count == 0 || yield(f.value)
	}
	for name, value := range h.Each {
		if identify(name) == id && !yield(value) {
			return false
		}
	}
	return true
}

// hasToken reports whether the list that the known field is has that element, in whatever case.
func (h *Head) hasToken(id fieldID, name, token string) bool {
	f := &h.known[id]
	has := func(t []byte) bool { return len(t) == len(token) && equalFold(t, token) }
	if f.count <= 1 {
		return !eachToken(f.value, func(t []byte) bool { return !has(t) })
	}
	for t := range h.Tokens(name) {
		if has(t) {
			return true
		}
	}
	return false
}

// eachToken reports whether yield returned true for each element of the list.
func eachToken(list []byte, yield func(token []byte) bool) bool {
	for len(list) > 0 {
		var token []byte
		token, list, _ = bytes.Cut(list, []byte(","))
		if token = trimBlanks(token); len(token) > 0 && !yield(token) {
			return false
		}
	}
	return true
}

// trimBlanks removes spaces and tabs from both ends.
func trimBlanks(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t') {
		p = p[1:]
	}
	for len(p) > 0 && (p[len(p)-1] == ' ' || p[len(p)-1] == '\t') {
		p = p[:len(p)-1]
	}
	return p
}
