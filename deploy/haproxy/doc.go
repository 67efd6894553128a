// Package haproxy holds the configuration of two nodes behind HAProxy, and the test that kills one of them
// (go test -tags integration ./deploy/haproxy; it needs haproxy on the PATH).
package haproxy
