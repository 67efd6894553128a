package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// provenance is when, where and with what a result was measured. What can't be found out is left empty.
type provenance struct {
	Ended    string   `json:"ended"`   // RFC 3339
	Command  []string `json:"command"` // of the harness, without its own name
	System   string   `json:"system"`
	Cores    int      `json:"cores"`
	Go       string   `json:"go"`
	Revision string   `json:"revision,omitempty"` // of the harness; with a + it had changes
}

func thisRun() *provenance {
	p := &provenance{
		Ended: time.Now().UTC().Format(time.RFC3339), Command: os.Args[1:],
		System: runtime.GOOS + " " + runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(),
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-") // without the builder's suffix
		p.System += " " + version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				p.Revision = s.Value[:min(len(s.Value), 12)] + p.Revision
			case s.Key == "vcs.modified" && s.Value == "true":
				p.Revision += "+"
			}
		}
	}
	return p
}
