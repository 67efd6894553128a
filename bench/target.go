package main

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
)

// portsPerSource is how many connections one loopback source address carries before the next one is used. connect(2)
// looks through half of the ephemeral ports (28,232 by default) first, those of one parity; when they are taken it goes through
// all of them for each connection, and opening slows down fivefold.
const portsPerSource = 10000

// target is where a scenario goes.
type target struct {
	url     string
	address string // host:port
	host    string // of the Host header
	path    string // with the query
	// loopback: the client may choose its source address from 127.0.0.0/8, so ports do not bound the connections.
	loopback bool
	pid      int          // of this process: where in 127.0.0.0/8 it begins
	sources  []netip.Addr // to choose from instead
}

// parseTarget understands ws://host[:port][/path][?query]. extra is appended to the query.
func parseTarget(raw string, extra url.Values) (target, error) {
	if raw == "" {
		return target{}, fmt.Errorf("%w: --target is missing, such as --target ws://127.0.0.1:8080/ws", errUsage)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, fmt.Errorf("%w: --target %q is not a URL", errUsage, raw)
	}
	if u.Scheme != "ws" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return target{}, fmt.Errorf("%w: --target %q is not ws://HOST:PORT/PATH", errUsage, raw)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	query := u.Query()
	maps.Copy(query, extra)
	u.RawQuery = query.Encode()
	if u.Path == "" {
		u.Path = "/"
	}
	t := target{url: raw, address: net.JoinHostPort(u.Hostname(), port), host: u.Host, path: u.RequestURI(), pid: os.Getpid()}
	// The name is resolved once: a hundred thousand connections must not ask the resolver each.
	if ips, err := net.LookupIP(u.Hostname()); err != nil {
		return target{}, fmt.Errorf("%w: %q does not resolve", errUsage, u.Hostname())
	} else if len(ips) > 0 {
		ip := ips[0]
		for _, other := range ips {
			if other.To4() != nil {
				ip = other
				break
			}
		}
		t.address = net.JoinHostPort(ip.String(), port)
		t.loopback = ip.IsLoopback() && ip.To4() != nil
	}
	return t, nil
}

// source is the address from which the n-th connection of this process is made; the zero address leaves it to the
// kernel. Every process starts elsewhere in 127.0.0.0/8, so that neither two at a time nor one after another (whose
// predecessor's ports are still in TIME_WAIT) meet. Of the addresses that the caller gave each has its turn.
func (t target) source(n int) netip.Addr {
	if len(t.sources) > 0 {
		return t.sources[(t.pid+n/portsPerSource)%len(t.sources)]
	}
	if !t.loopback {
		return netip.Addr{}
	}
	return sourceOf(t.pid, n)
}

// sourceOf is source for a process of the given id: 127.A.B.C with 1..254 in each place, 127.0.0.0/16 left alone.
func sourceOf(pid, n int) netip.Addr {
	at := uint(pid)*64 + uint(n/portsPerSource)
	return netip.AddrFrom4([4]byte{127, byte(1 + at/(254*254)%254), byte(1 + at/254%254), byte(1 + at%254)})
}
