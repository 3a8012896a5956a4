package token

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/catalogue"
)

// maxKey is the longest resource key, in bytes.
const maxKey = 300

// Selector matches one resource by its type and id, or every resource of a
// type.
type Selector struct {
	Type catalogue.TypeNumber
	// ID is empty for every resource of the type.
	ID string
}

// Matches reports whether a resource of this type and id is meant.
func (s Selector) Matches(t catalogue.TypeNumber, id string) bool {
	return s.Type == t && (s.ID == "" || s.ID == id)
}

// Matcher is one entry of a policy's resources. A flat one matches a request
// when its Inner matches some element of the resource chain; a nested one when
// its Outer matches an element and its Inner a later one. What a permission
// group's scope is compared with is the type of Inner.
type Matcher struct {
	Nested bool
	Outer  Selector // only when Nested
	Inner  Selector
}

// errResources lists what can be wrong with a policy's resources. They are
// fixed texts: nothing that was sent is repeated.
var (
	errResourcesForm   = errors.New("resources must be a JSON object whose keys are resources")
	errResourcesEmpty  = errors.New("resources must not be empty")
	errResourcesDup    = errors.New("a resource is given twice")
	errResourcesMixed  = errors.New("flat and nested resources must not be mixed in one policy")
	errResourcesValue  = errors.New(`the value of a resource must be "*"`)
	errResourcesDepth  = errors.New("resources nest at most one level")
	errResourcesKey    = errors.New("unknown resource type or malformed resource id")
	errResourcesLength = errors.New("resource key is too long")
	errResourcesBelow  = errors.New("a nested resource must be of a type that lies in the outer one")
	errResourcesMany   = errors.New("too many resources")
)

// ParseResources reads a policy's resources, in their order. They are either
// flat, {"<key>": "*"}, or nested one level, {"<key>": {"<key>": "*"}}; a key
// is a resource or "<type>.*". It refuses duplicate keys, unknown types and
// more entries than DefaultLimits has for one policy.
func ParseResources(raw jsontext.Value, cat *catalogue.Catalogue) ([]Matcher, error) {
	return parseResources(nil, bytes.Clone(raw), cat, DefaultLimits.ResourcesPerPolicy, false)
}

// parseResources is ParseResources with another bound, and returns its matchers
// in room, if they fit. They point into raw. For a stored grant it also takes
// types that the catalogue has dropped since.
func parseResources(room []Matcher, raw jsontext.Value, cat *catalogue.Catalogue, most int, stored bool) ([]Matcher, error) {
	p := resourceParser{cat: cat, most: most, stored: stored, out: room[:0]}
	// A string without a copy: nobody writes to raw while the matchers are used.
	if p.plain(unsafe.String(unsafe.SliceData(raw), len(raw))) {
		return p.out, nil
	}
	return p.any(raw)
}

// any reads every form of JSON and tells what is wrong with it.
func (p *resourceParser) any(raw jsontext.Value) ([]Matcher, error) {
	p.out, p.dec = p.out[:0], jsontext.NewDecoder(bytes.NewReader(raw))
	if err := p.object(nil); err != nil {
		return nil, err
	}
	if _, err := p.dec.ReadToken(); err == nil || !isEOF(err) {
		return nil, errResourcesForm
	}
	return p.out, nil
}

type resourceParser struct {
	dec    *jsontext.Decoder // refuses duplicate names and bad UTF-8 by itself; only for any
	cat    *catalogue.Catalogue
	most   int
	stored bool
	out    []Matcher
}

// object reads one object of resources; outer is nil at the top.
func (p *resourceParser) object(outer *Selector) error {
	if tok, err := p.dec.ReadToken(); err != nil || tok.Kind() != jsontext.KindBeginObject {
		return errResourcesForm
	}
	entries := 0
	for p.dec.PeekKind() != jsontext.KindEndObject {
		key, err := p.key()
		if err != nil {
			return err
		}
		if err := p.value(outer, key); err != nil {
			return err
		}
		entries++
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return errResourcesForm
	}
	if entries == 0 {
		return errResourcesEmpty
	}
	return nil
}

func (p *resourceParser) key() (Selector, error) {
	tok, err := p.dec.ReadToken()
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return Selector{}, errResourcesDup
	}
	if err != nil || tok.Kind() != jsontext.KindString {
		return Selector{}, errResourcesForm
	}
	return p.selector(tok.String())
}

