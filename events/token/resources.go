package token

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

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

// covers reports whether s matches all that o matches.
func (s Selector) covers(o Selector) bool {
	return s.Type == o.Type && (s.ID == "" || s.ID == o.ID)
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
	return parseResources(raw, cat, DefaultLimits.ResourcesPerPolicy, false)
}

// parseResources is ParseResources with another bound. For a stored grant it
// also takes types that the catalogue has dropped since.
func parseResources(raw jsontext.Value, cat *catalogue.Catalogue, most int, stored bool) ([]Matcher, error) {
	p := resourceParser{dec: jsontext.NewDecoder(bytes.NewReader(raw)), cat: cat, most: most, stored: stored}
	if err := p.object(nil); err != nil {
		return nil, err
	}
	if _, err := p.dec.ReadToken(); err == nil || !isEOF(err) {
		return nil, errResourcesForm
	}
	return p.out, nil
}

type resourceParser struct {
	dec    *jsontext.Decoder // refuses duplicate names and bad UTF-8 by itself
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
	s := tok.String()
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

// Key returns the selector as it is written in a policy's resources.
func (s Selector) Key(cat *catalogue.Catalogue) string {
	id := s.ID
	if id == "" {
		id = "*"
	}
	return fmt.Sprintf("%s.%s", cat.TypeName(s.Type), id)
}
