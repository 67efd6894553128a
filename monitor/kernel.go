package monitor

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/pulsewheel/pulsewheel/doctor"
)

// kernel reads what the kernel tells in text files. Where there are none (other systems, old kernels, containers that hide them) the figures
// are not known, and nothing else happens.
type kernel struct {
	read func(path string) ([]byte, error) // os.ReadFile, but in tests
}

func (k kernel) text(path string) string {
	text, err := k.read(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// pressure is the share of the last ten seconds, in percent, in which some task waited for a resource: cpu or memory (pressure stall
// information, Linux 4.20).
func (k kernel) pressure(resource string) (percent float64, known bool) {
	for line := range strings.Lines(k.text("/proc/pressure/" + resource)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "some" {
			continue
		}
		text, ok := strings.CutPrefix(fields[1], "avg10=")
		value, err := strconv.ParseFloat(text, 64)
		return value, ok && err == nil
	}
	return 0, false
}

// pressureSeconds is the time that some task has waited for a resource since the start of the machine.
func (k kernel) pressureSeconds(resource string) (seconds float64, known bool) {
	for line := range strings.Lines(k.text("/proc/pressure/" + resource)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[0] != "some" {
			continue
		}
		text, ok := strings.CutPrefix(fields[4], "total=")
		micros, err := strconv.ParseUint(text, 10, 64)
		return float64(micros) / 1e6, ok && err == nil
	}
	return 0, false
}

// acceptOverflows counts the connections that this network namespace dropped because the accept queue of a listener was full.
func (k kernel) acceptOverflows() (count float64, known bool) {
	return named(k.text("/proc/net/netstat"), "TcpExt:", "ListenOverflows")
}

// listenDrops counts all connections dropped at listeners, for whatever reason.
func (k kernel) listenDrops() (count float64, known bool) {
	return named(k.text("/proc/net/netstat"), "TcpExt:", "ListenDrops")
}

// named finds a figure where one line has the names and the next the values.
func named(text, prefix, name string) (value float64, known bool) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != prefix {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i := range min(len(names), len(fields)) {
			if names[i] == name {
				value, err := strconv.ParseFloat(fields[i], 64)
				return value, err == nil
			}
		}
	}
	return 0, false
}

// tcpMemory is what the buffers of all TCP sockets of the machine take, and the most that they may (net.ipv4.tcp_mem), in bytes.
func (k kernel) tcpMemory(pageBytes int) (used, limit float64, known bool) {
	for line := range strings.Lines(k.text("/proc/net/sockstat")) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(fields); i += 2 {
			if fields[i] == "mem" {
				used, _ = strconv.ParseFloat(fields[i+1], 64)
				known = true
			}
		}
	}
	bounds := strings.Fields(k.text("/proc/sys/net/ipv4/tcp_mem"))
	if !known || len(bounds) != 3 {
		return 0, 0, false
	}
	limit, err := strconv.ParseFloat(bounds[2], 64)
	return used * float64(pageBytes), limit * float64(pageBytes), err == nil && limit > 0
}

// memoryUse is how full the memory is that this process may use.
type memoryUse struct {
	share float64 // of 1
	what  string  // of what, in words
}

// memory is the fullest of all that bound the process: the machine, and each control group above it. Both count the kernel's sockets.
func (k kernel) memory() (fullest memoryUse, known bool) {
	consider := func(used, limit float64, what string) {
		if limit <= 0 {
			return
		}
		known = true
		if share := used / limit; share >= fullest.share {
			fullest = memoryUse{share, fmt.Sprintf("%s of %s of %s", humanBytes(used), humanBytes(limit), what)}
		}
	}
	machine := k.text("/proc/meminfo")
	total, hasTotal := field(machine, "MemTotal:")
	available, hasAvailable := field(machine, "MemAvailable:")
	if hasTotal && hasAvailable {
		consider((total-available)*1024, total*1024, "the machine")
	}
	for group := range doctor.MemoryGroups(k.read) {
		limit := k.groupLimit(group)
		used, hasUsed := number(k.text(path.Join(group.Folder, group.Files.Usage)))
		if limit >= doctor.MemoryUnlimited || !hasUsed {
			continue
		}
		// The kernel drops the unused part of its file cache before it kills anybody.
		cache, _ := field(k.text(path.Join(group.Folder, "memory.stat")), group.Files.Cache)
		consider(max(0, used-cache), limit, "the control group")
	}
	return fullest, known
}

// groupLimit is the tightest limit of a control group; doctor.MemoryUnlimited where it has none.
func (k kernel) groupLimit(group doctor.MemoryGroup) float64 {
	tightest := float64(doctor.MemoryUnlimited)
	for _, f := range group.Files.Limits {
		if limit, ok := number(k.text(path.Join(group.Folder, f.Name))); ok && limit > 0 {
			tightest = min(tightest, limit)
		}
	}
	return tightest
}

// field finds the number behind a name at the beginning of a line.
func field(text, name string) (value float64, known bool) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return number(fields[1])
		}
	}
	return 0, false
}

func number(text string) (value float64, known bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	return float64(n), err == nil
}

// humanBytes prints a size for a person.
func humanBytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; n >= 1024 && i < len(units)-1; i++ {
		n /= 1024
	}
	return strconv.FormatFloat(n, 'f', map[bool]int{true: 0, false: 1}[i == 0], 64) + " " + units[i]
}
