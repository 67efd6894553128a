//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Goal: what the project exists for, on real programs. Each script prints one line a check and fails if one of them does. They share
// nothing but the machine, so they run side by side, except for the last: what it measures is when things happen.
func TestEndToEnd(t *testing.T) {
	folder := t.TempDir()
	binary, tokens, goclient := filepath.Join(folder, "pulsewheel"), filepath.Join(folder, "tokens"), filepath.Join(folder, "goclient")
	run(t, "../..", "go", "build", "-o", binary, "./cmd/pulsewheel")
	run(t, "../..", "go", "build", "-o", tokens, "./client/e2e/tokens")
	run(t, "../../examples/goclient", "go", "build", "-o", goclient, ".") // a module of its own
	run(t, ".", "npm", "ci", "--no-audit", "--no-fund")
	tests := []struct {
		name      string
		arguments []string
	}{
		// Connections idle past several heartbeats in every mode, through the server's restart, kill and freeze.
		{name: "ordinary", arguments: []string{"run.mjs", binary}},
		// A network that is cut, a browser that is told to be offline, a tab that is hidden, a restart that announces slots, and tokens
		// that an embedding program refuses.
		{name: "trouble", arguments: []string{"trouble.mjs", binary, tokens}},
		{name: "goclient", arguments: []string{"goclient.mjs", binary, goclient}},
		{name: "types", arguments: []string{"node_modules/typescript/bin/tsc", "--project", "."}},
	}
	t.Run("together", func(t *testing.T) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				run(t, ".", "node", test.arguments...)
			})
		}
	})
	// A crowd behind two restarts; the ten thousand of docs/restart.svg take a little longer.
	t.Run("restart", func(t *testing.T) {
		run(t, ".", "node", "restart.mjs", binary, "--clients", "1000", "--reconnect-rate", "50", "--bins", "10")
	})
}

// Goal: what npm would publish is whole. The packed file is installed into an empty project and imported by its name.
func TestPackage(t *testing.T) {
	folder := t.TempDir()
	run(t, "..", "npm", "pack", "--pack-destination", folder)
	packed, err := filepath.Glob(filepath.Join(folder, "*.tgz"))
	if err != nil || len(packed) != 1 {
		t.Fatal(packed, err)
	}
	run(t, folder, "npm", "install", "--offline", "--no-audit", "--no-fund", packed[0])
	run(t, folder, "node", "--input-type=module", "--eval", `
		import { PulsewheelClient } from "@pulsewheel/client";
		const client = new PulsewheelClient("ws://server.example/ws", { WebSocket: class {}, autoConnect: false });
		if (client.state !== "idle") throw new Error(client.state);`)
	for _, name := range []string{"LICENSE", "README.md", "package.json", "pulsewheel.d.ts", "pulsewheel.js"} {
		if _, err := os.Stat(filepath.Join(folder, "node_modules/@pulsewheel/client", name)); err != nil {
			t.Error(err)
		}
	}
}

// run runs a program to its end and shows what it said.
func run(t *testing.T, folder, name string, arguments ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, arguments...)
	cmd.Dir = folder
	output, err := cmd.CombinedOutput()
	if len(output) > 0 {
		t.Logf("%s", output)
	}
	if err != nil {
		t.Fatalf("%s %v: %v", name, arguments, err)
	}
}
