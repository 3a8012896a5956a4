// Package throttle bounds how often something may happen: requests of one
// principal, requests from one address, wrong credentials.
//
// # What a bound is
//
// A [Limit] is a bucket that holds Quota requests and takes Window to fill: who
// has been quiet may send Quota at once, and Quota in each Window from then on.
// A bucket is one number, the moment at which it is full again (the generic
// cell rate algorithm), computed from the clock when somebody asks. Nothing
// runs in between: there is no timer for a key, and a key that is not asked
// about costs nothing but its place.
//
// golang.org/x/time/rate has the same arithmetic, but a limiter of its own on
// the heap for each key, and leaves to its user how they are found, counted and
// forgotten, which is most of what stands here.
//
// # What is remembered
//
// A [Table] has room for a fixed number of keys, whoever sends what. A key is a
// hash under a seed that is drawn when the process starts and never leaves it:
// no table holds an address, an e-mail address or a piece of a credential, and
// nobody outside can choose two keys that meet. Where room is needed, the
// bucket that is full soonest goes, which is the one that says least: a full
// bucket and one that nobody knows are the same. So a flood of strange keys
// makes a bound more generous, never stricter.
//
// Every node counts for itself: over n nodes a client has up to n times the
// quota.
//
// # Why wrong credentials lock nobody out
//
// [Gate.Wrong] is asked after a credential was looked up and found wrong, never
// before. A good credential is therefore never refused for what others have
// sent, whether from its own address (colleagues behind one NAT) or under its
// own e-mail address (an attacker who knows it): the bound only turns one
// refusal, 401 or 403, into another, 429.
//
// It could have been the other way about: refuse a throttled address before
// looking. That would save one look-up, and hand everybody who shares an
// address or knows an e-mail address a switch to turn others off. The look-up
// is one hash and one read of local memory, the same for good and wrong ones; a
// secret that is not even well formed is refused without it. How often an
// address may ask at all has a bound of its own ([Gate.Address]). And what
// lockouts are made for, guessing, is not to be had here: a secret has at least
// 160 random bits.
package throttle
