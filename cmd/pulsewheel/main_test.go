package main

import (
	"os"
	"testing"
)

// beTheProgram makes the test binary run as the program itself, so that signals and exit codes are tested on a real process.
const beTheProgram = "BE_THE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beTheProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}
