package management

import (
	"net/http"
	"strconv"
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/services/internal/web"
)

// The day on which API keys end is set for each account. A request to this API
// by a key is about
//
//   - an account, or something in it: then that account's day counts;
//   - the user alone: then the key is refused once keys have ended in all of
//     the user's accounts, of which there must be some, and before that it may
//     not put anything into a token that reaches into an account whose day has
//     come. The authority sees to the latter.
//
// Operators' keys manage on, because no token stands for what they do, and
// because somebody must be able to undo it. What they ask of a verifier is
// refused like everybody's.

// sunset refuses a key that is good for nothing any more, and announces the
// first of the days on which it will end somewhere.
func (s *Service) sunset(x *web.Exchange, c *caller) error {
	members, err := s.Directory.Memberships(c.user.ID)
	if err != nil {
		return err
	}
	c.header = x.Header()
	var first *aggregate.Account
	some, over := false, true
	for _, m := range members {
		a, ok, err := s.Directory.Account(m.Account)
		if err != nil {
			return err
		}
		if !ok || a.Status != aggregate.Active {
			continue
		}
		some, over = true, over && a.Policy.KeysOver(c.now)
		if end := a.Policy.KeysEnd; !end.IsZero() && (first == nil || end.Before(first.Policy.KeysEnd)) {
			first = &a
		}
	}
	if first != nil {
		c.announce(first)
	}
	if some && over && !c.user.Operator {
		return fault.New(fault.APIKeysEnded)
	}
	return nil
}

// keyOver reports whether the caller comes by an API key and keys have ended in
// the account.
func (c *caller) keyOver(a *aggregate.Account) bool {
	return c.token == nil && !c.user.Operator && a.Policy.KeysOver(c.now)
}

// inAccount refuses a caller whose key has ended in an account that they belong
// to, and announces the day on which it will.
func (c *caller) inAccount(a *aggregate.Account) error {
	c.announce(a)
	if c.keyOver(a) {
		return fault.New(fault.APIKeysEnded)
	}
	return nil
}

// announce tells who comes by an API key until when it is good in an account,
// if that has a day: by the headers of RFC 8594 and RFC 9745.
func (c *caller) announce(a *aggregate.Account) {
	end := a.Policy.KeysEnd
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != nil || c.header == nil || end.IsZero() {
		return
	}
	c.header.Set("Sunset", end.UTC().Format(http.TimeFormat))
	since := a.KeysEndSet
	if since.IsZero() || since.After(end) {
		since = end
	}
	c.header.Set("Deprecation", "@"+strconv.FormatInt(since.Truncate(time.Second).Unix(), 10))
}
