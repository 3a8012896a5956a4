package web

import (
	"net/http"
	"strconv"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/throttle"
)

// The names of the limits in the Ratelimit headers. An answer tells of the
// first, and of another only if that is why it is 429.
const (
	limitDefault     = "default"
	limitAddress     = "address"
	limitCredentials = "credentials"
)

// Exempt takes a path that has been added out of the limits on requests, for
// routes whose callers are trusted to send many, and for those who count them
// on their own. Wrong credentials are bounded there, too.
func (rt *Router) Exempt(pattern string) { rt.entries[pattern].exempt = true }

// Throttle is Exchange.Throttle for mounted handlers.
func (rt *Router) Throttle(w http.ResponseWriter, r *http.Request, f *fault.Error) *fault.Error {
	if rt.cfg.Gate == nil || !wrong(f) {
		return f
	}
	x := Exchange{
		Address: rt.cfg.Address.Of(r), r: r, w: &response{ResponseWriter: w}, gate: rt.cfg.Gate, exempt: true,
	}
	return x.Throttle(f)
}

// Admit says that the sender is known and good, and asks for one of their
// requests: it returns nil, or the fault to answer with. Handlers call it as
// soon as they know; a second call gives the same answer.
func (x *Exchange) Admit(principal token.ID) error {
	x.recognised = true
	if !x.metered && !x.exempt {
		x.metered = true
		x.over = x.limit(limitDefault, x.gate.Principal(principal))
	}
	if x.over != nil {
		return x.over
	}
	return nil
}

// Recognised says that the credential is one that we have given out, so that a
// refusal of it is no guess: a token that is disabled, or that asks from the
// wrong address. It is not admitted.
func (x *Exchange) Recognised() { x.recognised = true }

// arrive asks for one request of the address. Who is refused goes no further.
func (x *Exchange) arrive() *fault.Error {
	if x.exempt {
		return nil
	}
	over := x.limit(limitAddress, x.gate.Address(x.Address))
	x.metered = over != nil
	return over
}

// stranger asks for one request of the address from which somebody came who
// was not admitted.
func (x *Exchange) stranger() *fault.Error {
	if x.metered || x.exempt {
		return nil
	}
	x.metered = true
	return x.limit(limitDefault, x.gate.Stranger(x.Address))
}

// Throttle counts a refusal and returns how to answer it: with f, or with 429
// if strangers or wrong credentials have been too many. A failure of this side
// stays what it is. What was found good never comes here: see package throttle
// for why that locks nobody out.
func (x *Exchange) Throttle(f *fault.Error) *fault.Error {
	over := x.stranger()
	if wrong(f) && !x.recognised && x.presented() {
		if w := x.limit(limitCredentials, x.gate.Wrong(x.Address, x.identifier())); w != nil {
			over = w
		}
	}
	if over == nil || f.Entry().Status >= http.StatusInternalServerError {
		return f
	}
	return over
}

// wrong reports whether f says that the credential is not one of ours.
func wrong(f *fault.Error) bool {
	switch f.Code {
	case fault.MalformedAuthorization, fault.MalformedAPIKey, fault.MalformedAuthEmail,
		fault.InvalidAPIKey, fault.InvalidAPIToken, fault.InvalidAccessToken, fault.EnforcerKeyNeeded:
		return true
	}
	return false
}

// presented reports whether there was a credential at all.
func (x *Exchange) presented() bool {
	return len(x.r.Header["Authorization"]) > 0 || len(x.r.Header["X-Auth-Key"]) > 0
}

// shownPrefix is how much of a secret names it: the kind and eight characters,
// 47 of its 226 bits. They are hashed under the process's seed at once, and
// neither logged nor shown.
const shownPrefix = 12

// identifier is what a wrong credential is counted by beside the address: the
// e-mail address of an API key, or the beginning of a secret, so that a dead
// one that a whole fleet still sends is seen to be one. A header that cannot be
// read has none.
func (x *Exchange) identifier() string {
	if x.credential.Key() {
		return x.credential.Email
	}
	secret := BearerSecret(x.r.Header)
	if user, password, ok := Basic(x.r.Header); ok {
		if secret = password; secret == "" {
			secret = user
		}
	}
	return secret[:min(len(secret), shownPrefix)]
}

// limit tells of a limit in the answer, and returns the fault if it refuses.
func (x *Exchange) limit(name string, s throttle.State) *fault.Error {
	if s.Limit.Off() || name != limitDefault && !s.Refused {
		return nil
	}
	item := `"` + name + `";`
	h := x.w.Header()
	h["Ratelimit"] = []string{item + "r=" + strconv.Itoa(s.Remaining) + ";t=" + strconv.Itoa(throttle.Seconds(s.Full))}
	h["Ratelimit-Policy"] = []string{item + "q=" + strconv.Itoa(s.Limit.Quota) + ";w=" + strconv.Itoa(throttle.Seconds(s.Limit.Window))}
	if !s.Refused {
		return nil
	}
	return fault.New(fault.RateLimited).WithRetryAfter(s.Retry)
}
