package main

import (
	"bytes"
	"os/exec"
	"runtime"
)

// saidBytesMax bounds what is kept of a process' standard error: its last words are what counts.
const saidBytesMax = 4096

// lastWords keeps the end of what a process says. It is written by the goroutine that package exec runs, and read after
// the process has ended.
type lastWords struct{ text []byte }

func (w *lastWords) Write(p []byte) (int, error) {
	w.text = append(w.text, p...)
	if excess := len(w.text) - saidBytesMax; excess > 0 {
		w.text = append(w.text[:0], w.text[excess:]...)
	}
	return len(p), nil
}

func (w *lastWords) String() string { return string(bytes.TrimSpace(w.text)) }

// launch starts a process that doesn't outlive ours, where the kernel can see to that. After the start, on a goroutine of its own,
// serve is called if it is not nil, and when the process has ended, ended with what exec.Cmd.Wait says.
//
// The kernel takes the thread that started a process for its parent, and ends it with that thread. So the goroutine keeps
// its thread until the process has ended.
func launch(cmd *exec.Cmd, serve func(), ended func(error)) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		endWithParent(cmd)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if serve != nil {
			serve()
		}
		ended(cmd.Wait())
	}()
	return <-started
}
