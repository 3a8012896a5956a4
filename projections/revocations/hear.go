package revocations

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// Stream is one of the two streams of receipts.
type Stream int

// The streams of receipts.
const (
	Kept     Stream = iota // all of them are kept
	Progress               // signs of life: the last one of each instance is kept

	streams = 2
)

// Message is a receipt as it came out of a stream. Nothing about it is believed
// but what the stream itself says: Seq and Stored.
type Message struct {
	Stream  Stream
	Seq     uint64
	Subject string
	Data    []byte
	Stored  time.Time // by the stream's clock
}

// Reason says why a receipt was refused.
type Reason string

// The reasons.
const (
	Malformed Reason = "malformed" // not on a subject of receipts
	Unknown   Reason = "unknown"   // of no enforcer, or of one without a key
	Signature Reason = "signature" // not signed by it, or not a receipt
	OtherName Reason = "name"      // signed, but another instance or kind than its subject says
	Clock     Reason = "clock"     // sent long before or after it was stored
	Retired   Reason = "retired"   // of an enforcer that had been retired
	Replayed  Reason = "replayed"  // not newer than one before
	Stopped   Reason = "stopped"   // after the bye of its instance
	Ahead     Reason = "ahead"     // of a sequence or an epoch that the ledger has not reached
	Chain     Reason = "chain"     // of another ledger
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{Malformed, Unknown, Signature, OtherName, Clock, Retired, Replayed, Stopped, Ahead, Chain}
}

// refusal is what refused receipts are counted by. The enforcer is zero where
// nobody knows of whom they were.
type refusal struct {
	reason   Reason
	enforcer token.ID
}

const (
	// MaxSkew is by how much the clock of an enforcer may differ from that of
	// the stream. What is older is refused: nobody can store a receipt for
	// later.
	MaxSkew = time.Minute
	// MinSkew is the least difference of clocks that is reckoned with.
	MinSkew = time.Second
	// keepStopped is how long an instance is remembered that speaks no more.
	keepStopped = 90 * 24 * time.Hour
	// loggedEach is how many refused receipts are logged of each reason and
	// enforcer; of those behind them only each that doubles their number.
	loggedEach = 8
)

// Read returns the sequence of the last message of a stream that was heard.
func (p *Revocations) Read(s Stream) uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.read[s]
}

// Rewind forgets how far a stream was read: it was made anew, and begins again.
func (p *Revocations) Rewind(s Stream) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if err := p.store.DB().Delete(readKey(s), pebble.NoSync); err != nil {
		return err
	}
	p.read[s] = 0
	return nil
}

// CaughtUp says that all receipts were heard that were stored when seq was the
// last sequence applied. Whoever enforced when an event up to there was appended
// had said hello before, and is known from here on; until then nobody can say
// that all have heard.
func (p *Revocations) CaughtUp(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seq > p.caught {
		p.caught = seq
		p.wake()
	}
}

// Behind reports whether something was revoked that CaughtUp has not reached.
func (p *Revocations) Behind() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.revoked > p.caught
}

// Hear takes in receipts, which follow those before them in their streams, and
// returns how many it has taken. With final unset it stops before one that a
// later event of the ledger might explain; when the ledger was applied to its
// head, the same message with final set is refused or not for good. The error
// is of the store; a receipt that is refused is counted and no error.
func (p *Revocations) Hear(messages []Message, final bool) (done int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, ErrClosed
	}
	for i := range messages {
		wait, err := p.hear(&messages[i], final)
		if err != nil || wait {
			if done > 0 {
				p.wake()
			}
			return done, err
		}
		done++
	}
	p.wake()
	return done, nil
}

// hear takes in one receipt with its place in the stream, in one batch, or says
// that it must wait.
func (p *Revocations) hear(m *Message, final bool) (wait bool, err error) {
	if m.Seq <= p.read[m.Stream] {
		return false, nil // heard before a crash, or twice
	}
	b := p.store.DB().NewBatch()
	defer b.Close()
	r, why, maybe, err := p.judge(m)
	if err != nil || maybe && !final {
		return true, err
	}
	var apply func()
	if why != "" {
		apply, err = p.refuse(b, m, why, r.Enforcer)
	} else {
		apply, err = p.accept(b, m, &r)
	}
	if err != nil {
		return false, err
	}
	if err := b.Set(readKey(m.Stream), binary.BigEndian.AppendUint64(nil, m.Seq), nil); err != nil {
		return false, err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return false, err
	}
	p.read[m.Stream] = m.Seq
	apply()
	return false, nil
}

