package verifyindex

import (
	"fmt"
	"maps"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// EnforcerInfo is what is known of an enforcing service.
type EnforcerInfo struct {
	ID     token.ID
	Name   string
	Region string
	// Ceiling is the greatest staleness bound that it may use; zero means
	// that the bounds of the permission classes hold.
	Ceiling time.Duration
}

// enforcers are few, so that all of them are in memory in either mode. A value
// is not changed once it is stored.
type enforcers struct {
	byID     map[token.ID]aggregate.Enforcer
	byDigest map[token.Digest]token.ID
}

// with returns a copy that has n in it.
func (s *enforcers) with(n aggregate.Enforcer) *enforcers {
	c := &enforcers{byID: maps.Clone(s.byID), byDigest: maps.Clone(s.byDigest)}
	if c.byID == nil {
		c.byID, c.byDigest = map[token.ID]aggregate.Enforcer{}, map[token.Digest]token.ID{}
	}
	c.byID[n.ID] = n
	c.byDigest[n.Secret] = n.ID
	return c
}

func (x *Index) loadEnforcers() error {
	all := &enforcers{byID: map[token.ID]aggregate.Enforcer{}, byDigest: map[token.Digest]token.ID{}}
	err := x.each(rowEnforcer, func(_, v []byte) error {
		var n aggregate.Enforcer
		if err := json.Unmarshal(v, &n); err != nil {
			return fmt.Errorf("%w: enforcer row: %w", projector.ErrDamaged, err)
		}
		all.byID[n.ID], all.byDigest[n.Secret] = n, n.ID
		return nil
	})
	x.enforcers.Store(all)
	return err
}

// applyEnforcer moves an enforcer over a record about it.
func (x *Index) applyEnforcer(r *events.Record) error {
	id := r.SubjectID()
	all := x.enforcers.Load()
	n := all.byID[id]
	if err := n.Apply(r); err != nil {
		return err
	}
	if of, taken := all.byDigest[n.Secret]; taken && of != id {
		return fmt.Errorf("%w: event %d enrolls an enforcer with another one's secret", ErrImpossible, r.Number)
	}
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("verifyindex: %w", err)
	}
	x.enforcers.Store(all.with(n))
	return x.w.set(append([]byte{rowEnforcer}, id[:]...), raw)
}

// Enrolled returns an enforcing service as it is by what is applied, however old
// that is. It is false for one that the ledger does not know.
func (x *Index) Enrolled(id token.ID) (n aggregate.Enforcer, ok bool) {
	n, ok = x.enforcers.Load().byID[id]
	return n, ok
}

// Enforcer recognises an enforcing service by its secret. Any reason but
// token.ReasonNone means that it is not: malformed, unknown, revoked, and
// not_ready or stale when that cannot be told now.
func (x *Index) Enforcer(secret string) (EnforcerInfo, token.Reason) {
	v := x.view.Load()
	if !v.ready {
		return EnforcerInfo{}, token.ReasonNotReady
	}
	if k, err := v.format.Parse(secret); err != nil || k != token.KindEnforcer {
		return EnforcerInfo{}, token.ReasonMalformed
	}
	return x.EnforcerByDigest(token.Sum(secret))
}

// EnforcerByDigest is Enforcer for callers that hold the digest only.
func (x *Index) EnforcerByDigest(d token.Digest) (EnforcerInfo, token.Reason) {
	if _, _, reason := x.fresh(x.view.Load(), x.o.Now(), x.o.Bounds.Read); reason != token.ReasonNone {
		return EnforcerInfo{}, reason
	}
	all := x.enforcers.Load()
	id, ok := all.byDigest[d]
	if !ok {
		return EnforcerInfo{}, token.ReasonUnknown
	}
	n := all.byID[id]
	if n.Status != aggregate.Active {
		return EnforcerInfo{}, token.ReasonRevoked
	}
	return EnforcerInfo{ID: n.ID, Name: n.Name, Region: n.Region, Ceiling: time.Duration(n.CeilingSeconds) * time.Second}, token.ReasonNone
}
