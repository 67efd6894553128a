package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestCommit builds a program in a repository, untouched and changed, with and without its commit in it.
func TestCommit(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"go.mod": "module example.com/one\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		text, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, text)
		}
		return strings.TrimSpace(string(text))
	}
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOWORK", "off")
	run("git", "init", "-q")
	run("git", "add", ".")
	run("git", "-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "-q", "-m", "one")
	head := run("git", "rev-parse", "--short=12", "HEAD")
	o := options{bin: "bin"}
	check := func(stamp, mark string) {
		t.Helper()
		run("go", "build", "-buildvcs="+stamp, "-o", o.file(product), ".")
		if got, want := o.commit(product), "commit "+head+mark; got != want {
			t.Errorf("-buildvcs=%s: %q, want %q", stamp, got, want)
		}
	}
	if err := os.WriteFile(".git/info/exclude", []byte("bin\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("true", "")
	check("false", "")
	if err := os.WriteFile("main.go", []byte("package main\n\nfunc main() { println() }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("true", "-dirty")
	check("false", "-dirty")
}

func TestUnknownVersions(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("GIT_DIR", "nowhere")
	o := options{bin: "bin", node: "node"}
	for _, s := range servers() {
		if got := o.version(s); !strings.Contains(got, unknown) {
			t.Errorf("%s: %q of programs that are not there", s.name, got)
		}
	}
}
