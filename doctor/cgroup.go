package doctor

import (
	"iter"
	"path"
	"slices"
	"strings"
)

// MemoryGroup is a control group that bounds the memory of this process: its own, or one above it.
type MemoryGroup struct {
	Folder string            // where its files are to be seen
	Files  *MemoryGroupFiles // how they are called
}

// MemoryGroupFiles are the names of a group's files, by the version of its hierarchy (Linux, cgroup-v2.rst and cgroup-v1/memory.rst).
type MemoryGroupFiles struct {
	Limits []MemoryLimitFile
	Usage  string // bytes in use, those of the kernel's sockets among them
	Cache  string // the name, in memory.stat, of what the kernel drops before it kills anybody
}

// MemoryLimitFile is a file that tells a limit.
type MemoryLimitFile struct {
	Name    string
	Setting string // of systemd, that sets it
}

// MemoryUnlimited is above every limit that anybody means: without one, version 1 says a number next to 2^63. Version 2 says "max".
const MemoryUnlimited = 1 << 60

// MemoryGroups yields the control groups of this process and those above them, of both versions. read is os.ReadFile, but in tests.
func MemoryGroups(read func(path string) ([]byte, error)) iter.Seq[MemoryGroup] {
	// Version 2 slows a group down above memory.high and kills above memory.max.
	files := map[string]*MemoryGroupFiles{
		"cgroup2": {[]MemoryLimitFile{{"memory.max", "MemoryMax"}, {"memory.high", "MemoryHigh"}}, "memory.current", "inactive_file"},
		"cgroup":  {[]MemoryLimitFile{{"memory.limit_in_bytes", "MemoryLimit"}}, "memory.usage_in_bytes", "total_inactive_file"},
	}
	return func(yield func(MemoryGroup) bool) {
		mounts := textOf(read, "/proc/self/mountinfo")
		for line := range strings.Lines(textOf(read, "/proc/self/cgroup")) {
			version, own, ok := memoryGroup(line)
			if !ok {
				continue
			}
			mount := findGroupMount(mounts, version)
			// A container may see its group as the root of the mount, and its name as the host knows it.
			if rest, isBelow := strings.CutPrefix(own, mount.root); isBelow && mount.root != "/" && (rest == "" || rest[0] == '/') {
				own = path.Clean("/" + rest)
			}
			for {
				if !yield(MemoryGroup{Folder: mount.at + strings.TrimSuffix(own, "/"), Files: files[version]}) {
					return
				}
				if own == "/" {
					break
				}
				own = path.Dir(own)
			}
		}
	}
}

// memoryGroup reads a line of /proc/self/cgroup, hierarchy:controllers:path. Version 2 is hierarchy 0 and names no controllers.
func memoryGroup(line string) (version, own string, ok bool) {
	parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
	if len(parts) != 3 {
		return "", "", false
	}
	own = path.Clean("/" + parts[2])
	if parts[0] == "0" && parts[1] == "" {
		return "cgroup2", own, true
	}
	return "cgroup", own, slices.Contains(strings.Split(parts[1], ","), "memory")
}

// groupMount is where a hierarchy is to be seen, and which of its groups is seen there.
type groupMount struct{ at, root string }

// findGroupMount finds the mount of version 2, or that of version 1 which has the memory controller; where nothing is told, the usual one.
func findGroupMount(mountinfo, version string) groupMount {
	for line := range strings.Lines(mountinfo) {
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

// groupLimit is a limit of memory that this process' control group has, or one above it.
type groupLimit struct {
	bytes   uint64
	file    string // that tells it
	setting string // of systemd, that sets it
}

// groupLimit is the tightest of all that bound this process.
func (e *examination) groupLimit() (tightest groupLimit, ok bool) {
	for group := range MemoryGroups(e.host.Read) {
		for _, f := range group.Files.Limits {
			file := path.Join(group.Folder, f.Name)
			bytes, known := e.number(file)
			if known && bytes < MemoryUnlimited && (!ok || bytes < tightest.bytes) {
				tightest, ok = groupLimit{bytes, file, f.Setting}, true
			}
		}
	}
	return tightest, ok
}