// judge opens a receipt and says why it is refused, if it is. Maybe says that
// an event that is not applied here yet could change that. Of a refused one
// only the enforcer is returned, zero when nobody knows of whom it is.
func (p *Revocations) judge(m *Message) (r receipt.Receipt, why Reason, maybe bool, err error) {
	id, _, err := receipt.ParseSubject(m.Subject)
	if err != nil {
		return r, Malformed, false, nil
	}
	key, known := p.keyOf(id)
	if !known {
		return r, Unknown, true, nil
	}
	of := receipt.Receipt{Enforcer: id}
	if r, err = receipt.Open(m.Data, key); err != nil {
		return of, Signature, false, nil
	}
	if r.Subject() != m.Subject {
		return of, OtherName, false, nil
	}
	if skew(&r, m).Abs() > MaxSkew {
		return of, Clock, false, nil
	}
	if n := p.enforcers[id]; n.Status == aggregate.Revoked && m.Stored.After(n.Retired) && r.Sequence < n.Seq {
		return of, Retired, false, nil
	}
	if n := p.instances[instanceID{id, r.Instance}]; n != nil {
		switch {
		case !r.SentAt.After(n.Sent[m.Stream]):
			return of, Replayed, false, nil
		case !n.Stopped.IsZero() && r.SentAt.After(n.Sent[Kept]):
			return of, Stopped, false, nil
		}
	}
	if why, maybe, err = p.place(&r); why != "" || err != nil {
		return of, why, maybe, err
	}
	return r, "", false, nil
}

// keyOf returns the key under which an enforcer signs. The installation's own
// nodes sign under the key of the pulses.
func (p *Revocations) keyOf(id token.ID) (ed25519.PublicKey, bool) {
	if p.info != nil && id == p.info.Installation && len(p.info.PulseKey) == ed25519.PublicKeySize {
		return ed25519.PublicKey(p.info.PulseKey), true
	}
	n, there := p.enforcers[id]
	if !there {
		return nil, false
	}
	key, err := receipt.ParsePublic(n.Nkey)
	return key, err == nil
}

// skew is how much later a receipt was stored than sent.
func skew(r *receipt.Receipt, m *Message) time.Duration { return m.Stored.Sub(r.SentAt) }

// place says whether a receipt is about a point of this ledger.
func (p *Revocations) place(r *receipt.Receipt) (why Reason, maybe bool, err error) {
	if r.Sequence == 0 {
		return "", false, nil
	}
	if r.Sequence > p.store.Position().Seq || r.Epoch > p.epoch.Epoch {
		return Ahead, true, nil
	}
	raw, there, err := p.store.Get(ringKey(r.Sequence))
	if err != nil || !there {
		return "", false, err
	}
	var at events.Position
	if err := at.UnmarshalBinary(raw); err != nil {
		return "", false, fmt.Errorf("%w: %w", projector.ErrDamaged, err)
	}
	if at.Seq == r.Sequence && (at.Number != r.Number || at.Epoch != r.Epoch || at.Hash != r.Head) {
		return Chain, false, nil
	}
	return "", false, nil
}

// refuse counts a receipt and says so, without anything that was in it. Of many it
// says so ever more rarely.
func (p *Revocations) refuse(b *pebble.Batch, m *Message, why Reason, id token.ID) (func(), error) {
	k := refusal{why, id}
	n := p.refused[k] + 1
	if err := b.Set(refusedKey(k), binary.BigEndian.AppendUint64(nil, n), nil); err != nil {
		return nil, err
	}
	return func() {
		p.refused[k] = n
		if n > loggedEach && n&(n-1) != 0 {
			return // the count says it; nobody fills the log with what they send
		}
		p.log.Warn("a receipt was refused", "reason", string(why), "enforcer", id.String(), "stream_sequence", m.Seq, "refused", n)
	}, nil
}

