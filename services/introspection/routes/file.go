package routes

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/cataloguefile"
)

// MaxRoutes is how many routes a file may hold.
const MaxRoutes = 1000

// anything stands for all methods, and at the end of a path for all that
// follows.
const (
	anyMethod = "*"
	anyRest   = "**"
)

// Route is an entry of a file.
type Route struct {
	Hosts      []string `json:"hosts"`
	Methods    []string `json:"methods"`
	Path       string   `json:"path"`
	Permission string   `json:"permission"`
	Resource   []string `json:"resource"`
}

// Load reads a file and holds it against a catalogue. Errors are of type
// *cataloguefile.Error: they tell the line and the column.
func Load(raw []byte, cat *catalogue.Catalogue) (*Map, error) {
	f, err := cataloguefile.ReadMapping(raw, "a file of routes is a mapping with the key routes")
	if err != nil {
		return nil, err
	}
	var doc struct {
		Routes []Route `json:"routes"`
	}
	if err := json.Unmarshal(f.Document, &doc, json.RejectUnknownMembers(true)); err != nil {
		return nil, misfit(f, err)
	}
	l := loader{file: f, cat: cat}
	if len(doc.Routes) == 0 {
		return nil, l.wrong("/routes", "there are no routes")
	}
	if len(doc.Routes) > MaxRoutes {
		return nil, l.wrong("/routes", "there are more than %d routes", MaxRoutes)
	}
	m := &Map{routes: make([]route, len(doc.Routes))}
	for i, spec := range doc.Routes {
		l.at = jsontext.Pointer("/routes").AppendToken(strconv.Itoa(i))
		r, err := l.route(spec)
		if err != nil {
			return nil, err
		}
		for j := range i {
			if before := &m.routes[j]; before.hides(r) {
				return nil, l.wrong("", "no request reaches this route: the one in line %d (%s) takes all of them", before.line, &before.spec)
			}
		}
		m.routes[i] = *r
	}
	return m, nil
}

// misfit finds the place of what does not fit the struct.
func misfit(f *cataloguefile.File, err error) error {
	s, ok := errors.AsType[*json.SemanticError](err)
	switch {
	case !ok:
		return &cataloguefile.Error{Line: 1, Column: 1, Text: err.Error()}
	case errors.Is(s.Err, json.ErrUnknownName):
		return f.At(s.JSONPointer, fmt.Sprintf("unknown key %q", s.JSONPointer.LastToken()))
	}
	return f.At(s.JSONPointer, "this must be text or a list of texts")
}

// loader reads the routes of a file.
type loader struct {
	file *cataloguefile.File
	cat  *catalogue.Catalogue
	at   jsontext.Pointer // of the route
}

// wrong returns an error about a place, which is within the route.
func (l *loader) wrong(place jsontext.Pointer, format string, args ...any) error {
	return l.file.At(l.at+place, fmt.Sprintf(format, args...))
}

func (l *loader) route(spec Route) (*route, error) {
	r := &route{spec: spec, line: l.file.At(l.at, "").Line}
	for _, part := range []func(*route) error{l.hosts, l.methods, l.path} {
		if err := part(r); err != nil {
			return nil, err
		}
	}
	if spec.Permission == "" || !l.cat.Permission(spec.Permission).Known() {
		return nil, l.wrong("/permission", "the catalogue has no permission %q", spec.Permission)
	}
	if len(spec.Resource) == 0 || len(spec.Resource) > token.MaxChain {
		return nil, l.wrong("/resource", "a route names 1 to %d resources, the outermost first", token.MaxChain)
	}
	for i, text := range spec.Resource {
		if err := l.key(r, i, text); err != nil {
			return nil, err
		}
	}
	return r, nil
}

var (
	hostForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	methodForm = regexp.MustCompile(`^[A-Z][A-Z-]{0,31}$`)
	holeForm   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)
)

