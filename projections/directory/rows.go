package directory

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// The tables: the first byte of every key. An id is its 16 bytes, an owner the
// letter of its kind and its id. A text that a key must hold is there as its
// SHA-256, so that every table's keys have one length.
const (
	tableToken     = 't' // token id → aggregate.Token, ended ones too
	tableLive      = 'o' // owner, token id → nothing; tokens that have not ended
	tableAll       = 'O' // owner, token id → nothing; all tokens
	tableCount     = 'n' // owner → how many tokens are in tableLive, in tableAll, and the sequence of the last change
	tableUser      = 'u' // user id → aggregate.User, removed ones too
	tableEmail     = 'i' // e-mail index → user id; users that are not removed
	tableAccount   = 'a' // account id → aggregate.Account, removed ones too
	tableMember    = 'm' // member id → aggregate.Member, ended ones too
	tableOfAccount = 'b' // account id, user id → member id; those that have not ended
	tableOfUser    = 'c' // user id, account id → member id; those that have not ended
	tableResource  = 's' // registration id → aggregate.Resource, removed ones too
	tableKey       = 'k' // key of a resource → registration id; those that are not removed
	tableCatalogue = 'g' // version → aggregate.Catalogue
	tableEnforcer  = 'e' // enforcer id → aggregate.Enforcer, retired ones too
	tableConsumer  = 'v' // consumer id → aggregate.Consumer, retired ones too
	tableNkey      = 'z' // public nkey → aggregate.Credential of the enforcer or consumer, retired ones too
	tableDigest    = 'x' // digest → aggregate.Credential; one for each secret that something alive holds
	tableRequest   = 'r' // stretch of time, request digest → aggregate.Request
	tableOpened    = 'l' // → events.LogOpened
	tablePlace     = 'p' // list, name, zero byte, id → nothing; what has not ended
	tableNotice    = 'w' // when the next notice of its end is due, token id → nothing
	tableExpiry    = 'y' // owner, when its validity ends, token id → nothing; tokens in tableLive that have an end
	tableSwept     = 'd' // selection → aggregate.Sweep: of each the one that reaches furthest
	tableTemplate  = 'f' // template, token id → nothing; tokens in tableLive that were made from one
	tableLength    = 'q' // list → how many entries it has in tablePlace, and when they changed
)

// errRow says that a row does not have the form in which it was written, or
// that another one is not there which it promises.
var errRow = fmt.Errorf("%w: malformed row", projector.ErrDamaged)

// readError wraps an error of Pebble's.
func readError(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		return fmt.Errorf("directory: %w: %w", projector.ErrDamaged, err)
	}
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	return nil
}

func idKey(table byte, id token.ID) []byte {
	return append(append(make([]byte, 0, 1+len(id)), table), id[:]...)
}

func pairKey(table byte, a, b token.ID) []byte {
	return append(append(append(make([]byte, 0, 1+2*len(a)), table), a[:]...), b[:]...)
}

func textKey(table byte, text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return append(append(make([]byte, 0, 1+len(sum)), table), sum[:]...)
}

func catalogueKey(version uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tableCatalogue}, version)
}

// noticeKey sorts tokens by the millisecond at which the next notice of their
// end is due.
func noticeKey(due time.Time, id token.ID) []byte {
	b := appendTime(append(make([]byte, 0, 1+8+len(id)), tableNotice), due)
	return append(b, id[:]...)
}

// appendTime adds a millisecond so that keys sort by it.
func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(max(t.UnixMilli(), 0)))
}

func digestKey(d token.Digest) []byte {
	return append(append(make([]byte, 0, 1+len(d)), tableDigest), d[:]...)
}

// ownerPrefix is how long the key of an owner is.
const ownerPrefix = 2 + len(token.ID{})

// ownerKey returns the key of an owner in a table, with room for a token's id.
func ownerKey(table byte, o Owner) ([]byte, error) {
	letter := byte(0)
	switch o.Kind {
	case events.OwnedByUser:
		letter = 'u'
	case events.OwnedByAccount:
		letter = 'a'
	default:
		return nil, fmt.Errorf("directory: no such kind of owner: %q", o.Kind)
	}
	return append(append(make([]byte, 0, ownerPrefix+len(o.ID)), table, letter), o.ID[:]...), nil
}

// expiryKey sorts an owner's tokens by when their validity ends.
func expiryKey(o Owner, end time.Time, id token.ID) ([]byte, error) {
	b, err := ownerKey(tableExpiry, o)
	if err != nil {
		return nil, err
	}
	return append(appendTime(b, end), id[:]...), nil
}

