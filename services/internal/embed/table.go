package embed

import (
	"slices"
	"strings"

	wwstream "watchword.dev/events/stream"
	"watchword.dev/events/token"
)

// Role is a kind of credential that an installation has. Each is one nkey.
type Role string

const (
	// Pen appends: the events, the pulse, the keys of personal fields. It
	// answers commands. It can neither change nor remove an event.
	Pen Role = "pen"
	// Node is a management or introspection node: reads events and pulses,
	// sends commands, reads and creates keys of personal fields.
	Node Role = "node"
	// Reader follows the events and nothing else.
	Reader Role = "reader"
	// Monitor asks each server what it holds (JSZ, HEALTHZ), read-only.
	Monitor Role = "monitor"
	// Auth says who else may log in: it answers for those who are enrolled and
	// cuts off those who are not any more. What it says counts only with the
	// signature of Issuer.
	Auth Role = "auth"
	// Operator creates the streams. It exists only during the first start, and
	// in the configuration of a cluster only while ClusterConfig names it. It
	// can create the streams and look at them, not change or delete them.
	Operator Role = "operator"

	// enlarger may change the ledger's stream. It exists only within Start,
	// before anybody can connect, to raise the ledger's cap.
	enlarger Role = "enlarger"

	// Enforcer and Consumer are those who enroll. They have no key of their
	// own in a configuration: Auth vouches for each, by the ledger.
	Enforcer Role = "enforcer"
	Consumer Role = "consumer"
)

// Keys that log in nowhere: with Issuer the answers of Auth are signed, to
// Sealer the servers encrypt their questions. Who has both and Auth can let
// anybody in anywhere: they are worth as much as the servers' configuration.
const (
	Issuer Role = "issuer"
	Sealer Role = "sealer"
)

// Roles are the credentials with which a running installation logs in: all but
// Operator.
func Roles() []Role { return []Role{Pen, Node, Reader, Monitor, Auth} }

// Seeds are all keys that a running installation has.
func Seeds() []Role { return append(Roles(), Issuer, Sealer) }

// The names of the streams and of the bucket of personal keys.
const (
	EventsStream = wwstream.EventsStream
	PulseStream  = wwstream.PulseStream
	KeysBucket   = wwstream.KeysBucket
	KeysStream   = wwstream.KeysStream

	ReceiptsStream = wwstream.ReceiptsStream
	ProgressStream = wwstream.ProgressStream
	UsageStream    = wwstream.UsageStream
)

// The accounts of the streams, where nobody can log in, and the system's.
const (
	accountEvents   = "EVENTS"
	accountPulse    = "PULSE"
	accountKeys     = "KEYS"
	accountReceipts = "RECEIPTS"
	accountProgress = "PROGRESS"
	accountUsage    = "USAGE"
	accountSystem   = "SYS"
)

// owners are the accounts of the streams.
func owners() []string {
	return []string{accountEvents, accountPulse, accountKeys, accountReceipts, accountProgress, accountUsage}
}

// CalloutSubject is where a server asks whether somebody may log in whom its
// configuration does not name.
const CalloutSubject = "$SYS.REQ.USER.AUTH"

// Domain is the JetStream domain of the home.
const Domain = "core"

// verb is what a role does with a subject.
type verb int

const (
	call  verb = iota // publish or ask
	hear              // subscribe to what another account publishes
	serve             // subscribe and answer
)

// use is one row of the permission table: a subject, what is done with it and
// the account that it belongs to.
type use struct {
	verb    verb
	owner   string
	subject string
	many    bool // one request may have several answers
}

// Account is the account in which r logs in, and which owns nothing.
func (r Role) Account() string { return strings.ToUpper(string(r)) }

// InboxPrefixOf is the prefix of the inboxes of one who is enrolled as r.
func (r Role) InboxPrefixOf(id token.ID) string { return "_INBOX_" + id.String() }

// InboxPrefix is the prefix of our own inboxes of r. That no role hears
// another's answers is for the accounts to see to.
func (r Role) InboxPrefix() string { return "_INBOX_" + string(r) }

