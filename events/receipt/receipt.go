package receipt

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// Kind says why a receipt was sent.
type Kind string

// The kinds of receipt.
const (
	// Hello is the first receipt of an instance: before it, the instance has
	// verified nothing. It is kept.
	Hello Kind = "hello"
	// Revocation says that a revocation is among what was applied: it is
	// refused from AppliedAt on. Such receipts are kept.
	Revocation Kind = "revocation"
	// Progress is a sign of life. The last one of each instance is kept.
	Progress Kind = "progress"
	// Bye says that the instance has stopped and verifies nothing more. It is
	// kept.
	Bye Kind = "bye"
)

// ReaderVersion is the version of this package's reader: the event types of
// events.Standard. It rises when a type with an effect on answers is added.
const ReaderVersion = 1

// Limits of a receipt.
const (
	MaxSize     = 2048           // bytes of the line
	MaxInstance = 32             // bytes of an instance's name
	MaxRegion   = 128            // bytes of a region
	MaxBound    = 24 * time.Hour // of staleness
	maxReader   = 1 << 20
	maxEpoch    = 1<<31 - 1
	maxCount    = 1<<63 - 1 // of commits and events
)

// Lease is how long an instance may be silent before it is doubted: three times
// the longest pause between two of its receipts.
const Lease = 30 * time.Second

// ErrReceipt says that bytes are not a receipt, or are not signed by the key.
// What was sent is not repeated in it.
var ErrReceipt = errors.New("receipt: not a receipt of this enforcer")

// Receipt is what one instance of an enforcing service says of itself.
type Receipt struct {
	Enforcer token.ID
	Instance string // 1 to 32 of [a-z0-9], another one for each process
	Region   string
	Kind     Kind

	// Where it stands in the ledger; all zero when it has applied nothing.
	Epoch    uint32
	Sequence uint64      // of the last commit that it has applied
	Number   uint64      // of that commit's last event
	Head     events.Hash // of that event's line

	Reader int           // version of its reader, from 1
	Bound  time.Duration // the largest staleness bound that it uses, in milliseconds

	// AppliedAt is since when Sequence is applied, by its clock; SentAt is
	// when the receipt was made, and differs from one to the next.
	AppliedAt time.Time
	SentAt    time.Time
}

// wire is the receipt as written; its members stand in this order.
type wire struct {
	Enforcer  token.ID `json:"enforcer"`
	Instance  string   `json:"instance"`
	Region    string   `json:"region"`
	Kind      Kind     `json:"kind"`
	Epoch     uint32   `json:"epoch"`
	Sequence  uint64   `json:"sequence"`
	Number    uint64   `json:"number"`
	Head      string   `json:"head"`
	Reader    int      `json:"reader"`
	BoundMS   int64    `json:"bound_ms"`
	AppliedAt string   `json:"applied_at"`
	SentAt    string   `json:"sent_at"`
}

// domain stands before what is signed. The same key answers the challenges of
// NATS servers, which are the text of a JSON string: a byte that is not UTF-8
// can never come in one, so no server can have a receipt signed that way.
const domain = "\xffwatchword.receipt.v1\n"

const signatureMark = `,"signature":"`

// Sign returns the receipt as it is sent. Times are cut to the millisecond. It
// fails for a receipt that Open would refuse.
func Sign(r Receipt, key crypto.Signer) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := r.body()
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(rand.Reader, append([]byte(domain), b...), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("receipt: sign: %w", err)
	}
	if len(signature) != ed25519.SignatureSize {
		return nil, errors.New("receipt: sign: not an Ed25519 key")
	}
	b = append(b, signatureMark...)
	b = base64.StdEncoding.AppendEncode(b, signature)
	if b = append(b, `"}`...); len(b) > MaxSize {
		return nil, fmt.Errorf("receipt: longer than %d bytes", MaxSize)
	}
	return b, nil
}

// body is the object without its signature and without its closing brace.
func (r *Receipt) body() ([]byte, error) {
	b, err := json.Marshal(wire{
		Enforcer: r.Enforcer, Instance: r.Instance, Region: r.Region, Kind: r.Kind,
		Epoch: r.Epoch, Sequence: r.Sequence, Number: r.Number, Head: r.Head.String(),
		Reader: r.Reader, BoundMS: r.Bound.Milliseconds(),
		AppliedAt: r.AppliedAt.UTC().Format(events.TimeFormat), SentAt: r.SentAt.UTC().Format(events.TimeFormat),
	})
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return b[:len(b)-1], nil
}

