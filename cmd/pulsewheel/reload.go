package main

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
)

// reload reads environment and file again, with the flags of the start. What can change while the server runs does; the rest
// is named. A configuration with problems changes nothing.
func (s *service) reload() {
	next := parse(s.process)
	if _, problems := check(&next); len(problems) > 0 {
		s.logger.Error("configuration not reloaded", "problems", problems)
		return
	}
	changed := changedOptions(s.parsed, next)
	reloaded := []string{}
	restart := []string{}
	for _, name := range changed {
		if name == "log-level" {
			s.level.Set(slogLevel(next.options.LogLevel))
			s.parsed.options.LogLevel = next.options.LogLevel
			reloaded = append(reloaded, name)
		} else {
			restart = append(restart, name)
		}
	}
	// A line that no level hides: whoever sent the signal waits for it.
	s.logger.Log(context.Background(), max(s.level.Level(), slog.LevelInfo), "configuration reloaded", "changed", reloaded, "needs_restart", restart)
}

// changedOptions names the options whose values differ.
func changedOptions(before, after parsed) (names []string) {
	was, is := reflect.ValueOf(before.options), reflect.ValueOf(after.options)
	for i, flag := range optionFlags(after.model) {
		if !equalOption(was.Field(i).Interface(), is.Field(i).Interface()) {
			names = append(names, flag.Name)
		}
	}
	return names
}

// equalOption compares two values of one option; an empty list is one whether or not it was ever written.
func equalOption(a, b any) bool {
	if list, isList := a.([]string); isList {
		return slices.Equal(list, b.([]string))
	}
	return a == b
}
