package directory

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// list is the key of one list: what it is a list of, hashed, so that all have
// one length. Its entries are in the order of their names and, under one name,
// of their ids.
type list [sha256.Size]byte

func listOf(what string, of ...string) list {
	h := sha256.New()
	h.Write([]byte(what))
	for _, s := range of {
		// A length before each part: no two lists share a key.
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	return list(h.Sum(nil))
}

// The lists, but for the ids that they are of.
var (
	listAccounts = listOf("accounts")
	listUsers    = listOf("users")
)

func listMembers(account token.ID) list { return listOf("members", account.String()) }

func listTokens(o Owner) list { return listOf("tokens", string(o.Kind), o.ID.String()) }

// listResources is the list of the resources of a type, of those that lie
// directly in a parent, or both; "" means any. There is none of all resources.
func listResources(kind, parent string) list { return listOf("resources", kind, parent) }

// place is where something stands: its lists, and its name in them.
type place struct {
	lists []list
	name  string
}

func (p *place) same(q *place) bool { return p.name == q.name && slices.Equal(p.lists, q.lists) }

func placeKey(l list, name string, id token.ID) []byte {
	key := append(make([]byte, 0, 1+len(l)+len(name)+1+len(id)), tablePlace)
	key = append(append(key, l[:]...), name...)
	return append(append(key, 0), id[:]...)
}

func lengthKey(l list) []byte { return append([]byte{tableLength}, l[:]...) }

// length is how many entries a list has, and the sequence that has changed it
// last: two readers who see the same one see the same entries. A sweep changes a
// list several times, and each time there are fewer.
type length struct {
	n, changed uint64
}

// newer reports whether it is a later one of the same list.
func (l length) newer(than length) bool {
	return l.changed > than.changed || l.changed == than.changed && l.n < than.n
}

func encodeLength(n length) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, n.n), n.changed)
}

func decodeLength(row []byte) (length, error) {
	if len(row) != 16 {
		return length{}, errRow
	}
	return length{binary.BigEndian.Uint64(row), binary.BigEndian.Uint64(row[8:])}, nil
}

func accountPlace(a *aggregate.Account) place {
	if a.Seq == 0 || a.Status == aggregate.Revoked {
		return place{}
	}
	return place{[]list{listAccounts}, a.Name}
}

func userPlace(u *aggregate.User) place {
	if u.Seq == 0 || u.Status == aggregate.Revoked {
		return place{} // names are sealed: users stand in the order of their ids
	}
	return place{[]list{listUsers}, ""}
}

func memberPlace(m *aggregate.Member) place {
	if m.Seq == 0 || m.Status == aggregate.Revoked {
		return place{}
	}
	return place{[]list{listMembers(m.Account)}, ""}
}

func resourcePlace(s *aggregate.Resource) place {
	if s.Seq == 0 || s.Status == aggregate.Revoked {
		return place{}
	}
	return place{[]list{listResources(s.Type, ""), listResources("", s.Parent), listResources(s.Type, s.Parent)}, s.Name}
}

func tokenPlace(t *aggregate.Token) place {
	if t.Seq == 0 || t.Status == aggregate.Revoked {
		return place{}
	}
	return place{[]list{listTokens(t.OwnedBy())}, t.Name}
}

// move takes something from where it stood to where it stands.
func (c *change) move(id token.ID, before, after place) error {
	if before.same(&after) {
		return nil
	}
	for _, l := range before.lists {
		if err := c.b.Delete(placeKey(l, before.name, id), nil); err != nil {
			return err
		}
		if err := c.lengthen(l, -1); err != nil {
			return err
		}
	}
	for _, l := range after.lists {
		if err := c.b.Set(placeKey(l, after.name, id), nil, nil); err != nil {
			return err
		}
		if err := c.lengthen(l, 1); err != nil {
			return err
		}
	}
	return nil
}

// lengthen counts one entry more or less; finish writes the sums.
func (c *change) lengthen(l list, by int) error {
	n, known := c.lengths[l]
	if !known {
		var err error
		if n, _, err = get(c.b, lengthKey(l), decodeLength); err != nil {
			return err
		}
	}
	c.lengths[l] = length{n.n + uint64(by), c.seq}
	return nil
}

