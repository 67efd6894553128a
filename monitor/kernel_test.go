package monitor

import (
	"io/fs"
	"math"
	"os"
	"testing"
)

// kernelOf is a kernel with these files and no others.
func kernelOf(files map[string]string) kernel {
	return kernel{read: func(path string) ([]byte, error) {
		if text, ok := files[path]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}}
}

func TestKernelFigures(t *testing.T) {
	k := kernelOf(map[string]string{
		"/proc/pressure/cpu":    "some avg10=12.34 avg60=1.00 avg300=0.50 total=1500000\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n",
		"/proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"/proc/net/netstat": "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\n" +
			"IpExt: InNoRoutes ListenOverflows\nIpExt: 7 8\n",
		"/proc/net/sockstat":          "sockets: used 290\nTCP: inuse 5 orphan 0 tw 1 alloc 9 mem 3\nUDP: inuse 1 mem 7\n",
		"/proc/sys/net/ipv4/tcp_mem":  "10\t20\t30\n",
		"/proc/sys/net/ipv4/tcp_rmem": "x",
	})
	check := func(name string, got float64, known bool, want float64) {
		t.Helper()
		if !known || got != want {
			t.Errorf("%s: %v, %v; want %v", name, got, known, want)
		}
	}
	got, known := k.pressure("cpu")
	check("pressure", got, known, 12.34)
	got, known = k.pressureSeconds("cpu")
	check("seconds of pressure", got, known, 1.5)
	got, known = k.acceptOverflows()
	check("overflows", got, known, 22)
	got, known = k.listenDrops()
	check("drops", got, known, 333)
	used, limit, known := k.tcpMemory(4096)
	check("TCP memory", used, known, 3*4096)
	check("its limit", limit, known, 30*4096)
}

// The fullest of machine and control groups counts; what the kernel would drop first doesn't.
func TestKernelMemory(t *testing.T) {
	machine := "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\n"
	tests := []struct {
		name  string
		files map[string]string
		want  float64
		known bool
	}{
		{"nothing told", map[string]string{}, 0, false},
		{"the machine", map[string]string{"/proc/meminfo": machine}, 0.6, true},
		{"no limit", map[string]string{
			"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/b/memory.current": "9999999\n",
		}, 0.6, true},
		{"the group", map[string]string{
			"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "1000\n", "/sys/fs/cgroup/a/b/memory.current": "900\n",
			"/sys/fs/cgroup/a/b/memory.stat": "anon 1\ninactive_file 100\nactive_file 5\n",
		}, 0.8, true},
		{"the group above", map[string]string{
			"/proc/meminfo": machine, "/proc/self/cgroup": "1:cpu:/x\n0::/a/b\n", "/sys/fs/cgroup/a/memory.max": "1000\n", "/sys/fs/cgroup/a/memory.current": "950\n",
		}, 0.95, true},
		{"in a container", map[string]string{
			"/proc/meminfo": machine, "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "1000\n", "/sys/fs/cgroup/memory.current": "700\n",
		}, 0.7, true},
		{"slowed down before the limit", map[string]string{
			"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "2000\n", "/sys/fs/cgroup/a/memory.high": "1000\n",
			"/sys/fs/cgroup/a/memory.current": "900\n",
		}, 0.9, true},
		{"version 1", map[string]string{
			"/proc/meminfo": machine, "/proc/self/cgroup": "4:cpu,memory:/a\n", "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000\n",
			"/sys/fs/cgroup/memory/a/memory.usage_in_bytes": "900\n", "/sys/fs/cgroup/memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 150\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "/sys/fs/cgroup/memory/memory.usage_in_bytes": "900\n",
		}, 0.75, true},
		{"the machine is fuller than the group", map[string]string{
			"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "1000\n", "/sys/fs/cgroup/a/memory.current": "100\n",
		}, 0.6, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, known := kernelOf(test.files).memory()
			if math.Abs(got.share-test.want) > 1e-9 || known != test.known {
				t.Errorf("%v, %v; want %v, %v", got, known, test.want, test.known)
			}
		})
	}
}

// Junk in any of the files is nothing known, and no panic.
func FuzzKernel(f *testing.F) {
	f.Add("some avg10=1 avg60=2 avg300=3 total=4\n")
	f.Add("TcpExt: ListenOverflows\nTcpExt:\n")
	f.Add("TCP: inuse mem\n0::/../..\nMemTotal: x\nMemAvailable: -1\n")
	f.Add("18446744073709551615 0 0")
	f.Fuzz(func(t *testing.T, text string) {
		k := kernel{read: func(string) ([]byte, error) { return []byte(text), nil }}
		k.pressure("cpu")
		k.pressureSeconds("cpu")
		k.acceptOverflows()
		k.tcpMemory(4096)
		if use, known := k.memory(); known && math.IsNaN(use.share) {
			t.Errorf("memory of %q: %v", text, use)
		}
	})
}

// What this machine tells is readable, where it tells anything.
func TestKernelOfThisMachine(t *testing.T) {
	k := kernel{read: os.ReadFile}
	if use, known := k.memory(); !known || use.share <= 0 || use.share > 1.5 {
		t.Errorf("memory: %+v, %v", use, known)
	}
}

func TestHumanBytes(t *testing.T) {
	tests := []struct {
		name  string
		bytes float64
		want  string
	}{
		{"none", 0, "0 B"}, {"bytes", 1023, "1023 B"}, {"KiB", 1536, "1.5 KiB"}, {"GiB", 4.1 * (1 << 30), "4.1 GiB"}, {"more than units", 1 << 60, "1048576.0 TiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := humanBytes(test.bytes); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
