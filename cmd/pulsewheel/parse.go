package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Names of the commands.
const (
	commandServe       = "serve"
	commandCheckConfig = "check-config"
	commandDoctor      = "doctor"
	commandDrain       = "drain"
	commandUndrain     = "undrain"
	commandVersion     = "version"
)

// grammar is the command line.
type grammar struct {
	Serve struct {
		options
	} `cmd:"" name:"serve" help:"Run the server until SIGTERM or SIGINT."`
	CheckConfig struct {
		options
	} `cmd:"" name:"check-config" help:"Print the configuration that serve would run with, or all that is wrong with it."`
	Doctor  doctorOptions `cmd:"" name:"doctor" help:"Tell what stands between this host, or a proxy in front, and the connections wanted."`
	Drain   adminOptions  `cmd:"" name:"drain" help:"Have a running server send its connections away and take no new ones."`
	Undrain adminOptions  `cmd:"" name:"undrain" help:"Have a running server take connections again."`
	Version struct{}      `cmd:"" name:"version" help:"Print version, commit and Go version."`
}

const description = "Pulsewheel holds very many WebSocket connections, keeps them alive with heartbeats and ends the dead ones."

const optionsDetail = "Each option is also an environment variable (PULSEWHEEL_HEARTBEAT_INTERVAL) and a key of the YAML file that --config names " +
	"(heartbeat-interval: 25s). Flags win over the environment, the environment over the file. Values below are the defaults. " +
	"Durations are 25s or 1m30s, sizes 64KiB or 1MiB; lists are separated by commas, or the flag is repeated."

// parsed is what arguments, environment and file say.
type parsed struct {
	command  string // empty: none was named
	help     bool   // help was asked for, and printed
	options  options
	admin    adminOptions  // of drain and undrain
	doctor   doctorOptions // of doctor
	model    []*kong.Flag  // the options with their values, in order
	problems []string      // everything that is wrong, one line each
}

// parse reads arguments, environment and file. It goes on after a problem, so that all of them are told at once: a value that
// can't be used is noted by the parser and stands as the default, and an argument that can't be placed is noted and left out.
func parse(p process) parsed {
	args := p.args
	var misplaced []string
	for {
		attempt := newParser(p)
		trace, err := kong.Trace(attempt.kong, args)
		if err == nil {
			err = trace.Error
		}
		if err == nil {
			break
		}
		misplaced = append(misplaced, withoutLongHint(err.Error()))
		args = withoutOffender(args, trace)
		if trace.Selected() == nil && !startsWithFlag(p.args) {
			return parsed{problems: append(misplaced[:1], helpHint)} // an unknown command; what follows means nothing
		}
	}
	parser := newParser(p)
	context, err := parser.kong.Parse(args)
	if parser.helped {
		return parsed{help: true}
	}
	result := parsed{problems: append(misplaced, parser.problems...)}
	if err != nil {
		result.problems = append(append(result.problems, errorLines(err)...), helpHint)
		return result
	}
	selected := context.Selected()
	result.command = selected.Name
	switch selected.Name {
	case commandServe:
		result.options = parser.grammar.Serve.options
	case commandCheckConfig:
		result.options = parser.grammar.CheckConfig.options
	case commandDrain:
		result.admin = parser.grammar.Drain
	case commandUndrain:
		result.admin = parser.grammar.Undrain
	case commandDoctor:
		result.doctor = parser.grammar.Doctor
	}
	result.model = selected.Flags
	return result
}

const helpHint = `run "pulsewheel --help" for the commands`

func startsWithFlag(args []string) bool { return len(args) > 0 && strings.HasPrefix(args[0], "-") }

// withoutOffender drops the argument at which a trace ended: the first one that its last step left over. The value of a flag
// that doesn't exist goes with it.
func withoutOffender(args []string, trace *kong.Context) []string {
	at := max(0, len(args)-len(trace.Path[len(trace.Path)-1].Remainder()))
	if at >= len(args) {
		return nil
	}
	end := at + 1
	takesValue := strings.HasPrefix(args[at], "--") && !strings.Contains(args[at], "=")
	if takesValue && end < len(args) && !strings.HasPrefix(args[end], "-") && !isCommand(args[end]) {
		end++
	}
	return append(append([]string(nil), args[:at]...), args[end:]...)
}

// withoutLongHint drops a suggestion that names more than a few flags, which helps nobody.
func withoutLongHint(message string) string {
	if head, hint, found := strings.Cut(message, ", did you mean"); found && strings.Count(hint, ",") > 2 {
		return head
	}
	return message
}

