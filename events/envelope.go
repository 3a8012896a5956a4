package events

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"watchword.dev/events/token"
)

// Limits of one event.
const (
	MaxLine  = 512 << 10 // bytes of one event's line
	MaxDepth = 32        // nesting of its data
	MaxText  = 256       // bytes of each text attribute of the envelope
)

// maxNumber is the greatest number of an event that can be written.
const maxNumber = 1<<63 - 1

// TimeFormat is how the ledger writes a time: UTC, to the millisecond.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// schemaBase stands before an event's name in its dataschema attribute.
const schemaBase = "https://watchword.dev/schema/"

// Hash is a SHA-256 of an event's line.
type Hash [sha256.Size]byte

// String returns the hash as 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// HashLine returns the hash of an event's line, without its newline.
func HashLine(line []byte) Hash { return sha256.Sum256(line) }

// ActorKind says what kind of principal caused an event.
type ActorKind string

// The kinds of actor.
const (
	ActorUser     ActorKind = "user"
	ActorAccount  ActorKind = "account"
	ActorEnforcer ActorKind = "enforcer"
	ActorOperator ActorKind = "operator"
	ActorSystem   ActorKind = "system"
)

// Actor is who caused an event, and by which credential. The zero value is
// the system itself.
type Actor struct {
	Kind       ActorKind `json:"kind"`
	ID         token.ID  `json:"id,omitzero"`         // zero for the system
	Credential token.ID  `json:"credential,omitzero"` // the token, or the user whose API key it was; zero when there was none
}

// Envelope is what every event says about itself: the attributes of its
// CloudEvents line but for the data.
type Envelope struct {
	ID      token.ID // printed as a 26-character ULID
	Source  string   // "watchword/<installation>"
	Name    string   // "token.rolled.v1"; the CloudEvents type without TypePrefix
	Subject string   // "token/<id>"
	Time    time.Time

	// The place in the ledger; set by Compose.
	Number uint64 // from 1, contiguous
	Epoch  uint32 // lives of the stream, from 1
	Prev   Hash   // of the previous event's line; zero before the first

	Account     token.ID // zero where the event belongs to no account
	Actor       Actor
	RequestID   string
	Traceparent string // W3C trace context
}

// Record is an event as it stands in the ledger.
type Record struct {
	Envelope
	Seq  uint64 // sequence of its commit
	Data Event  // a pointer to the type that the catalogue names
	Line []byte // the bytes stored
	Hash Hash   // of Line
}

// SubjectID returns the id behind the slash of the subject, or the zero ID.
func (e *Envelope) SubjectID() token.ID {
	for i := range len(e.Subject) {
		if e.Subject[i] == '/' {
			id, _ := token.ParseID(e.Subject[i+1:])
			return id
		}
	}
	return token.ID{}
}

// Encode returns the line of an event. It returns an error when an attribute
// could not be read back by Decode.
func Encode(e *Envelope, data Event) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	body, err := encodeData(data)
	if err != nil {
		return nil, fmt.Errorf("events: encode %s: %w", e.Name, err)
	}
	b := make([]byte, 0, 640+len(body))
	b = append(b, openID...)
	b = e.ID.AppendULID(b)
	b = appendText(b, openSource, e.Source)
	b = appendText(b, openType, e.Name)
	b = appendText(b, openSubject, e.Subject)
	b = append(b, openTime...)
	b = e.Time.UTC().AppendFormat(b, TimeFormat)
	b = appendText(b, openSchema, e.Name)
	b = append(b, openNumber...)
	b = strconv.AppendUint(b, e.Number, 10)
	b = append(b, openEpoch...)
	b = strconv.AppendUint(b, uint64(e.Epoch), 10)
	b = append(b, openPrev...)
	b = hex.AppendEncode(b, e.Prev[:])
	b = appendID(b, openAccount, e.Account)
	b = appendID(b, openActorID, e.Actor.ID)
	b = appendText(b, openActorKind, string(e.Actor.Kind))
	b = appendID(b, openCredID, e.Actor.Credential)
	if e.RequestID != "" {
		b = appendText(b, openRequestID, e.RequestID)
	}
	if e.Traceparent != "" {
		b = appendText(b, openTraceparent, e.Traceparent)
	}
	b = append(b, openData...)
	b = append(b, body...)
	b = append(b, '}')
	if len(b) > MaxLine {
		return nil, fmt.Errorf("%w: %s is %d bytes long, the limit is %d", ErrMalformed, e.Name, len(b), MaxLine)
	}
	return b, nil
}

// The text between the values of a line. The closing quote of a value is the
// opening of the next.
const (
	openID          = `{"specversion":"1.0","id":"`
	openSource      = `","source":"`
	openType        = `","type":"` + TypePrefix
	openSubject     = `","subject":"`
	openTime        = `","time":"`
	openSchema      = `","datacontenttype":"application/json","dataschema":"` + schemaBase
	openNumber      = `","number":"`
	openEpoch       = `","epoch":`
	openPrev        = `,"prev":"`
	openAccount     = `","account":"`
	openActorID     = `","actorid":"`
	openActorKind   = `","actorkind":"`
	openCredID      = `","credid":"`
	openRequestID   = `","requestid":"`
	openTraceparent = `","traceparent":"`
	openData        = `","data":`
)

func appendText(b []byte, open, s string) []byte {
	b = append(b, open...)
	return append(b, s...)
}

func appendID(b []byte, open string, id token.ID) []byte {
	if id.IsZero() {
		return b
	}
	b = append(b, open...)
	b, _ = id.AppendText(b) // never fails
	return b
}

// check says whether every attribute can stand between quotes as it is.
func (e *Envelope) check() error {
	switch {
	case e.ID.IsZero():
		return fmt.Errorf("%w: no id", ErrMalformed)
	case e.Number == 0 || e.Number > maxNumber || e.Epoch == 0 || e.Epoch > 1<<31-1:
		return fmt.Errorf("%w: number %d, epoch %d", ErrMalformed, e.Number, e.Epoch)
	case e.Time.Year() < 1970 || e.Time.Year() > 9999:
		return fmt.Errorf("%w: time out of range", ErrMalformed)
	case e.Source == "" || e.Name == "" || e.Subject == "" || e.Actor.Kind == "":
		return fmt.Errorf("%w: an empty source, type, subject or actor kind", ErrMalformed)
	}
	for _, s := range []string{e.Source, e.Name, e.Subject, string(e.Actor.Kind), e.RequestID, e.Traceparent} {
		if !plain(s) {
			return fmt.Errorf("%w: an attribute of the envelope has a character that is not allowed, or is too long", ErrMalformed)
		}
	}
	return nil
}

// plain says whether s can stand in a line without any escape: printable
// ASCII without quote and backslash.
func plain(s string) bool {
	if len(s) > MaxText {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
