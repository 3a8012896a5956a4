package catalogue

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The most that one template can hold.
const (
	maxTemplates        = 1 << 10
	maxParameters       = 8
	maxTemplatePolicies = 16
	maxTemplateEntries  = 64 // permission groups or resources of a policy, addresses
	maxLifetimeDays     = 3650
)

// Template is a grant with holes, from which tokens are created.
type Template struct {
	ID          string           `json:"id"` // of [a-z0-9-]
	Name        string           `json:"name"`
	Description string           `json:"description,omitzero"`
	Parameters  []Parameter      `json:"parameters,omitzero"`
	Policies    []TemplatePolicy `json:"policies"`
	Condition   AddressCondition `json:"condition,omitzero"`
	// LifetimeDays is how long a token of it lives; zero: as long as its
	// creator says.
	LifetimeDays int `json:"lifetime_days,omitzero"`
}

// Parameter is a hole of a template: resources of one type.
type Parameter struct {
	Name string `json:"name"` // of [a-z0-9_]
	Type string `json:"type"`
	// Many lets it stand for several resources.
	Many bool `json:"many,omitzero"`
	// Default is taken when nothing is given: the id of a resource, Every or
	// Self. Where it is empty a value must be given.
	Default string `json:"default,omitzero"`
}

// The defaults of a parameter that are no ids.
const (
	// Every stands for all resources of the type.
	Every = "*"
	// Self stands for who owns the token.
	Self = "self"
)

// TemplatePolicy is one policy of a template.
type TemplatePolicy struct {
	Effect string     `json:"effect"` // "allow" or "deny"
	Groups []GroupRef `json:"permission_groups"`
	// Resources is what a token's policy has, with "{parameter}" in the place
	// of an id.
	Resources jsontext.Value `json:"resources"`
}

// GroupRef names a permission group: by its id, or by its name and, where the
// name is not unique, its scope. In a Catalogue the ID is always set.
type GroupRef struct {
	ID    string
	Name  string
	Scope string
}

// AddressCondition narrows a template's tokens to some client addresses.
type AddressCondition struct {
	RequestIP AddressSet `json:"request_ip,omitzero"`
}

// AddressSet is In minus NotIn, as prefixes or single addresses. In being
// empty means every address.
type AddressSet struct {
	In    []string `json:"in,omitzero"`
	NotIn []string `json:"not_in,omitzero"`
}

// MarshalJSONTo writes the id as a string, and what has none as an object.
func (g GroupRef) MarshalJSONTo(enc *jsontext.Encoder) error {
	if g.ID != "" {
		return enc.WriteToken(jsontext.String(g.ID))
	}
	return json.MarshalEncode(enc, groupRefObject{Name: g.Name, Scope: g.Scope})
}

// UnmarshalJSONFrom reads what MarshalJSONTo writes.
func (g *GroupRef) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == jsontext.KindString {
		*g = GroupRef{}
		return json.UnmarshalDecode(dec, &g.ID)
	}
	var o groupRefObject
	if err := json.UnmarshalDecode(dec, &o); err != nil {
		return err
	}
	*g = GroupRef{Name: o.Name, Scope: o.Scope}
	return nil
}

type groupRefObject struct {
	Name  string `json:"name"`
	Scope string `json:"scope,omitzero"`
}

// Templates returns the templates in listing order. The caller must not change
// the slices inside.
func (c *Catalogue) Templates() []Template { return slices.Clone(c.templates) }

// Template returns the template with this id. The caller must not change the
// slices inside.
func (c *Catalogue) Template(id string) (Template, bool) {
	for _, t := range c.templates {
		if t.ID == id {
			return t, true
		}
	}
	return Template{}, false
}

func (c *Catalogue) addTemplates(templates []Template) error {
	if len(templates) > maxTemplates {
		return problem("/templates", "more than %d templates", maxTemplates)
	}
	for i, t := range templates {
		if _, dup := c.Template(t.ID); dup {
			return problem(place("templates", i, "id"), "template %q is given twice", clip(t.ID))
		}
		r := templateReader{c: c, t: &t, i: i, used: map[string]bool{}}
		if err := r.read(); err != nil {
			return err
		}
		c.templates = append(c.templates, t)
	}
	return nil
}

