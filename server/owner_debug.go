//go:build race || invariants

package server

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
)

// owner remembers the goroutine that something belongs to and panics when another one comes.
type owner struct {
	goroutine uint64
}

// take makes the calling goroutine the owner.
func (o *owner) take() { o.goroutine = goroutineID() }

// check panics unless the owner calls. Before take, everybody may: the loop is still being built.
func (o *owner) check() {
	if o.goroutine == 0 {
		return
	}
	if id := goroutineID(); id != o.goroutine {
		panic(fmt.Sprintf("server: goroutine %d in a method of goroutine %d", id, o.goroutine))
	}
}

// goroutineID reads the number out of "goroutine 12 [running]:", the only place where Go tells it.
func goroutineID() uint64 {
	var buf [64]byte
	line := buf[:runtime.Stack(buf[:], false)]
	fields := bytes.Fields(line)
	id, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("server: no goroutine id in %q", line))
	}
	return id
}

// scribble makes a use after the return of a buffer visible.
func scribble(buf []byte) {
	buf = buf[:cap(buf)]
	for i := range buf {
		buf[i] = 0xdb
	}
}
