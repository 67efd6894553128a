//go:build linux && integration

package peers_test

import "testing"

// TestNode needs node, and what `npm ci` installs in folder ws.
func TestNode(t *testing.T) {
	contestant{name: "ws", echo: true, expires: true, command: []string{"node", "ws/server.mjs"}}.check(t)
}
