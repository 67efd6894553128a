package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// readyWithin is how long a server may take until it accepts connections.
	readyWithin = 10 * time.Second
	// readyLook is how often that is tried.
	readyLook = 20 * time.Millisecond
	// endWithin is how long a server may take to end after SIGTERM.
	endWithin = 10 * time.Second
)

var (
	errServer      = errors.New("server")
	errInterrupted = errors.New("interrupted")
)

// runningServer is a server that was started for one run.
type runningServer struct {
	cmd     *exec.Cmd
	address string
	admin   string    // where {admin} stood in its command
	output  lastWords // what it said; read after exited only
	exited  chan struct{}
}

// startServer starts a command on a free port and waits until somebody listens there. {addr} in it is replaced by
// 127.0.0.1:PORT, {port} by PORT, {admin} by the address of another free port.
func startServer(ctx context.Context, command []string) (*runningServer, error) {
	s := &runningServer{exited: make(chan struct{})}
	var err error
	if s.address, s.admin, err = freeAddresses(); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(s.address)
	words := make([]string, len(command))
	for i, w := range command {
		words[i] = strings.NewReplacer("{addr}", s.address, "{port}", port, "{admin}", s.admin).Replace(w)
	}
	s.cmd = exec.Command(words[0], words[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = io.Discard, &s.output
	if err := launch(s.cmd, nil, func(error) { close(s.exited) }); err != nil { // that it ended is all that counts
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	deadline := time.NewTimer(readyWithin)
	defer deadline.Stop()
	for {
		if conn, err := net.Dial("tcp", s.address); err == nil {
			return s, conn.Close()
		}
		select {
		case <-s.exited:
			return nil, fmt.Errorf("%w: it ended at once: %s", errUsage, lastLine(s.output.String()))
		case <-deadline.C:
			return nil, errors.Join(fmt.Errorf("%w: nobody listens on %s after %v", errUsage, s.address, readyWithin), s.end())
		case <-ctx.Done():
			return nil, errors.Join(errInterrupted, s.end())
		case <-time.After(readyLook):
		}
	}
}

// freeAddresses are two loopback addresses that nobody listens on right now.
func freeAddresses() (one, other string, err error) {
	a, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	b, err := net.Listen("tcp", "127.0.0.1:0") // while the first is held, so that they differ
	if err != nil {
		return "", "", errors.Join(err, a.Close())
	}
	return a.Addr().String(), b.Addr().String(), errors.Join(a.Close(), b.Close())
}

// ended says whether the server is gone already.
func (s *runningServer) ended() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// end ends the server by its process id.
func (s *runningServer) end() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	patience := time.NewTimer(endWithin)
	defer patience.Stop()
	select {
	case <-s.exited:
		return nil
	case <-patience.C:
		_ = s.cmd.Process.Kill() // likewise
		<-s.exited
		return fmt.Errorf("%w: did not end within %v of SIGTERM", errServer, endWithin)
	}
}
