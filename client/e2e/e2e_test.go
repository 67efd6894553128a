//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Goal: what the project exists for, on real programs. Connections idle past several heartbeats in every mode, through the server's
// restart, kill and freeze. run.mjs prints one line a check and fails if one of them does.
func TestEndToEnd(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "pulsewheel")
	run(t, "../..", "go", "build", "-o", binary, "./cmd/pulsewheel")
	run(t, ".", "npm", "ci", "--no-audit", "--no-fund")
	run(t, ".", "node", "run.mjs", binary)
}

func run(t *testing.T, folder, name string, arguments ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, arguments...)
	cmd.Dir = folder
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v", name, arguments, err)
	}
}