// uses is the permission table.
func (r Role) uses() []use {
	switch r {
	case Pen:
		return slices.Concat(
			[]use{
				{serve, Pen.Account(), "ww.cmd.>", false},
				{call, accountEvents, "ww.event.>", false},
				{call, accountPulse, "ww.pulse", false},
				// Erasing a person is deleting that person's key, with the bytes
				// overwritten. It reaches the bucket of keys only.
				{call, accountKeys, "$JS.API.STREAM.MSG.DELETE." + KeysStream, false},
			},
			reading(accountEvents, EventsStream), reading(accountPulse, PulseStream),
			hearing(), keys())
	case Node:
		return slices.Concat(
			[]use{
				{call, Pen.Account(), "ww.cmd.>", false},
				{call, accountUsage, wwstream.UsagePrefix + wwstream.NodeReporter + ".*", false},
			},
			reading(accountEvents, EventsStream), reading(accountPulse, PulseStream),
			reading(accountReceipts, ReceiptsStream), reading(accountProgress, ProgressStream),
			reading(accountUsage, UsageStream),
			// On behalf of enforcers that speak HTTP only; the signature of
			// the enforcer is what counts.
			telling(), hearing(), keys())
	case Reader:
		return slices.Concat(reading(accountEvents, EventsStream), hearing())
	case Monitor:
		return []use{
			{call, accountSystem, "$SYS.REQ.SERVER.PING.JSZ", true},
			{call, accountSystem, "$SYS.REQ.SERVER.PING.HEALTHZ", true},
			accountInfo(accountEvents),
		}
	case Auth:
		return []use{
			{serve, Auth.Account(), CalloutSubject, false},
			{call, accountSystem, Connections(Enforcer), true},
			{call, accountSystem, Connections(Consumer), true},
			{call, accountSystem, Kick("*"), false},
			accountInfo(accountEvents),
		}
	case Enforcer:
		return slices.Concat(following(), telling(), []use{{call, accountUsage, wwstream.UsagePrefix + ">", false}})
	case Consumer:
		return following()
	case enlarger:
		return []use{
			{call, accountEvents, "$JS.API.STREAM.INFO." + EventsStream, false},
			{call, accountEvents, "$JS.API.STREAM.UPDATE." + EventsStream, false},
			accountInfo(accountEvents),
		}
	case Operator:
		return slices.Concat(
			creating(accountEvents, EventsStream),
			creating(accountPulse, PulseStream),
			creating(accountKeys, KeysStream),
			creating(accountReceipts, ReceiptsStream),
			creating(accountProgress, ProgressStream),
			creating(accountUsage, UsageStream))
	}
	return nil
}

// reading is what an ordered consumer and a look-up by sequence need.
func reading(owner, name string) []use {
	u := []use{
		{call, owner, "$JS.API.STREAM.INFO." + name, false},
		{call, owner, "$JS.API.STREAM.MSG.GET." + name, false},
		{call, owner, "$JS.API.DIRECT.GET." + name, true},
		{call, owner, "$JS.API.DIRECT.GET." + name + ".>", false},
		{call, owner, "$JS.API.CONSUMER.CREATE." + name + ".>", false},
		{call, owner, "$JS.API.CONSUMER.INFO." + name + ".*", false},
		{call, owner, "$JS.API.CONSUMER.DELETE." + name + ".*", false},
		{call, owner, "$JS.API.CONSUMER.MSG.NEXT." + name + ".*", true},
	}
	if name == EventsStream {
		u = append(u, accountInfo(owner))
	}
	return u
}

// accountInfo is the harmless JetStream account information. An account that
// imports it does not get the server's default import of the whole API, which
// would answer every request a second time with "not enabled for account".
func accountInfo(owner string) use { return use{call, owner, "$JS.API.INFO", false} }

// hearing is the live path: the republished events and pulses.
func hearing() []use {
	return []use{
		{hear, accountEvents, "ww.live.core.>", false},
		{hear, accountPulse, "ww.live.core.pulse", false},
	}
}

// following is the live path, and filling gaps in it by sequence. Nothing is
// made on the server for it.
func following() []use {
	return append(hearing(), use{call, accountEvents, "$JS.API.DIRECT.GET." + EventsStream, true}, accountInfo(accountEvents))
}

// telling is what an enforcer says of itself. Below each of these subjects an
// enforcer has only those with its own id.
func telling() []use {
	return []use{
		{call, accountReceipts, wwstream.ReceiptPrefix + ">", false},
		{call, accountProgress, wwstream.ProgressPrefix + ">", false},
	}
}

// Connections is the subject on which each server lists who is connected as an
// enrolled one of this kind.
func Connections(r Role) string { return "$SYS.REQ.ACCOUNT." + r.Account() + ".CONNZ" }

// Kick is the subject on which a server is told to end a connection.
func Kick(server string) string { return "$SYS.REQ.SERVER." + server + ".KICK" }

// Enrolled are the allow lists of one who is enrolled as r, Enforcer or
// Consumer, and has the id.
//
// All of a kind share an account. A server that answers a request looks up the
// reply subject there, whoever named it: so one can make true answers of the
// server land in the inbox of another whose random name it knows, or on the
// live path, where a follower finds out by sequence and chain.
func Enrolled(r Role, id token.ID) (publish, subscribe []string) {
	subscribe = []string{r.InboxPrefixOf(id) + ".>"}
	for _, u := range r.uses() {
		switch {
		case u.verb == hear:
			subscribe = append(subscribe, u.subject)
		case u.subject == accountInfo(u.owner).subject: // the account's, not theirs
		case strings.HasPrefix(u.subject, "ww."):
			publish = append(publish, strings.TrimSuffix(u.subject, ">")+id.String()+".>")
		default:
			publish = append(publish, u.subject)
		}
	}
	return publish, subscribe
}

// keys is reading and creating keys of personal fields. A key is set once: the
// stream refuses a second message on its subject, so creating cannot overwrite.
func keys() []use {
	return []use{
		{call, accountKeys, "$KV." + KeysBucket + ".*", false},
		{call, accountKeys, "$JS.API.STREAM.INFO." + KeysStream, false},
		{call, accountKeys, "$JS.API.STREAM.MSG.GET." + KeysStream, false},
	}
}

// creating is what the first start needs of one stream.
func creating(owner, name string) []use {
	u := []use{
		{call, owner, "$JS.API.STREAM.CREATE." + name, false},
		{call, owner, "$JS.API.STREAM.INFO." + name, false},
	}
	if name == EventsStream {
		u = append(u, accountInfo(owner))
	}
	return u
}
