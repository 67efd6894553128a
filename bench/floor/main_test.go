package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// asFloor in the environment makes the test binary stand for the program.
const asFloor = "PULSEWHEEL_FLOOR"

// patience bounds every wait of a test on a floor; none comes near it unless it fails.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(asFloor) != "" {
		main()
	}
	os.Exit(m.Run())
}

// programs are the floors that can be had here: the one in Go, and the one in C where there is a compiler.
func programs(t *testing.T) map[string]string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{"go": self}
	if gcc, err := exec.LookPath("gcc"); err == nil {
		binary := filepath.Join(t.TempDir(), "floor-c")
		if out, err := exec.Command(gcc, "-O2", "-Wall", "-Wextra", "-Werror", "-o", binary, "floor.c").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		found["c"] = binary
	}
	return found
}

// start runs a floor on a free port and returns its address once it listens.
func start(t *testing.T, program string, args ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"--listen", address}, args...)...)
	cmd.Env = append(os.Environ(), asFloor+"=1")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it does not end by itself
		_ = cmd.Wait()
	})
	for began := time.Now(); time.Since(began) < patience; {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return address
		}
	}
	t.Fatalf("%s does not listen on %s", program, address)
	return ""
}

// upgrade opens a WebSocket with the example key of RFC 6455, section 1.3, and checks the answer that it gives there.
func upgrade(t *testing.T, address string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept := response.Header.Get("Sec-WebSocket-Accept"); response.StatusCode != 101 || accept != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("status %d, accept %q", response.StatusCode, accept)
	}
	return c, r
}

func TestFloorEchoes(t *testing.T) {
	tests := []struct {
		name   string
		size   int
		header []byte
	}{
		{"short", 5, []byte{0x82, 5}},
		{"two-byte length", 128, []byte{0x82, 126, 0, 128}},
	}
	for name, program := range programs(t) {
		for _, tt := range tests {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				c, r := upgrade(t, start(t, program, "--size", fmt.Sprint(tt.size)))
				const frames = 3
				message := make([]byte, len(tt.header)+4+tt.size)
				message[0] = 0x82
				// A pong before each message, so that a read holds both kinds.
				masked := bytes.Repeat(append([]byte{0x8a, 0x80, 0, 0, 0, 0}, message...), frames)
				// All but one byte of three frames, then that byte: two answers at least, three in the end.
				if _, err := c.Write(masked[:len(masked)-1]); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, frames*(len(tt.header)+tt.size))
				if _, err := io.ReadFull(r, got[:2*len(got)/frames]); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Write(masked[len(masked)-1:]); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(r, got[2*len(got)/frames:]); err != nil {
					t.Fatal(err)
				}
				payload := make([]byte, tt.size)
				for i := range payload {
					payload[i] = 'a' + byte(i%26)
				}
				if want := bytes.Repeat(append(tt.header, payload...), frames); !bytes.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}

func TestFloorPings(t *testing.T) {
	for name, program := range programs(t) {
		t.Run(name, func(t *testing.T) {
			c, r := upgrade(t, start(t, program, "--heartbeat-interval", "100ms"))
			ping := make([]byte, 2)
			var first time.Time
			for k := range 6 {
				if _, err := io.ReadFull(r, ping); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(ping, []byte{0x89, 0}) {
					t.Fatalf("got % x, want a ping", ping)
				}
				if _, err := c.Write([]byte{0x8a, 0x80, 0, 0, 0, 0}); err != nil { // a pong, which is not answered
					t.Fatal(err)
				}
				if k == 0 {
					first = time.Now()
				}
			}
			if took := time.Since(first); took < 350*time.Millisecond {
				t.Errorf("six pings within %v, want about 500ms", took)
			}
		})
	}
}

func TestFloorDropsWhatIsNoUpgrade(t *testing.T) {
	for name, program := range programs(t) {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", start(t, program))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("read %d bytes, %v; want the end", n, err)
			}
		})
	}
}