func (l *loader) hosts(r *route) error {
	for i, h := range r.spec.Hosts {
		if !hostForm.MatchString(h) {
			return l.wrong(jsontext.Pointer("/hosts").AppendToken(strconv.Itoa(i)), "%q is no host in lower case, without a port", h)
		}
	}
	if r.host = r.spec.Hosts; len(r.host) == 0 {
		r.host = nil
	}
	return nil
}

func (l *loader) methods(r *route) error {
	if slices.Equal(r.spec.Methods, []string{anyMethod}) {
		return nil
	}
	if len(r.spec.Methods) == 0 {
		return l.wrong("/methods", `a route names its methods, or ["*"] for all`)
	}
	for i, m := range r.spec.Methods {
		if !methodForm.MatchString(m) || m == http.MethodConnect {
			return l.wrong(jsontext.Pointer("/methods").AppendToken(strconv.Itoa(i)), `%q is no method in capital letters, and "*" stands alone`, m)
		}
	}
	r.methods = r.spec.Methods
	return nil
}

// path reads the pattern.
func (l *loader) path(r *route) error {
	rest, ok := strings.CutPrefix(r.spec.Path, "/")
	if !ok {
		return l.wrong("/path", "a path begins with a slash")
	}
	words := strings.Split(rest, "/")
	if words[len(words)-1] == anyRest {
		words, r.open = words[:len(words)-1], true
	}
	if len(words) > maxSegments {
		return l.wrong("/path", "a path has at most %d segments", maxSegments)
	}
	for i, w := range words {
		if hole, ok := strings.CutPrefix(w, "{"); ok {
			hole, ok = strings.CutSuffix(hole, "}")
			if !ok || !holeForm.MatchString(hole) {
				return l.wrong("/path", "%q is no {name}: a hole is a whole segment", w)
			}
			if r.hole(hole) >= 0 {
				return l.wrong("/path", "{%s} stands twice", hole)
			}
			r.path = append(r.path, part{hole: hole})
			continue
		}
		// A word is written as it is compared: decoded.
		plain, err := decode(strings.NewReplacer("%", "%25").Replace(w))
		switch {
		case strings.ContainsAny(w, "{}*?%"):
			return l.wrong("/path", "%q has one of { } * ? %% in it; {name} is a whole segment, ** the last", w)
		case err != nil:
			return l.wrong("/path", "%v", err)
		case w == "" && (i < len(words)-1 || r.open):
			return l.wrong("/path", "%v", errEmpty)
		}
		r.path = append(r.path, part{word: plain})
	}
	return nil
}

// hole returns the part with a name, or -1.
func (r *route) hole(name string) int {
	return slices.IndexFunc(r.path, func(p part) bool { return p.hole == name })
}

// key reads a resource of the chain: <type>.<id> or <type>.{name}.
func (l *loader) key(r *route, i int, text string) error {
	place := jsontext.Pointer("/resource").AppendToken(strconv.Itoa(i))
	dot := strings.LastIndexByte(text, '.')
	if dot < 0 {
		return l.wrong(place, "%q is no <type>.<id> or <type>.{name}", text)
	}
	name, id := text[:dot], text[dot+1:]
	t, ok := l.cat.TypeNumber(name)
	if !ok {
		return l.wrong(place, "the catalogue has no resource type %q", name)
	}
	if i > 0 {
		outer, _ := l.cat.TypeNumber(r.spec.Resource[i-1][:strings.LastIndexByte(r.spec.Resource[i-1], '.')])
		if !l.cat.Below(t, outer) {
			return l.wrong(place, "a %s does not lie in a %s", name, l.cat.TypeName(outer))
		}
	}
	k := key{text: text, part: -1}
	if hole, ok := strings.CutPrefix(id, "{"); ok && strings.HasSuffix(hole, "}") {
		hole = strings.TrimSuffix(hole, "}")
		if k.part = r.hole(hole); k.part < 0 {
			return l.wrong(place, "the path has no {%s}", hole)
		}
		k.text = name + "."
		r.path[k.part].id = true
	} else if !catalogue.ValidID(id) {
		return l.wrong(place, "%q is no <type>.<id> or <type>.{name}", text)
	}
	r.chain = append(r.chain, k)
	return nil
}