// accept moves the instance over a receipt.
func (p *Revocations) accept(b *pebble.Batch, m *Message, r *receipt.Receipt) (func(), error) {
	id := instanceID{r.Enforcer, r.Instance}
	before := p.instances[id]
	n := instance{}
	var gone []instanceID
	if before != nil {
		n = *before
	} else {
		var full bool
		if gone, full = p.room(r.Enforcer, m.Stored); full {
			return p.acceptOther(b, m, r)
		}
	}
	if r.Kind == receipt.Hello && n.FirstSeen.IsZero() {
		n.FirstSeen, n.First = m.Stored, place{r.Epoch, r.Sequence}
	}
	newest := before == nil || r.SentAt.After(n.Sent[Kept]) && r.SentAt.After(n.Sent[Progress])
	n.Sent[m.Stream] = r.SentAt
	applied := r.AppliedAt
	if applied.After(m.Stored) { // by a clock that is ahead: who says so has applied it by now
		applied = m.Stored
	}
	if at := (place{r.Epoch, r.Sequence}); before == nil || at.reached(n.Place) && at != n.Place {
		n.Place, n.Applied = at, applied
	}
	if m.Stored.After(n.LastSeen) {
		n.LastSeen = m.Stored
	}
	if newest {
		n.Region, n.Reader, n.Bound = r.Region, r.Reader, span(r.Bound)
		n.Skew = span(skew(r, m).Abs())
	}
	if r.Kind == receipt.Bye {
		n.Stopped = m.Stored
	}
	if e := p.enforcers[r.Enforcer]; e.Status == aggregate.Revoked && r.Sequence >= e.Seq && n.Stopped.IsZero() {
		n.Stopped, n.Retired = m.Stored, true
	}
	if err := p.mark(b, id, &n, mark{place{r.Epoch, r.Sequence}, applied, m.Stored}, before == nil); err != nil {
		return nil, err
	}
	for _, old := range gone {
		prefix := markPrefix(old)
		if err := b.Delete(old.key(), nil); err != nil {
			return nil, err
		}
		if err := b.DeleteRange(prefix, after(prefix), nil); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	if err := b.Set(id.key(), raw, nil); err != nil {
		return nil, err
	}
	return func() { p.settle(id, &n, gone) }, nil
}

// mark writes down that an instance has come to a place, if that covers a
// revocation that no mark before it covers. So an instance has at most one mark
// more than there are revocations, however often it reports.
func (p *Revocations) mark(b *pebble.Batch, id instanceID, n *instance, m mark, first bool) error {
	if m.at.Seq == 0 && !first {
		return nil
	}
	prefix := markPrefix(id)
	it, err := p.store.DB().NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	key := m.at.append(prefix[:len(prefix):len(prefix)])
	from := place{}
	if it.SeekLT(after(key)) { // the one of this place, or the one before it
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		old, err := readMark(prefix, it.Key(), v)
		if err != nil {
			return err
		}
		from = old.at
	}
	if err := it.Error(); err != nil {
		return err
	}
	if !first {
		covers, err := p.revokesWithin(from, m.at)
		if err != nil || !covers {
			return err
		}
	}
	if err := b.Set(key, m.value(), nil); err != nil {
		return err
	}
	return p.forget(b, it, prefix, n, m.told)
}

// revokesWithin reports whether something was revoked after from, up to to.
func (p *Revocations) revokesWithin(from, to place) (bool, error) {
	if from.reached(to) {
		return false, nil
	}
	if from.Epoch != to.Epoch {
		return true, nil // whatever it was, the place is of a new epoch
	}
	it, err := p.store.DB().NewIter(&pebble.IterOptions{LowerBound: revocationKey(from.Seq + 1), UpperBound: revocationKey(to.Seq + 1)})
	if err != nil {
		return false, err
	}
	found := it.First()
	if err := it.Error(); err != nil {
		it.Close()
		return false, err
	}
	return found, it.Close()
}

// forget throws away an instance's marks from before KeepMarks, up to its
// oldest one that stays.
func (p *Revocations) forget(b *pebble.Batch, it *pebble.Iterator, prefix []byte, n *instance, now time.Time) error {
	forgotten := n.Forgotten
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		old, err := readMark(prefix, it.Key(), v)
		if err != nil {
			return err
		}
		if now.Sub(old.told) <= KeepMarks {
			break
		}
		forgotten = old.at
		if err := b.Delete(it.Key(), nil); err != nil {
			return err
		}
	}
	n.Forgotten = forgotten
	return it.Error()
}
