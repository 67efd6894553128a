package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

const (
	environPrefix  = "PULSEWHEEL_"
	configBytesMax = 1 << 20
	configFlag     = "config"
)

// sourced is a value with the place that it comes from, for messages.
type sourced struct {
	origin string
	items  []string // of a list; otherwise exactly one
	isList bool     // it is written as a list
}

// sources are the places of values beside flags. They resolve what no flag has set, the environment before the file.
type sources struct {
	environ []string
	loaded  bool
	partial bool               // the command has some of the options only; the others mean nothing to it
	values  map[string]sourced // by option name
}

var _ kong.Resolver = (*sources)(nil)

// Resolve implements kong.Resolver.
func (s *sources) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if value, ok := s.values[flag.Name]; ok {
		return value, nil
	}
	return nil, nil // kong's way of saying that there is none
}

// Validate implements kong.Resolver; load has validated.
func (s *sources) Validate(*kong.Application) error { return nil }

// load reads both places and returns all that is wrong with their keys. Values are looked at by the parser.
func (s *sources) load(context *kong.Context, flags []*kong.Flag) (problems []string) {
	s.loaded = true
	s.values = map[string]sourced{}
	known := map[string]*kong.Flag{}
	for _, flag := range flags {
		known[flag.Name] = flag
	}
	fromEnviron, problems := s.readEnviron(known)
	path, _ := context.FlagValue(known[configFlag]).(string)
	if path == "" {
		if value, ok := fromEnviron[configFlag]; ok {
			path = value.items[0]
		}
	}
	if path != "" {
		text, err := readBounded(path, configBytesMax)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", configFlag, err))
		} else {
			fromFile, fileProblems := s.readConfig(path, text, known)
			problems = append(problems, fileProblems...)
			maps.Copy(s.values, fromFile)
		}
	}
	maps.Copy(s.values, fromEnviron)
	return problems
}

// readEnviron finds the options in an environment. A variable with our prefix that names none is an error, since it would
// otherwise be ignored in silence, unless the container's platform has set it.
func (s *sources) readEnviron(known map[string]*kong.Flag) (values map[string]sourced, problems []string) {
	values = map[string]sourced{}
	for _, variable := range s.environ {
		name, text, _ := strings.Cut(variable, "=")
		suffix, ours := strings.CutPrefix(name, environPrefix)
		if !ours || isServiceLink(suffix) {
			continue
		}
		option := strings.ToLower(strings.ReplaceAll(suffix, "_", "-"))
		flag, ok := known[option]
		if !ok && s.partial {
			continue
		}
		if !ok || environName(option) != name {
			problems = append(problems, name+": no such option")
			continue
		}
		value := sourced{origin: name, items: []string{text}}
		if flag.IsSlice() {
			value.items = splitList(text)
		}
		values[option] = value
	}
	return values, problems
}

// environName is the variable of an option.
func environName(option string) string {
	return environPrefix + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// isServiceLink recognises the variables that Kubernetes sets in every pod for a service whose name begins like ours.
func isServiceLink(suffix string) bool {
	matched, err := regexp.MatchString(`^(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`, suffix)
	return err == nil && matched
}

// readConfig finds the options in a YAML file: one mapping from names to scalars or lists of scalars.
func (s *sources) readConfig(path string, text []byte, known map[string]*kong.Flag) (values map[string]sourced, problems []string) {
	values = map[string]sourced{}
	wrong := func(line int, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s:%d: %s", path, line, fmt.Sprintf(format, args...)))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return values, nil // an empty file says nothing
	} else if err != nil {
		return values, []string{fmt.Sprintf("%s: %v", path, err)}
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		problems = append(problems, path+": more than one document, or text behind the first")
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		if root.Tag != "!!null" {
			wrong(root.Line, "must be a mapping of options to values")
		}
		return values, problems
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		name := key.Value
		_, twice := values[name]
		switch {
		case known[name] == nil && s.partial:
		case known[name] == nil:
			wrong(key.Line, "%q: no such option", name)
		case name == configFlag:
			wrong(key.Line, "%s: a file can't name another", name)
		case twice:
			wrong(key.Line, "%s: a second time", name)
		default:
			value, err := valueOf(node)
			if err != nil {
				wrong(key.Line, "%s: %v", name, err)
				continue
			}
			value.origin = fmt.Sprintf("%s:%d: %s", path, key.Line, name)
			values[name] = value
		}
	}
	return values, problems
}

// valueOf takes scalars as they are written, so that one set of parsers serves flags, environment and file.
func valueOf(node *yaml.Node) (sourced, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		return sourced{items: []string{node.Value}}, nil
	case node.Kind == yaml.SequenceNode:
		value := sourced{isList: true}
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return sourced{}, errors.New("a list holds plain values only")
			}
			value.items = append(value.items, item.Value)
		}
		return value, nil
	default:
		return sourced{}, errors.New("must be a plain value or a list of them")
	}
}
