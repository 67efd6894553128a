// Package e2e holds the end-to-end test of the live page: in real headless Chromium, against the shipped server (go test -tags
// integration ./monitor/e2e; it needs node, npm and chromium, and uses the packages of client/e2e).
package e2e
