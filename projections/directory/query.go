package directory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// queries are what can be asked, of the newest rows or of a view. Every value
// is a copy that belongs to whoever asked. A value that is not there is ok ==
// false; whatever could not be read is an error.
type queries struct {
	// open returns where to read and what to call afterwards. A query that
	// reads more than one row says so and reads all of them at one sequence.
	open func(more bool) (pebble.Reader, func() error, error)
	// catalogue is the published one that was asked for last.
	catalogue atomic.Pointer[aggregate.Catalogue]
	waypoints waypoints
}

// one answers a query of one row.
func one[T any](q *queries, key []byte, decode func([]byte) (T, error)) (v T, ok bool, err error) {
	r, done, err := q.open(false)
	if err != nil {
		return v, false, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return get(r, key, decode)
}

// more answers a query of several rows.
func more[T any](q *queries, ask func(pebble.Reader) (T, error)) (v T, err error) {
	r, done, err := q.open(true)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return ask(r)
}

// Installation returns the first event of the ledger.
func (q *queries) Installation() (events.LogOpened, bool, error) {
	return one(q, []byte{tableOpened}, decode[events.LogOpened])
}

// Token returns the token with this id, also when it has ended.
func (q *queries) Token(id token.ID) (aggregate.Token, bool, error) {
	return one(q, idKey(tableToken, id), decode[aggregate.Token])
}

// User returns the user with this id, also when they were removed.
func (q *queries) User(id token.ID) (aggregate.User, bool, error) {
	return one(q, idKey(tableUser, id), decode[aggregate.User])
}

// UserByEmail returns the user whose address has this index. Users that were
// removed have none.
func (q *queries) UserByEmail(index string) (aggregate.User, bool, error) {
	u, err := more(q, func(r pebble.Reader) (*aggregate.User, error) {
		return follow(r, textKey(tableEmail, index), tableUser, decode[aggregate.User])
	})
	return orZero(u, err)
}

// Account returns the account with this id, also when it was removed.
func (q *queries) Account(id token.ID) (aggregate.Account, bool, error) {
	return one(q, idKey(tableAccount, id), decode[aggregate.Account])
}

// Accounts returns the accounts of which the user is a member, in the order of
// their making.
func (q *queries) Accounts(user token.ID) ([]aggregate.Account, error) {
	return more(q, func(r pebble.Reader) ([]aggregate.Account, error) {
		ids, err := suffixes(r, idKey(tableOfUser, user))
		if err != nil {
			return nil, err
		}
		all := make([]aggregate.Account, 0, len(ids))
		for _, id := range ids {
			// An account may be unknown: nothing forbids a membership of one.
			a, ok, err := get(r, idKey(tableAccount, id), decode[aggregate.Account])
			if err != nil {
				return nil, err
			}
			if ok {
				all = append(all, a)
			}
		}
		return all, nil
	})
}

// Member returns the membership with this id, also when it has ended.
func (q *queries) Member(id token.ID) (aggregate.Member, bool, error) {
	return one(q, idKey(tableMember, id), decode[aggregate.Member])
}

// MemberOf returns the user's present membership of the account.
func (q *queries) MemberOf(account, user token.ID) (aggregate.Member, bool, error) {
	m, err := more(q, func(r pebble.Reader) (*aggregate.Member, error) {
		return follow(r, pairKey(tableOfAccount, account, user), tableMember, decode[aggregate.Member])
	})
	return orZero(m, err)
}

// Members returns the present memberships of the account, in the order of the
// users' making.
func (q *queries) Members(account token.ID) ([]aggregate.Member, error) {
	return q.members(idKey(tableOfAccount, account))
}

// Memberships returns the present memberships of the user, in the order of the
// accounts' making.
func (q *queries) Memberships(user token.ID) ([]aggregate.Member, error) {
	return q.members(idKey(tableOfUser, user))
}

func (q *queries) members(prefix []byte) ([]aggregate.Member, error) {
	return more(q, func(r pebble.Reader) ([]aggregate.Member, error) {
		ids, err := values(r, prefix, decodeID)
		if err != nil {
			return nil, err
		}
		all := make([]aggregate.Member, 0, len(ids))
		for _, id := range ids {
			m, err := must(r, idKey(tableMember, id), decode[aggregate.Member])
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
		return all, nil
	})
}

// Resource returns the registration of the resource with this key, such as
// com.cloudflare.api.account.zone.<id>, unless it was removed.
func (q *queries) Resource(key string) (aggregate.Resource, bool, error) {
	s, err := more(q, func(r pebble.Reader) (*aggregate.Resource, error) {
		return follow(r, textKey(tableKey, key), tableResource, decode[aggregate.Resource])
	})
	return orZero(s, err)
}

// Catalogue returns the catalogue that was published last; false when the
// built-in one holds. Its document must not be changed.
//
// Everybody asks for it all the time and it is large, so the last answer is
// kept: the row of a version never changes.
func (q *queries) Catalogue() (c aggregate.Catalogue, ok bool, err error) {
	r, done, err := q.open(false)
	if err != nil {
		return c, false, err
	}
	defer func() { err = errors.Join(err, done()) }()
	version, err := lastVersion(r)
	if version == 0 || err != nil {
		return c, false, err
	}
	if kept := q.catalogue.Load(); kept != nil && kept.Version == version {
		return *kept, true, nil
	}
	c, err = must(r, catalogueKey(version), decode[aggregate.Catalogue])
	if err == nil {
		kept := c
		q.catalogue.Store(&kept)
	}
	return c, err == nil, err
}

// lastVersion returns the version of the catalogue that was published last; 0
// when the built-in one holds.
func lastVersion(r pebble.Reader) (version uint32, err error) {
	it, err := scan(r, []byte{tableCatalogue})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return 0, readError(it.Error())
	}
	return binary.BigEndian.Uint32(it.Key()[1:]), nil
}

func lastCatalogue(r pebble.Reader) (c aggregate.Catalogue, ok bool, err error) {
	it, err := scan(r, []byte{tableCatalogue})
	if err != nil {
		return c, false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return c, false, readError(it.Error())
	}
	row, err := it.ValueAndErr()
	if err != nil {
		return c, false, readError(err)
	}
	c, err = decode[aggregate.Catalogue](row)
	return c, err == nil, err
}

// Enforcer returns the enforcer with this id, also when it was retired.
func (q *queries) Enforcer(id token.ID) (aggregate.Enforcer, bool, error) {
	return one(q, idKey(tableEnforcer, id), decode[aggregate.Enforcer])
}

// Enforcers returns all enforcers, retired ones too, in the order of their
// making.
func (q *queries) Enforcers() ([]aggregate.Enforcer, error) {
	return more(q, func(r pebble.Reader) ([]aggregate.Enforcer, error) {
		return values(r, []byte{tableEnforcer}, decode[aggregate.Enforcer])
	})
}

// Consumer returns the consumer with this id, also when it was retired.
func (q *queries) Consumer(id token.ID) (aggregate.Consumer, bool, error) {
	return one(q, idKey(tableConsumer, id), decode[aggregate.Consumer])
}

// Consumers returns all consumers, retired ones too, in the order of their
// making.
func (q *queries) Consumers() ([]aggregate.Consumer, error) {
	return more(q, func(r pebble.Reader) ([]aggregate.Consumer, error) {
		return values(r, []byte{tableConsumer}, decode[aggregate.Consumer])
	})
}

// ByNkey returns which enforcer or consumer was enrolled with this public nkey,
// also when it was retired.
func (q *queries) ByNkey(public string) (aggregate.Credential, bool, error) {
	return one(q, textKey(tableNkey, public), decodeCredential)
}

// Credential returns what has the secret with this digest: a token that has not
// ended, a user or an enforcer. Whether a token is disabled or expired, and
// whether a replaced secret's grace is over, the caller sees from the token and
// the clock.
func (q *queries) Credential(d token.Digest) (aggregate.Credential, bool, error) {
	return one(q, digestKey(d), decodeCredential)
}

// Request returns which secret the request with this digest caused within the
// aggregate.RequestWindow before the last event that is reflected.
func (q *queries) Request(digest string) (aggregate.Request, bool, error) {
	found, err := more(q, func(r pebble.Reader) (*aggregate.Request, error) {
		at, err := positionOf(r)
		if err != nil {
			return nil, err
		}
		now := stretchOf(at.Time)
		for back := range uint64(stretchesInSight) {
			if back > now {
				break
			}
			// The newest one counts: the row of a later stretch hides others.
			found, ok, err := get(r, requestKey(now-back, digest), decodeRequest)
			if err != nil {
				return nil, err
			}
			if ok && at.Time.Sub(found.Time) <= aggregate.RequestWindow {
				return &found, nil
			}
		}
		return nil, nil
	})
	return orZero(found, err)
}

func orZero[T any](v *T, err error) (T, bool, error) {
	if v == nil || err != nil {
		return *new(T), false, err
	}
	return *v, true, nil
}

// follow returns the row to which an index entry leads, or nil when there is no
// such entry.
func follow[T any](r pebble.Reader, index []byte, table byte, decode func([]byte) (T, error)) (*T, error) {
	id, ok, err := get(r, index, decodeID)
	if err != nil || !ok {
		return nil, err
	}
	v, err := must(r, idKey(table, id), decode)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// must returns a row that another one promises.
func must[T any](r pebble.Reader, key []byte, decode func([]byte) (T, error)) (T, error) {
	v, ok, err := get(r, key, decode)
	if err == nil && !ok {
		err = fmt.Errorf("directory: %w: an index leads to row %q %x, which is not there", errRow, key[:1], key[1:])
	}
	return v, err
}

func scan(r pebble.Reader, prefix []byte) (*pebble.Iterator, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return nil, readError(err)
	}
	return it, nil
}

// values returns the decoded values of all keys that start with prefix.
func values[T any](r pebble.Reader, prefix []byte, decode func([]byte) (T, error)) (all []T, err error) {
	it, err := scan(r, prefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		row, err := it.ValueAndErr()
		if err != nil {
			return nil, readError(err)
		}
		v, err := decode(row)
		if err != nil {
			return nil, fmt.Errorf("directory: row %q: %w", prefix[:1], err)
		}
		all = append(all, v)
	}
	return all, readError(it.Error())
}

// suffixes returns the ids with which the keys end that start with prefix.
func suffixes(r pebble.Reader, prefix []byte) (all []token.ID, err error) {
	it, err := scan(r, prefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		id, err := decodeID(it.Key()[len(prefix):])
		if err != nil {
			return nil, err
		}
		all = append(all, id)
	}
	return all, readError(it.Error())
}
