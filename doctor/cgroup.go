package doctor

import (
	"path"
	"slices"
	"strings"
)

// groupLimit is a limit of memory that this process' control group has, or one above it.
type groupLimit struct {
	bytes   uint64
	file    string // that tells it
	setting string // of systemd, that sets it
}

// limitFile is a file of a group's folder that tells a limit.
type limitFile struct{ name, setting string }

// noLimit is above every limit that anybody means.
const noLimit = 1 << 60

// groupLimit is the tightest of all that bound this process, of both versions, its own and those of the groups above.
func (e *examination) groupLimit() (tightest groupLimit, ok bool) {
	// Version 2 slows a group down above memory.high and kills above memory.max. Without a limit they say "max"; version 1 says a number next
	// to 2^63.
	limitsV1 := []limitFile{{"memory.limit_in_bytes", "MemoryLimit"}}
	limitsV2 := []limitFile{{"memory.max", "MemoryMax"}, {"memory.high", "MemoryHigh"}}
	for line := range strings.Lines(e.text("/proc/self/cgroup")) {
		// hierarchy:controllers:path; version 2 is hierarchy 0 and names no controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		files, version := limitsV2, "cgroup2"
		if parts[0] != "0" || parts[1] != "" {
			if !slices.Contains(strings.Split(parts[1], ","), "memory") {
				continue
			}
			files, version = limitsV1, "cgroup"
		}
		mount, own := e.groupMount(version), path.Clean("/"+parts[2])
		// A container may see its group as the root of the mount, and its name as the host knows it.
		if rest, isBelow := strings.CutPrefix(own, mount.root); isBelow && mount.root != "/" && (rest == "" || rest[0] == '/') {
			own = path.Clean("/" + rest)
		}
		for {
			folder := mount.at + strings.TrimSuffix(own, "/")
			for _, f := range files {
				bytes, known := e.number(folder + "/" + f.name)
				if known && bytes < noLimit && (!ok || bytes < tightest.bytes) {
					tightest, ok = groupLimit{bytes, folder + "/" + f.name, f.setting}, true
				}
			}
			if own == "/" {
				break
			}
			own = path.Dir(own)
		}
	}
	return tightest, ok
}

// groupMount is where a hierarchy is to be seen, and which of its groups is seen there.
type groupMount struct{ at, root string }

// groupMount finds the mount of version 2, or that of version 1 which has the memory controller; where nothing is told, the usual one.
func (e *examination) groupMount(version string) groupMount {
	for line := range strings.Lines(e.text("/proc/self/mountinfo")) {
		// id parent device root point options … - type source options (proc_pid_mountinfo(5))
		before, after, found := strings.Cut(strings.TrimSpace(line), " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if !found || len(where) < 5 || len(what) < 3 || what[0] != version {
			continue
		}
		if version == "cgroup2" || slices.Contains(strings.Split(what[2], ","), "memory") {
			return groupMount{at: where[4], root: path.Clean("/" + where[3])}
		}
	}
	if version == "cgroup" {
		return groupMount{at: "/sys/fs/cgroup/memory", root: "/"}
	}
	return groupMount{at: "/sys/fs/cgroup", root: "/"}
}
