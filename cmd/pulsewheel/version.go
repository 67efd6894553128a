package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// build is what the Go tool stamped into the binary.
type build struct {
	version  string
	revision string // commit, with "+dirty" if the tree had changes
}

func readBuild() build {
	b := build{version: "devel", revision: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.version = v
	}
	modified := ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			b.revision = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			modified = "+dirty"
		}
	}
	if b.revision != "unknown" {
		b.revision += modified
	}
	return b
}

func printVersion(p process) int {
	b := readBuild()
	fmt.Fprintf(p.stdout, "pulsewheel %s (commit %s, %s, %s/%s)\n", b.version, b.revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}