func isCommand(arg string) bool {
	return arg == commandServe || arg == commandCheckConfig || arg == commandVersion
}

// parser is one use of kong, which keeps state in its model.
type parser struct {
	kong     *kong.Kong
	grammar  grammar
	sources  sources
	helped   bool
	problems []string
}

func newParser(p process) *parser {
	s := &parser{sources: sources{environ: p.environ}}
	mapper := kong.MapperFunc(s.decode)
	k, err := kong.New(&s.grammar,
		kong.Name("pulsewheel"),
		kong.Description(description),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(int) { s.helped = true }), // kong exits for --help only
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.ExplicitGroups(optionGroups()),
		kong.TypeMapper(reflect.TypeFor[string](), mapper),
		kong.TypeMapper(reflect.TypeFor[[]string](), mapper),
		kong.TypeMapper(reflect.TypeFor[int](), mapper),
		kong.TypeMapper(reflect.TypeFor[float64](), mapper),
		kong.TypeMapper(reflect.TypeFor[bool](), boolMapper{s}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), mapper),
		kong.TypeMapper(reflect.TypeFor[size](), mapper),
		kong.TypeMapper(reflect.TypeFor[percent](), mapper),
		kong.WithBeforeResolve(s.loadSources),
	)
	if err != nil {
		panic(fmt.Sprintf("the grammar of the command line: %v", err))
	}
	for _, command := range k.Model.Children {
		if command.Name == commandServe || command.Name == commandCheckConfig {
			command.Detail = optionsDetail
		}
	}
	s.kong = k
	return s
}

// loadSources adds environment and file to a command that has options.
func (s *parser) loadSources(context *kong.Context) error {
	selected := context.Selected()
	if s.sources.loaded || selected == nil || selected.Name == commandVersion || selected.Name == commandDoctor {
		return nil
	}
	// drain and undrain find the admin listener where serve was told of it, and don't judge serve's other options.
	s.sources.partial = selected.Name == commandDrain || selected.Name == commandUndrain
	s.problems = append(s.problems, s.sources.load(context, selected.Flags)...)
	context.AddResolver(&s.sources)
	return nil
}

// decode reads one value of any option from a flag, from the environment or from the file. A value that can't be used becomes
// a problem and the default takes its place.
func (s *parser) decode(context *kong.DecodeContext, target reflect.Value) error {
	token, err := context.Scan.PopValue("value")
	if err != nil {
		return errors.New("needs a value")
	}
	value, ok := token.Value.(sourced)
	if !ok {
		text := token.String()
		value = sourced{origin: context.Value.ShortSummary(), items: []string{text}}
		if context.Value.IsSlice() {
			value.items = splitList(text)
		}
	}
	if err := set(context.Value, target, value); err != nil {
		s.problems = append(s.problems, fmt.Sprintf("%s: %v", value.origin, err))
		if !context.Value.IsSlice() && context.Value.HasDefault {
			return setScalar(target, context.Value.Default)
		}
	}
	return nil
}

// set checks what the tags of an option say beside its type.
func set(option *kong.Value, target reflect.Value, value sourced) error {
	if option.IsSlice() {
		for _, item := range value.items {
			element := reflect.New(target.Type().Elem()).Elem()
			if err := setScalar(element, item); err != nil {
				return err
			}
			target.Set(reflect.Append(target, element))
		}
		return nil
	}
	if value.isList {
		return errors.New("takes one value, not a list")
	}
	text := value.items[0]
	if err := setScalar(target, text); err != nil {
		return err
	}
	if option.Enum != "" && !option.EnumMap()[text] {
		return fmt.Errorf("%q is none of %s", text, strings.ReplaceAll(option.Enum, ",", ", "))
	}
	if option.Tag.Has("positive") && target.IsZero() {
		return errors.New("must be more than 0")
	}
	return nil
}

// splitList reads a list as it stands in a flag or a variable.
func splitList(text string) (items []string) {
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// boolMapper reads an option that may stand without a value.
type boolMapper struct{ parser *parser }

var _ kong.BoolMapper = boolMapper{}

func (b boolMapper) IsBool() bool { return true }

func (b boolMapper) Decode(context *kong.DecodeContext, target reflect.Value) error {
	if context.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	return b.parser.decode(context, target)
}

// errorLines splits joined errors.
func errorLines(err error) (lines []string) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, each := range joined.Unwrap() {
			lines = append(lines, errorLines(each)...)
		}
		return lines
	}
	return []string{err.Error()}
}
