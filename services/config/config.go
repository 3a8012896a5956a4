// Package config turns flags, environment and a file into one struct.
//
// A setting has one name. As a flag it is --nats-listen, in the environment
// WATCHWORD_NATS_LISTEN, in the YAML file nats-listen. A flag goes before the
// environment, that before the file, that before the default; a setting that is
// given but empty counts as given. What the file holds and nothing knows is an
// error. A secret is never a flag: it is given by the environment or the file,
// or by any of the three as the name of a private file, with "-file" at the end
// (--master-key-file, WATCHWORD_MASTER_KEY_FILE).
//
// The fields of the struct carry it all: key (the name), default and doc.
package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"watchword.dev/services/internal/durable"
)

// EnvPrefix stands before the name of every setting in the environment.
const EnvPrefix = "WATCHWORD_"

// Secret is a setting that is never shown.
type Secret string

const redacted = "[secret]"

// String implements fmt.Stringer without the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer without the secret.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer without the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler without the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Bytes is a size: a number with one of the units B, KiB, MiB, GiB, TiB, or
// with none.
type Bytes int64

var units = []struct {
	name string
	n    int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	s, unit := string(text), int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(rest), u.n
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is no size like 256MiB", text)
	}
	*b = Bytes(n * unit)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) {
	for _, u := range units {
		if b != 0 && int64(b)%u.n == 0 && u.n > 1 {
			return fmt.Appendf(nil, "%d%s", int64(b)/u.n, u.name), nil
		}
	}
	return strconv.AppendInt(nil, int64(b), 10), nil
}

// String implements fmt.Stringer.
func (b Bytes) String() string {
	t, _ := b.MarshalText()
	return string(t)
}

// Count is a number of things, from 0 to a million.
type Count int32

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Count) UnmarshalText(text []byte) error {
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil || n < 0 || n > 1_000_000 {
		return fmt.Errorf("%q is no number from 0 to 1000000", text)
	}
	*c = Count(n)
	return nil
}

// Setting describes one setting.
type Setting struct {
	Key, Default, Doc string
	Secret            bool
	// File marks the setting that names the file of the secret before it.
	File bool

	field int
}

// Flag is the setting's flag, empty when it has none.
func (s Setting) Flag() string {
	if s.Secret {
		return ""
	}
	return "--" + s.Key
}

// Env is the setting's name in the environment.
func (s Setting) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(s.Key, "-", "_"))
}

// Settings lists the settings of a configuration struct, in its order. A secret
// is followed by the setting that names its file.
func Settings(into any) []Setting {
	t := reflect.TypeOf(into).Elem()
	var all []Setting
	for i := range t.NumField() {
		f := t.Field(i)
		s := Setting{
			Key: f.Tag.Get("key"), Default: f.Tag.Get("default"), Doc: f.Tag.Get("doc"),
			Secret: f.Type == reflect.TypeFor[Secret](), field: i,
		}
		all = append(all, s)
		if s.Secret {
			all = append(all, Setting{
				Key: s.Key + "-file", Doc: "Private file that holds " + s.Key + ".", File: true, field: i,
			})
		}
	}
	return all
}

// Bind defines the flags of into on fs.
func Bind(fs *pflag.FlagSet, into any) {
	for _, s := range Settings(into) {
		if s.Flag() != "" {
			fs.String(s.Key, s.Default, s.Doc)
		}
	}
}

// configKey is the setting that names the file; it cannot stand in the file.
const configKey = "config"

// Origin says where the value of a setting comes from: "flag", "env", "file" or
// "default".
type Origin = string

// Load fills into, a pointer to a struct, from the parsed flags of fs, from an
// environment as os.Environ gives it and from the file that the setting
// "config" names. It gives the origin of every setting by key. Errors name
// settings, never a secret.
func Load(fs *pflag.FlagSet, environ []string, into any) (map[string]Origin, error) {
	env := map[string]string{}
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok {
			env[k] = v
		}
	}
	given := func(s Setting) (string, Origin, bool) {
		if f := fs.Lookup(s.Key); f != nil && f.Changed && s.Flag() != "" {
			return f.Value.String(), "flag", true
		}
		v, ok := env[s.Env()]
		return v, "env", ok
	}
	settings := Settings(into)
	var file map[string]string
	for _, s := range settings {
		if path, _, _ := given(s); s.Key == configKey && path != "" {
			var err error
			if file, err = readFile(path, settings); err != nil {
				return nil, err
			}
		}
	}
	l := loader{given: given, file: file, into: reflect.ValueOf(into).Elem(), origins: map[string]Origin{}}
	for i := 0; i < len(settings); i++ {
		if settings[i].Secret {
			l.secret(settings[i], settings[i+1])
			i++ // the pair is done
			continue
		}
		v, origin := l.find(settings[i])
		l.set(settings[i], v, origin)
	}
	return l.origins, errors.Join(l.errs...)
}

