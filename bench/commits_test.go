package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repository is a module with one benchmark, two commits old, and a change that is not committed; it is the current folder of the test.
func repository(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		args = append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	benchmark := func(name string) string {
		return "package room\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc Benchmark" + name + "(b *testing.B) {\n" +
			"\tif _, err := os.Stat(\"testdata/needed\"); err != nil {\n\t\tb.Fatal(err)\n\t}\n\tfor b.Loop() {\n\t}\n}\n"
	}
	write("go.mod", "module example.org/m\n\ngo 1.26\n")
	write("room/room_test.go", benchmark("First"))
	write("room/testdata/needed", "")
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "-m", "first")
	write("room/room_test.go", benchmark("Second"))
	write("other/other_test.go", strings.ReplaceAll(benchmark("Other"), "package room", "package other"))
	git("add", ".")
	git("commit", "--quiet", "-m", "second")
	write("room/room_test.go", benchmark("Third"))
}

// TestCommitsTakeTurns: what is measured are the two commits, and of the packages those that both have.
func TestCommitsTakeTurns(t *testing.T) {
	tests := []struct {
		name      string
		revisions []string
		old, new  string
	}{
		{"a commit and the working tree", []string{"HEAD"}, "BenchmarkSecond", "BenchmarkThird"},
		{"two commits", []string{"HEAD~1", "HEAD"}, "BenchmarkFirst", "BenchmarkSecond"},
	}
	repository(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			results := t.TempDir()
			var stdout, stderr bytes.Buffer
			args := append([]string{"commits", "--packages", "./room", "--benchtime", "1x", "--rounds", "3", "--results", results}, tt.revisions...)
			if code := run(args, &stdout, &stderr); code != exitOK {
				t.Fatalf("exit %d: %s", code, stderr.String())
			}
			for file, want := range map[string]string{oldFile: tt.old, newFile: tt.new} {
				text, err := os.ReadFile(filepath.Join(results, file))
				if err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(string(text), want); n != 3 || strings.Count(string(text), "Benchmark") != 3 || !strings.Contains(string(text), "pkg: example.org/m/room") {
					t.Errorf("%s: %q %d times, want 3 times alone:\n%s", file, want, n, text)
				}
			}
			if !strings.Contains(stdout.String(), "benchstat "+filepath.Join(results, oldFile)) {
				t.Errorf("it says %q", stdout.String())
			}
		})
	}
	if out, err := exec.Command("git", "status", "--porcelain").CombinedOutput(); err != nil || string(out) != " M room/room_test.go\n" {
		t.Errorf("the repository was touched: %q, %v", out, err)
	}
}

func TestCommitsWrongCalls(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"none", nil, "two commits, or one and the working tree"},
		{"three", []string{"a", "b", "c"}, "two commits, or one and the working tree"},
		{"no such commit", []string{"nowhere"}, "git archive nowhere"},
		{"nothing in common", []string{"--packages", "./other", "HEAD~1"}, "go list"},
		{"no round", []string{"--rounds", "0", "HEAD"}, "--rounds 0 is not between 1 and 1000"},
	}
	repository(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(append([]string{"commits"}, tt.args...), &stdout, &stderr)
			if line := lastLine(stderr.String()); code != exitUsage || !strings.Contains(line, tt.want) {
				t.Errorf("exit %d, %q; want exit %d and %q", code, line, exitUsage, tt.want)
			}
		})
	}
}

// TestUnpackStaysInside: an archive can't write where it wasn't told to.
func TestUnpackStaysInside(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "../outside", Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unpack(tar.NewReader(&archive), filepath.Join(dir, "inside")); err == nil {
		t.Error("it was unpacked")
	}
	if _, err := os.Stat(filepath.Join(dir, "outside")); err == nil {
		t.Error("it is outside")
	}
}
