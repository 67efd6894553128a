package poller

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const benchBytes = 128

// BenchmarkEcho is one message to the echo loop and back, over loopback TCP, with
// a poller on either side: 1 connection measures latency (each message parks and
// wakes both sides), more of them throughput.
func BenchmarkEcho(b *testing.B) {
	for _, connections := range []int{1, 100} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			benchmarkEcho(b, connections)
		})
	}
}

func benchmarkEcho(b *testing.B, connections int) {
	b.ReportAllocs()
	b.SetBytes(2 * benchBytes)
	server, clients := openPoller(b, openBackend), openPoller(b, openBackend)
	message := make([]byte, benchBytes)
	var fds []int
	for range connections {
		client, accepted := pair(b, "tcp")
		if err := errors.Join(
			server.Add(accepted.fd, Token(accepted.fd), readyAll),
			clients.Add(client.fd, Token(client.fd), readyAll),
		); err != nil {
			b.Fatal(err)
		}
		fds = append(fds, client.fd)
	}
	stopped := make(chan error, 1)
	stop := make(chan struct{})
	go func() { stopped <- echo(server, stop) }()

	events := make([]Event, EventsPerWaitMax)
	buffer := make([]byte, 4*benchBytes)
	b.ResetTimer()
	sent, answered := 0, 0
	for _, fd := range fds {
		if sent < b.N {
			write(b, fd, string(message))
			sent++
		}
	}
	for answered < b.N {
		n, err := clients.Wait(events, time.Time{})
		if err != nil {
			b.Fatal(err)
		}
		for _, event := range events[:n] {
			if got, err := Read(int(event.Token), buffer); got != benchBytes || err != nil {
				continue // the first edge is only room to write
			}
			if answered++; sent < b.N {
				if _, err := Write(int(event.Token), message); err != nil {
					b.Fatal(err)
				}
				sent++
			}
		}
	}
	b.StopTimer()
	close(stop)
	if err := errors.Join(server.Wake(), <-stopped); err != nil {
		b.Fatal(err)
	}
}

// echo is the smallest loop: it reads what is ready and writes it back.
func echo(p *Poller, stop <-chan struct{}) error {
	events := make([]Event, EventsPerWaitMax)
	buffer := make([]byte, 4*benchBytes)
	for {
		n, err := p.Wait(events, time.Time{})
		if err != nil {
			return err
		}
		for _, event := range events[:n] {
			got, err := Read(int(event.Token), buffer)
			if err != nil {
				continue
			}
			if _, err := Write(int(event.Token), buffer[:got]); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// BenchmarkWait is what Wait adds to one system call that finds an event.
func BenchmarkWait(b *testing.B) {
	p := openPoller(b, openBackend)
	_, server := pair(b, "tcp")
	if err := p.Add(server.fd, 1, Writable); err != nil {
		b.Fatal(err)
	}
	events := make([]Event, EventsPerWaitMax)
	for _, bench := range []struct {
		name     string
		deadline time.Time
	}{
		{"deadline=none", time.Time{}},
		{"deadline=unchanged", time.Now().Add(time.Hour)},
		{"deadline=past", time.Unix(1, 0)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n, err := p.Wait(events, bench.deadline); n != 1 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
	b.Run("deadline=moving", func(b *testing.B) {
		b.ReportAllocs()
		deadline := time.Now().Add(time.Hour)
		for b.Loop() {
			deadline = deadline.Add(1)
			if n, err := p.Wait(events, deadline); n != 1 || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}

// BenchmarkWake: posting to an owner that is busy, and to one that is parked (there
// and back between two goroutines).
func BenchmarkWake(b *testing.B) {
	b.Run("owner=busy", func(b *testing.B) {
		p := openPoller(b, openBackend)
		b.ReportAllocs()
		for b.Loop() {
			if err := p.Wake(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("owner=parked", func(b *testing.B) {
		here, there := openPoller(b, openBackend), openPoller(b, openBackend)
		b.ReportAllocs()
		stopped := make(chan error, 1)
		go func() {
			var events [1]Event
			for {
				if _, err := there.Wait(events[:], time.Time{}); err != nil {
					stopped <- err
					return
				}
				if err := here.Wake(); err != nil {
					stopped <- nil
					return
				}
			}
		}()
		var events [1]Event
		for b.Loop() {
			if err := there.Wake(); err != nil {
				b.Fatal(err)
			}
			if _, err := here.Wait(events[:], time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
		if err := errors.Join(here.Close(), there.Wake(), <-stopped); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkRegister is Add and Remove of one socket.
func BenchmarkRegister(b *testing.B) {
	p := openPoller(b, openBackend)
	_, server := pair(b, "tcp")
	b.ReportAllocs()
	for b.Loop() {
		if err := errors.Join(p.Add(server.fd, 1, readyAll), p.Remove(server.fd)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAccept is the whole life of a connection without bytes: connect, accept
// in a batch of one, register, reset.
func BenchmarkAccept(b *testing.B) {
	p := openPoller(b, openBackend)
	l := listen(b, "127.0.0.1:0", ListenOptions{})
	address := dialable(l)
	batch := make([]Accepted, 1)
	b.ReportAllocs()
	for b.Loop() {
		client, err := Connect(address, ConnectOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for n := 0; n == 0; {
			awaitReady(b, l.FD(), unix.POLLIN)
			if n, err = l.Accept(batch); err != nil {
				b.Fatal(err)
			}
		}
		if err := errors.Join(p.Add(batch[0].FD, 1, readyAll), Reset(batch[0].FD), Close(client)); err != nil {
			b.Fatal(err)
		}
	}
}