// loader fills one struct.
type loader struct {
	given   func(Setting) (string, Origin, bool)
	file    map[string]string
	into    reflect.Value
	origins map[string]Origin
	errs    []error
}

// find gives the text of a setting and where it comes from.
func (l *loader) find(s Setting) (string, Origin) {
	if v, origin, ok := l.given(s); ok {
		return v, origin
	}
	if v, ok := l.file[s.Key]; ok {
		return v, "file"
	}
	return s.Default, "default"
}

// set parses text into the field of a setting.
func (l *loader) set(s Setting, text string, origin Origin) {
	if err := parse(l.into.Field(s.field), text); err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s (from %s): %w", s.Key, origin, err))
	}
	l.origins[s.Key] = origin
}

// secret fills a secret from itself or from its file, whichever was given at
// the higher place.
func (l *loader) secret(s, f Setting) {
	text, origin := l.find(s)
	path, from := l.find(f)
	rank := []Origin{"default", "file", "env", "flag"}
	switch a, b := slices.Index(rank, origin), slices.Index(rank, from); {
	case a == b && a > 0:
		l.errs = append(l.errs, fmt.Errorf("%s and %s are both given by the %s", s.Key, f.Key, origin))
	case b > a && path != "":
		body, err := durable.ReadPrivate(path)
		if err != nil {
			l.errs = append(l.errs, fmt.Errorf("%s (from %s): %w", f.Key, from, err))
		}
		text, origin = strings.TrimRight(string(body), "\r\n"), from
	case b > a:
		text, origin = "", from
	}
	l.origins[f.Key] = from
	l.origins[s.Key] = origin
	l.into.Field(s.field).SetString(text)
}

// parse sets a field from text.
func parse(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is no duration like 30s", text)
		}
		*p = d
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	case *string:
		*p = text
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*p = b
	case *[]string:
		*p = nil
		for s := range strings.SplitSeq(text, ",") {
			if s = strings.TrimSpace(s); s != "" {
				*p = append(*p, s)
			}
		}
	default:
		return fmt.Errorf("a setting cannot be a %s", v.Type())
	}
	return nil
}

// readFile reads the YAML file: one mapping of names to scalars or lists of
// scalars, each name known and given once.
func readFile(path string, settings []Setting) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("config %s: %w", path, err)
	}
	values := map[string]string{}
	if len(doc.Content) == 0 {
		return values, nil // empty, or comments only
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("config %s: not a mapping of settings", path)
	}
	var errs []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		known := k.Value != configKey && slices.ContainsFunc(settings, func(s Setting) bool { return s.Key == k.Value })
		if _, twice := values[k.Value]; twice || !known {
			what := "unknown setting"
			if twice {
				what = "given twice:"
			}
			errs = append(errs, fmt.Errorf("config %s:%d: %s %q", path, k.Line, what, k.Value))
			continue
		}
		text, err := scalar(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("config %s:%d: %s: %w", path, v.Line, k.Value, err))
		}
		values[k.Value] = text
	}
	return values, errors.Join(errs...)
}

// scalar gives a YAML scalar, or a list of them with commas between.
func scalar(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "", nil
		}
		return n.Value, nil
	case yaml.SequenceNode:
		var parts []string
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode || strings.Contains(c.Value, ",") {
				return "", errors.New("a list holds plain values without commas")
			}
			parts = append(parts, c.Value)
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("neither a value nor a list of values")
}

// Show writes the effective configuration as YAML that Load would read, each
// line with its origin as a comment. Secrets are left out.
func Show(w io.Writer, from any, origins map[string]Origin) error {
	v := reflect.ValueOf(from).Elem()
	for _, s := range Settings(from) {
		if s.File || s.Key == configKey {
			continue
		}
		text := format(v.Field(s.field))
		line := s.Key + ": " + strconv.Quote(text)
		if s.Secret {
			line = "# " + s.Key + ": " + strconv.Quote(text)
		}
		if _, err := fmt.Fprintf(w, "%s # %s\n", line, origins[s.Key]); err != nil {
			return err
		}
	}
	return nil
}

// format is the text of a field, as parse reads it.
func format(v reflect.Value) string {
	if s, ok := v.Interface().([]string); ok {
		return strings.Join(s, ",")
	}
	return fmt.Sprint(v.Interface())
}

// Table is the manual of a configuration struct as a Markdown table.
func Table(of any) string {
	var b strings.Builder
	b.WriteString("| flag | environment | default | what |\n|---|---|---|---|\n")
	for _, s := range Settings(of) {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", code(s.Flag()), s.Env(), code(s.Default), strings.ReplaceAll(s.Doc, "|", `\|`))
	}
	return b.String()
}

// code is s as Markdown code, or nothing.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
