package events

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TypePrefix stands before every event name in the CloudEvents type.
const TypePrefix = "watchword."

// SubjectPrefix stands before the aggregate and the verb in the subject of a
// commit: "ww.event.token.revoked".
const SubjectPrefix = "ww.event."

var (
	// ErrUnknown says that an event's type is not in the catalogue: it was
	// written by a newer program. A projection stops at it.
	ErrUnknown = errors.New("events: unknown event type")
	// ErrMalformed says that bytes are not an event as Encode writes it.
	ErrMalformed = errors.New("events: malformed event")
)

// Event is the data of one fact. Its name is a constant of the wire,
// "<aggregate>.<verb>.v<version>", whatever the Go type is called.
type Event interface {
	EventName() string
}

// Entry ties a name on the wire to a Go type.
type Entry struct {
	name   string
	decode func([]byte) (Event, error)
	upcast func(Event) (Event, error)
	// quick decodes what decode decodes, only faster, or declines.
	quick func([]byte) (Event, bool)
}

// Current is the entry of a type that is written today.
func Current[T any, P interface {
	*T
	Event
}]() Entry {
	return Entry{name: P(new(T)).EventName(), decode: decodeData[T, P]}
}

// Older is the entry of a shape that is no longer written: it decodes as T and
// is then turned into the next version by upcast, as often as needed.
func Older[T any, P interface {
	*T
	Event
}](upcast func(P) (Event, error)) Entry {
	e := Current[T, P]()
	e.upcast = func(ev Event) (Event, error) { return upcast(ev.(P)) }
	return e
}

// decodeData decodes data and demands that it is as encodeData writes it, to
// the byte: with the members in order, each default left out, no white space.
// So an event has one form, and no two readers can see it differently.
func decodeData[T any, P interface {
	*T
	Event
}](raw []byte) (Event, error) {
	p := P(new(T))
	if err := json.Unmarshal(raw, p, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: data: %w", ErrMalformed, err)
	}
	again, err := encodeData(p)
	if err != nil {
		return nil, fmt.Errorf("%w: data: %w", ErrMalformed, err)
	}
	if !bytes.Equal(again, raw) {
		return nil, fmt.Errorf("%w: data is not in its one form", ErrMalformed)
	}
	return p, nil
}

// dataOptions keep what is raw in an event as it is: clients compare the text
// of resources with what they sent.
var dataOptions = json.JoinOptions(jsontext.PreserveRawStrings(true))

func encodeData(data Event) ([]byte, error) { return json.Marshal(data, dataOptions) }

// quickly gives an entry a faster decoder. It must accept only what decode
// accepts and then return the same.
func (e Entry) quickly(quick func([]byte) (Event, bool)) Entry {
	e.quick = quick
	return e
}

// Catalogue is a set of event types. The zero value knows none.
type Catalogue struct {
	entries map[string]Entry
}

// NewCatalogue returns a catalogue of the entries. It panics when two have the
// same name: that is a mistake in the program, found when it starts.
func NewCatalogue(entries ...Entry) *Catalogue {
	c := &Catalogue{entries: make(map[string]Entry, len(entries))}
	for _, e := range entries {
		if _, double := c.entries[e.name]; double {
			panic("events: two types are named " + e.name)
		}
		c.entries[e.name] = e
	}
	return c
}

// Names returns the names of all types that the catalogue decodes, sorted.
func (c *Catalogue) Names() []string {
	names := make([]string, 0, len(c.entries))
	for n := range c.entries {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// DecodeData decodes the data of an event with this name and brings it up to
// the current version. It returns ErrUnknown for a stranger. The event shares
// no memory with raw.
func (c *Catalogue) DecodeData(name string, raw []byte) (Event, error) {
	e, ok := c.entries[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	if e.quick != nil {
		if ev, ok := e.quick(raw); ok {
			return ev, nil
		}
	}
	if err := checkDepth(raw); err != nil {
		return nil, err
	}
	ev, err := e.decode(raw)
	for err == nil && e.upcast != nil {
		if ev, err = e.upcast(ev); err == nil {
			if e, ok = c.entries[ev.EventName()]; !ok {
				err = fmt.Errorf("%w: %q, which %q became", ErrUnknown, ev.EventName(), name)
			}
		}
	}
	return ev, err
}

// SubjectOf returns the stream subject of events with this name: the name
// without its version, behind SubjectPrefix.
func SubjectOf(name string) string {
	if i := strings.LastIndex(name, ".v"); i >= 0 {
		name = name[:i]
	}
	return SubjectPrefix + name
}

// Standard is the catalogue of this version of Watchword.
var Standard = NewCatalogue(
	Current[TokenCreated]().quickly(quickTokenCreated),
	Current[TokenUpdated]().quickly(quickTokenUpdated),
	Current[TokenRolled](),
	Current[TokenDisabled](),
	Current[TokenEnabled](),
	Current[TokenRevoked]().quickly(quickTokenRevoked),
	Current[TokenExpiring](),
	Current[TokenExpired](),
	Current[APIKeyIssued](),
	Current[APIKeyRolled](),
	Current[APIKeyRevoked](),
	Current[UserRegistered](),
	Current[UserUpdated](),
	Current[UserRemoved](),
	Current[AccountCreated](),
	Current[AccountUpdated](),
	Current[AccountRemoved](),
	Current[MemberAdded](),
	Current[MemberChanged](),
	Current[MemberRemoved](),
	Current[ResourceRegistered](),
	Current[ResourceUpdated](),
	Current[ResourceMoved](),
	Current[ResourceRemoved](),
	Current[CataloguePublished](),
	Current[PolicyChanged](),
	Current[EnforcerEnrolled](),
	Current[EnforcerRetired](),
	Current[ConsumerEnrolled](),
	Current[ConsumerRetired](),
	Current[RevocationSwept](),
	Current[LogOpened](),
	Current[EpochOpened](),
	Current[PenOpened](),
	Current[FormatRaised](),
)
