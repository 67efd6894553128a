package doctor

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// hostOf is a host with these files and descriptor limits, and nothing else.
func hostOf(hard uint64, files map[string]string) Host {
	return Host{
		Read: func(path string) ([]byte, error) {
			if text, ok := files[path]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		},
		Descriptors: func() (uint64, uint64, error) { return 1024, hard, nil },
	}
}

// goodHost holds a million.
func goodHost() map[string]string {
	return map[string]string{
		"/proc/sys/fs/nr_open":                                             "4194304\n",
		"/proc/sys/fs/file-max":                                            "9223372036854775807\n",
		"/proc/sys/fs/epoll/max_user_watches":                              "10000000\n",
		"/proc/sys/net/core/somaxconn":                                     "65535\n",
		"/proc/sys/net/ipv4/tcp_max_syn_backlog":                           "65535\n",
		"/proc/sys/net/ipv4/tcp_syncookies":                                "1\n",
		"/proc/sys/net/ipv4/ip_local_port_range":                           "32768\t60999\n",
		"/proc/sys/net/core/rmem_max":                                      "212992\n",
		"/proc/sys/net/core/wmem_max":                                      "212992\n",
		"/proc/sys/net/ipv4/tcp_rmem":                                      "4096\t131072\t6291456\n",
		"/proc/sys/net/ipv4/tcp_wmem":                                      "4096\t16384\t4194304\n",
		"/proc/sys/net/ipv4/tcp_mem":                                       "1048576\t1572864\t2097152\n",
		"/proc/meminfo":                                                    "MemTotal:       16384000 kB\nMemFree: 1 kB\n",
		"/proc/self/cgroup":                                                "0::/system.slice/pulsewheel.service\n",
		"/sys/fs/cgroup/system.slice/memory.max":                           "max\n",
		"/proc/sys/net/netfilter/nf_conntrack_max":                         "4000000\n",
		"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established":     "432000\n",
		"/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
	}
}

