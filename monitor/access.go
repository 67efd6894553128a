package monitor

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guarded lets a request through that names a permitted host, that no other site's page has sent, and that bears the token.
func (m *Monitor) guarded(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.hostAllowed(r) {
			refuse(w, r, http.StatusForbidden, "host", "the Host header names neither loopback nor the bound address nor one of admin-hosts")
			return
		}
		if crossOrigin.Check(r) != nil || fromOtherSite(r) {
			refuse(w, r, http.StatusForbidden, "cross_site", "a page of another site or port sent this request")
			return
		}
		bears := m.bears(r.Header.Get("Authorization"))
		if bears == wrongToken {
			w.Header().Add("WWW-Authenticate", "Bearer")
			w.Header().Add("WWW-Authenticate", `Basic realm="pulsewheel"`)
			refuse(w, r, http.StatusUnauthorized, "token", "a bearer token is needed")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// mayChange guards changes against web pages: they need the bearer token, or a content type that a page can't send unasked. A token that
// the browser adds by itself proves nothing.
func (m *Monitor) mayChange(r *http.Request) bool {
	return m.bears(r.Header.Get("Authorization")) == bearerToken || contentTypeAllowed(r)
}

// contentTypeAllowed tells types that a web page can only send after asking, and nobody here says yes: a form or a script of another
// site sends text/plain or what forms send.
func contentTypeAllowed(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && (kind == "application/json" || kind == "application/octet-stream")
}

// fromOtherSite says that a browser sent the request for a page of another origin, which could have the server make profiles all day.
// One of the same site is another as well: another port of this machine, or another name below a common domain. A link to one of
// our pages is fine.
func fromOtherSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	isLink := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Method == http.MethodGet
	return !isLink || r.URL.Path != "/" && r.URL.Path != "/demo"
}

// hostAllowed guards against DNS rebinding: a page's script can reach this listener under a name that its author controls, and
// then the Host header bears that name. An address can't be rebound.
func (m *Monitor) hostAllowed(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if _, isUnix := local.(*net.UnixAddr); isUnix {
		return true // no browser connects to one
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if isLoopbackHost(host) || slices.ContainsFunc(m.cfg.Hosts, func(name string) bool { return strings.EqualFold(name, host) }) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	tcp, isTCP := local.(*net.TCPAddr)
	return err == nil && isTCP && tcp.AddrPort().Addr().Unmap() == ip.Unmap()
}

// proof is how a request shows that it knows the token.
type proof uint8

const (
	wrongToken  proof = iota
	noToken           // none is asked for
	basicToken        // as the password of a browser's dialogue: the browser then adds it by itself, so it proves no intent
	bearerToken       // by a program that has it
)

// bears compares in a time that tells nothing about the token, not even its length.
func (m *Monitor) bears(authorization string) proof {
	if m.cfg.Token == "" {
		return noToken
	}
	scheme, credentials, _ := strings.Cut(authorization, " ")
	token, kind := strings.TrimSpace(credentials), bearerToken
	switch {
	case strings.EqualFold(scheme, "Basic"):
		kind = basicToken
		pair, _ := base64.StdEncoding.DecodeString(token) // what can't be decoded is no token
		_, token, _ = strings.Cut(string(pair), ":")
	case !strings.EqualFold(scheme, "Bearer"):
		return wrongToken
	}
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(m.cfg.Token))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return wrongToken
	}
	return kind
}

// refuse answers with one line, and under /api/ with JSON that programs can act upon.
func refuse(w http.ResponseWriter, r *http.Request, status int, code, reason string) {
	w.Header().Set("Cache-Control", "no-store")
	if strings.HasPrefix(r.URL.Path, "/api/") {
		writeJSON(w, status, errorJSON{Error: errorBody{Code: code, Message: reason}})
		return
	}
	http.Error(w, reason, status)
}
