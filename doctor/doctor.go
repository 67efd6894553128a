package doctor

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// State is what a finding comes to.
type State string

// The states of a finding.
const (
	OK      State = "ok"
	Short   State = "short"   // it must be changed for that many connections
	Note    State = "note"    // it doesn't stand in the way, but is good to know
	Unknown State = "unknown" // this system doesn't tell
)

// Finding is the outcome of one check.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	Have  string `json:"have"`
	Need  string `json:"need,omitempty"`
	Short string `json:"short,omitempty"` // by how much
	Fix   string `json:"fix,omitempty"`   // the exact line
	Why   string `json:"why"`
}

// Host is what Examine looks at.
type Host struct {
	Read        func(path string) ([]byte, error) // default: the file, at most 64 KiB of it
	Descriptors func() (soft, hard uint64, err error)
}

// What a connection costs, as docs/hosts.md says: the record and timer, the kernel's socket, its entry in epoll.
const (
	connectionBytes = 76 + 3900 + 208
	// Of the process before its first connection, with what the collector leaves for later; and of a machine, which has other things to do.
	processBytes = 64 << 20
	machineBytes = 256 << 20
	// Socket buffers that the server asks for (--socket-send-buffer, --socket-receive-buffer).
	socketBufferBytes = 64 << 10
	fileBytesMax      = 64 << 10
	pageBytes         = 4096
)

// Below these a host does as it comes: a doctor who prescribes for one connection what a million need isn't believed.
const (
	// The least that Linux sets on any machine: net.ipv4.tcp_max_syn_backlog, and net.core.somaxconn before 5.4.
	queueLeast = 128
	// Pages of net.ipv4.tcp_mem: 4 MiB. Linux gives a machine of 1 GiB 24 times as much.
	bufferPagesLeast = 1024
	// So few turns that their readings of the clock cost nothing.
	clockConnections = 10_000
)

// Examine compares a host with the connections that it is to hold. The zero Host is the one that this program runs on.
func Examine(h Host, connections int) []Finding {
	if h.Read == nil {
		h.Read = readFile
	}
	if h.Descriptors == nil {
		h.Descriptors = descriptors
	}
	n := uint64(max(1, connections))
	e := examination{host: h, connections: n}
	e.descriptors()
	e.queues()
	e.buffers()
	e.memory()
	e.tracking()
	e.clock()
	return e.findings
}

type examination struct {
	host        Host
	connections uint64
	findings    []Finding
}

func (e *examination) add(f Finding) { e.findings = append(e.findings, f) }

// setting checks one number of sysctl against a least value.
func (e *examination) setting(name string, need uint64, why string) {
	have, ok := e.number("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	e.least(name, have, ok, need, fmt.Sprintf("sysctl -w %s=%d", name, need), why)
}

// least is the finding of a value that must not be below another.
func (e *examination) least(check string, have uint64, known bool, need uint64, fix, why string) {
	f := Finding{Check: check, State: OK, Have: strconv.FormatUint(have, 10), Need: "at least " + strconv.FormatUint(need, 10), Why: why}
	switch {
	case !known:
		f.State, f.Have = Unknown, "not told"
	case have < need:
		f.State, f.Short, f.Fix = Short, strconv.FormatUint(need-have, 10), fix
	case have > math.MaxInt64/2:
		f.Have = "unlimited"
	}
	e.add(f)
}

// noteBelow has the last finding stand in nobody's way below so many connections.
func (e *examination) noteBelow(connections uint64) {
	if f := &e.findings[len(e.findings)-1]; f.State == Short && e.connections < connections {
		f.State = Note
	}
}

// descriptorsNeeded is one for each connection, a tenth for those that come while others go, and what the process needs itself: its
// reserve, and with many connections many loops, links and requests.
func (e *examination) descriptorsNeeded() uint64 {
	return e.connections + e.connections/10 + min(128+e.connections, 1024)
}

func (e *examination) descriptors() {
	need := e.descriptorsNeeded()
	soft, hard, err := e.host.Descriptors()
	e.least("descriptors, hard limit", hard, err == nil, need, fmt.Sprintf("LimitNOFILE=%d in the unit's [Service]; in a shell: ulimit -n %d", need, need),
		"one descriptor a connection; the server raises its own soft limit to the hard one")
	if err == nil {
		e.add(Finding{Check: "descriptors, soft limit", State: Note, Have: strconv.FormatUint(soft, 10), Why: "programs that aren't written in Go keep it"})
	}
	e.setting("fs.nr_open", need, "no process may have a higher limit than this")
	e.setting("fs.file-max", need+min(1024+e.connections, 1<<16), "the same for the whole machine")
	e.setting("fs.epoll.max_user_watches", need, "one a connection")
}

func (e *examination) queues() {
	// A fleet that reconnects arrives within seconds; so much of it while a loop is at one turn.
	need := min(max(e.connections/16, queueLeast), 65535)
	e.setting("net.core.somaxconn", need, "connections that wait to be accepted; the listener's backlog is taken from it")
	e.setting("net.ipv4.tcp_max_syn_backlog", need, "connections in the middle of their TCP handshake")
	e.setting("net.ipv4.tcp_syncookies", 1, "keeps a flood of handshakes from filling that queue")
	e.noteBelow(queueLeast * 16) // so few don't fill it
	low, high, ok := e.pair("/proc/sys/net/ipv4/ip_local_port_range")
	f := Finding{Check: "net.ipv4.ip_local_port_range", State: Unknown, Have: "not told", Why: "a proxy on this machine has so many connections to one address of a server, and no more"}
	if ok && high >= low {
		f.State, f.Have = Note, fmt.Sprintf("%d ports", high-low+1)
		if high-low+1 < e.connections {
			f.Fix = fmt.Sprintf("for a proxy: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\", and %d addresses of the server", (e.connections+64511)/64512)
		}
	}
	e.add(f)
}

func (e *examination) buffers() {
	e.setting("net.core.rmem_max", socketBufferBytes, "bounds the receive buffer that the server asks for")
	e.setting("net.core.wmem_max", socketBufferBytes, "bounds the send buffer that the server asks for")
	for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
		values := e.numbers("/proc/sys/net/ipv4/" + name)
		f := Finding{Check: "net.ipv4." + name, State: Unknown, Have: "not told", Why: "of sockets for which --socket-…-buffer is 0; the server bounds its own"}
		if len(values) == 3 {
			f.State, f.Have = Note, fmt.Sprintf("%d %d %d", values[0], values[1], values[2])
		}
		e.add(f)
	}
	// A kilobyte each: what one small message costs that isn't read yet.
	need := max(e.connections*1024/pageBytes, bufferPagesLeast)
	values := e.numbers("/proc/sys/net/ipv4/tcp_mem")
	known := len(values) == 3
	have := uint64(0)
	if known {
		have = values[2]
	}
	e.least("net.ipv4.tcp_mem, the last of three", have, known, need,
		fmt.Sprintf("sysctl -w net.ipv4.tcp_mem=\"%d %d %d\"", need/2, need*3/4, need),
		"pages for the buffers of all TCP sockets; beyond it the kernel stalls all of them at once")
}

