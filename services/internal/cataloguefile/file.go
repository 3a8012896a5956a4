// Package cataloguefile reads and writes catalogues as people do: YAML with the
// shape of catalogue.Document. Every error tells the line and the column.
//
// Anchors and aliases, tags and several documents in a file are refused: a
// catalogue has no use for them, and aliases make small files large.
package cataloguefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v4"

	"watchword.dev/events/catalogue"
)

// MaxBytes is how large a file may be.
const MaxBytes = 1 << 20

// maxDepth bounds how deep a file nests: a document's deepest place is a nested
// resource of a template's policy.
const maxDepth = 12

// Error is a mistake in a file.
type Error struct {
	Line, Column int // from 1; 0 where no place is to blame
	Text         string
}

// Error returns "line:column: text".
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Text)
}

// File is a file that was read: the document and where its parts stand.
type File struct {
	Document jsontext.Value

	values, keys map[jsontext.Pointer]*yaml.Node
}

// Read reads a file as far as its form goes. Errors are of type *Error.
func Read(raw []byte) (*File, error) {
	return ReadMapping(raw, "a catalogue is a mapping with the keys name, resource_types, permissions, permission_groups, roles and templates")
}

// ReadMapping is Read for other files of this kind: should is what is said of a
// file that is not a mapping.
func ReadMapping(raw []byte, should string) (*File, error) {
	if len(raw) > MaxBytes {
		return nil, tooLarge(raw)
	}
	var root yaml.Node
	dec, err := yaml.NewLoader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if err := dec.Load(&root); errors.Is(err, io.EOF) {
		return nil, &Error{Line: 1, Column: 1, Text: should} // it is empty
	} else if err != nil {
		return nil, syntax(err)
	}
	var second yaml.Node
	if err := dec.Load(&second); err == nil {
		return nil, at(&second, "a file has one document")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntax(err)
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return nil, &Error{Line: 1, Column: 1, Text: should}
	}
	f := &File{values: map[jsontext.Pointer]*yaml.Node{}, keys: map[jsontext.Pointer]*yaml.Node{}}
	var out bytes.Buffer
	c := converter{f: f, enc: jsontext.NewEncoder(&out)}
	if err := c.node(root.Content[0], "", 0); err != nil {
		return nil, err
	}
	f.Document = jsontext.Value(bytes.TrimSpace(out.Bytes()))
	return f, nil
}

// tooLarge tells where a file passes the limit.
func tooLarge(raw []byte) error {
	line := bytes.Count(raw[:MaxBytes], []byte("\n")) + 1
	column := utf8.RuneCount(raw[bytes.LastIndexByte(raw[:MaxBytes], '\n')+1:MaxBytes]) + 1
	return &Error{Line: line, Column: column, Text: fmt.Sprintf("the file has more than %d bytes", MaxBytes)}
}

// Load reads a file and builds its catalogue, which replaces prev; the built-in
// one where prev is nil. Errors are of type *Error.
func Load(raw []byte, prev *catalogue.Catalogue) (*File, *catalogue.Catalogue, error) {
	f, err := Read(raw)
	if err != nil {
		return nil, nil, err
	}
	c, err := catalogue.FromDocument(prev, f.Document)
	if err != nil {
		return nil, nil, f.Locate(err)
	}
	return f, c, nil
}

// Locate finds the line and column of a *catalogue.Problem.
func (f *File) Locate(err error) error {
	p, ok := errors.AsType[*catalogue.Problem](err)
	if !ok {
		return &Error{Text: err.Error()}
	}
	return f.At(p.Pointer, p.Text)
}

// At says that something is wrong with a place of the document.
func (f *File) At(place jsontext.Pointer, text string) *Error {
	for ; ; place = place.Parent() {
		n := f.values[place]
		if k := f.keys[place]; k != nil && (n == nil || n.Kind != yaml.ScalarNode || strings.HasPrefix(text, "unknown key")) {
			n = k
		}
		if n != nil {
			return &Error{Line: n.Line, Column: n.Column, Text: text}
		}
		if place == "" {
			return &Error{Line: 1, Column: 1, Text: text}
		}
	}
}

func syntax(err error) error {
	if e, ok := errors.AsType[*yaml.LoadError](err); ok && e.Mark.Line > 0 {
		return &Error{Line: e.Mark.Line, Column: e.Mark.Column, Text: e.Message}
	}
	return &Error{Line: 1, Column: 1, Text: err.Error()}
}

// converter writes YAML nodes as JSON and keeps where they stand.
type converter struct {
	f   *File
	enc *jsontext.Encoder
}

func at(n *yaml.Node, format string, args ...any) error {
	return &Error{Line: n.Line, Column: n.Column, Text: fmt.Sprintf(format, args...)}
}

func (c *converter) node(n *yaml.Node, here jsontext.Pointer, depth int) error {
	c.f.values[here] = n
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return at(n, "anchors and aliases are not accepted")
	case n.Style&yaml.TaggedStyle != 0:
		return at(n, "tags such as %s are not accepted", n.Tag)
	case depth > maxDepth:
		return at(n, "the file nests too deep")
	}
	switch n.Kind {
	case yaml.MappingNode:
		return c.mapping(n, here, depth)
	case yaml.SequenceNode:
		return c.sequence(n, here, depth)
	}
	return c.scalar(n)
}

func (c *converter) mapping(n *yaml.Node, here jsontext.Pointer, depth int) error {
	if err := c.enc.WriteToken(jsontext.BeginObject); err != nil {
		return at(n, "%v", err)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0 || key.Tag == "!!merge" {
			return at(key, "a key must be plain text")
		}
		in := here.AppendToken(key.Value)
		if c.f.keys[in] != nil {
			return at(key, "the key %q is given twice", key.Value)
		}
		c.f.keys[in] = key
		if err := c.enc.WriteToken(jsontext.String(key.Value)); err != nil {
			return at(key, "%v", err)
		}
		if err := c.node(n.Content[i+1], in, depth+1); err != nil {
			return err
		}
	}
	return c.enc.WriteToken(jsontext.EndObject)
}

func (c *converter) sequence(n *yaml.Node, here jsontext.Pointer, depth int) error {
	if err := c.enc.WriteToken(jsontext.BeginArray); err != nil {
		return at(n, "%v", err)
	}
	for i, e := range n.Content {
		if err := c.node(e, here.AppendToken(strconv.Itoa(i)), depth+1); err != nil {
			return err
		}
	}
	return c.enc.WriteToken(jsontext.EndArray)
}

func (c *converter) scalar(n *yaml.Node) error {
	tok := jsontext.String(n.Value)
	switch n.Tag {
	case "!!null":
		tok = jsontext.Null
	case "!!bool":
		tok = jsontext.Bool(strings.EqualFold(n.Value, "true"))
	case "!!int", "!!float":
		// The id of a group may look like a number and is none.
		if v, err := strconv.ParseInt(n.Value, 10, 64); err == nil && len(n.Value) < 32 {
			tok = jsontext.Int(v)
		} else if len(n.Value) != 32 {
			return at(n, "%q is no whole number", n.Value)
		}
	}
	if err := c.enc.WriteToken(tok); err != nil {
		return at(n, "%v", err)
	}
	return nil
}
