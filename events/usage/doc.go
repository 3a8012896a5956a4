// Package usage counts what credentials are used for, where they are verified,
// and tells it in reports.
//
// Whoever verifies holds a [Recorder] and counts each decision in a [Lane] of
// it: no allocation, no waiting for others, memory that is set at the start. A
// [Sender] empties the recorder every few seconds and hands reports to a
// [Publisher]. What cannot be delivered is kept, within bounds, and delivered
// later; what had no room is counted as lost.
//
// # The report
//
// A report is one JSON object, at most [MaxBytes] long, on the subject
// ww.usage.<reporter>.<instance>. Everything in it is an aggregate: no secret,
// no address, no name of a person.
//
//	{"v":1,"reporter":"node","instance":"k3f…","number":7,
//	 "from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:10Z","lost":2,
//	 "rows":[{"credential":"…","kind":"user_token","permission":"dns.records.write",
//	          "resource_type":"com.cloudflare.api.account.zone","result":"allowed","count":12}]}
//
// reporter is "node" for a node of Watchword and an enforcer's id for that
// enforcer. instance is one run of the reporter's program, and number counts its
// reports from 1 in the order in which they are published: whoever adds up takes
// a report only when its number is higher than the last one of that instance, so
// that a repeat counts once. from and to bound the window in which the uses fell;
// it lies within one minute unless the reporter was late. lost is how many uses
// had no room.
//
// A row is a credential (a token's id; for API keys the id of the user), its
// kind, the permission that was asked for, the type of the innermost resource,
// and what came of it: allowed; refused when the credential was good and not for
// that; rejected when the credential itself was not good, such as a revoked one
// or one from a wrong address. Permissions and types that the catalogue does not
// hold are left out. For API keys, which have no policies that tell it, rows also
// have resource_id, and account when the chain began with one.
//
// Decoding is strict: what is unknown, doubled, out of bounds or in another
// version is refused. A later form gets another number in v.
package usage
