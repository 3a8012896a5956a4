package routes

import (
	"net/http"
	"slices"
	"strings"

	"watchword.dev/events/catalogue"
)

// Map is what a file says. It does not change.
type Map struct {
	routes []route
}

// route is one entry of a map.
type route struct {
	spec    Route
	line    int
	host    []string // nil: all
	methods []string // nil: all
	path    []part
	open    bool // "**" stands at the end
	chain   []key
}

// part is a segment of a pattern: a word, or the name of a hole.
type part struct {
	word, hole string
	id         bool // what fills the hole goes into a resource's key
}

// key is a resource's key: a text, and behind it what fills a hole, if it is not
// negative.
type key struct {
	text string
	part int
}

// Need is what a request needs.
type Need struct {
	Permission string
	// Resource is the chain of resource keys, outermost first.
	Resource []string
	// Line is where the route begins in the file.
	Line int
	Path string // the route's pattern
}

// Len returns how many routes there are.
func (m *Map) Len() int { return len(m.routes) }

// Find returns what a request needs: its method, its host, empty when it is not
// known, and its target as it stands in the request line. It returns false when
// no route is for it. An error says that the target cannot be relied on.
func (m *Map) Find(method, host, target string) (Need, bool, error) {
	segments, err := Split(target)
	if err != nil {
		return Need{}, false, err
	}
	host = hostname(host)
	for i := range m.routes {
		if r := &m.routes[i]; r.fits(method, host, segments) {
			if !r.ids(segments) {
				return Need{}, false, errID
			}
			return Need{Permission: r.spec.Permission, Resource: r.fill(segments), Line: r.line, Path: r.spec.Path}, true, nil
		}
	}
	return Need{}, false, nil
}

func (r *route) fits(method, host string, segments []string) bool {
	if r.host != nil && !slices.Contains(r.host, host) || !r.takes(method) {
		return false
	}
	if len(segments) < len(r.path) || len(segments) > len(r.path) != r.open {
		return false
	}
	for i, p := range r.path {
		if s := segments[i]; p.hole == "" && s != p.word || p.hole != "" && s == "" {
			return false
		}
	}
	return true
}

// ids reports whether all that goes into keys of resources can be an id. If not,
// the request is refused: were it left to the next route, a client could choose
// the weaker one.
func (r *route) ids(segments []string) bool {
	for i, p := range r.path {
		if p.id && !catalogue.ValidID(segments[i]) {
			return false
		}
	}
	return true
}

func (r *route) takes(method string) bool {
	return r.methods == nil || slices.Contains(r.methods, method) ||
		method == http.MethodHead && slices.Contains(r.methods, http.MethodGet)
}

func (r *route) fill(segments []string) []string {
	chain := make([]string, len(r.chain))
	for i, k := range r.chain {
		chain[i] = k.text
		if k.part >= 0 {
			chain[i] += segments[k.part]
		}
	}
	return chain
}

// hides reports whether every request of o is one of r, too.
func (r *route) hides(o *route) bool {
	if r.host != nil && (o.host == nil || slices.ContainsFunc(o.host, func(h string) bool { return !slices.Contains(r.host, h) })) {
		return false
	}
	if r.methods != nil && (o.methods == nil || slices.ContainsFunc(o.methods, func(m string) bool { return !r.takes(m) })) {
		return false
	}
	if len(r.path) > len(o.path) || !r.open && (o.open || len(r.path) != len(o.path)) || r.open && !o.open && len(r.path) == len(o.path) {
		return false
	}
	for i, p := range r.path {
		switch q := o.path[i]; {
		case p.hole == "" && (q.hole != "" || q.word != p.word), p.hole != "" && q.hole == "" && q.word == "":
			return false
		}
	}
	return true
}

// String returns the route's pattern with its methods, for errors.
func (r *Route) String() string { return strings.Join(r.Methods, ",") + " " + r.Path }
