package server

import (
	"net"
	"net/url"
	"strings"
)

// origins is the policy against cross-site WebSocket hijacking (CWE-1385): a browser sends cookies along and asks no permission,
// so the server must look at who wrote the page.
type origins struct {
	sameHost bool
	any      bool
	exact    map[string]bool
	suffixes []originSuffix
}

// originSuffix is a pattern such as https://*.example.com.
type originSuffix struct {
	scheme string
	domain string // with the leading dot
	port   string
}

// newOrigins compiles the allowed patterns; without any, pages of the same host and port are allowed, and the trusted ones.
func newOrigins(allowed, trusted []string) *origins {
	o := &origins{sameHost: len(allowed) == 0, exact: make(map[string]bool)}
	patterns := allowed
	if o.sameHost {
		patterns = trusted
	}
	for _, pattern := range patterns {
		switch scheme, rest, wild := strings.Cut(pattern, "://*."); {
		case pattern == "*":
			o.any = true
		case wild:
			host, port := splitOrigin(scheme, rest)
			o.suffixes = append(o.suffixes, originSuffix{scheme: strings.ToLower(scheme), domain: "." + host, port: port})
		default:
			o.exact[canonicalOrigin(pattern)] = true
		}
	}
	return o
}

// allow judges the Origin of a request for host. "null", the origin of sandboxed pages and files, needs to be allowed by name or by *.
func (o *origins) allow(origin, host string) bool {
	if o.any {
		return true
	}
	canonical := canonicalOrigin(origin)
	if o.exact[canonical] {
		return true
	}
	u, err := url.Parse(canonical)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	name, port := splitOrigin(u.Scheme, u.Host)
	for _, s := range o.suffixes {
		if u.Scheme == s.scheme && port == s.port && strings.HasSuffix(name, s.domain) && len(name) > len(s.domain) {
			return true
		}
	}
	if !o.sameHost || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	// The Host of a request has no scheme. A port that is left out is that of the page's own scheme: a page on https://example.com
	// connects to wss://example.com, whose Host is example.com.
	hostName, hostPort := splitOrigin(u.Scheme, host)
	return name == hostName && port == hostPort
}

// canonicalOrigin is an origin in lower case and without the default port.
func canonicalOrigin(origin string) string {
	origin = strings.ToLower(origin)
	scheme, host, ok := strings.Cut(origin, "://")
	if !ok {
		return origin
	}
	if port, known := defaultPort(scheme); known {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return scheme + "://" + host
}

// splitOrigin separates host and port; a missing port is the scheme's.
func splitOrigin(scheme, hostport string) (host, port string) {
	hostport = strings.ToLower(hostport)
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
		port, _ = defaultPort(strings.ToLower(scheme))
	}
	return strings.TrimSuffix(host, "."), port
}

func defaultPort(scheme string) (port string, known bool) {
	switch scheme {
	case "http", "ws":
		return "80", true
	case "https", "wss":
		return "443", true
	default:
		return "", false
	}
}
