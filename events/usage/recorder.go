package usage

import (
	"encoding/binary"
	"hash/maphash"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// maxResources is how many resources of one API key a window names. Those
// beyond it are counted by their type alone.
const maxResources = 100

// Options tune a Recorder. Catalogue must be set.
type Options struct {
	// Catalogue returns the one by which decisions are made now: only names
	// that it holds are recorded.
	Catalogue func() *catalogue.Catalogue
	// Lanes is how many may count at the same time without waiting for each
	// other; as many as GOMAXPROCS when zero.
	Lanes int
	// Rows is how many different uses a lane holds in one window; 6,144 when
	// zero. Each takes about 140 bytes twice.
	Rows int
	Now  func() time.Time // nil: time.Now
}

// Recorder counts uses in tables of a fixed size. It is safe for concurrent
// use.
type Recorder struct {
	o     Options
	seed  maphash.Seed
	lanes []*Lane
	next  atomic.Uint32
	full  chan struct{}

	mu    sync.Mutex // guards since: one drains at a time
	since time.Time
}

// NewRecorder returns an empty recorder.
func NewRecorder(o Options) *Recorder {
	if o.Lanes <= 0 {
		o.Lanes = runtime.GOMAXPROCS(0)
	}
	if o.Rows <= 0 {
		o.Rows = 6144
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Recorder{o: o, seed: maphash.MakeSeed(), full: make(chan struct{}, 1), since: o.Now()}
	for range o.Lanes {
		r.lanes = append(r.lanes, &Lane{r: r, now: newTable(o.Rows), spare: newTable(o.Rows)})
	}
	return r
}

// Lane returns one of the lanes, the next one at each call. Who counts often
// keeps it; a lane is safe for concurrent use, too, but then one waits for the
// other.
func (r *Recorder) Lane() *Lane {
	return r.lanes[int(r.next.Add(1)-1)%len(r.lanes)]
}

// Full is sent to when a lane has little room left: then Drain should come
// before its time.
func (r *Recorder) Full() <-chan struct{} { return r.full }

// Lane is a part of a Recorder.
type Lane struct {
	r  *Recorder
	mu sync.Mutex
	// now is counted in; spare is empty, and becomes now at the next drain.
	now, spare *table
	_          [64]byte // the next lane's lock is on another cache line
}

// table is a hash table that does not grow. What it holds is taken out whole.
type table struct {
	slots []slot // a power of two of them
	used  []uint32
	lost  uint64
}

// slot is a row. Its texts are the catalogue's own, but for id.
type slot struct {
	hash  uint64 // 0: free
	count uint64
	what  What
}

func newTable(rows int) *table {
	n := 1
	for n < rows+rows/3 {
		n *= 2
	}
	return &table{slots: make([]slot, n), used: make([]uint32, 0, rows)}
}

// Decision counts a decision about what was asked for. It allocates nothing for
// tokens, and keeps nothing of ask. Decisions that recognised no credential, and
// those that could not be made, are not counted.
func (l *Lane) Decision(d *token.Decision, ask *token.Request) {
	w := What{Credential: d.Token, Permission: ask.Permission}
	switch {
	case !d.Token.IsZero() && d.Foreign:
		w.Kind = ForeignToken
	case !d.Token.IsZero() && d.OwnerKind == token.OwnerAccount:
		w.Kind = AccountToken
	case !d.Token.IsZero():
		w.Kind = UserToken
	case d.OwnerKind == token.OwnerUser:
		w.Kind, w.Credential = APIKey, d.Owner
	default:
		return
	}
	if w.Result = resultOf(d.Reason); w.Result == 0 {
		return
	}
	l.count(&w, ask.Resource)
}

func resultOf(reason token.Reason) Result {
	switch reason {
	case token.ReasonNone:
		return Allowed
	case token.ReasonUnknownPermission, token.ReasonNoPolicy, token.ReasonDeniedByPolicy:
		return Refused
	case token.ReasonRevoked, token.ReasonDisabled, token.ReasonExpired, token.ReasonNotYetValid, token.ReasonAddress:
		return Rejected
	}
	return 0
}

// Use counts a use that was not decided by a verification, such as a request to
// the management API. The resource chain is as in a request; an id of "*" at its
// end means all resources of a type, of which the type alone is counted.
func (l *Lane) Use(credential token.ID, kind Kind, permission string, chain []string, result Result) {
	l.count(&What{Credential: credential, Kind: kind, Permission: permission, Result: result}, chain)
}

// accountPrefix begins the keys of accounts, which every catalogue has.
const accountPrefix = "com.cloudflare.api.account."

// count fills in what the chain says and counts w.
func (l *Lane) count(w *What, chain []string) {
	if len(chain) > 0 {
		w.Type, w.ID = split(chain[len(chain)-1])
		if w.Kind != APIKey {
			w.ID = ""
		} else if id, ok := strings.CutPrefix(chain[0], accountPrefix); ok {
			w.Account, _ = token.ParseID(id) // the zero id when it is no account
		}
	}
	h := l.r.hash(w)
	l.mu.Lock()
	if !l.now.add(w, h, 1, false) {
		// It is new here: only names of the catalogue are taken, and with
		// them it may not be new.
		l.r.canonical(w)
		l.now.add(w, l.r.hash(w), 1, true)
		if len(l.now.used) > cap(l.now.used)*3/4 {
			select {
			case l.r.full <- struct{}{}:
			default:
			}
		}
	}
	l.mu.Unlock()
}

// split cuts a resource key into type and id. Nearly all ids are 32 characters
// long.
func split(key string) (kind, id string) {
	if n := len(key) - 33; n > 0 && key[n] == '.' {
		return key[:n], key[n+1:]
	}
	if kind, all := strings.CutSuffix(key, ".*"); all {
		return kind, ""
	}
	kind, id, _ = catalogue.SplitKey(key)
	return kind, id
}

// hash is never 0. Of a permission its ends tell it apart from most others of
// the catalogue; ids may come from people who want them to fall together.
func (r *Recorder) hash(w *What) uint64 {
	h := binary.LittleEndian.Uint64(w.Credential[8:]) ^ binary.LittleEndian.Uint64(w.Credential[:8])<<7 ^
		uint64(w.Result)<<40 ^ uint64(w.Kind)<<48 ^ uint64(len(w.Type))<<56
	if p := w.Permission; len(p) >= 8 {
		h += word(p)*0xff51afd7ed558ccd ^ word(p[len(p)-8:])*0xc4ceb9fe1a85ec53 ^ uint64(len(p))
	} else {
		for i := range len(p) {
			h = h*31 + uint64(p[i])
		}
	}
	if w.ID != "" {
		h ^= maphash.String(r.seed, w.ID)
	}
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29 | 1
}

// word is the first eight bytes of s.
func word(s string) uint64 {
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// add counts n of w. What is not there yet is put in only when fresh is set;
// else add returns false.
func (t *table) add(w *What, h, n uint64, fresh bool) bool {
	mask := uint64(len(t.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		switch {
		case s.hash == h && s.what == *w:
			s.count += n
			return true
		case s.hash != 0:
			continue
		case !fresh:
			return false
		case len(t.used) == cap(t.used):
			t.lost += n
			return true
		}
		*s = slot{hash: h, count: n, what: *w}
		s.what.ID = strings.Clone(w.ID)
		t.used = append(t.used, uint32(i))
		return true
	}
}

// canonical replaces the names in w by the catalogue's own, and drops those
// that it does not hold: whatever a client sent.
func (r *Recorder) canonical(w *What) {
	cat := r.o.Catalogue()
	p, _ := cat.PermissionAt(cat.Permission(w.Permission))
	w.Permission = p.Name
	kind, ok := cat.TypeNumber(w.Type)
	if w.Type = ""; ok {
		w.Type = cat.TypeName(kind)
	}
	if w.Type == "" || !catalogue.ValidID(w.ID) {
		w.ID = ""
	}
}

// Window is what was counted between two drains.
type Window struct {
	From, To time.Time
	Lost     uint64
	Rows     map[What]uint64
}

// Drain returns what was counted since the last time and begins anew.
func (r *Recorder) Drain() Window {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := Window{From: r.since, Rows: map[What]uint64{}}
	resources := map[token.ID]int{}
	for _, l := range r.lanes {
		l.mu.Lock()
		t := l.now
		l.now, l.spare = l.spare, t
		l.mu.Unlock()
		// The time of the last swap: no use after it is in this window.
		w.To = r.o.Now()
		t.empty(&w, resources)
	}
	if w.To.Before(w.From) {
		w.To = w.From // the clock was set back
	}
	r.since = w.To
	return w
}

// empty moves what t holds into w. Nobody counts in it meanwhile.
func (t *table) empty(w *Window, resources map[token.ID]int) {
	w.Lost += t.lost
	for _, i := range t.used {
		s := &t.slots[i]
		if _, known := w.Rows[s.what]; !known && s.what.ID != "" {
			if resources[s.what.Credential]++; resources[s.what.Credential] > maxResources {
				s.what.ID = ""
			}
		}
		w.Rows[s.what] += s.count
		*s = slot{}
	}
	t.used, t.lost = t.used[:0], 0
}
