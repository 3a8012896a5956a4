// Package enforcer is what a service that obeys Watchword needs: it finds the
// token in a request, asks whether it may do what the request is about, answers
// as RFC 6750 says when it may not, and cuts connections when it no longer may.
//
//	e, err := enforcer.New(enforcer.Config{Decider: index})
//	…
//	zone := enforcer.Path("com.cloudflare.api.account.{account}", "com.cloudflare.api.account.zone.{zone}")
//	mux.Handle("PUT /accounts/{account}/zones/{zone}/records", e.Require("dns.records.write", zone)(records))
//
// Who decides is a [Decider]. There are three ways:
//
//   - verifyindex.Index of this process: no hop, under a microsecond;
//   - a [Cache] before a [Client]: a hop for what is new, and the feed of events
//     drops what has changed;
//   - a [Client] alone: a hop for each request, nothing to keep.
//
// # What is answered
//
//	no credential                          401  Bearer realm="…"
//	a header that cannot be read           400  error="invalid_request"
//	a secret that is not good here, now    401  error="invalid_token"
//	a good one that does not allow this    403  error="insufficient_scope", scope="<permission>"
//	nobody could tell                      503  Retry-After, and no challenge
//
// Why a token is not good is not told: unknown, revoked, expired and used from
// a wrong address look alike. Secrets are taken from the Authorization header
// (and, where [Config.LegacyKeys] says so, from X-Auth-Key), never from the
// query or a form.
//
// # Long requests
//
// A decision is made when a request begins. Whoever goes on for long, such as a
// stream, a WebSocket or a long upload, takes a context from [Bind]: it ends,
// with the cause, when the token is revoked or narrowed, when it expires, and
// when nobody can vouch for it any more.
//
// # Following the events
//
// [Follow] passes what a feed delivers to a [Cache] and an [Enforcer], in order.
// Both also have the two methods themselves, for a process that follows the
// events anyway.
package enforcer
