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
		if reloadable(name) {
			reloaded = append(reloaded, name)
		} else {
			restart = append(restart, name)
		}
	}
	if err := s.server.Reload(s.serverConfig(&next.options)); err != nil {
		s.logger.Error("configuration not reloaded", "problems", err)
		return
	}
	s.level.Set(slogLevel(next.options.LogLevel))
	s.parsed.keep(next, reloaded)
	// A line that no level hides: whoever sent the signal waits for it.
	s.logger.Log(context.Background(), max(s.level.Level(), slog.LevelInfo), "configuration reloaded", "changed", reloaded, "needs_restart", restart)
}

// reloadable says whether an option may change while the server runs: what Server.Reload takes, and the log level.
func reloadable(name string) bool {
	switch name {
	case "log-level", "allowed-origins", "handshake-size-limit", "message-size-limit", "max-fragments", "max-backpressure",
		"control-rate-limit", "message-rate-limit", "connection-limit":
		return true
	default:
		return false
	}
}

// keep notes the values that are in force now, so that the next reload names what still needs a restart.
func (p *parsed) keep(next parsed, names []string) {
	was, is := reflect.ValueOf(&p.options).Elem(), reflect.ValueOf(next.options)
	for i, flag := range optionFlags(next.model) {
		if slices.Contains(names, flag.Name) {
			was.Field(i).Set(is.Field(i))
		}
	}
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
