package server

import (
	"errors"
	"strings"
	"testing"

	"github.com/pulsewheel/pulsewheel/wsframe"
)

// Drain sends everybody away and refuses newcomers; Undrain takes them again on the same listener; a shutdown after it works as ever.
func TestDrainAndUndrain(t *testing.T) {
	s := start(t, Config{Loops: 2, DrainRate: 10_000}, nil)
	peers := []*peer{s.dial(t, "/ws"), s.dial(t, "/ws"), s.dial(t, "/ws")}
	await(t, "open", func() bool { return s.open() == 3 })
	for range 2 { // a second one changes nothing
		if err := s.Drain(); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Draining() {
		t.Error("not draining")
	}
	for _, p := range peers {
		if reason := p.expectClose(wsframe.CloseRestart); !strings.HasPrefix(reason, "restart; retry-after=") {
			t.Errorf("reason %q", reason)
		}
		p.Close()
	}
	if got := roundTrip(t, s.addr, upgradeRequest("/ws")); !strings.Contains(got.status, "503") {
		t.Errorf("while draining: %s", got.status)
	}
	if err := s.Undrain(); err != nil {
		t.Fatal(err)
	}
	if err := s.Undrain(); err != nil {
		t.Fatalf("once more: %v", err)
	}
	s.dial(t, "/ws").Close()
}

// Whom Undrain comes in time for stays.
func TestUndrainStopsTheDrain(t *testing.T) {
	s := start(t, Config{Loops: 1, DrainRate: 1}, nil)
	for range 5 {
		s.dial(t, "/ws")
	}
	await(t, "open", func() bool { return s.open() == 5 })
	if err := s.Drain(); err != nil {
		t.Fatal(err)
	}
	await(t, "the first told", func() bool { return s.open() < 5 })
	if err := s.Undrain(); err != nil {
		t.Fatal(err)
	}
	s.on(t, func(l *loop) {
		if l.drain.active {
			t.Error("the loop still drains")
		}
	})
	if n := s.open(); n < 3 {
		t.Errorf("%d stayed", n)
	}
}

func TestDrainOutOfTime(t *testing.T) {
	idle, err := New(Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Drain(); !errors.Is(err, ErrNotServing) {
		t.Errorf("before Serve: %v", err)
	}
	s := start(t, Config{}, nil)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Undrain(); !errors.Is(err, ErrEnding) {
		t.Errorf("after Shutdown: %v", err)
	}
}
