package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// perfEvent counts the entries into every system call of every thread, the runtime's own included.
const perfEvent = "raw_syscalls:sys_enter"

// perfPatience bounds the wait for an answer of perf: it answers in milliseconds or not at all.
const perfPatience = 5 * time.Second

var errPerf = errors.New("perf cannot count")

// counter is a running perf that counts one process' system calls between enable and disable. perf starts out
// disabled and acknowledges each command, so the counted span is ours and not that of a process starting up.
type counter struct {
	cmd     *exec.Cmd
	ended   bool
	waited  chan error // what exec.Cmd.Wait says
	control *os.File
	acks    *os.File
	lines   *bufio.Reader
	output  bytes.Buffer
}

// newCounter starts perf on a process. An error says why that cannot be had here.
func newCounter(pid int) (*counter, error) {
	path, err := exec.LookPath("perf")
	if err != nil {
		return nil, fmt.Errorf("%w: perf is not installed", errPerf)
	}
	commands, control, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	acks, answers, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, commands.Close(), control.Close())
	}
	c := &counter{control: control, acks: acks, lines: bufio.NewReader(acks)}
	c.cmd = exec.Command(path, "stat", "-x", ",", "-e", perfEvent, "-D", "-1", "--control", "fd:3,4", "-p", strconv.Itoa(pid))
	c.cmd.ExtraFiles = []*os.File{commands, answers}
	c.cmd.Stderr = &c.output
	c.waited = make(chan error, 1)
	err = launch(c.cmd, nil, func(exit error) { c.waited <- exit })
	_ = commands.Close() // perf has its own by now
	_ = answers.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errPerf, err), control.Close(), acks.Close())
	}
	return c, nil
}

// stop ends the counting and returns the count.
func (c *counter) stop() (int64, error) {
	if err := c.command("disable"); err != nil {
		return 0, err
	}
	return c.finish()
}

// abandon ends a perf whose count nobody wants: it must not outlive us.
func (c *counter) abandon() {
	if c != nil && !c.ended {
		_, _ = c.finish()
	}
}

// command sends one command to perf and waits for its acknowledgement.
func (c *counter) command(name string) error {
	if _, err := c.control.WriteString(name + "\n"); err != nil {
		return fmt.Errorf("%w: %s", errPerf, c.complaint())
	}
	if err := c.acks.SetReadDeadline(time.Now().Add(perfPatience)); err != nil {
		return err
	}
	line, err := c.lines.ReadString('\n')
	if err != nil || strings.Trim(line, "\n\x00") != "ack" {
		return fmt.Errorf("%w: %s", errPerf, c.complaint())
	}
	return nil
}

// complaint ends perf and is what it said.
func (c *counter) complaint() string {
	_, _ = c.finish() // its figures are of no use any more
	text := strings.Join(strings.Fields(c.output.String()), " ")
	if text == "" {
		text = "no answer"
	}
	return text[:min(len(text), 200)]
}

// finish ends perf and returns what it counted.
func (c *counter) finish() (int64, error) {
	c.ended = true
	_ = c.cmd.Process.Signal(os.Interrupt) // fails only if it has ended
	waited := <-c.waited
	_ = c.control.Close()
	_ = c.acks.Close()
	n, err := parsePerf(c.output.String())
	if err != nil {
		return 0, errors.Join(err, waited)
	}
	return n, nil // perf's exit status after an interrupt says nothing
}

// parsePerf finds the count in the output of perf stat -x, (count, unit, event, …).
func parsePerf(output string) (int64, error) {
	for line := range strings.SplitSeq(output, "\n") {
		fields := strings.Split(line, ",")
		if len(fields) < 3 || fields[2] != perfEvent {
			continue
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil { // <not counted>, <not supported>
			return 0, fmt.Errorf("%w: %s", errPerf, fields[0])
		}
		return n, nil
	}
	return 0, fmt.Errorf("%w: no figure in its output", errPerf)
}