// Open returns the receipt in b if it was signed under key, and ErrReceipt
// otherwise. It takes exactly the form that Sign writes.
func Open(b []byte, key ed25519.PublicKey) (Receipt, error) {
	i := bytes.LastIndex(b, []byte(signatureMark))
	if i < 0 || !bytes.HasSuffix(b, []byte(`"}`)) || len(b) > MaxSize || len(key) != ed25519.PublicKeySize {
		return Receipt{}, ErrReceipt
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(string(b[i+len(signatureMark) : len(b)-2]))
	if err != nil || !ed25519.Verify(key, append([]byte(domain), b[:i]...), signature) {
		return Receipt{}, ErrReceipt
	}
	// Only the holder of the key can have come this far.
	var w wire
	if err := json.Unmarshal(append(bytes.Clone(b[:i]), '}'), &w, json.RejectUnknownMembers(true)); err != nil {
		return Receipt{}, ErrReceipt
	}
	r, err := w.receipt()
	if err != nil {
		return Receipt{}, err
	}
	if again, err := r.body(); err != nil || !bytes.Equal(again, b[:i]) {
		return Receipt{}, fmt.Errorf("%w: not in its one form", ErrReceipt)
	}
	return r, nil
}

func (w *wire) receipt() (Receipt, error) {
	r := Receipt{
		Enforcer: w.Enforcer, Instance: w.Instance, Region: w.Region, Kind: w.Kind,
		Epoch: w.Epoch, Sequence: w.Sequence, Number: w.Number, Reader: w.Reader,
	}
	if w.BoundMS < 0 || w.BoundMS > MaxBound.Milliseconds() {
		return Receipt{}, fmt.Errorf("%w: bound", ErrReceipt)
	}
	r.Bound = time.Duration(w.BoundMS) * time.Millisecond
	head, err := hex.DecodeString(w.Head)
	if err != nil || len(head) != len(r.Head) {
		return Receipt{}, fmt.Errorf("%w: head", ErrReceipt)
	}
	r.Head = events.Hash(head)
	if r.AppliedAt, err = time.Parse(events.TimeFormat, w.AppliedAt); err != nil {
		return Receipt{}, fmt.Errorf("%w: applied_at", ErrReceipt)
	}
	if r.SentAt, err = time.Parse(events.TimeFormat, w.SentAt); err != nil {
		return Receipt{}, fmt.Errorf("%w: sent_at", ErrReceipt)
	}
	if err := r.check(); err != nil {
		return Receipt{}, err
	}
	return r, nil
}

// check says what is wrong with a receipt, whoever made it.
func (r *Receipt) check() error {
	what := ""
	switch {
	case r.Enforcer.IsZero():
		what = "enforcer"
	case !instanceFits(r.Instance):
		what = "instance"
	case !regionFits(r.Region):
		what = "region"
	case r.Kind != Hello && r.Kind != Revocation && r.Kind != Progress && r.Kind != Bye:
		what = "kind"
	case r.Epoch > maxEpoch, r.Sequence > maxCount, r.Number > maxCount, r.Number < r.Sequence,
		(r.Sequence == 0) != (r.Number == 0), (r.Sequence == 0) != (r.Epoch == 0), (r.Sequence == 0) != (r.Head == events.Hash{}):
		what = "position"
	case r.Kind == Revocation && r.Sequence == 0:
		what = "nothing was applied"
	case r.Reader < 1 || r.Reader > maxReader:
		what = "reader"
	case r.Bound < 0 || r.Bound > MaxBound:
		what = "bound"
	case !yearFits(r.AppliedAt), !yearFits(r.SentAt):
		what = "time"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrReceipt, what)
}

func instanceFits(s string) bool {
	return len(s) > 0 && len(s) <= MaxInstance &&
		strings.IndexFunc(s, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') }) < 0
}

func regionFits(s string) bool {
	return len(s) <= MaxRegion && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

func yearFits(t time.Time) bool { return t.UTC().Year() >= 1970 && t.UTC().Year() <= 9999 }

// instanceAlphabet has 32 characters, so that five bits choose one fairly.
const instanceAlphabet = "abcdefghijkmnpqrstuvwxyz23456789"

// NewInstance returns a name for this process that no other process has.
func NewInstance() string { return newInstance(rand.Reader) }

func newInstance(random io.Reader) string {
	b := make([]byte, 12)
	if _, err := io.ReadFull(random, b); err != nil {
		panic("receipt: no randomness: " + err.Error()) // nothing sensible can follow
	}
	for i, c := range b {
		b[i] = instanceAlphabet[c%byte(len(instanceAlphabet))]
	}
	return string(b)
}

// Where receipts are published: behind the prefix stand the enforcer's id and
// the instance.
const (
	ReceiptPrefix  = "ww.receipt."  // hello, revocation and bye
	ProgressPrefix = "ww.progress." // progress
)

// Subject returns where the receipt is published.
func (r *Receipt) Subject() string {
	prefix := ReceiptPrefix
	if r.Kind == Progress {
		prefix = ProgressPrefix
	}
	return prefix + r.Enforcer.String() + "." + r.Instance
}

// ParseSubject says of whom a receipt on subject must be. Whether it is, is
// told by the receipt: its Subject must be this one.
func ParseSubject(subject string) (enforcer token.ID, instance string, err error) {
	rest, ok := strings.CutPrefix(subject, ReceiptPrefix)
	if !ok {
		rest, ok = strings.CutPrefix(subject, ProgressPrefix)
	}
	id, instance, cut := strings.Cut(rest, ".")
	enforcer, err = token.ParseID(id)
	if !ok || !cut || err != nil || !instanceFits(instance) {
		return token.ID{}, "", fmt.Errorf("%w: subject", ErrReceipt)
	}
	return enforcer, instance, nil
}
