package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes of every command.
const (
	exitOK    = 0
	exitFault = 1 // while starting or running
	exitUsage = 2 // a configuration or a call that can't be used
)

// process is what a process has from outside.
type process struct {
	args    []string // without the program's name
	environ []string // NAME=value
	stdout  io.Writer
	stderr  io.Writer
	signals <-chan os.Signal
}

func main() {
	// Without this, Go ends a process whose standard error has lost its reader; connections must outlive a collector of logs.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 4) // A signal that finds no room is lost; four are more than anybody sends at once.
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	os.Exit(run(process{
		args:    os.Args[1:],
		environ: os.Environ(),
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		signals: signals,
	}))
}

// run executes one command and returns the exit code.
func run(p process) int {
	parsed := parse(p)
	if parsed.help {
		return exitOK
	}
	if parsed.command == "" {
		return report(p, parsed.problems)
	}
	switch parsed.command {
	case commandServe:
		return serve(p, parsed)
	case commandCheckConfig:
		return checkConfig(p, parsed)
	case commandDoctor, commandDrain, commandUndrain:
		if len(parsed.problems) > 0 {
			return report(p, parsed.problems)
		}
		if parsed.command == commandDoctor {
			return examine(p, parsed.doctor)
		}
		return drain(p, parsed.admin, parsed.command == commandDrain)
	default:
		if len(parsed.problems) > 0 {
			return report(p, parsed.problems)
		}
		return printVersion(p)
	}
}

// report prints all problems of a call, one line each.
func report(p process, problems []string) int {
	for _, problem := range problems {
		fmt.Fprintf(p.stderr, "pulsewheel: %s\n", oneLine(problem))
	}
	return exitUsage
}
