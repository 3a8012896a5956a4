// Package verifyindex answers whether a secret is good for a request: it maps
// the digest of every secret that was ever handed out to the compiled grant of
// its token, and evaluates the grant from those bytes.
//
// It is the hot path. In resident mode a verification is one SHA-256, one
// look-up in a table without locks and one evaluation, with no allocation and
// no I/O. When the tokens need more memory than Options.MemoryBytes allows, the
// index goes over to disk mode, in which the same bytes are read from Pebble.
//
// # Rows
//
//	a <account>          whether it is there, and when API keys end in it
//	b <account> <user>   nothing: the members of an account
//	c <version>          a catalogue that was published, JSON
//	e <enforcer>         the state of an enforcer, JSON
//	f                    nothing: a token was taken over from another system
//	i <token>            digest of its secret, then that of the previous one
//	                     when there is one
//	k <digest>           whose API key it is, or was
//	l                    what the ledger said of itself when it was opened, JSON
//	m <user> <account>   the user's roles there, JSON
//	n                    how many tokens and secrets there are
//	o <owner> <token>    nothing: the tokens of an owner
//	p <template>         its number here, u32
//	r <key>              the key of what a registered resource lies in
//	s o <owner>          how far a sweep of the owner's tokens reaches, u64;
//	s t <number>         likewise of a template's,
//	s a                  and of all tokens
//	t <digest>           an entry: see below
//	u <user>             whether they are an operator, and their API key's digest
//	x <owner>            nothing: an owner that was removed
//
// # Entries
//
// An entry is the same bytes on disk and in memory, but that in memory the
// digest stands before it. All numbers are little-endian.
//
//	 0  size u32 · version u8 · owner kind u8, with 128 when there is a
//	    template · holdings u8 · 1: the owner is an operator, 2: holds more
//	    than stands here
//	 8  state u64: flags in the low 16 bits, above them the millisecond
//	    (Unix) until which a replaced secret still verifies
//	16  number u64 of the event that created the token
//	24  token, owner: 16 bytes each
//	56  the number of the template that the token was made from, u32, when
//	    there is one
//	…   the compiled grant; of an entry that can never verify again only its
//	    validity
//	…   holdings × (account 16 bytes, number of a role there u16)
//
// Everything but the state stays as it is once readers can see it; the state
// is one word that is written atomically, so that a revocation is one store.
//
// # Who holds what
//
// A token never does more than its owner may. When its policies allow what is
// asked, the root of the resource's chain must be held too: for an account's
// token it is that account, for a user's token an account in which the user
// has a role with that permission, or the user. What a user holds lies in the
// entries of their tokens and is written anew when a membership or an account
// changes. The roles are those of the catalogue that was published last, which
// is one pointer in the view.
//
// A chain that does not begin at a root is looked up where resources are
// registered. Nobody holds what lies in something that is gone, and operators
// hold what nobody is registered for. These look-ups read one snapshot of the
// rows, the entry included: no answer mixes two states.
//
// A user's API key may do what the user holds, until the policy of the account
// ends all keys. A secret that is not of our form is looked up, as
// token.SumForeign says, as soon as one token was taken over from elsewhere.
//
// # What verifies
//
// A token has at most two live secrets: the newest one, and the one before it
// until a grace ends. Secrets that were replaced and tokens that were revoked
// stay known, and the reason for both is revoked: whoever holds such a secret
// once held a good one, and "unknown" would hide that it was taken back.
//
// A sweep revokes any number of tokens by one event. It changes no entry: the
// view has how far the sweeps reach, and a token is revoked whose creation has a
// number up to there. While there was no sweep that is one pointer that is nil;
// else it is two look-ups at most in small maps.
package verifyindex
