// Package introspection answers, over HTTP, whether a secret is good: POST
// /v1/verify for enforcers, which ask about one permission on one resource,
// RFC 7662 for those who speak OAuth, and GET /v1/forward-auth for proxies, which
// ask whether a request may pass; package routes knows what it needs, and package
// extauthz is the same for Envoy.
//
// All rest on a Decider of this process and do no I/O of their own. Every
// enforcer authenticates with its key; secrets come in bodies and never in a
// query. An answer carries the sequence that it rests on; an index that is too
// old to answer says unavailable (503) and never a wrong yes or no.
package introspection
