package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Two commits' benchmarks compared in one run: their test binaries take turns, so what the machine does meanwhile befalls both
// alike. What is written are two files that benchstat reads.

const (
	commitsCommand = "commits"
	// workingTree is the name of what is not committed.
	workingTree = "."
	oldFile     = "old.txt"
	newFile     = "new.txt"
)

// commits are the flags and the state of a run.
type commits struct {
	packages  string
	bench     string
	benchtime string
	rounds    int
	results   string // folder
	revisions [2]string

	dir    string // for sources and test binaries
	stderr io.Writer
	sides  [2]side
}

// side is one of the two commits.
type side struct {
	source string // its root folder
	tests  []testBinary
	out    *os.File
}

// testBinary is the tests of one package.
type testBinary struct {
	importPath, dir, file string
}

func runCommits(args []string, stdout, stderr io.Writer) error {
	c := &commits{stderr: stderr, revisions: [2]string{"", workingTree}}
	fs := flag.NewFlagSet("bench "+commitsCommand, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error becomes one line of ours
	fs.StringVar(&c.packages, "packages", "./...", "`packages`, separated by blanks")
	fs.StringVar(&c.bench, "bench", ".", "`expression` of the benchmarks, as go test has it")
	fs.StringVar(&c.benchtime, "benchtime", "1s", "as go test has it")
	fs.IntVar(&c.rounds, "rounds", 6, "how often each commit has its turn: benchstat wants six at least")
	fs.StringVar(&c.results, "results", ".", "`folder` for "+oldFile+" and "+newFile)
	if err := parseFlags(fs, args, stderr); err != nil {
		return err
	}
	if err := broken([]rule{
		roundsRule(c.rounds),
		{fs.NArg() < 1 || fs.NArg() > 2, "bench " + commitsCommand + " [flags] OLD [NEW]: two commits, or one and the working tree"},
	}); err != nil {
		return err
	}
	copy(c.revisions[:], fs.Args())
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	var err error
	if c.dir, err = os.MkdirTemp("", "bench-commits-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir) //nolint:errcheck // a leftover in the temporary folder is no reason to fail
	if err := c.run(ctx); err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	_, err = fmt.Fprintf(stdout, "compare them: benchstat %s %s\n", filepath.Join(c.results, oldFile), filepath.Join(c.results, newFile))
	return err
}

func (c *commits) run(ctx context.Context) error {
	for i := range c.sides {
		if err := c.prepare(ctx, i); err != nil {
			return err
		}
	}
	common := c.common()
	if len(common) == 0 {
		return fmt.Errorf("%w: no package with tests is in both commits: %s", errUsage, c.packages)
	}
	if err := os.MkdirAll(c.results, 0o755); err != nil {
		return err
	}
	for i, name := range []string{oldFile, newFile} {
		out, err := os.Create(filepath.Join(c.results, name))
		if err != nil {
			return err
		}
		defer out.Close() //nolint:errcheck // closed below where it matters
		c.sides[i].out = out
	}
	for round := range c.rounds {
		for _, importPath := range common {
			fmt.Fprintf(c.stderr, "round %d of %d: %s\n", round+1, c.rounds, importPath)
			for turn := range c.sides {
				i := (turn + round) % 2 // who goes first changes, too
				if err := c.bench1(ctx, &c.sides[i], importPath); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(c.sides[0].out.Close(), c.sides[1].out.Close())
}

// prepare brings a commit's source into a folder and builds its test binaries.
func (c *commits) prepare(ctx context.Context, i int) error {
	s := &c.sides[i]
	s.source = workingTree
	if revision := c.revisions[i]; revision != workingTree {
		s.source = filepath.Join(c.dir, "source"+strconv.Itoa(i))
		if err := extract(ctx, revision, s.source); err != nil {
			return err
		}
	}
	// One line a package; those without tests have no line.
	list, err := c.output(ctx, s.source, append([]string{
		"go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}",
	}, strings.Fields(c.packages)...)...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		importPath, dir, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		t := testBinary{importPath, dir, filepath.Join(c.dir, fmt.Sprintf("side%d-%d.test", i, len(s.tests)))}
		fmt.Fprintf(c.stderr, "building %s of %s\n", importPath, c.revisions[i])
		// Without a revision stamped in: a tree that git archive made has none.
		if _, err := c.output(ctx, s.source, "go", "test", "-c", "-buildvcs=false", "-o", t.file, importPath); err != nil {
			return err
		}
		s.tests = append(s.tests, t)
	}
	return nil
}

// extract writes a commit's files to a folder. It changes nothing in the repository, as a work tree of git's own would.
func extract(ctx context.Context, revision, dir string) error {
	archive := exec.CommandContext(ctx, "git", "archive", "--format=tar", revision)
	var complaint lastWords
	archive.Stderr = &complaint
	from, err := archive.StdoutPipe()
	if err != nil {
		return err
	}
	if err := archive.Start(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	unpacked := unpack(tar.NewReader(from), dir)
	_, _ = io.Copy(io.Discard, from)
	if err := archive.Wait(); err != nil {
		return fmt.Errorf("%w: git archive %s: %s", errUsage, revision, lastLine(complaint.String()))
	}
	return unpacked
}

// unpack writes the folders and files of an archive.
func unpack(archive *tar.Reader, dir string) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing was written through it that has not been closed
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(strings.TrimSuffix(h.Name, "/"), 0o755)
		case tar.TypeReg:
			err = unpackFile(root, h, archive)
		}
		if err != nil {
			return err
		}
	}
}

// openRoot makes a folder; what is unpacked can't get out of it.
func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

func unpackFile(root *os.Root, h *tar.Header, from io.Reader) error {
	to, err := root.OpenFile(h.Name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, h.FileInfo().Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// output runs a command in a folder. A failure is the caller's: the command line came from there.
func (c *commits) output(ctx context.Context, dir string, words ...string) (string, error) {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir = dir
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s: %s", errUsage, strings.Join(words[:2], " "), lastLine(complaint.String()))
	}
	return string(out), nil
}

// common lists the packages that both commits have.
func (c *commits) common() []string {
	var list []string
	for _, t := range c.sides[0].tests {
		if slices.ContainsFunc(c.sides[1].tests, func(o testBinary) bool { return o.importPath == t.importPath }) {
			list = append(list, t.importPath)
		}
	}
	return list
}

// bench1 runs one package's benchmarks of one side once, in the package's own folder, as go test would.
func (c *commits) bench1(ctx context.Context, s *side, importPath string) error {
	at := slices.IndexFunc(s.tests, func(t testBinary) bool { return t.importPath == importPath })
	t := s.tests[at]
	cmd := exec.CommandContext(ctx, t.file, "-test.run=^$", "-test.bench="+c.bench, "-test.benchmem", "-test.benchtime="+c.benchtime)
	cmd.Dir = t.dir
	var complaint lastWords
	cmd.Stdout, cmd.Stderr = s.out, &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", importPath, err, lastLine(complaint.String()))
	}
	return nil
}
