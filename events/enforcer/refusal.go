package enforcer

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"watchword.dev/events/token"
)

// The error codes of RFC 6750.
const (
	CodeInvalidRequest    = "invalid_request"
	CodeInvalidToken      = "invalid_token"
	CodeInsufficientScope = "insufficient_scope"
)

// retryAfter is how long a client should wait when nobody could tell.
const retryAfter = time.Second

// Refusal says why a request is not let through, and how that is answered.
type Refusal struct {
	// Status is 400, 401, 403 or 503.
	Status int
	// Code is the error code of RFC 6750. It is empty with 503, and with 401
	// when no credential was presented.
	Code string
	// Permission is what was needed.
	Permission string
	// RetryAfter is when trying again may help; zero but with 503.
	RetryAfter time.Duration
	// Decision is for the log, as is Err: clients are not told more than what
	// stands above. It is the zero Decision when nobody was asked.
	Decision token.Decision
	// Err says what was wrong with the request, or why nobody could be asked;
	// nil when the decision says all.
	Err error
}

// Error describes the refusal for a log.
func (f *Refusal) Error() string {
	said := strconv.Itoa(f.Status)
	if f.Code != "" {
		said += " " + f.Code
	}
	if f.Decision.Reason != token.ReasonNone {
		said += ": " + f.Decision.Reason.String()
	}
	if f.Err != nil {
		said += ": " + f.Err.Error()
	}
	return "enforcer: " + said
}

// Unwrap returns Err.
func (f *Refusal) Unwrap() error { return f.Err }

// refused returns the refusal that goes with a decision that does not allow.
func refused(permission string, d token.Decision) *Refusal {
	f := &Refusal{Permission: permission, Decision: d}
	switch d.Reason {
	case token.ReasonStale, token.ReasonNotReady:
		f.Status, f.RetryAfter = http.StatusServiceUnavailable, retryAfter
	case token.ReasonNoPolicy, token.ReasonDeniedByPolicy, token.ReasonUnknownPermission:
		f.Status, f.Code = http.StatusForbidden, CodeInsufficientScope
	default:
		f.Status, f.Code = http.StatusUnauthorized, CodeInvalidToken
	}
	if d.Verdict == token.VerdictUnavailable {
		f.Status, f.Code, f.RetryAfter = http.StatusServiceUnavailable, "", retryAfter
	}
	return f
}

// describe returns the text of the answer, which is the same for every reason
// behind it.
func (f *Refusal) describe() (title, detail string) {
	switch {
	case f.Status == http.StatusServiceUnavailable:
		return "Service Unavailable", "The access token could not be checked now."
	case f.Code == CodeInvalidRequest:
		return "Bad Request", "The request has a malformed credential or resource."
	case f.Code == CodeInsufficientScope:
		return "Forbidden", "The access token does not allow this."
	case f.Code == CodeInvalidToken:
		return "Unauthorized", "The access token is not valid here."
	}
	return "Unauthorized", "An access token is needed."
}

// Challenge returns the value of WWW-Authenticate, or "" when the answer has
// none. The realm must not hold quotes or backslashes.
func (f *Refusal) Challenge(realm string) string {
	if f.Status == http.StatusServiceUnavailable {
		return ""
	}
	var b strings.Builder
	b.WriteString(`Bearer realm="` + realm + `"`)
	if f.Code != "" {
		_, detail := f.describe()
		b.WriteString(`, error="` + f.Code + `", error_description="` + detail + `"`)
	}
	if f.Code == CodeInsufficientScope && f.Permission != "" {
		b.WriteString(`, scope="` + f.Permission + `"`)
	}
	return b.String()
}

// Answer writes the refusal: status, challenge, Retry-After, and a body in the
// form of RFC 9457. It is what is done where Config.Refuse is nil.
func (f *Refusal) Answer(w http.ResponseWriter, r *http.Request, realm string) {
	body := f.Render(w.Header(), realm)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may have gone
	}
}

// Render sets the headers of the answer and returns its body, for adapters.
func (f *Refusal) Render(h http.Header, realm string) []byte {
	if c := f.Challenge(realm); c != "" {
		h.Set("Www-Authenticate", c)
	}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	title, detail := f.describe()
	return []byte(`{"title":"` + title + `","status":` + strconv.Itoa(f.Status) + `,"detail":"` + detail + `"}` + "\n")
}
