package poller

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the hot path, made without telling Go's scheduler. None of them
// can block (non-blocking descriptors, a timeout of zero), so the hand-off that
// syscall.Syscall prepares for would be cost without use; and the race detector
// must not take two system calls for a synchronisation, as it does with
// syscall.Read and syscall.Write.
//
// SAFETY: each pointer handed to the kernel is converted to uintptr in the
// argument list of the call itself (rule 4 of package unsafe), points to memory
// of at least the length passed beside it, and is not kept by the kernel after
// the call returns. The empty slice, which has no first element, is never passed.

func sysEpollWait(fd int, events []unix.EpollEvent) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	return count(n, errno)
}

func sysRead(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return count(n, errno)
}

func sysPeek(fd int) (int, syscall.Errno) {
	var b [1]byte
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_PEEK, 0, 0)
	return count(n, errno)
}

func sysSend(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
		uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	return count(n, errno)
}

// sysSendmsg sends the first non-empty buffers, at most iovecsPerCall.
func sysSendmsg(fd int, bufs [][]byte) (int, syscall.Errno) {
	var vec [iovecsPerCall]unix.Iovec
	used := 0
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		if used == len(vec) {
			break
		}
		vec[used].Base = &b[0]
		vec[used].SetLen(len(b))
		used++
	}
	if used == 0 {
		return 0, 0
	}
	msg := unix.Msghdr{Iov: &vec[0]}
	msg.SetIovlen(used)
	n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_NOSIGNAL)
	runtime.KeepAlive(bufs)
	return count(n, errno)
}

// sysAccept returns a non-blocking, close-on-exec socket and writes the peer's
// address into name, cut off at its length.
func sysAccept(fd int, name *sockaddr) (int, syscall.Errno) {
	size := uint32(len(name))
	accepted, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(accepted), 0
}

// sysEventSignal adds one to the counter of an eventfd, eight bytes in the
// machine's own order. The counter would be full after 2^64 - 2 signals.
func sysEventSignal(fd int) syscall.Errno {
	one := uint64(1)
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
	return errno
}

func count(n uintptr, errno syscall.Errno) (int, syscall.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
