// Package summary says in plain words what a grant lets its bearer do, for
// whoever is about to create a token, and what its name promises but the grant
// does not hold.
package summary

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// Summary is a grant in words. Every list may be empty.
type Summary struct {
	// Sentences are one for each policy, refusals first: that is the order in
	// which policies decide.
	Sentences []string `json:"sentences"`
	// Warnings are what a person would want to look at again.
	Warnings []string `json:"warnings"`
}

// Names returns what people call the resource with this key; false when it has
// no name that may be shown.
type Names func(key string) (string, bool)

// Of describes a valid grant for a token of this name. Names may be nil.
func Of(name string, g token.Grant, cat *catalogue.Catalogue, names Names) (Summary, error) {
	w := words{cat: cat, names: names}
	s := Summary{Sentences: []string{}, Warnings: []string{}}
	var may []string
	for i := range g.Policies {
		p := &g.Policies[i]
		line, err := w.policy(p)
		if err != nil {
			return s, err
		}
		if p.Effect == token.EffectDeny {
			s.Sentences = append(s.Sentences, "May never "+line+".")
		} else {
			may = append(may, "May "+line+limits(&g)+".")
		}
	}
	s.Sentences = append(s.Sentences, may...)
	s.Warnings = append(s.Warnings, w.warnings(name, &g)...)
	return s, nil
}

// words turns policies into words.
type words struct {
	cat   *catalogue.Catalogue
	names Names

	classes [catalogue.Admin + 1]bool // of what the allowing policies hold
	widest  []string                  // types of which everything is allowed
}

// policy returns "edit DNS of zone example.com".
func (w *words) policy(p *token.Policy) (string, error) {
	matchers, err := token.ParseResources(p.Resources, w.cat)
	if err != nil {
		return "", fmt.Errorf("summary: %w", err)
	}
	var verbs []string
	bases := map[string][]string{}
	for _, ref := range p.Groups {
		g, ok := w.cat.Group(ref.ID)
		if !ok {
			return "", fmt.Errorf("summary: group %s is not in the catalogue", ref.ID)
		}
		verb, base := phrase(g.Name)
		if !slices.Contains(verbs, verb) {
			verbs = append(verbs, verb)
		}
		if !slices.Contains(bases[verb], base) {
			bases[verb] = append(bases[verb], base)
		}
		if p.Effect == token.EffectAllow {
			w.note(g)
		}
	}
	parts := make([]string, 0, len(verbs))
	for _, verb := range verbs {
		parts = append(parts, verb+" "+list(bases[verb]))
	}
	where := make([]string, 0, len(matchers))
	for _, m := range matchers {
		text := w.selector(m.Inner)
		if m.Nested {
			text += " in " + w.selector(m.Outer)
		} else if m.Inner.ID == "" && p.Effect == token.EffectAllow {
			w.widest = append(w.widest, w.kind(m.Inner.Type))
		}
		where = append(where, text)
	}
	return list(parts) + " of " + list(where), nil
}

func (w *words) note(g catalogue.Group) {
	for _, name := range g.Permissions {
		if p, ok := w.cat.PermissionAt(w.cat.Permission(name)); ok {
			w.classes[p.Class] = true
		}
	}
}

// selector returns "zone example.com", or "every zone".
func (w *words) selector(s token.Selector) string {
	kind := w.kind(s.Type)
	if s.ID == "" {
		return "every " + kind
	}
	if w.names != nil {
		if name, ok := w.names(w.cat.TypeName(s.Type) + "." + s.ID); ok {
			return kind + " " + name
		}
	}
	return kind + " " + s.ID
}

// kind returns the last word of a type's name: "zone".
func (w *words) kind(t catalogue.TypeNumber) string {
	name := w.cat.TypeName(t)
	return strings.ReplaceAll(name[strings.LastIndexByte(name, '.')+1:], "_", " ")
}