// templateReader checks one template and resolves its groups.
type templateReader struct {
	c    *Catalogue
	t    *Template
	i    int
	used map[string]bool // parameters that a resource names
}

func (r *templateReader) problem(at, format string, args ...any) error {
	return problem(place("templates", r.i, at), "template %q: %s", clip(r.t.ID), fmt.Sprintf(format, args...))
}

func (r *templateReader) read() error {
	t := r.t
	switch {
	case !validWord(t.ID, '-', 64):
		return r.problem("id", "id must be 1 to 64 of a-z, 0-9 and -")
	case t.Name == "" || !validText(t.Name, maxName):
		return r.problem("name", "name must be 1 to %d bytes of printable text", maxName)
	case !validText(t.Description, maxText):
		return r.problem("description", "description must be short printable text")
	case t.LifetimeDays < 0 || t.LifetimeDays > maxLifetimeDays:
		return r.problem("lifetime_days", "lifetime_days must be 0 to %d", maxLifetimeDays)
	case len(t.Policies) == 0 || len(t.Policies) > maxTemplatePolicies:
		return r.problem("policies", "a template has 1 to %d policies", maxTemplatePolicies)
	}
	if err := r.parameters(); err != nil {
		return err
	}
	if err := r.addresses(); err != nil {
		return err
	}
	t.Policies = slices.Clone(t.Policies)
	for k := range t.Policies {
		if err := r.policy(k); err != nil {
			return err
		}
	}
	for k, p := range t.Parameters {
		if !r.used[p.Name] {
			return r.problem(fmt.Sprintf("parameters/%d", k), "no resource names the parameter %q", p.Name)
		}
	}
	return nil
}

func (r *templateReader) parameters() error {
	if len(r.t.Parameters) > maxParameters {
		return r.problem("parameters", "more than %d parameters", maxParameters)
	}
	for k, p := range r.t.Parameters {
		at := fmt.Sprintf("parameters/%d/", k)
		if !validWord(p.Name, '_', 32) {
			return r.problem(at+"name", "the name of a parameter must be 1 to 32 of a-z, 0-9 and _")
		}
		if slices.ContainsFunc(r.t.Parameters[:k], func(q Parameter) bool { return q.Name == p.Name }) {
			return r.problem(at+"name", "parameter %q is given twice", p.Name)
		}
		if _, ok := r.c.TypeNumber(p.Type); !ok {
			return r.problem(at+"type", "parameter %q: unknown resource type %q", p.Name, clip(p.Type))
		}
		if p.Default == Self && p.Type != TypeUser && p.Type != TypeAccount || p.Default != "" && p.Default != Every && !ValidID(p.Default) {
			return r.problem(at+"default", "parameter %q: default must be an id, %s, or %s for users and accounts", p.Name, Every, Self)
		}
	}
	return nil
}

func (r *templateReader) addresses() error {
	set := &r.t.Condition.RequestIP
	if len(set.In)+len(set.NotIn) > maxTemplateEntries {
		return r.problem("condition/request_ip", "more than %d addresses", maxTemplateEntries)
	}
	if k := slices.IndexFunc(set.In, noAddress); k >= 0 {
		return r.problem(fmt.Sprintf("condition/request_ip/in/%d", k), "%q is neither an address nor a prefix", clip(set.In[k]))
	}
	if k := slices.IndexFunc(set.NotIn, noAddress); k >= 0 {
		return r.problem(fmt.Sprintf("condition/request_ip/not_in/%d", k), "%q is neither an address nor a prefix", clip(set.NotIn[k]))
	}
	return nil
}

func noAddress(s string) bool {
	if _, err := netip.ParsePrefix(s); err == nil {
		return false
	}
	a, err := netip.ParseAddr(s)
	return err != nil || a.Zone() != ""
}

