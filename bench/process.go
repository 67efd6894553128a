package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// clockTick is the unit of utime and stime in /proc: USER_HZ, 100 on every Linux architecture that Go runs on.
const clockTick = 10 * time.Millisecond

var (
	errProcessGone = errors.New("the server's process is gone")
	errProcFormat  = errors.New("unexpected format")
)

// usage is what a process has consumed so far, by the kernel's account.
type usage struct {
	exact  time.Duration // of its living threads, to the ns (a running thread's share is as old as the last timer tick)
	waited time.Duration // for a core by its living threads, being ready to run
	ticks  time.Duration // of the whole process, ended threads included, in steps of clockTick
	user   time.Duration // the part of ticks outside the kernel
}

// cpu is the CPU time between two readings: exact, unless a thread ended in between and took its account along.
func (u usage) cpu(later usage) time.Duration {
	exact, ticks := later.exact-u.exact, later.ticks-u.ticks
	if exact < ticks-2*clockTick {
		return ticks
	}
	return exact
}

// process reads the account of another process from /proc.
type process struct {
	pid int
}

func (p process) dir() string { return filepath.Join("/proc", strconv.Itoa(p.pid)) }

// rss is the resident memory in bytes.
func (p process) rss() (int64, error) {
	status, err := os.ReadFile(filepath.Join(p.dir(), "status"))
	if err != nil {
		return 0, p.gone(err)
	}
	kib, err := kibAfter(status, "VmRSS:")
	if errors.Is(err, errProcFormat) { // a zombie has no memory
		return 0, fmt.Errorf("process %d: %w", p.pid, errProcessGone)
	}
	return kib << 10, err
}

// memory is the resident memory in bytes, and the part of it that no file is behind. It is exact where rss, which the kernel
// counts by thread, may be some pages off.
func (p process) memory() (resident, anonymous int64, err error) {
	table, err := os.ReadFile(filepath.Join(p.dir(), "smaps_rollup"))
	if err != nil {
		return 0, 0, p.gone(err)
	}
	if resident, err = kibAfter(table, "Rss:"); err != nil {
		return 0, 0, fmt.Errorf("process %d: %w", p.pid, err)
	}
	if anonymous, err = kibAfter(table, "Anonymous:"); err != nil {
		return 0, 0, fmt.Errorf("process %d: %w", p.pid, err)
	}
	return resident << 10, anonymous << 10, nil
}

// memoryAvailable is what the machine could give to programs without swapping, in bytes.
func memoryAvailable() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	kib, err := kibAfter(text, "MemAvailable:")
	return kib << 10, err
}

// kibAfter finds a figure in KiB in one of the kernel's tables.
func kibAfter(table []byte, name string) (int64, error) {
	_, after, found := bytes.Cut(table, []byte(name))
	fields := bytes.Fields(after)
	if !found || len(fields) < 2 {
		return 0, fmt.Errorf("%w: no %s", errProcFormat, name)
	}
	return strconv.ParseInt(string(fields[0]), 10, 64)
}

// descriptors is how many the process has open.
func (p process) descriptors() (int, error) {
	dir := filepath.Join(p.dir(), "fd")
	info, err := os.Stat(dir)
	if err != nil {
		return 0, p.gone(err)
	}
	if n := info.Size(); n > 0 { // the kernel counts them since Linux 6.2; reading ten thousand names takes milliseconds
		return int(n), nil
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0, p.gone(err)
	}
	return len(names), nil
}

// usage reads the CPU time.
func (p process) usage() (usage, error) {
	stat, err := os.ReadFile(filepath.Join(p.dir(), "stat"))
	if err != nil {
		return usage{}, p.gone(err)
	}
	// proc_pid_stat(5): the command's name is in parentheses and may hold anything; utime and stime are fields 14 and 15.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return usage{}, fmt.Errorf("%s/stat: %w", p.dir(), errProcFormat)
	}
	utime, err := strconv.ParseInt(string(fields[11]), 10, 64)
	if err != nil {
		return usage{}, err
	}
	stime, err := strconv.ParseInt(string(fields[12]), 10, 64)
	if err != nil {
		return usage{}, err
	}
	u := usage{ticks: time.Duration(utime+stime) * clockTick, user: time.Duration(utime) * clockTick}
	u.exact, u.waited, err = p.exact()
	return u, err
}

// exact adds up the threads' times on a core and waiting for one, in ns: the first two figures of schedstat (Linux,
// Documentation/scheduler/sched-stats).
func (p process) exact() (ran, waited time.Duration, err error) {
	tasks, err := os.ReadDir(filepath.Join(p.dir(), "task"))
	if err != nil {
		return 0, 0, p.gone(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join(p.dir(), "task", task.Name(), "schedstat"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has ended, or the kernel keeps no schedstat: cpu falls back on the ticks
		}
		if err != nil {
			return 0, 0, p.gone(err)
		}
		var ranNs, waitedNs int64
		if _, err := fmt.Sscan(string(text), &ranNs, &waitedNs); err != nil {
			return 0, 0, fmt.Errorf("%s/task/%s/schedstat: %w", p.dir(), task.Name(), errProcFormat)
		}
		ran += time.Duration(ranNs)
		waited += time.Duration(waitedNs)
	}
	return ran, waited, nil
}

// gone turns "no such file" and "no such process" into one plain sentence.
func (p process) gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d: %w", p.pid, errProcessGone)
	}
	return err
}

// ownUsage is that of this process. Where there is no /proc only the CPU time is known.
func ownUsage() (usage, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return usage{}, os.NewSyscallError("getrusage", err)
	}
	user := time.Duration(ru.Utime.Nano())
	u := usage{user: user, ticks: user + time.Duration(ru.Stime.Nano())}
	if _, waited, err := (process{pid: os.Getpid()}).exact(); err == nil {
		u.waited = waited
	}
	u.exact = u.ticks // getrusage is exact to the µs already
	return u, nil
}
