//go:build race || invariants

package server

import (
	"fmt"
	"strings"
	"testing"
)

// TestWrongGoroutine: a method that belongs to a loop's goroutine panics on another one, so that the race run proves the table in
// doc.go.
func TestWrongGoroutine(t *testing.T) {
	s := start(t, Config{Loops: 1, HandlerInline: true}, Echo{})
	s.dial(t, "/ws")
	var l *loop
	s.on(t, func(own *loop) { l = own }) // after it the loop's goroutine has taken ownership
	for name, call := range map[string]func(){
		"dispatch":     func() { l.dispatch(nil) },
		"serveReady":   l.serveReady,
		"runTasks":     l.runTasks,
		"fireTimers":   l.fireTimers,
		"finish":       func() { l.finish(0) },
		"beginClosing": func() { l.beginClosing(0) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if value := fmt.Sprint(recover()); !strings.Contains(value, "in a method of goroutine") {
					t.Errorf("recovered %q", value)
				}
			}()
			call()
		})
	}
}

// TestScribble: what is given back to the pool is overwritten, so that who still reads it sees that.
func TestScribble(t *testing.T) {
	var b buffers
	buf := append(b.get(10), "content"...)
	b.put(buf)
	if string(buf) == "content" {
		t.Error("a buffer that was given back still has its content")
	}
}
