// Package prometheus holds the integration test of the rules, alerts and dashboard: by promtool and against a real Prometheus that scrapes the shipped
// server (go test -tags integration ./deploy/prometheus; it needs prometheus and promtool, Debian's package prometheus).
package prometheus