// prefixEnd returns the first key behind all that start with prefix. The last
// byte of a table's own letter is never 0xff, so there always is one.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; ; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
}

// rowOptions keep a policy's resources as the event has them, byte for byte.
var rowOptions = json.JoinOptions(jsontext.PreserveRawStrings(true), json.RejectUnknownMembers(true))

// encode returns a value's row.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, rowOptions)
	if err != nil {
		return nil, fmt.Errorf("directory: encode row: %w", err)
	}
	return b, nil
}

func decode[T any](row []byte) (v T, err error) {
	if err := json.Unmarshal(row, &v, rowOptions); err != nil {
		return v, fmt.Errorf("%w: %w", errRow, err)
	}
	return v, nil
}

// get returns the decoded row at key. What cannot be read is an error and
// never a row that is not there.
func get[T any](r pebble.Reader, key []byte, decode func([]byte) (T, error)) (v T, ok bool, err error) {
	row, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return v, false, nil
	}
	if err != nil {
		return v, false, readError(err)
	}
	defer closer.Close()
	if v, err = decode(row); err != nil {
		return v, false, fmt.Errorf("directory: row %q: %w", key[:1], err)
	}
	return v, true, nil
}

func encodeID(id token.ID) []byte { return id[:] }

func decodeID(row []byte) (id token.ID, err error) {
	if len(row) != len(id) {
		return id, errRow
	}
	copy(id[:], row)
	return id, nil
}

// A credential's row is its kind, its id, and the millisecond of Until or zero.
func encodeCredential(c aggregate.Credential) []byte {
	b := append(make([]byte, 0, 1+len(c.ID)+8), byte(c.Kind))
	b = append(b, c.ID[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(milliseconds(c.Until)))
}

func decodeCredential(row []byte) (c aggregate.Credential, err error) {
	if len(row) != 1+len(c.ID)+8 {
		return c, errRow
	}
	c.Kind = token.Kind(row[0])
	copy(c.ID[:], row[1:])
	c.Until = fromMilliseconds(int64(binary.BigEndian.Uint64(row[1+len(c.ID):])))
	return c, nil
}

// A request's row is the token's id, the event's number and millisecond, and
// the version of the secret.
func encodeRequest(q aggregate.Request) []byte {
	b := append(make([]byte, 0, len(q.Token)+20), q.Token[:]...)
	b = binary.BigEndian.AppendUint64(b, q.Number)
	b = binary.BigEndian.AppendUint64(b, uint64(milliseconds(q.Time)))
	return binary.BigEndian.AppendUint32(b, q.SecretVersion)
}

func decodeRequest(row []byte) (q aggregate.Request, err error) {
	n := len(q.Token)
	if len(row) != n+20 {
		return q, errRow
	}
	copy(q.Token[:], row)
	q.Number = binary.BigEndian.Uint64(row[n:])
	q.Time = fromMilliseconds(int64(binary.BigEndian.Uint64(row[n+8:])))
	q.SecretVersion = binary.BigEndian.Uint32(row[n+16:])
	return q, nil
}

// milliseconds returns t as the row has it; zero for no time.
func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilliseconds(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Counts is how many tokens an owner has.
type Counts = aggregate.Counts

func encodeCounts(c Counts) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 24), c.Live)
	b = binary.BigEndian.AppendUint64(b, c.All)
	return binary.BigEndian.AppendUint64(b, c.Seq)
}

func decodeCounts(row []byte) (c Counts, err error) {
	if len(row) != 24 {
		return c, errRow
	}
	return Counts{
		Live: binary.BigEndian.Uint64(row), All: binary.BigEndian.Uint64(row[8:]), Seq: binary.BigEndian.Uint64(row[16:]),
	}, nil
}

// A request's row is found under the stretch of time in which its event lies.
// A whole stretch is forgotten by one range delete once all of it is older
// than the window, so that forgetting costs nothing per request; readers
// compare the times themselves and never see the rest of a stretch.
const (
	stretch          = aggregate.RequestWindow / 2
	stretchesInSight = 3
)

func stretchOf(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 0) / stretch.Milliseconds()) }

// stretchKey is the first key of a stretch.
func stretchKey(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableRequest}, n)
}

func requestKey(n uint64, request string) []byte {
	sum := sha256.Sum256([]byte(request))
	return append(stretchKey(n), sum[:]...)
}