func (r *templateReader) policy(k int) error {
	p, at := &r.t.Policies[k], fmt.Sprintf("policies/%d/", k)
	if p.Effect != "allow" && p.Effect != "deny" {
		return r.problem(at+"effect", "effect must be allow or deny")
	}
	if len(p.Groups) == 0 || len(p.Groups) > maxTemplateEntries {
		return r.problem(at+"permission_groups", "a policy has 1 to %d permission groups", maxTemplateEntries)
	}
	types, err := r.resources(p.Resources, at+"resources", true)
	if err != nil {
		return err
	}
	p.Groups = slices.Clone(p.Groups)
	for i := range p.Groups {
		g, err := r.group(p.Groups[i])
		if err != nil {
			return r.problem(fmt.Sprintf("%spermission_groups/%d", at, i), "%v", err)
		}
		if r.c.groups[g].scopes&types == 0 {
			return r.problem(fmt.Sprintf("%spermission_groups/%d", at, i), "permission group %q applies to none of the policy's resources", r.c.groups[g].Name)
		}
		p.Groups[i] = GroupRef{ID: r.c.groups[g].ID, Name: r.c.groups[g].Name}
	}
	return nil
}

func (r *templateReader) group(ref GroupRef) (GroupNumber, error) {
	if ref.ID != "" {
		if n, ok := r.c.GroupNumber(ref.ID); ok {
			return n, nil
		}
		return 0, fmt.Errorf("unknown permission group %q", clip(ref.ID))
	}
	found := r.c.Filter(ref.Name, ref.Scope)
	switch {
	case ref.Name == "" || len(found) == 0:
		return 0, fmt.Errorf("unknown permission group %q of scope %q", clip(ref.Name), clip(ref.Scope))
	case len(found) > 1:
		return 0, fmt.Errorf("there are %d permission groups %q: give the scope, too", len(found), clip(ref.Name))
	}
	return r.c.groupByID[found[0].ID], nil
}

// resources checks one object of resources and returns the types that the
// innermost keys have, as one bit each.
func (r *templateReader) resources(raw jsontext.Value, at string, top bool) (types uint64, err error) {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != jsontext.KindBeginObject {
		return 0, r.problem(at, "resources must be an object")
	}
	for n := 0; dec.PeekKind() == jsontext.KindString; n++ {
		tok, err := dec.ReadToken()
		if err != nil {
			return 0, r.problem(at, "resources: %v", err)
		}
		key := tok.String()
		in := at + "/" + string(jsontext.Pointer("").AppendToken(key))[1:]
		t, ok := r.key(key)
		if n == maxTemplateEntries {
			return 0, r.problem(at, "more than %d resources", maxTemplateEntries)
		}
		if !ok {
			return 0, r.problem(in, "resource %q must be a known type and an id, * or {parameter} of that type", clip(key))
		}
		value, err := dec.ReadValue()
		switch {
		case err != nil:
			return 0, r.problem(in, "resources: %v", err)
		case string(value) == `"*"`:
			types |= 1 << t
		case top && value.Kind() == jsontext.KindBeginObject:
			inner, err := r.resources(value, in, false)
			if err != nil {
				return 0, err
			}
			types |= inner
		default:
			return 0, r.problem(in, `the value of a resource must be "*"`)
		}
	}
	if types == 0 {
		return 0, r.problem(at, "a policy has at least one resource")
	}
	return types, nil
}

// key resolves "<type>.<id>", "<type>.*" and "<type>.{parameter}".
func (r *templateReader) key(key string) (TypeNumber, bool) {
	dot := strings.LastIndexByte(key, '.')
	if dot < 0 {
		return 0, false
	}
	t, ok := r.c.TypeNumber(key[:dot])
	id := key[dot+1:]
	if name, hole := strings.CutPrefix(id, "{"); hole {
		name, closed := strings.CutSuffix(name, "}")
		k := slices.IndexFunc(r.t.Parameters, func(p Parameter) bool { return p.Name == name })
		if !closed || k < 0 || r.t.Parameters[k].Type != key[:dot] {
			return 0, false
		}
		r.used[name] = true
		return t, ok
	}
	return t, ok && (id == Every || ValidID(id))
}

// validWord reports whether s is 1 to most of a-z, 0-9 and one more.
func validWord(s string, more byte, most int) bool {
	for i := range len(s) {
		if b := s[i]; (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != more {
			return false
		}
	}
	return s != "" && len(s) <= most
}
