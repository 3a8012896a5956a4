// Package prefill makes grants from the catalogue's templates: a template with
// its holes filled, as the API, the command line and shareable links name it.
//
// The three share one form, a Request. In a link it is a query,
//
//	/tokens/new?template=edit-zone-dns&zone=1f0c6b0f0a2b4c6d8e9f00112233aabb&name=deploy
//
// where every parameter of the template stands under its own name, repeated
// for several resources. A link holds no secret and does nothing by itself.
package prefill

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// Path is where links lead.
const Path = "/tokens/new"

// ValuesMax is how many resources may be given for one parameter.
const ValuesMax = 100

// Request asks for a token of a template.
type Request struct {
	// Template is the template's id.
	Template string
	// Name is that of the token; the template's when empty.
	Name string
	// Values are the ids for each parameter, "*" for all resources of its
	// type. A parameter with a default may be left out.
	Values map[string][]string
}

// Owner is who will own the token.
type Owner struct {
	Kind events.OwnerKind
	ID   token.ID
}

// Error says what is wrong with a request. It may be shown to whoever sent it.
type Error struct {
	// Parameter is the name of the template's parameter at fault; empty when
	// it is none.
	Parameter string
	// Text is one short sentence without the final stop.
	Text string
}

// Error returns the text.
func (e *Error) Error() string {
	if e.Parameter == "" {
		return "prefill: " + e.Text
	}
	return "prefill: " + e.Parameter + ": " + e.Text
}

// Fill returns the grant that the template gives to owner at this time. The
// error is an *Error where the request is at fault.
func Fill(t catalogue.Template, r Request, owner Owner, now time.Time) (token.Grant, error) {
	values, err := resolve(t, r.Values, owner)
	if err != nil {
		return token.Grant{}, err
	}
	var g token.Grant
	for _, p := range t.Policies {
		resources, err := fill(p.Resources, values)
		if err != nil {
			return token.Grant{}, fmt.Errorf("prefill: template %s: %w", t.ID, err)
		}
		policy := token.Policy{Effect: token.Effect(p.Effect), Resources: resources}
		for _, ref := range p.Groups {
			policy.Groups = append(policy.Groups, token.GroupRef{ID: ref.ID})
		}
		g.Policies = append(g.Policies, policy)
	}
	if ip := t.Condition.RequestIP; len(ip.In)+len(ip.NotIn) > 0 {
		g.Condition = &token.Condition{RequestIP: token.RequestIP{In: slices.Clone(ip.In), NotIn: slices.Clone(ip.NotIn)}}
	}
	if t.LifetimeDays > 0 {
		g.ExpiresOn = now.UTC().Truncate(time.Second).AddDate(0, 0, t.LifetimeDays)
	}
	return g, nil
}

// resolve returns the ids for each parameter of t.
func resolve(t catalogue.Template, given map[string][]string, owner Owner) (map[string][]string, error) {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.ContainsFunc(t.Parameters, func(p catalogue.Parameter) bool { return p.Name == name }) {
			return nil, &Error{Text: "the template has no such parameter"}
		}
	}
	out := make(map[string][]string, len(t.Parameters))
	for _, p := range t.Parameters {
		ids := given[p.Name]
		if len(ids) == 0 && p.Default != "" {
			ids = []string{p.Default}
		}
		var err error
		if out[p.Name], err = check(p, ids, owner); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func check(p catalogue.Parameter, ids []string, owner Owner) ([]string, error) {
	wrong := func(text string) ([]string, error) { return nil, &Error{p.Name, text} }
	switch {
	case len(ids) == 0:
		return wrong("a value must be given")
	case len(ids) > 1 && !p.Many:
		return wrong("only one value may be given")
	case len(ids) > ValuesMax:
		return wrong("too many values")
	}
	ids = slices.Clone(ids)
	for i, id := range ids {
		switch {
		case slices.Contains(ids[:i], id):
			return wrong("a value is given twice")
		case id == catalogue.Self && p.Default == catalogue.Self:
			if p.Type != ownerType(owner.Kind) {
				return wrong("a value must be given for a token of this owner")
			}
			ids[i] = owner.ID.String()
		case id == catalogue.Every && len(ids) > 1:
			return wrong("all resources and single ones exclude each other")
		case id != catalogue.Every && !catalogue.ValidID(id):
			return wrong("a value must be the id of a resource or *")
		}
	}
	return ids, nil
}

func ownerType(kind events.OwnerKind) string {
	if kind == events.OwnedByAccount {
		return catalogue.TypeAccount
	}
	return catalogue.TypeUser
}

// fill writes resources anew, in their order, with every "{parameter}" replaced
// by its ids.
func fill(raw jsontext.Value, values map[string][]string) (jsontext.Value, error) {
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	if err := fillObject(enc, raw, values); err != nil {
		return nil, err
	}
	return jsontext.Value(bytes.TrimRight(out.Bytes(), "\n")), nil
}

func fillObject(enc *jsontext.Encoder, raw jsontext.Value, values map[string][]string) error {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	if err := enc.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for dec.PeekKind() == jsontext.KindString {
		tok, err := dec.ReadToken()
		if err != nil {
			return err
		}
		key := tok.String()
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		value = value.Clone()
		for _, k := range expand(key, values) {
			if err := enc.WriteToken(jsontext.String(k)); err != nil {
				return err
			}
			if value.Kind() != jsontext.KindBeginObject {
				err = enc.WriteValue(value)
			} else {
				err = fillObject(enc, value, values)
			}
			if err != nil {
				return err
			}
		}
	}
	return enc.WriteToken(jsontext.EndObject)
}

// expand returns the keys that stand for one of a template.
func expand(key string, values map[string][]string) []string {
	at := strings.LastIndexByte(key, '.')
	name, ok := strings.CutPrefix(key[at+1:], "{")
	if !ok {
		return []string{key}
	}
	var keys []string
	for _, id := range values[strings.TrimSuffix(name, "}")] {
		keys = append(keys, key[:at+1]+id)
	}
	return keys
}

// Link returns the link that asks for r at a server.
func Link(base string, r Request) string {
	q := url.Values{"template": {r.Template}}
	if r.Name != "" {
		q.Set("name", r.Name)
	}
	for name, ids := range r.Values {
		q[name] = ids
	}
	return strings.TrimRight(base, "/") + Path + "?" + q.Encode()
}

// ParseLink reads what Link returns, whatever the server.
func ParseLink(link string) (Request, error) {
	u, err := url.Parse(link)
	if err != nil || !strings.HasSuffix(u.Path, Path) {
		return Request{}, errors.New("prefill: a link that asks for a token looks like https://host" + Path + "?template=…")
	}
	return Query(u.RawQuery)
}

// Query reads a link's query. The names "template" and "name" are no
// parameters of templates.
func Query(raw string) (Request, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return Request{}, &Error{Text: "the link is broken"}
	}
	r := Request{Values: map[string][]string{}}
	for name, values := range q {
		switch {
		case name != "template" && name != "name":
			r.Values[name] = values
		case len(values) > 1:
			return Request{}, &Error{Text: "the link names the template or the token twice"}
		case name == "name":
			r.Name = values[0]
		default:
			r.Template = values[0]
		}
	}
	if r.Template == "" {
		return Request{}, &Error{Text: "the link names no template"}
	}
	return r, nil
}
