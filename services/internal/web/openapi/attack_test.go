package openapi_test

import (
	"net/http"
	"testing"
)

// TestRepeatIsOnesOwn: two tokens of one owner that send the same bytes, and
// even name the same key, have sent two requests. Neither gets or ends the
// secret of what the other has made.
func TestRepeatIsOnesOwn(t *testing.T) {
	l := newLab(t)
	writer := `{"name":"w","policies":[` +
		`{"effect":"allow","resources":{"com.cloudflare.api.user.` + l.admin.id.String() + `":"*"},"permission_groups":[{"id":"686d18d5ac6c441c867cbf6771e58a0a"}]},` +
		`{"effect":"allow","resources":{"` + zone + `":"*"},"permission_groups":[{"id":"` + dnsWrite + `"}]}]}`
	one := l.create(userTokens, l.admin.header(), writer)
	two := l.create(userTokens, l.admin.header(), writer)
	body := grant("made by one", dnsWrite, zone)
	for name, mark := range map[string]func(http.Header){
		"idempotency key": func(h http.Header) { h["Idempotency-Key"] = []string{"job 7"} },
		"retry count":     func(h http.Header) { h["X-Stainless-Retry-Count"] = []string{"1"} },
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			as := func(secret string) http.Header {
				h := bearer(secret)
				mark(h)
				return h
			}
			made := l.create(userTokens, as(one.Value), body)
			for _, other := range []http.Header{as(two.Value), l.admin.header()} {
				mark(other)
				if got := l.create(userTokens, other, body); got.ID == made.ID {
					t.Error("the token of another credential was handed over")
				}
			}
			l.do("GET", userTokens+"/verify", bearer(made.Value), nil, 200, 0)

			var rolled, again string
			at := userTokens + "/" + made.ID + "/value"
			l.do("PUT", at, as(one.Value), "{}", 200, 0).into(t, &rolled)
			l.do("PUT", at, as(two.Value), "{}", 200, 0).into(t, &again)
			// An ordinary roll by the other: the secret before it is dead.
			l.do("GET", userTokens+"/verify", bearer(rolled), nil, 401, codeUnknownSecret)
			l.do("GET", userTokens+"/verify", bearer(again), nil, 200, 0)

			// The same credential, rolled in between, is the same caller.
			first := l.create(userTokens, as(two.Value), grant("kept", dnsWrite, zone))
			var next string
			l.do("PUT", userTokens+"/"+two.ID+"/value", l.admin.header(), `{"force":true}`, 200, 0).into(t, &next)
			two.Value = next
			if got := l.create(userTokens, as(two.Value), grant("kept", dnsWrite, zone)); got.ID != first.ID {
				t.Error("a repeat after a roll of the caller's own token made another token")
			}
		})
	}
}

// TestSmuggledCredentials: a request has one caller. What is beside it never
// counts, in whatever case and however often it comes.
func TestSmuggledCredentials(t *testing.T) {
	l := newLab(t)
	mine := l.create(userTokens, l.admin.header(), grant("mine", dnsWrite, zone))
	key := l.admin.header()
	for name, c := range map[string]struct {
		headers map[string][]string
		status  int
	}{
		"key":                              {key, 200},
		"a bearer without rights and key":  {map[string][]string{"authorization": {"Bearer " + mine.Value}, "X-Auth-Email": key["X-Auth-Email"], "X-Auth-Key": key["X-Auth-Key"]}, 403},
		"an empty bearer and key":          {map[string][]string{"Authorization": {""}, "X-Auth-Email": key["X-Auth-Email"], "X-Auth-Key": key["X-Auth-Key"]}, 400},
		"two bearers":                      {map[string][]string{"Authorization": {"Bearer " + mine.Value, "Bearer " + mine.Value}}, 400},
		"two bearers in one line":          {map[string][]string{"Authorization": {"Bearer " + mine.Value + ", Bearer " + mine.Value}}, 400},
		"two keys":                         {map[string][]string{"X-Auth-Email": key["X-Auth-Email"], "X-Auth-Key": {l.rival.key, l.admin.key}}, 400},
		"two e-mails":                      {map[string][]string{"X-Auth-Email": {l.rival.email, l.admin.email}, "X-Auth-Key": key["X-Auth-Key"]}, 400},
		"another's e-mail":                 {map[string][]string{"X-Auth-Email": {l.rival.email}, "X-Auth-Key": key["X-Auth-Key"]}, 403},
		"a key as a bearer":                {map[string][]string{"Authorization": {"Bearer " + l.admin.key}}, 403},
		"a bearer as a key":                {map[string][]string{"X-Auth-Email": key["X-Auth-Email"], "X-Auth-Key": {mine.Value}}, 400},
		"an enforcer's key":                {map[string][]string{"Authorization": {"Bearer " + l.enforcer}}, 403},
		"a user in a header of a proxy":    {map[string][]string{"X-Forwarded-User": {l.admin.email}, "X-Remote-User": {l.admin.email}, "Cf-Access-Authenticated-User-Email": {l.admin.email}}, 400},
		"a method in a header of a proxy":  {map[string][]string{"X-Http-Method-Override": {"DELETE"}, "X-Auth-Email": key["X-Auth-Email"], "X-Auth-Key": key["X-Auth-Key"]}, 200},
		"another path in a proxy's header": {map[string][]string{"X-Original-Url": {"/livez"}, "X-Rewrite-Url": {"/livez"}}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			r := l.request("GET", userTokens+"/"+mine.ID, nil, nil)
			for k, v := range c.headers {
				r.Header[k] = v // as it is: on the wire in this case
			}
			if a := l.send(r); a.StatusCode != c.status {
				t.Errorf("%d, want %d: %s", a.StatusCode, c.status, a.body)
			}
		})
	}
	l.do("GET", userTokens+"/verify", bearer(mine.Value), nil, 200, 0)
}