// Listing asks for one page of a list that is in the order of its names.
type Listing struct {
	Name    string // only what has exactly this name; "" for any
	Prefix  string // only what has a name that begins so
	Page    int    // from 1
	PerPage int    // from 1 to MaxPerPage
	// Descending turns the order round.
	Descending bool
}

// valid says whether there can be such a page.
func (ask *Listing) valid() bool {
	return ask.Page >= 1 && ask.PerPage >= 1 && ask.PerPage <= MaxPerPage
}

// Fits says whether something with this name is asked for.
func (ask *Listing) Fits(name string) bool {
	return (ask.Name == "" || name == ask.Name) && strings.HasPrefix(name, ask.Prefix)
}

// Page is one page of a list. Pages behind the last are empty.
type Page[T any] struct {
	Items []T
	Total uint64 // of all pages
	Seq   uint64 // the sequence at which items and total were read
}

// pageOf returns the page with the rows of these ids.
func pageOf[T any](r pebble.Reader, table byte, ids []token.ID, total uint64, decode func([]byte) (T, error)) (Page[T], error) {
	at, err := positionOf(r)
	out := Page[T]{Items: make([]T, 0, len(ids)), Total: total, Seq: at.Seq}
	for _, id := range ids {
		if err != nil {
			break
		}
		var v T
		v, err = must(r, idKey(table, id), decode)
		out.Items = append(out.Items, v)
	}
	return out, err
}

// AllAccounts returns one page of the accounts that were not removed, by name.
func (q *queries) AllAccounts(ask Listing) (Page[aggregate.Account], error) {
	return page(q, []list{listAccounts}, ask, tableAccount, nil, decode[aggregate.Account])
}

// AllUsers returns one page of the users that were not removed, in the order of
// their making: nobody can look for a name, which is sealed.
func (q *queries) AllUsers(ask Listing) (Page[aggregate.User], error) {
	return page(q, []list{listUsers}, ask, tableUser, nil, decode[aggregate.User])
}

// MembersPage returns one page of the present memberships of an account, in the
// order of their making.
func (q *queries) MembersPage(account token.ID, ask Listing) (Page[aggregate.Member], error) {
	return page(q, []list{listMembers(account)}, ask, tableMember, nil, decode[aggregate.Member])
}

// ErrNoList says that all resources were asked for, of any type and place.
var ErrNoList = errors.New("directory: resources are listed by their type, by what they lie in, or by both")

// ResourceQuery asks for one page of resources: parent by parent, and by name
// in each.
type ResourceQuery struct {
	Listing
	Type    string   // "" for any
	Parents []string // the keys of what they lie in, directly; none for any
	// Keep leaves out what it refuses, from the page and from its total; nil
	// keeps all. It costs a look at every row that name and prefix let through.
	Keep func(*aggregate.Resource) bool
}

// Resources returns one page of the resources that were not removed. Whether
// what they lie in is still there is not looked at.
func (q *queries) Resources(ask ResourceQuery) (Page[aggregate.Resource], error) {
	lists := make([]list, 0, len(ask.Parents))
	for _, parent := range ask.Parents {
		lists = append(lists, listResources(ask.Type, parent))
	}
	if len(lists) == 0 {
		lists = append(lists, listResources(ask.Type, ""))
	}
	if ask.Type == "" && (len(ask.Parents) == 0 || slices.Contains(ask.Parents, "")) {
		return Page[aggregate.Resource]{}, ErrNoList
	}
	return page(q, lists, ask.Listing, tableResource, ask.Keep, decode[aggregate.Resource])
}

