package poller

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDescriptorsExhausted runs exhaustDescriptors in a process of its own, whose
// limit it may lower.
func TestDescriptorsExhausted(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(binary)
	child.Env = append(os.Environ(), childVariable+"=descriptors")
	if output, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}

// exhaustDescriptors takes every descriptor and checks what then is answered, what
// the peer that is shed reads, and that accepting resumes.
func exhaustDescriptors() error {
	limit := syscall.Rlimit{Cur: 32, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if soft, err := DescriptorLimit(); soft != 64 || err != nil {
		return fmt.Errorf("DescriptorLimit = %d, %w; want the hard limit, 64", soft, err)
	}
	l, err := Listen("127.0.0.1:0", ListenOptions{})
	if err != nil {
		return err
	}
	var clients []int
	for range 3 {
		fd, err := Connect(l.Addr().String(), ConnectOptions{})
		if err != nil {
			return err
		}
		clients = append(clients, fd)
		if err := pollUntil(fd, unix.POLLOUT); err != nil {
			return err
		}
		// Unread bytes would make the server's close a reset.
		if _, err := Write(fd, []byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			return err
		}
	}
	var fillers []int
	for {
		fd, err := openSocket(unix.AF_UNIX)
		if errors.Is(err, ErrDescriptors) {
			break
		}
		if err != nil {
			return err
		}
		fillers = append(fillers, fd)
	}
	if _, err := Open(); !errors.Is(err, ErrDescriptors) {
		return fmt.Errorf("Open: %w, want ErrDescriptors", err)
	}
	if _, err := Connect(l.Addr().String(), ConnectOptions{}); !errors.Is(err, ErrDescriptors) {
		return fmt.Errorf("Connect: %w, want ErrDescriptors", err)
	}
	if _, err := Listen("127.0.0.1:0", ListenOptions{}); !errors.Is(err, ErrDescriptors) {
		return fmt.Errorf("Listen: %w, want ErrDescriptors", err)
	}
	if err := shedTwo(l, clients); err != nil {
		return err
	}
	if err := Close(fillers[0]); err != nil {
		return err
	}
	var batch [4]Accepted
	if n, err := l.Accept(batch[:]); n != 1 || err != nil && !errors.Is(err, ErrDescriptors) {
		return fmt.Errorf("with room again: Accept = %d, %w; want the third", n, err)
	}
	if shed, err := l.Shed(nil); shed || err != nil {
		return fmt.Errorf("Shed of nobody = %v, %w", shed, err)
	}
	if l.reserve < 0 {
		return errors.New("the reserve was not taken back")
	}
	return l.Close()
}

func shedTwo(l *Listener, clients []int) error {
	const answer = "HTTP/1.1 503 Service Unavailable\r\n\r\n"
	var batch [4]Accepted
	for i, client := range clients[:2] {
		if n, err := l.Accept(batch[:]); n != 0 || err != ErrDescriptors {
			return fmt.Errorf("Accept %d = %d, %w; want ErrDescriptors", i, n, err)
		}
		if shed, err := l.Shed(func([]byte) []byte { return []byte(answer) }); !shed || err != nil {
			return fmt.Errorf("Shed %d = %v, %w; want true", i, shed, err)
		}
		var got []byte
		p := make([]byte, 256)
		for {
			if err := pollUntil(client, unix.POLLIN); err != nil {
				return err
			}
			n, err := Read(client, p)
			if got = append(got, p[:n]...); err != nil {
				if string(got) != answer || !errors.Is(err, io.EOF) {
					return fmt.Errorf("peer %d read %q, %w; want the answer and its end", i, got, err)
				}
				break
			}
		}
		if err := SocketError(client); err != nil {
			return fmt.Errorf("peer %d was reset after the answer: %w", i, err)
		}
	}
	return nil
}

func pollUntil(fd int, events int16) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if n, err := unix.Poll(fds, 100); err == nil && n > 0 {
			return nil
		}
	}
	return fmt.Errorf("descriptor %d not ready for %#x", fd, events)
}
