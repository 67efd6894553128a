package pool_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/pulsewheel/pulsewheel/pool"
)

// A full pool pushes back, and the caller keeps its task.
func ExamplePool_Submit() {
	gate := make(chan struct{})
	p, err := pool.New(1, 1,
		func(_ int, task string) {
			<-gate
			fmt.Println("ran", task)
		},
		func(task string, value any, _ []byte) { fmt.Println(task, "panicked:", value) })
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, task := range []string{"first", "second", "third"} {
		if err := p.Submit(task); errors.Is(err, pool.ErrSaturated) {
			fmt.Println("kept", task)
		}
	}
	close(gate)
	if err := p.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// kept third
	// ran first
	// ran second
}

// The messages of a connection are handled in order, those of different
// connections beside each other; a panic reaches only its own connection.
func ExampleSerial() {
	handled := make(map[string][]string) // one worker here, so it needs no lock
	s, err := pool.NewSerial(1, 100,
		func(_ int, conn, message string) {
			if message == "bad" {
				panic("can't handle this")
			}
			handled[conn] = append(handled[conn], message)
		},
		func(conn, _ string, value any, _ []byte) { fmt.Println("close", conn+":", value) })
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range []string{"one", "two", "bad", "three"} {
		if err := s.Submit("conn-1", m); err != nil {
			fmt.Println(err)
		}
	}
	if err := s.Submit("conn-2", "hello"); err != nil {
		fmt.Println(err)
	}
	if err := s.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println(handled["conn-1"], handled["conn-2"])
	// Output:
	// close conn-1: can't handle this
	// [one two three] [hello]
}
