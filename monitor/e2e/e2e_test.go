//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Goal: what an operator sees is what happens. run.mjs opens connections, looks at the page, kicks, sends, restarts the server; it prints one
// line a check and fails if one of them does.
func TestPage(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "pulsewheel")
	run(t, "../..", "go", "build", "-o", binary, "./cmd/pulsewheel")
	if _, err := os.Stat("../../client/e2e/node_modules/playwright-core"); err != nil {
		run(t, "../../client/e2e", "npm", "ci", "--no-audit", "--no-fund")
	}
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
