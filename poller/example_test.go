package poller_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/pulsewheel/pulsewheel/poller"
)

// A loop that accepts, echoes until the peer has finished, and ends: the token
// tells the listener from the connections.
func Example() {
	l, err := poller.Listen("127.0.0.1:0", poller.ListenOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	p, err := poller.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	go talk(l.Addr().String())

	const listener poller.Token = 1 << 32 // above every descriptor, which serve as tokens here
	if err := p.Add(l.FD(), listener, poller.Readable); err != nil {
		fmt.Println(err)
		return
	}
	events := make([]poller.Event, 64)
	batch := make([]poller.Accepted, 16)
	deadline := time.Now().Add(10 * time.Second)
	for open, served := 0, 0; served == 0 || open > 0; {
		n, err := p.Wait(events, deadline)
		if n == 0 || err != nil {
			fmt.Println("nothing came:", err)
			return
		}
		for _, event := range events[:n] {
			if event.Token != listener {
				if !echo(int(event.Token)) {
					open--
				}
				continue
			}
			accepted, err := l.Accept(batch)
			if err != nil {
				fmt.Println(err)
			}
			for _, c := range batch[:accepted] {
				open, served = open+1, served+1
				err := p.Add(c.FD, poller.Token(c.FD), poller.Readable|poller.Writable|poller.EdgeTriggered)
				if err != nil {
					fmt.Println(err)
				}
			}
		}
	}
	// Output:
	// echoed "hello"
	// peer has finished
}

// echo reads to ErrWouldBlock, since edges come once, and reports whether the
// connection goes on.
func echo(fd int) bool {
	buffer := make([]byte, 1024)
	for {
		n, err := poller.Read(fd, buffer)
		switch {
		case errors.Is(err, poller.ErrWouldBlock):
			return true
		case errors.Is(err, io.EOF):
			fmt.Println("peer has finished")
			_ = poller.Close(fd)
			return false
		case err != nil:
			fmt.Println(err)
			_ = poller.Close(fd)
			return false
		}
		// So few bytes always fit; a server keeps what doesn't until CanWrite.
		if _, err := poller.Write(fd, buffer[:n]); err == nil {
			fmt.Printf("echoed %q\n", buffer[:n])
		}
	}
}

// talk is the peer.
func talk(address string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "hello")
	_, _ = io.ReadFull(c, make([]byte, 5))
}

// Another goroutine ends a Wait, whatever it waits for.
func ExamplePoller_Wake() {
	p, err := poller.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	tasks := make(chan string, 1)
	go func() {
		tasks <- "a task"
		_ = p.Wake() // poller.ErrClosed at worst, when nobody waits for tasks any longer
	}()
	n, err := p.Wait(make([]poller.Event, 1), time.Time{})
	fmt.Println(n, err, <-tasks)
	// Output: 0 <nil> a task
}
