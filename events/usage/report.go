package usage

import (
	"errors"
	"fmt"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// The bounds of a report.
const (
	// MaxRows is how many rows one report holds at most.
	MaxRows = 1000
	// MaxBytes is how long one may be.
	MaxBytes = 768 << 10
	// MaxWindow is the longest time that one may be about.
	MaxWindow = 10 * time.Minute

	version     = 1
	maxCount    = 1 << 48
	maxName     = 128 // of a permission and a type, as in catalogues
	maxInstance = 32
)

// Node is the reporter of Watchword's own nodes.
const Node = "node"

// SubjectPrefix stands before the reporter and the instance in the subject of a
// report.
const SubjectPrefix = "ww.usage."

// ErrMalformed says that something is no report.
var ErrMalformed = errors.New("usage: malformed report")

// Kind is the kind of a credential. The zero value is none.
type Kind uint8

// The kinds.
const (
	UserToken Kind = iota + 1
	AccountToken
	APIKey
	ForeignToken // a token that was taken over from another system
)

var kindNames = []string{UserToken: "user_token", AccountToken: "account_token", APIKey: "api_key", ForeignToken: "foreign_token"}

// String returns the kind's name on the wire.
func (k Kind) String() string { return nameOf(kindNames, int(k)) }

// MarshalText returns the kind's name; an invalid kind is an error.
func (k Kind) MarshalText() ([]byte, error) { return marshalName(kindNames, int(k)) }

// UnmarshalText accepts exactly the names that MarshalText returns.
func (k *Kind) UnmarshalText(b []byte) error {
	n, err := parseName(kindNames, b)
	*k = Kind(n)
	return err
}

// Result is what came of a use. The zero value is none.
type Result uint8

// The results.
const (
	Allowed  Result = iota + 1
	Refused         // the credential was good, and not for that
	Rejected        // the credential itself was not good
)

var resultNames = []string{Allowed: "allowed", Refused: "refused", Rejected: "rejected"}

// String returns the result's name on the wire.
func (r Result) String() string { return nameOf(resultNames, int(r)) }

// MarshalText returns the result's name; an invalid result is an error.
func (r Result) MarshalText() ([]byte, error) { return marshalName(resultNames, int(r)) }

// UnmarshalText accepts exactly the names that MarshalText returns.
func (r *Result) UnmarshalText(b []byte) error {
	n, err := parseName(resultNames, b)
	*r = Result(n)
	return err
}

func nameOf(names []string, n int) string {
	if n <= 0 || n >= len(names) {
		return "invalid"
	}
	return names[n]
}

func marshalName(names []string, n int) ([]byte, error) {
	if n <= 0 || n >= len(names) {
		return nil, fmt.Errorf("%w: no name for %d", ErrMalformed, n)
	}
	return []byte(names[n]), nil
}

func parseName(names []string, b []byte) (int, error) {
	for i, name := range names {
		if i > 0 && string(b) == name {
			return i, nil
		}
	}
	return 0, ErrMalformed
}

// What is one thing that a credential was used for.
type What struct {
	Credential token.ID `json:"credential"` // of an API key: its user
	Kind       Kind     `json:"kind"`
	Permission string   `json:"permission,omitzero"`
	Type       string   `json:"resource_type,omitzero"`
	// ID is that of the resource and Account that of the account in which
	// it was asked for; only of API keys, and as far as they are known.
	ID      string   `json:"resource_id,omitzero"`
	Account token.ID `json:"account,omitzero"`
	Result  Result   `json:"result"`
}

// Row is how often something was done.
type Row struct {
	What
	Count uint64 `json:"count"`
}

// Report is what one instance of a reporter has counted in a window.
type Report struct {
	Version  int       `json:"v"`
	Reporter string    `json:"reporter"`
	Instance string    `json:"instance"`
	Number   uint64    `json:"number"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Lost     uint64    `json:"lost,omitzero"`
	Rows     []Row     `json:"rows"`
}

// Subject is where the report is published.
func (r *Report) Subject() string { return SubjectPrefix + r.Reporter + "." + r.Instance }

// Encode returns the report in its form on the wire, or ErrMalformed for one
// that Decode would refuse.
func (r *Report) Encode() ([]byte, error) {
	r.Version = version
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(r)
	if err == nil && len(b) > MaxBytes {
		err = fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxBytes)
	}
	return b, err
}

// Decode reads a report, strictly. Its errors are ErrMalformed and repeat
// nothing of what was sent.
func Decode(b []byte) (Report, error) {
	var r Report
	if len(b) > MaxBytes {
		return r, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxBytes)
	}
	if err := json.Unmarshal(b, &r, json.RejectUnknownMembers(true)); err != nil {
		return Report{}, fmt.Errorf("%w: not the JSON of one", ErrMalformed)
	}
	if err := r.check(); err != nil {
		return Report{}, err
	}
	return r, nil
}

func (r *Report) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }
	switch {
	case r.Version != version:
		return bad("version")
	case r.Reporter != Node && !isID(r.Reporter):
		return bad("reporter")
	case !validInstance(r.Instance):
		return bad("instance")
	case r.Number == 0:
		return bad("number")
	case r.From.Year() < 2000 || r.To.Year() > 9999 || r.To.Before(r.From) || r.To.Sub(r.From) > MaxWindow:
		return bad("window")
	case r.Lost > maxCount:
		return bad("lost")
	case len(r.Rows) > MaxRows:
		return bad("rows")
	}
	for i := range r.Rows {
		if !r.Rows[i].valid() {
			return bad(fmt.Sprintf("row %d", i))
		}
	}
	return nil
}

func (r *Row) valid() bool {
	return !r.Credential.IsZero() && nameOf(kindNames, int(r.Kind)) != "invalid" && nameOf(resultNames, int(r.Result)) != "invalid" &&
		validName(r.Permission) && validName(r.Type) && r.Count > 0 && r.Count <= maxCount &&
		(r.ID == "" || r.Kind == APIKey && r.Type != "" && catalogue.ValidID(r.ID)) &&
		(r.Account.IsZero() || r.Kind == APIKey)
}

// validName accepts what a catalogue's names are made of, and nothing.
func validName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return false
		}
	}
	return true
}

func validInstance(s string) bool {
	if len(s) == 0 || len(s) > maxInstance {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func isID(s string) bool {
	_, err := token.ParseID(s)
	return err == nil
}
