package management

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/web"
)

// maxIdempotencyKey is the longest Idempotency-Key, in bytes.
const maxIdempotencyKey = 255

// repeat returns the digest by which a request that makes a secret is known
// again, and whether this one says that it is such a repeat.
//
// The digest is keyed: the ledger is for ever, and a body or a client's key
// could be guessed from a plain hash. It covers who asked: the person and, by
// its id, the token, so that a repeat after a roll of the caller's own token
// counts, and one token of an owner never gets what another one has made.
func (s *Service) repeat(x *web.Exchange, c *caller, account, id token.ID, body []byte) (digest string, declared bool, err error) {
	h := x.Request().Header
	key, declared, err := idempotencyKey(h)
	if err != nil {
		return "", false, err
	}
	if !declared {
		// cloudflare-go and its siblings count their repeats.
		if n, err := strconv.Atoi(h.Get("X-Stainless-Retry-Count")); err == nil && n >= 1 {
			declared = true
		}
	}
	m := hmac.New(sha256.New, s.RequestKey)
	m.Write([]byte("watchword request v2\x00"))
	var with token.ID // zero: the API key
	if c.token != nil {
		with = c.token.ID
	}
	for _, id := range []token.ID{c.person(), with, account, id} {
		m.Write(id[:])
	}
	m.Write([]byte(x.Request().Method + "\x00" + key + "\x00"))
	m.Write(canonical(body))
	return hex.EncodeToString(m.Sum(nil)), declared, nil
}

// repeatWindow is how long after a request its repeat is known without a key.
const repeatWindow = time.Minute

// newThing is the id of what a request makes, of this kind in this account.
// With an Idempotency-Key it follows from the request, so that a repeat names
// the same thing, which the authority then leaves as it is. Its time is none.
//
// A repeat that only counts itself has no such name: again is true, and what
// has the same content may be its answer if it was made within a minute.
func (s *Service) newThing(x *web.Exchange, c *caller, kind string, account token.ID, body []byte) (id token.ID, again bool, err error) {
	digest, declared, err := s.repeat(x, c, account, token.ID{}, body)
	if err != nil {
		return id, false, err
	}
	if len(x.Request().Header["Idempotency-Key"]) == 0 {
		return s.IDs.New(), declared, nil
	}
	return s.derivedID("watchword "+kind+" v1", []byte(digest)), false, nil
}

// derivedID returns the id that follows from something, under a name for what
// it is. It is keyed, so that ids tell nothing of it.
func (s *Service) derivedID(name string, from []byte) (id token.ID) {
	m := hmac.New(sha256.New, s.RequestKey)
	m.Write([]byte(name + "\x00"))
	m.Write(from)
	const clock = 6 // bytes of an id that tell its time
	copy(id[clock:], m.Sum(nil))
	return id
}

// lately reports whether something was made so lately that a repeat can mean it.
func (s *Service) lately(made time.Time) bool { return s.Now().Sub(made) <= repeatWindow }

func idempotencyKey(h http.Header) (string, bool, error) {
	lines := h["Idempotency-Key"]
	if len(lines) == 0 {
		return "", false, nil
	}
	key := lines[0]
	ok := len(lines) == 1 && key != "" && len(key) <= maxIdempotencyKey
	for i := 0; ok && i < len(key); i++ {
		ok = key[i] >= ' ' && key[i] < 0x7f
	}
	if !ok {
		return "", false, fault.New(fault.InvalidHeader)
	}
	return key, true, nil
}

// canonical makes two bodies equal that differ only in white space and the
// order of members.
func canonical(body []byte) []byte {
	v := jsontext.Value(append([]byte(nil), body...))
	if v.Canonicalize() != nil {
		return body // empty
	}
	return v
}
