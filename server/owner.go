//go:build !race && !invariants

package server

// owner checks, in race and invariants builds, that a goroutine-bound method runs on its goroutine (owner_debug.go). Here it is
// nothing.
type owner struct{}

func (owner) take()  {}
func (owner) check() {}

// scribble overwrites a buffer that was given back, in race and invariants builds.
func scribble([]byte) {}