func find(t *testing.T, findings []Finding, check string) Finding {
	t.Helper()
	for _, f := range findings {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("no finding %q", check)
	return Finding{}
}

// Nothing is short on a host that was prepared as docs/hosts.md says.
func TestExamineGoodHost(t *testing.T) {
	for _, f := range Examine(hostOf(2_000_000, goodHost()), 1_000_000) {
		if f.State != OK && f.State != Note {
			t.Errorf("%s: %s, have %s, need %s", f.Check, f.State, f.Have, f.Need)
		}
	}
}

// Each thing that can be short is, by that much, with the line that sets it.
func TestExamineShort(t *testing.T) {
	tests := []struct {
		name, path, text string
		hard             uint64
		check, short     string
		fix              string // part of it
	}{
		{"descriptors", "", "", 1024, "descriptors, hard limit", "1100000", "LimitNOFILE=1101024"},
		{"nr_open", "/proc/sys/fs/nr_open", "1048576", 0, "fs.nr_open", "52448", "sysctl -w fs.nr_open=1101024"},
		{"file-max", "/proc/sys/fs/file-max", "1000000", 0, "fs.file-max", "166560", "sysctl -w fs.file-max=1166560"},
		{"epoll", "/proc/sys/fs/epoll/max_user_watches", "100", 0, "fs.epoll.max_user_watches", "1100924", "sysctl -w fs.epoll"},
		{"somaxconn", "/proc/sys/net/core/somaxconn", "4096", 0, "net.core.somaxconn", "58404", "sysctl -w net.core.somaxconn=62500"},
		{"buffers", "/proc/sys/net/core/rmem_max", "4096", 0, "net.core.rmem_max", "61440", "sysctl -w net.core.rmem_max=65536"},
		{"tcp_mem", "/proc/sys/net/ipv4/tcp_mem", "10 20 30", 0, "net.ipv4.tcp_mem, the last of three", "249970", `net.ipv4.tcp_mem="125000 187500 250000"`},
		{"machine", "/proc/meminfo", "MemTotal: 1024000 kB", 0, "memory of the machine", "3246 MiB", "more memory"},
		{"group", "/sys/fs/cgroup/system.slice/memory.max", "1073741824", 0, "memory of the control group", "3030 MiB", "/sys/fs/cgroup/system.slice/memory.max"},
		{"conntrack", "/proc/sys/net/netfilter/nf_conntrack_max", "262144", 0, "net.netfilter.nf_conntrack_max", "1737856", "nf_conntrack_max=2000000"},
		{"tracking time", "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "350", 0, "net.netfilter.nf_conntrack_tcp_timeout_established", "1450", "=1800"},
		{"clock", "/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", 0, "clock source", "each reading is a system call", "clocksource"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := goodHost()
			if test.path != "" {
				files[test.path] = test.text
			}
			hard := test.hard
			if hard == 0 {
				hard = 2_000_000
			}
			findings := Examine(hostOf(hard, files), 1_000_000)
			f := find(t, findings, test.check)
			if f.State != Short || f.Short != test.short || !strings.Contains(f.Fix, test.fix) {
				t.Errorf("%+v, want short by %s and %s", f, test.short, test.fix)
			}
			if !IsShort(findings) {
				t.Error("IsShort says no")
			}
		})
	}
}

// What is wanted grows with the connections, and for few of them a small host does as it comes.
func TestExamineWants(t *testing.T) {
	tests := []struct {
		name  string
		check string
		// at 1, 1,000, 100,000 and 1,000,000 connections
		need [4]string
	}{
		{"descriptors", "descriptors, hard limit", [4]string{"130", "2124", "111024", "1101024"}},
		{"of one process", "fs.nr_open", [4]string{"130", "2124", "111024", "1101024"}},
		{"of the machine", "fs.file-max", [4]string{"1155", "4148", "176560", "1166560"}},
		{"watches", "fs.epoll.max_user_watches", [4]string{"130", "2124", "111024", "1101024"}},
		{"accept queue", "net.core.somaxconn", [4]string{"128", "128", "6250", "62500"}},
		{"handshakes", "net.ipv4.tcp_max_syn_backlog", [4]string{"128", "128", "6250", "62500"}},
		{"cookies", "net.ipv4.tcp_syncookies", [4]string{"1", "1", "1", "1"}},
		{"receive buffer", "net.core.rmem_max", [4]string{"65536", "65536", "65536", "65536"}},
		{"send buffer", "net.core.wmem_max", [4]string{"65536", "65536", "65536", "65536"}},
		{"all buffers", "net.ipv4.tcp_mem, the last of three", [4]string{"1024", "1024", "25000", "250000"}},
		{"machine", "memory of the machine", [4]string{"256 MiB", "259 MiB", "655 MiB", "4246 MiB"}},
		{"control group", "memory of the control group", [4]string{"64 MiB", "67 MiB", "463 MiB", "4054 MiB"}},
		{"tracked", "net.netfilter.nf_conntrack_max", [4]string{"2", "2000", "200000", "2000000"}},
		{"tracked for", "net.netfilter.nf_conntrack_tcp_timeout_established", [4]string{"1800", "1800", "1800", "1800"}},
	}
	files := goodHost()
	files["/sys/fs/cgroup/system.slice/memory.max"] = "1073741824\n"
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for i, n := range []int{1, 1000, 100_000, 1_000_000} {
				if f := find(t, Examine(hostOf(2_000_000, files), n), test.check); f.Need != "at least "+test.need[i] {
					t.Errorf("%d connections need %s, want %s", n, f.Need, test.need[i])
				}
			}
		})
	}
	t.Run("every check is in the table", func(t *testing.T) {
		var checks []string
		for _, test := range tests {
			checks = append(checks, test.check)
		}
		for _, f := range Examine(hostOf(2_000_000, files), 1) {
			if strings.HasPrefix(f.Need, "at least ") && !slices.Contains(checks, f.Check) {
				t.Errorf("%s needs %s", f.Check, f.Need)
			}
		}
	})
}

// A virtual machine of 1 GiB, in a container of 128 MiB, with a kernel's own settings, holds a thousand connections; not a hundred thousand.
func TestExamineSmallHost(t *testing.T) {
	files := goodHost()
	maps.Copy(files, map[string]string{
		"/proc/sys/fs/nr_open":                                             "1048576\n",
		"/proc/sys/fs/file-max":                                            "97816\n",
		"/proc/sys/fs/epoll/max_user_watches":                              "213606\n",
		"/proc/sys/net/core/somaxconn":                                     "128\n",
		"/proc/sys/net/ipv4/tcp_max_syn_backlog":                           "128\n",
		"/proc/sys/net/ipv4/tcp_syncookies":                                "0\n",
		"/proc/sys/net/ipv4/tcp_mem":                                       "10806\t14410\t21612\n",
		"/proc/meminfo":                                                    "MemTotal:        1003000 kB\n",
		"/sys/fs/cgroup/system.slice/memory.max":                           "134217728\n",
		"/proc/sys/net/netfilter/nf_conntrack_max":                         "7680\n",
		"/sys/devices/system/clocksource/clocksource0/current_clocksource": "xen\n",
	})
	tests := []struct {
		name              string
		connections, hard int
		short             int
	}{
		{"one", 1, 1024, 0},
		{"a thousand", 1000, 4096, 0},
		{"a hundred thousand", 100_000, 4096, 9}, // all but nr_open, watches and the memory of the machine
		{"a million", 1_000_000, 4096, 12},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var short []string
			for _, f := range Examine(hostOf(uint64(test.hard), files), test.connections) {
				if f.State == Short {
					short = append(short, f.Check)
				}
			}
			if len(short) != test.short {
				t.Errorf("%d are short, want %d: %q", len(short), test.short, short)
			}
		})
	}
}

