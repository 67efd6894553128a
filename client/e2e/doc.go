// Package e2e holds the end-to-end test of the browser client: the shipped file in real headless Chromium and in Node, and npm's
// ws as another implementation, against the shipped server (go test -tags integration ./client/e2e; it needs node, npm and
// chromium).
package e2e