// verbs are how the last word of a group's name is said.
var verbs = map[string]string{
	"Read": "read", "Write": "edit", "Edit": "edit", "Revoke": "revoke", "Run": "run", "Purge": "purge",
	"Report": "report on", "Admin": "administer", "Bind": "bind", "Send": "send",
}

// phrase splits a group's name into what is done and to what: "DNS Write" is
// to edit DNS.
func phrase(group string) (verb, base string) {
	at := strings.LastIndexByte(group, ' ')
	if verb, ok := verbs[group[at+1:]]; ok && at > 0 {
		return verb, strings.TrimRight(group[:at], ": ")
	}
	return "use", group
}

// limits returns from where and until when, with a comma before each.
func limits(g *token.Grant) string {
	var b strings.Builder
	if c := g.Condition; c != nil {
		switch in, out := c.RequestIP.In, c.RequestIP.NotIn; {
		case in != nil && len(in) == 0:
			b.WriteString(", from no address at all")
		case in != nil:
			b.WriteString(", from " + list(in))
			if len(out) > 0 {
				b.WriteString(" but not " + list(out))
			}
		case len(out) > 0:
			b.WriteString(", from every address but " + list(out))
		}
	}
	if !g.NotBefore.IsZero() {
		b.WriteString(", from " + date(g.NotBefore) + " on")
	}
	if !g.ExpiresOn.IsZero() {
		b.WriteString(", until " + date(g.ExpiresOn))
	}
	return b.String()
}

// date leaves out a time of midnight, which is how people give a day.
func date(t time.Time) string {
	t = t.UTC()
	if t.Equal(t.Truncate(24 * time.Hour)) {
		return t.Format("2 January 2006")
	}
	return t.Format("2 January 2006 15:04:05 UTC")
}

// listMost is how many things a list names before it only counts the rest.
const listMost = 8

func list(all []string) string {
	switch n := len(all); {
	case n == 0:
		return "nothing"
	case n == 1:
		return all[0]
	case n > listMost:
		return fmt.Sprintf("%s and %d more", strings.Join(all[:listMost], ", "), n-listMost)
	default:
		return strings.Join(all[:n-1], ", ") + " and " + all[n-1]
	}
}

// promises are words in a token's name, each with the class of permission that
// whoever reads it expects.
var promises = map[string]catalogue.Class{
	"admin": catalogue.Admin, "administrator": catalogue.Admin, "owner": catalogue.Admin, "root": catalogue.Admin,
	"write": catalogue.Write, "writer": catalogue.Write, "edit": catalogue.Write, "editor": catalogue.Write,
	"deploy": catalogue.Write, "deployer": catalogue.Write, "update": catalogue.Write, "updater": catalogue.Write,
	"purge": catalogue.Write, "manage": catalogue.Write,
}

// modest are words that promise no more than reading.
var modest = []string{"read", "reader", "readonly", "viewer", "view", "monitor", "monitoring", "audit", "auditor"}

func (w *words) warnings(name string, g *token.Grant) (all []string) {
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	changes := w.classes[catalogue.Write] || w.classes[catalogue.Admin]
	for _, word := range strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r < 'a' || r > 'z' }) {
		switch class := promises[word]; {
		case class == catalogue.Admin && !w.classes[catalogue.Admin]:
			add("its name says %q, but it may administer nothing", word)
		case class == catalogue.Write && !changes:
			add("its name says %q, but it may only read", word)
		case slices.Contains(modest, word) && changes:
			add("its name says %q, but it may change things", word)
		}
	}
	for _, kind := range slices.Compact(slices.Sorted(slices.Values(w.widest))) {
		add("it reaches every %s, those that come later too", kind)
	}
	if w.classes == [catalogue.Admin + 1]bool{} {
		add("it allows nothing at all")
	}
	if c := g.Condition; c != nil && c.RequestIP.In != nil && len(c.RequestIP.In) == 0 {
		add("its list of addresses is empty: nobody can use it")
	}
	if changes && g.ExpiresOn.IsZero() {
		add("it may change things and never expires")
	}
	return all
}
