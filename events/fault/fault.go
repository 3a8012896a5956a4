// Package fault is the catalogue of public errors: what a stranger may be
// told, and nothing else.
//
// A fault is named by a [Code]. The code has one [Entry]: the number and the
// HTTP status that Cloudflare's clients know, a fixed English text and an
// anchor in the documentation. An [Error] is one occurrence: it adds where in
// the request the trouble is (a JSON pointer), a short detail made of limits
// and catalogue names, and the cause. The cause is for the log; [Error.Message]
// never shows it.
//
// A secret cannot get into a message by accident: the texts are constants,
// the format of a detail must be a constant, and its arguments are of kinds
// that hold no request text (see [Error.WithDetail]).
//
//	if len(name) > MaxName {
//		return fault.New(fault.InvalidName).
//			WithPointer("/name").
//			WithDetail("at most %d characters", MaxName)
//	}
//	…
//	if errors.Is(err, fault.TokenNotFound) { … }
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Code names one kind of fault. It is a constant of the wire: a code is never
// given another meaning and never taken away.
//
// A Code is itself an error without pointer, detail or cause, so that
// errors.Is(err, fault.TokenNotFound) asks for the kind and a pure function
// can return the bare code.
type Code string

// Error returns the code's name.
func (c Code) Error() string { return string(c) }

// Entry returns the catalogue's entry of c, and Internal's for a code that
// the catalogue does not hold.
func (c Code) Entry() Entry {
	if e, ok := byCode[c]; ok {
		return e
	}
	return byCode[Internal]
}

// Link is one element of Cloudflare's error_chain: the narrower reason under
// a general one.
type Link struct {
	Number int
	Text   string
}

// Entry is what the catalogue holds of one code.
type Entry struct {
	Code   Code
	Number int // Cloudflare's number; see [OwnNumbers] for those that are ours
	Status int // HTTP status: at least 400, never 408 or 409
	Text   string
	Chain  []Link // nil for most
	// RetryAfter is what the Retry-After header says; zero means no header.
	RetryAfter time.Duration
	// When says, for the documentation, what causes the fault.
	When string
}

// OwnNumbers is the first number that Watchword made up. The numbers below
// are Cloudflare's, where one number often stands for several codes; from
// here on each number belongs to one code.
const OwnNumbers = 20000

// Anchor is the fragment of the code's row in the error table.
func (e Entry) Anchor() string { return string(e.Code) }

// Pointer says where in the request's body the trouble is, as a JSON pointer
// (RFC 6901). It is shown to the caller and may reach a log: build it from
// field names and indexes of our own schema, not from text of the request.
type Pointer string

// Field returns the pointer to a field of the object that p points to.
func (p Pointer) Field(name constant) Pointer {
	escaped := strings.NewReplacer("~", "~0", "/", "~1").Replace(string(name))
	return p + "/" + Pointer(escaped)
}

// Index returns the pointer to an element of the array that p points to.
func (p Pointer) Index(i int) Pointer { return p + "/" + Pointer(strconv.Itoa(i)) }

// constant is a type that other packages cannot name, so that only constants
// of the source, which convert by themselves, can be passed for it. It keeps
// request text out of public messages at compile time.
type constant string

// Public marks text that comes from the catalogue, the configuration or the
// program itself, such as the name of a permission group, as fit for a
// public message. Never convert request text or a secret into it.
type Public string

// Error is one occurrence of a fault. Errors are values to pass on: the With
// methods return a changed copy.
type Error struct {
	Code    Code
	Pointer Pointer // empty when no part of the body is to blame
	Detail  string  // made by WithDetail; empty for most
	// RetryAfter is when trying again may help; zero means no Retry-After.
	RetryAfter time.Duration

	cause error // for the log only
}

// New returns an occurrence of code.
func New(code Code) *Error {
	return &Error{Code: code, RetryAfter: code.Entry().RetryAfter}
}

// Wrap returns an occurrence of code caused by cause, which only logs show.
func Wrap(code Code, cause error) *Error {
	e := New(code)
	e.cause = cause
	return e
}

// WithPointer returns a copy of e that points to a part of the request's body.
func (e *Error) WithPointer(p Pointer) *Error {
	c := *e
	c.Pointer = p
	return &c
}

// WithRetryAfter returns a copy of e that asks the caller to wait for d.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// WithDetail returns a copy of e whose message ends with the detail.
//
// The format must be a constant. An argument is shown only if it is an
// integer, a time, a duration, an address, a prefix, a [Public] or a slice of
// Public; anything else could hold request text, and its place reads
// "withheld". Use %v or %s for all but integers.
func (e *Error) WithDetail(format constant, args ...any) *Error {
	shown := make([]any, len(args))
	for i, a := range args {
		shown[i] = public(a)
	}
	c := *e
	c.Detail = fmt.Sprintf(string(format), shown...)
	return &c
}

// public returns a as it may be shown, or the word "withheld".
func public(a any) any {
	switch v := a.(type) {
	case int, int64, uint64, time.Duration, netip.Addr, netip.Prefix:
		return v
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case Public:
		return clean(v)
	case []Public:
		all := make([]string, len(v))
		for i, p := range v {
			all[i] = clean(p)
		}
		return strings.Join(all, ", ")
	default:
		return "withheld"
	}
}

// maxPublic bounds one Public in a message. Names in the catalogue are
// shorter.
const maxPublic = 160

// clean cuts p to its bound and drops what is not printable, so that a name
// from a configuration file cannot break a header or a log line.
func clean(p Public) string {
	if len(p) > maxPublic {
		p = p[:maxPublic]
	}
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) || r == '\uFFFD' {
			return -1
		}
		return r
	}, string(p))
}

// Entry returns the catalogue's entry of e's code.
func (e *Error) Entry() Entry { return e.Code.Entry() }

// Message is the public text: the catalogue's, then the detail.
func (e *Error) Message() string {
	text := e.Entry().Text
	switch {
	case e.Detail == "":
		return text
	case strings.HasSuffix(text, "."):
		return text + " " + e.Detail
	default:
		return text + ": " + e.Detail
	}
}

// Error describes e for a log: code, message, pointer and cause.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Code) + ": " + e.Message())
	if e.Pointer != "" {
		b.WriteString(" (at " + string(e.Pointer) + ")")
	}
	if e.cause != nil {
		b.WriteString(": " + e.cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is e's code, bare or as another occurrence of it.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Code:
		return t == e.Code
	case *Error:
		return t.Code == e.Code
	default:
		return false
	}
}

// From returns the fault in err's chain. An error without one is [Internal],
// except that one of a context, which is [Unavailable]: the time ran out, and
// whether the act happened is not known. From(nil) is a nil *Error: do not
// return it as an error without asking.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if c, ok := errors.AsType[Code](err); ok {
		return Wrap(c, err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Wrap(Unavailable, err)
	}
	return Wrap(Internal, err)
}