func (e *examination) memory() {
	need := e.connections*connectionBytes + machineBytes
	why := fmt.Sprintf("%d bytes an idle connection, of which the kernel takes %d for the socket", connectionBytes, connectionBytes-76)
	total := uint64(0)
	for line := range strings.Lines(e.text("/proc/meminfo")) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseUint(fields[1], 10, 64)
			total = kib << 10
		}
	}
	e.bytes("memory of the machine", total, total > 0, need, "a machine with more memory, or fewer connections on this one", why)
	limit, ok := e.groupLimit()
	if !ok {
		e.add(Finding{Check: "memory of the control group", State: OK, Have: "no limit", Why: why})
		return
	}
	need = e.connections*connectionBytes + processBytes
	e.bytes("memory of the control group", limit.bytes, true, need, fmt.Sprintf("%s=%d in the unit, or the container's memory limit (%s)", limit.setting, need, limit.file),
		why+"; the group counts the kernel's part too")
}

func (e *examination) bytes(check string, have uint64, known bool, need uint64, fix, why string) {
	e.least(check, have, known, need, fix, why)
	f := &e.findings[len(e.findings)-1]
	if known {
		f.Have = mebibytes(have)
	}
	f.Need = "at least " + mebibytes(need)
	if f.State == Short {
		f.Short = mebibytes(need - have)
	}
}

func (e *examination) tracking() {
	const why = "a full table drops new connections without a word; better still, don't track the server's port"
	have, ok := e.number("/proc/sys/net/netfilter/nf_conntrack_max")
	if !ok {
		e.add(Finding{Check: "connection tracking", State: OK, Have: "none", Why: why})
		return
	}
	need := 2 * e.connections
	e.least("net.netfilter.nf_conntrack_max", have, true, need, fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", need), why)
	e.setting("net.netfilter.nf_conntrack_tcp_timeout_established", 1800, "a silent connection must stay in the table longer than its heartbeats are apart")
}

func (e *examination) clock() {
	source := strings.TrimSpace(e.text("/sys/devices/system/clocksource/clocksource0/current_clocksource"))
	f := Finding{Check: "clock source", State: OK, Have: source, Need: "one that is read without a system call", Why: "the server reads the clock several times a turn"}
	fast := []string{"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "riscv_clocksource", "timebase"}
	switch {
	case source == "":
		f.State, f.Have = Unknown, "not told"
	case !slices.Contains(fast, source):
		f.State = Short
		f.Short = "each reading is a system call"
		f.Fix = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
		if runtime.GOARCH != "amd64" && runtime.GOARCH != "386" {
			f.Fix = "choose another of /sys/devices/system/clocksource/clocksource0/available_clocksource"
		}
	}
	e.add(f)
	e.noteBelow(clockConnections)
}

func (e *examination) text(path string) string { return textOf(e.host.Read, path) }

// textOf is what a file says; nothing if it can't be read.
func textOf(read func(path string) ([]byte, error), path string) string {
	text, err := read(path)
	if err != nil {
		return ""
	}
	return string(text)
}

func (e *examination) number(path string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(e.text(path)), 10, 64)
	return n, err == nil
}

func (e *examination) numbers(path string) (values []uint64) {
	for text := range strings.FieldsSeq(e.text(path)) {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil
		}
		values = append(values, n)
	}
	return values
}

func (e *examination) pair(path string) (low, high uint64, ok bool) {
	values := e.numbers(path)
	if len(values) != 2 {
		return 0, 0, false
	}
	return values[0], values[1], true
}

// IsShort says whether something must be changed.
func IsShort(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.State == Short })
}

func mebibytes(n uint64) string {
	if n > math.MaxInt64/2 {
		return "unlimited"
	}
	return strconv.FormatUint(n>>20, 10) + " MiB"
}

// descriptors are the limits of this process. The Go runtime raised the soft one at its start.
func descriptors() (soft, hard uint64, err error) {
	var r syscall.Rlimit
	err = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r)
	return uint64(r.Cur), uint64(r.Max), os.NewSyscallError("getrlimit", err) //nolint:unconvert // freebsd has signed numbers here
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	return io.ReadAll(io.LimitReader(f, fileBytesMax))
}
