package monitor

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guarded lets a request through that names a permitted host and bears the token.
func (m *Monitor) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.hostAllowed(r) {
			refuse(w, http.StatusForbidden, "the Host header names neither loopback nor the bound address nor one of admin-hosts")
			return
		}
		if !m.tokenMatches(r.Header.Get("Authorization")) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "a bearer token is needed")
			return
		}
		next.ServeHTTP(w, r)
	})
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

// tokenMatches compares in a time that tells nothing about the token, not even its length.
func (m *Monitor) tokenMatches(authorization string) bool {
	if m.cfg.Token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	got, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(m.cfg.Token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// refuse answers with one line.
func refuse(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, reason, status)
}