// The tightest limit counts, of whichever version, wherever its files are.
func TestExamineControlGroups(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		have  string
		fix   string // with a million connections
	}{
		{"none", map[string]string{"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/memory.high": "max\n"}, "no limit", ""},
		{"own", map[string]string{"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "1073741824\n"}, "1024 MiB", "MemoryMax="},
		{"high is lower", map[string]string{
			"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "2147483648\n", "/sys/fs/cgroup/a/b/memory.high": "1073741824\n",
		}, "1024 MiB", "MemoryHigh="},
		{"a group above", map[string]string{
			"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "2147483648\n", "/sys/fs/cgroup/a/memory.high": "1073741824\n",
		}, "1024 MiB", "/sys/fs/cgroup/a/memory.high"},
		{"the root, as a container sees its own", map[string]string{"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "1073741824\n"}, "1024 MiB", "/sys/fs/cgroup/memory.max"},
		{"version 1", map[string]string{
			"/proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n", "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "1073741824\n",
		}, "1024 MiB", "MemoryLimit="},
		{"version 1 without a limit", map[string]string{
			"/proc/self/cgroup": "4:memory:/\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, "no limit", ""},
		{"version 1 in a container that has its host's name", map[string]string{
			"/proc/self/cgroup":                           "4:memory:/docker/abc\n",
			"/proc/self/mountinfo":                        "30 20 0:26 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
		}, "1024 MiB", "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		{"both, mounted elsewhere", map[string]string{
			"/proc/self/cgroup": "4:memory:/a\n0::/b\n",
			"/proc/self/mountinfo": "30 20 0:26 / /cg/mem rw shared:1 - cgroup none rw,memory\n" +
				"31 20 0:27 / /cg/cpu rw - cgroup none rw,cpu\n32 20 0:28 / /cg/unified rw - cgroup2 none rw\n",
			"/cg/mem/a/memory.limit_in_bytes": "2147483648\n", "/cg/unified/b/memory.max": "1073741824\n",
		}, "1024 MiB", "/cg/unified/b/memory.max"},
		{"junk", map[string]string{"/proc/self/cgroup": "x\n::\n0::/../..\n4:memory\n", "/proc/self/mountinfo": " - cgroup2\n1 2 - cgroup\n"}, "no limit", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := find(t, Examine(hostOf(2_000_000, test.files), 1_000_000), "memory of the control group")
			if f.Have != test.have || !strings.Contains(f.Fix, test.fix) || (f.State == Short) != (test.fix != "") {
				t.Errorf("%+v, want %s", f, test.have)
			}
		})
	}
}

// A host that tells nothing is no reason to warn.
func TestExamineUnknown(t *testing.T) {
	h := hostOf(0, nil)
	h.Descriptors = func() (uint64, uint64, error) { return 0, 0, errors.ErrUnsupported }
	findings := Examine(h, 1)
	if IsShort(findings) || len(findings) < 10 {
		t.Errorf("%d findings, short %v", len(findings), IsShort(findings))
	}
	for _, junk := range []string{"", "-1", "x y z", "1 2", "999999999999999999999999", "\x00"} {
		files := goodHost()
		for path := range files {
			files[path] = junk
		}
		Examine(hostOf(1, files), 1<<40)
	}
}

// The host that the test runs on holds one connection.
func TestExamineThisHost(t *testing.T) {
	if f := find(t, Examine(Host{}, 1), "descriptors, hard limit"); f.State == Unknown {
		t.Errorf("%+v", f)
	}
}

// What the project ships for a million connections is enough for a million.
func TestShippedSettingsSuffice(t *testing.T) {
	files := goodHost()
	sysctls, err := os.ReadFile("../deploy/sysctl/90-pulsewheel.conf")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sysctls)) {
		if name, value, found := strings.Cut(line, "="); found && !strings.HasPrefix(line, "#") {
			files["/proc/sys/"+strings.ReplaceAll(strings.TrimSpace(name), ".", "/")] = strings.TrimSpace(value)
		}
	}
	unit, err := os.ReadFile("../deploy/systemd/pulsewheel.service")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^LimitNOFILE=(\d+)$`).FindSubmatch(unit)
	if found == nil {
		t.Fatal("no LimitNOFILE in the unit")
	}
	hard, err := strconv.ParseUint(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Examine(hostOf(hard, files), 1_000_000) {
		if f.State == Short {
			t.Errorf("%s: %s, short by %s: %s", f.Check, f.Have, f.Short, f.Fix)
		}
	}
}
