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

// Goal: what goes wrong in the field. A network that is cut, a browser that is told to be offline, a tab that is hidden, a restart that
// announces slots, and tokens that an embedding program refuses.
func TestTrouble(t *testing.T) {
	folder := t.TempDir()
	binary, tokens := filepath.Join(folder, "pulsewheel"), filepath.Join(folder, "tokens")
	run(t, "../..", "go", "build", "-o", binary, "./cmd/pulsewheel")
	run(t, "../..", "go", "build", "-o", tokens, "./client/e2e/tokens")
	run(t, ".", "npm", "ci", "--no-audit", "--no-fund")
	run(t, ".", "node", "trouble.mjs", binary, tokens)
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
