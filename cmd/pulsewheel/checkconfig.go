package main

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// checkConfig prints the effective configuration as a file that --config takes, or every problem. No option is a secret: the
// token of the admin listener is in a file of its own, and only that file's name is printed.
func checkConfig(p process, in parsed) int {
	_, problems := check(&in)
	if len(problems) > 0 {
		return report(p, problems)
	}
	text, err := yaml.Marshal(configNode(in))
	if err != nil {
		panic(fmt.Sprintf("plain values that YAML can't hold: %v", err))
	}
	_, _ = p.stdout.Write(text) // Whoever has closed the pipe needs no configuration.
	return exitOK
}

// configNode builds the mapping, with the groups of the help as comments. The file's own name is left out.
func configNode(in parsed) *yaml.Node {
	titles := map[string]string{}
	for _, group := range optionGroups() {
		titles[group.Key] = group.Title
	}
	values := reflect.ValueOf(&in.options).Elem()
	mapping := &yaml.Node{Kind: yaml.MappingNode}
	lastGroup := ""
	for i, flag := range optionFlags(in.model) {
		if flag.Name == configFlag {
			continue
		}
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: flag.Name}
		if flag.Group != nil && flag.Group.Key != lastGroup {
			lastGroup = flag.Group.Key
			key.HeadComment = titles[lastGroup]
		}
		mapping.Content = append(mapping.Content, key, valueNode(values.Field(i).Interface()))
	}
	return mapping
}

// optionFlags are the flags in the order of the struct's fields, without kong's own --help.
func optionFlags(flags []*kong.Flag) (out []*kong.Flag) {
	for _, flag := range flags {
		if flag.Name != "help" {
			out = append(out, flag)
		}
	}
	return out
}

// valueNode writes a value as the parsers read it.
func valueNode(value any) *yaml.Node {
	scalar := func(tag, text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text} }
	switch v := value.(type) {
	case string:
		return scalar("!!str", v)
	case []string:
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, item := range v {
			list.Content = append(list.Content, scalar("!!str", item))
		}
		return list
	case bool:
		return scalar("!!bool", strconv.FormatBool(v))
	case int:
		return scalar("!!int", strconv.Itoa(v))
	case float64:
		return scalar("", strconv.FormatFloat(v, 'g', -1, 64))
	case time.Duration:
		return scalar("!!str", formatDuration(v))
	case percent:
		return scalar("!!str", v.String())
	case size:
		return scalar("", v.String())
	default:
		panic(fmt.Sprintf("an option of type %T has no way to be written", value))
	}
}
