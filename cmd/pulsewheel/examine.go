package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/pulsewheel/pulsewheel/doctor"
)

// examined is what doctor prints with --json.
type examined struct {
	Connections int              `json:"connections"`
	Findings    []doctor.Finding `json:"findings"`
	URL         *probed          `json:"url,omitempty"`
	Short       bool             `json:"short"`
}

// probed is a probe with its times in seconds.
type probed struct {
	doctor.Probed
	SilentSeconds float64 `json:"silent_seconds"`
	LifeSeconds   float64 `json:"life_seconds"`
}

// heartbeatInterval is that of a server that was told nothing else: a proxy must allow a longer silence.
const heartbeatInterval = 25 * time.Second

// examine is the doctor: what is short on this host, and what a proxy in front allows.
func examine(p process, o doctorOptions) int {
	if o.URL != "" {
		if err := doctor.CheckURL(o.URL); err != nil {
			return report(p, []string{"--url: " + err.Error()})
		}
	}
	result := examined{Connections: o.Connections, Findings: doctor.Examine(doctor.Host{}, o.Connections)}
	result.Short = doctor.IsShort(result.Findings)
	if !o.JSON {
		printFindings(p.stdout, result.Findings, o.Connections)
	}
	if o.URL != "" {
		if !o.JSON {
			fmt.Fprintf(p.stdout, "\n%s: silent now, at most for %v\n", o.URL, o.Patience)
		}
		found := probe(p, o)
		result.URL = &probed{Probed: found, SilentSeconds: found.Silent.Seconds(), LifeSeconds: found.Life.Seconds()}
		result.Short = result.Short || found.IsShort(heartbeatInterval)
		if !o.JSON {
			fmt.Fprintf(p.stdout, "%s\n", oneLine(found.Text))
		}
	}
	if o.JSON {
		text, err := json.MarshalIndent(result, "", "  ")
		if err != nil {
			panic("plain values that JSON can't hold: " + err.Error())
		}
		fmt.Fprintf(p.stdout, "%s\n", text)
	}
	if result.Short {
		return exitFault
	}
	return exitOK
}

// probe waits for the end of a silent connection, of patience, or for a signal.
func probe(p process, o doctorOptions) doctor.Probed {
	ctx, cancel := context.WithTimeout(context.Background(), o.Patience)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-p.signals:
			cancel()
		case <-done:
		}
	}()
	found, _ := doctor.Probe(ctx, o.URL, nil) // the address was looked at
	return found
}

// printFindings writes what is short first in each line, so that the eye finds it.
func printFindings(w io.Writer, findings []doctor.Finding, connections int) {
	short := 0
	for _, f := range findings {
		fmt.Fprintf(w, "%-7s  %s: %s", f.State, f.Check, f.Have)
		if f.Need != "" && f.State != doctor.Note {
			fmt.Fprintf(w, ", needed %s", f.Need)
		}
		if f.State == doctor.Short {
			short++
			fmt.Fprintf(w, ", short by %s\n         %s\n         %s", f.Short, f.Why, f.Fix)
		}
		fmt.Fprintln(w)
	}
	switch short {
	case 0:
		fmt.Fprintf(w, "nothing is short for %d connections\n", connections)
	default:
		fmt.Fprintf(w, "%d of %d settings are short for %d connections\n", short, len(findings), connections)
	}
}
