package main

import "fmt"

// A pacer's plan: five operations a second over two connections, made beforehand, whatever the answers do.
func Example_pacer() {
	c := &client{conns: []conn{{phase: open}, {phase: open}}}
	p := newPacer(0, 5, 2, func(i int) { fmt.Println("send on connection", i) })
	fmt.Println("next at", p.serve(c, 500e6)/1e6, "ms")
	fmt.Println("the second answer on connection 0 counts from", p.dueOf(0, 1)/1e6, "ms")
	// Output:
	// send on connection 0
	// send on connection 1
	// send on connection 0
	// next at 600 ms
	// the second answer on connection 0 counts from 400 ms
}
