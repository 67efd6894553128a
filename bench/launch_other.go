//go:build !linux

package main

import "os/exec"

// endWithParent needs Linux: elsewhere a process that we started outlives us if we are killed.
func endWithParent(*exec.Cmd) {}