// selector resolves one key.
func (p *resourceParser) selector(s string) (Selector, error) {
	if len(s) > maxKey {
		return Selector{}, errResourcesLength
	}
	name, wild := strings.CutSuffix(s, ".*")
	id := ""
	if !wild {
		var ok bool
		if name, id, ok = catalogue.SplitKey(s); !ok {
			return Selector{}, errResourcesKey
		}
	}
	t, ok := p.cat.TypeNumber(name)
	if !ok && p.stored {
		t, ok = p.cat.FormerTypeNumber(name)
	}
	if !ok {
		return Selector{}, errResourcesKey
	}
	return Selector{Type: t, ID: id}, nil
}

func (p *resourceParser) value(outer *Selector, key Selector) error {
	switch p.dec.PeekKind() {
	case jsontext.KindString:
		if tok, err := p.dec.ReadToken(); err != nil || tok.String() != "*" {
			return errResourcesValue
		}
		m := Matcher{Inner: key}
		if outer != nil {
			if !p.stored && !p.cat.Below(key.Type, outer.Type) {
				return errResourcesBelow
			}
			m.Nested, m.Outer = true, *outer
		} else if len(p.out) > 0 && p.out[0].Nested {
			return errResourcesMixed
		}
		if len(p.out) == p.most {
			return errResourcesMany
		}
		p.out = append(p.out, m)
		return nil
	case jsontext.KindBeginObject:
		switch {
		case outer != nil:
			return errResourcesDepth
		case len(p.out) > 0 && !p.out[0].Nested:
			return errResourcesMixed
		}
		return p.object(&key)
	case jsontext.KindInvalid:
		return errResourcesForm
	}
	return errResourcesValue
}

// mostPlain is how many entries are compared pairwise to find a double one.
const mostPlain = 8

// plain reads the text that nearly every stored grant has: no white space, no
// escapes, few entries. A projection compiles every grant in the ledger, and
// this is several times as fast as a JSON decoder. It gives up on everything
// else, right or wrong, and leaves the answer to any.
func (p *resourceParser) plain(s string) bool {
	rest, ok := p.plainObject(s, nil)
	if !ok || rest != "" {
		return false
	}
	for i, m := range p.out {
		if slices.Contains(p.out[:i], m) {
			return false
		}
		// An outer key may stand again only where its object goes on.
		if m.Nested && i > 0 && p.out[i-1].Outer != m.Outer &&
			slices.ContainsFunc(p.out[:i], func(o Matcher) bool { return o.Outer == m.Outer }) {
			return false
		}
	}
	return true
}

// plainObject reads one object off s and returns the rest.
func (p *resourceParser) plainObject(s string, outer *Selector) (string, bool) {
	s, ok := strings.CutPrefix(s, `{`)
	for ok {
		var key string
		if s, ok = strings.CutPrefix(s, `"`); !ok {
			return "", false
		}
		if key, s, ok = strings.Cut(s, `":`); !ok {
			return "", false
		}
		sel, err := p.selector(key) // which lets neither quotes nor escapes through
		if err != nil {
			return "", false
		}
		if after, star := strings.CutPrefix(s, `"*"`); star {
			s = after
			m := Matcher{Inner: sel}
			if outer != nil {
				m.Nested, m.Outer = true, *outer
			}
			if len(p.out) == min(p.most, mostPlain) || len(p.out) > 0 && p.out[0].Nested != m.Nested ||
				outer != nil && !p.stored && !p.cat.Below(sel.Type, outer.Type) {
				return "", false
			}
			p.out = append(p.out, m)
		} else if outer != nil || len(p.out) > 0 && p.out[len(p.out)-1].Nested && p.out[len(p.out)-1].Outer == sel {
			return "", false
		} else if s, ok = p.plainObject(s, &sel); !ok {
			return "", false
		}
		if after, end := strings.CutPrefix(s, `}`); end {
			return after, true
		}
		s, ok = strings.CutPrefix(s, `,`)
	}
	return "", false
}

// Key returns the selector as it is written in a policy's resources.
func (s Selector) Key(cat *catalogue.Catalogue) string {
	id := s.ID
	if id == "" {
		id = "*"
	}
	return fmt.Sprintf("%s.%s", cat.TypeName(s.Type), id)
}
