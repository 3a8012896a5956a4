package enforcer

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unsafe"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// ErrResource says that what a request is about has not the form of a
// resource. The client gets 400.
var ErrResource = errors.New("enforcer: not a resource")

// Resource tells what a request is about: it adds the resource to c, outermost
// first: the account, then the zone in it. An error that wraps [ErrUnavailable]
// means that it could not be told and is answered with 503, every other error
// with 400.
//
// A chain should begin at an account or a user: one that does not costs a
// look-up of where the resource is registered, and a mistake in it is not
// covered by who owns the account.
type Resource func(r *http.Request, c *Chain) error

// Chain gathers the keys of what a request is about. It is used again: nothing
// may keep it.
type Chain struct {
	text []byte
	ends []int
	keys []string
	err  error
}

// Add adds the resource of this type and id, such as com.cloudflare.api.account
// and 32 hex digits. An id that is none spoils the chain: one with a dot in it
// would name a resource of another type.
func (c *Chain) Add(resourceType, id string) {
	switch {
	case !catalogue.ValidID(id) || resourceType == "":
		c.fail()
	case len(c.ends) == token.MaxChain:
		c.fail()
	default:
		c.text = append(append(append(c.text, resourceType...), '.'), id...)
		c.ends = append(c.ends, len(c.text))
	}
}

// AddKey adds a resource by its whole key.
func (c *Chain) AddKey(key string) {
	resourceType, id, ok := catalogue.SplitKey(key)
	if !ok {
		c.fail()
		return
	}
	c.Add(resourceType, id)
}

func (c *Chain) fail() {
	if c.err == nil {
		c.err = fmt.Errorf("%w: element %d", ErrResource, len(c.ends))
	}
}

// done returns the keys. They point into c and are good until it is reset.
func (c *Chain) done() ([]string, error) {
	if c.err != nil {
		return nil, c.err
	}
	from := 0
	for _, end := range c.ends {
		key := c.text[from:end]
		c.keys = append(c.keys, unsafe.String(unsafe.SliceData(key), len(key)))
		from = end
	}
	return c.keys, nil
}

func (c *Chain) reset() {
	clear(c.keys)
	c.text, c.ends, c.keys, c.err = c.text[:0], c.ends[:0], c.keys[:0], nil
}

// Path returns a Resource that is made of values of the request's path, as
// http.ServeMux tells them: each pattern is a resource type, a dot and either
// an id or the name of a path value in braces.
//
//	enforcer.Path("com.cloudflare.api.account.{account}", "com.cloudflare.api.account.zone.{zone}")
//
// It panics when a pattern is malformed: that is a mistake in the program,
// found when it starts.
func Path(patterns ...string) Resource {
	parts := make([]pathPart, len(patterns))
	for i, p := range patterns {
		part, ok := parsePart(p)
		if !ok {
			panic("enforcer: malformed resource pattern " + p)
		}
		parts[i] = part
	}
	if len(parts) == 0 || len(parts) > token.MaxChain {
		panic("enforcer: a resource is one or more patterns")
	}
	return func(r *http.Request, c *Chain) error {
		for i := range parts {
			id := parts[i].id
			if parts[i].value != "" {
				id = r.PathValue(parts[i].value)
			}
			c.Add(parts[i].resourceType, id)
		}
		return nil
	}
}

// pathPart is one pattern: value names the path value that is the id, or is
// empty and the id stands here.
type pathPart struct{ resourceType, value, id string }

func parsePart(p string) (pathPart, bool) {
	if name, hole, ok := strings.Cut(p, ".{"); ok {
		value, ok := strings.CutSuffix(hole, "}")
		return pathPart{resourceType: name, value: value}, ok && name != "" && value != "" && !strings.ContainsAny(name+value, "{}")
	}
	name, id, ok := catalogue.SplitKey(p)
	return pathPart{resourceType: name, id: id}, ok && name != ""
}
