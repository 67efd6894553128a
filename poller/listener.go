package poller

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ListenOptions are the options of Listen; the zero value is the default.
type ListenOptions struct {
	// Backlog is how many connections may wait for Accept. Zero takes the most
	// that the system allows (net.core.somaxconn, kern.ipc.somaxconn).
	Backlog int
	// SendBufferBytes and ReceiveBufferBytes bound the kernel's memory of each
	// accepted connection; zero leaves it to the kernel, which may take megabytes.
	SendBufferBytes    int
	ReceiveBufferBytes int
	// UserTimeout is SetUserTimeout for every accepted TCP connection; zero leaves
	// it to the kernel.
	UserTimeout time.Duration
	// ReusePort lets several listeners take connections of the same TCP address.
	ReusePort bool
}

// Accepted is a connection that Accept has taken: non-blocking, close-on-exec,
// TCP_NODELAY. Its descriptor is the caller's to close.
type Accepted struct {
	FD   int
	Peer netip.AddrPort // IPv4 also if it came mapped into IPv6; zero for Unix sockets
}

// Listener accepts connections without blocking. Like a Poller it belongs to one
// goroutine, but for Queue. Register its FD with Readable alone: level-triggered, so that what
// a batch leaves waiting is reported again.
type Listener struct {
	mu sync.Mutex // guards fd where Close changes it and where others than the owner read it

	fd      int
	reserve int // a descriptor kept only to be given up, or -1
	addr    net.Addr
	name    sockaddr    // accept writes the peer's address here
	file    os.FileInfo // of the Unix socket that we created, to unlink no other; or nil
	path    string
	options ListenOptions
}

// unixPrefix marks an address that is a path.
const unixPrefix = "unix:"

// Listen opens a listening socket.
//
//	":8080"           IPv6 and IPv4 on one socket; IPv4 alone where IPv6 is off
//	"[::]:8080"       the same without the fallback
//	"0.0.0.0:8080"    IPv4; likewise any one address, "127.0.0.1:0" or "[::1]:0"
//	"localhost:8080"  the first address of the name; may wait for the resolver
//	"unix:/run/x"     a Unix socket
//
// The socket file of a server that is gone is replaced; one that somebody
// listens on answers ErrInUse, as does a taken port, and a file of another kind
// ErrNotSocket. An address that can't be understood is ErrAddress.
func Listen(address string, o ListenOptions) (*Listener, error) {
	l := &Listener{fd: -1, reserve: -1, options: o}
	var err error
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		err = l.listenUnix(path)
	} else {
		err = l.listenTCP(address, openSocket)
	}
	if err == nil {
		l.reserve, err = openReserve()
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// FD is the listening descriptor, to be registered; it stays the listener's.
func (l *Listener) FD() int { return l.fd }

// Addr is what the socket is bound to: a *net.TCPAddr with the actual port, or a
// *net.UnixAddr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept fills batch with connections that wait and returns how many; those are
// valid whatever the error. Fewer than len(batch) with a nil error means that no
// more wait (or that a run of aborted ones ended the call early; level-triggered
// readiness then reports again). ErrDescriptors means that there is no
// descriptor for the next one, which goes on waiting: see Shed. It allocates
// nothing, except for the zone of a link-local peer.
func (l *Listener) Accept(batch []Accepted) (n int, err error) {
	if l.fd < 0 {
		return 0, ErrClosed
	}
	for aborted := 0; n < len(batch) && aborted <= len(batch); {
		fd, peer, errno := l.accept()
		switch {
		case errno == 0:
			if l.file != nil {
				// Unlike those of TCP, they don't inherit the buffers. The bound is a
				// precaution, no reason to refuse the connection.
				_ = setBuffers(fd, l.options.SendBufferBytes, l.options.ReceiveBufferBytes)
			}
			batch[n] = Accepted{FD: fd, Peer: peer}
			n++
		case errno == unix.EAGAIN:
			return n, nil
		case acceptAborted(errno):
			aborted++
		case errno == unix.EMFILE, errno == unix.ENFILE:
			return n, ErrDescriptors
		default:
			return n, os.NewSyscallError("accept", errno)
		}
	}
	return n, nil
}

// Queue is how many connections wait to be accepted, and how many may before the
// kernel drops them (tcp(7), TCP_INFO of a listening socket). Both are 0 where
// nobody tells: for Unix sockets, after Close, and elsewhere than on Linux. Any
// goroutine may call it at any time.
func (l *Listener) Queue() (waiting, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return 0, 0
	}
	return listenQueue(l.fd)
}

// Shed turns one waiting connection away when Accept has answered
// ErrDescriptors, so that its peer learns of it now rather than by a timeout. It
// gives up the listener's reserve descriptor, accepts, reads what the peer has
// sent by now, writes what answer makes of it as far as it goes at once, closes,
// and takes the reserve back. False without an error:
// none waited. ErrDescriptors: somebody else took the reserve while it was free.
func (l *Listener) Shed(answer func(request []byte) []byte) (bool, error) {
	if l.fd < 0 {
		return false, ErrClosed
	}
	if l.reserve >= 0 {
		_ = unix.Close(l.reserve)
		l.reserve = -1
	}
	var batch [1]Accepted
	n, err := l.Accept(batch[:])
	if n == 1 {
		TurnAway(batch[0].FD, answer)
	}
	if fd, reserveErr := openReserve(); reserveErr == nil {
		l.reserve = fd
	}
	return n == 1, err
}

// TurnAway answers what a peer has sent by now and closes the socket. All of that is
// read first, up to 8 KiB, of which answer gets the first 2 KiB: closing with unread bytes
// resets the connection, and a reset may overtake the answer.
func TurnAway(fd int, answer func(request []byte) []byte) {
	const readsMax = 4
	var request, scratch [2048]byte
	n, err := Read(fd, request[:])
	for range readsMax - 1 {
		if err != nil {
			break
		}
		_, err = Read(fd, scratch[:])
	}
	_, _ = Write(fd, answer(request[:max(0, n)]))
	_ = CloseWrite(fd)
	_ = Close(fd)
}

// openReserve takes a descriptor that depends on no path: a socket bound to nothing.
func openReserve() (int, error) {
	return openSocket(unix.AF_UNIX)
}

// Close closes the listener and removes its Unix socket, unless the path leads
// to another one by now. Connections that wait unaccepted are reset.
func (l *Listener) Close() error {
	if l.fd < 0 {
		return ErrClosed
	}
	if l.file != nil {
		// Before the close: as long as the socket is open its inode number can't
		// be given to the file of a successor.
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
			_ = os.Remove(l.path)
		}
	}
	if l.reserve >= 0 {
		_ = unix.Close(l.reserve)
		l.reserve = -1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fd := l.fd
	l.fd = -1
	return Close(fd)
}

// start makes the bound socket l.fd listen.
func (l *Listener) start() error {
	if err := setBuffers(l.fd, l.options.SendBufferBytes, l.options.ReceiveBufferBytes); err != nil {
		return err
	}
	if l.file == nil && l.options.UserTimeout > 0 {
		if err := SetUserTimeout(l.fd, l.options.UserTimeout); err != nil {
			return err
		}
	}
	backlog := l.options.Backlog
	if backlog <= 0 {
		backlog = backlogMax()
	}
	return sysError("listen", unix.Listen(l.fd, backlog))
}
