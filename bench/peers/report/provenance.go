package main

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// unknown stands for a version that can't be found out, which is no reason to lose figures that took long.
const unknown = "of unknown version"

// provenance is where, when and with what a scenario was measured.
type provenance struct {
	Date     string            `json:"date"`
	System   string            `json:"system"`
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Go       string            `json:"go"`
	Versions map[string]string `json:"versions"` // of who took part, and of the load harness
}

// provenance is found out once, before anything is written: what a run writes must not make its own commit a dirty one.
func (o options) provenance() provenance {
	p := thisMachine()
	p.Versions = map[string]string{harness: o.commit(harness)}
	for _, s := range servers() {
		if slices.Contains(o.servers, s.name) {
			p.Versions[s.name] = o.version(s)
		}
	}
	return p
}

// machine is the line about it.
func (p provenance) machine() string {
	return strings.Join([]string{p.Date, p.CPU, count(p.Cores, "core"), p.System, p.Go}, ", ")
}

// thisMachine describes where the figures come from. What can't be found out is left empty.
func thisMachine() provenance {
	p := provenance{Date: time.Now().Format(time.DateOnly), System: runtime.GOOS + " " + runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version()}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-") // without the builder's suffix
		p.System += " " + version
	}
	info, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return p
	}
	defer info.Close() //nolint:errcheck // it was only read
	for lines := bufio.NewScanner(info); lines.Scan(); {
		if name, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			p.CPU = strings.TrimSpace(value)
			return p
		}
	}
	return p
}

// version is which release of its library a peer was built with, the commit of what is our own, or the compiler of what
// is in C.
func (o options) version(s server) string {
	switch {
	case s.module != "":
		return s.module + " " + o.moduleVersion(s)
	case s.name == "ws":
		return "npm ws " + npmVersion(filepath.Join(o.node, "node_modules", "ws", "package.json")) + ", node " + said("node", "--version")
	case s.name == "floor-c":
		return compiler(o.file(s.name))
	}
	return o.commit(s.name)
}

func (o options) moduleVersion(s server) string {
	if info, err := buildinfo.ReadFile(o.file(s.name)); err == nil {
		for _, dep := range info.Deps {
			if dep.Path == s.module {
				return dep.Version
			}
		}
	}
	return unknown
}

// commit is what a program of ours says that it was built from. One that was built without it was built just now, from
// the working tree.
func (o options) commit(name string) string {
	var revision, mark string
	if info, err := buildinfo.ReadFile(o.file(name)); err == nil {
		for _, setting := range info.Settings {
			switch {
			case setting.Key == "vcs.revision":
				revision = setting.Value[:min(len(setting.Value), 12)]
			case setting.Key == "vcs.modified" && setting.Value == "true":
				mark = "-dirty"
			}
		}
	}
	if revision != "" {
		return "commit " + revision + mark
	}
	if revision = said("git", "rev-parse", "--short=12", "HEAD"); revision == unknown {
		return unknown
	}
	// What an earlier run has written is no change of the programs.
	if said("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)"+resultsFolder) != "" {
		mark = "-dirty"
	}
	return "commit " + revision + mark
}

// compiler is what the linker has noted about who compiled a program.
func compiler(name string) string {
	program, err := elf.Open(name)
	if err != nil {
		return unknown
	}
	defer program.Close() //nolint:errcheck // it was only read
	section := program.Section(".comment")
	if section == nil {
		return unknown
	}
	text, err := section.Data()
	if err != nil {
		return unknown
	}
	var notes []string
	for note := range bytes.SplitSeq(text, []byte{0}) {
		if len(note) > 0 {
			notes = append(notes, string(note))
		}
	}
	return strings.Join(notes, ", ")
}

func npmVersion(file string) string {
	var about struct {
		Version string `json:"version"`
	}
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &about) != nil {
		return unknown
	}
	return about.Version
}

// said is what a program prints.
func said(name string, args ...string) string {
	text, err := exec.Command(name, args...).Output()
	if err != nil {
		return unknown
	}
	return strings.TrimSpace(string(text))
}