// page reads one page of lists, as if one stood behind the other.
func page[T any](q *queries, lists []list, ask Listing, table byte, keep func(*T) bool, decode func([]byte) (T, error)) (Page[T], error) {
	if !ask.valid() {
		return Page[T]{}, ErrPage
	}
	return more(q, func(r pebble.Reader) (Page[T], error) {
		ids, total, err := []token.ID(nil), uint64(0), error(nil)
		if keep == nil && ask.Name == "" && ask.Prefix == "" {
			ids, total, err = q.wholePage(r, lists, &ask)
		} else {
			ids, total, err = filteredPage(r, lists, &ask, func(id token.ID) (bool, error) {
				if keep == nil {
					return true, nil
				}
				v, err := must(r, idKey(table, id), decode)
				return err == nil && keep(&v), err
			})
		}
		if err != nil {
			return Page[T]{}, err
		}
		return pageOf(r, table, ids, total, decode)
	})
}

// wholePage returns the ids on a page of everything in the lists.
func (q *queries) wholePage(r pebble.Reader, lists []list, ask *Listing) (all []token.ID, total uint64, err error) {
	lengths := make([]length, len(lists))
	for i, l := range lists {
		n, _, err := get(r, lengthKey(l), decodeLength)
		if err != nil {
			return nil, 0, err
		}
		lengths[i] = n
		total += n.n
	}
	skip, n, _ := span(ask.Page, ask.PerPage, total)
	if ask.Descending {
		skip = total - skip - n // counted from the other end
		defer func() { slices.Reverse(all) }()
	}
	for i, l := range lists {
		if skip >= lengths[i].n {
			skip -= lengths[i].n
			continue
		}
		some := min(n, lengths[i].n-skip)
		if some == 0 {
			break
		}
		ids, err := q.stretchOfList(r, l, skip, some, lengths[i])
		if err != nil {
			return nil, 0, err
		}
		all, skip, n = append(all, ids...), 0, n-some
	}
	return all, total, nil
}

// span returns how many of total entries lie before a page and how many on it;
// false for a page behind the last.
func span(page, perPage int, total uint64) (skip, n uint64, ok bool) {
	// Compared by division: the product may be greater than any integer.
	if uint64(page-1) > total/uint64(perPage) {
		return 0, 0, false
	}
	skip = uint64(page-1) * uint64(perPage)
	if skip >= total {
		return 0, 0, false
	}
	return skip, min(uint64(perPage), total-skip), true
}

// filteredPage returns the ids on a page of those entries that have the name or
// the prefix and are kept, and how many there are. It looks at the keys of all
// that have the prefix.
func filteredPage(r pebble.Reader, lists []list, ask *Listing, keep func(token.ID) (bool, error)) (ids []token.ID, total uint64, err error) {
	if ask.Descending {
		lists = slices.Clone(lists)
		slices.Reverse(lists)
	}
	for _, l := range lists {
		err := eachPlace(r, l, ask, func(id token.ID) error {
			kept, err := keep(id)
			if err != nil || !kept {
				return err
			}
			// By division: the product may be greater than any integer.
			if total/uint64(ask.PerPage) == uint64(ask.Page-1) {
				ids = append(ids, id)
			}
			total++
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return ids, total, nil
}

// eachPlace calls visit with what has the name and the prefix in a list.
func eachPlace(r pebble.Reader, l list, ask *Listing, visit func(token.ID) error) (err error) {
	first := append([]byte{tablePlace}, l[:]...)
	start := len(first)
	if ask.Name != "" {
		first = append(append(first, ask.Name...), 0)
	} else {
		first = append(first, ask.Prefix...)
	}
	it, err := scan(r, first)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	begin, next := it.First, it.Next
	if ask.Descending {
		begin, next = it.Last, it.Prev
	}
	for ok := begin(); ok; ok = next() {
		name, id, err := cutPlace(it.Key()[start:])
		if err != nil {
			return err
		}
		if !ask.Fits(string(name)) {
			continue
		}
		if err := visit(id); err != nil {
			return err
		}
	}
	return readError(it.Error())
}

// cutPlace takes the end of a place's key apart: a name, a zero byte and an id.
func cutPlace(end []byte) (name []byte, id token.ID, err error) {
	at := len(end) - len(id)
	if at < 1 || end[at-1] != 0 {
		return nil, id, fmt.Errorf("directory: %w: a list's entry without an id", errRow)
	}
	copy(id[:], end[at:])
	return end[:at-1], id, nil
}
