package embed

import (
	"slices"
	"strings"

	wwstream "watchword.dev/events/stream"
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
	// Operator creates the streams. It exists only during the first start, and
	// in the configuration of a cluster only while ClusterConfig names it. It
	// can create the three streams and look at them, not change or delete them.
	Operator Role = "operator"

	// enlarger may change the ledger's stream. It exists only within Start,
	// before anybody can connect, to raise the ledger's cap.
	enlarger Role = "enlarger"
)

// Roles are the credentials that a running installation has: all but Operator.
func Roles() []Role { return []Role{Pen, Node, Reader, Monitor} }

// The names of the streams and of the bucket of personal keys.
const (
	EventsStream = wwstream.EventsStream
	PulseStream  = wwstream.PulseStream
	KeysBucket   = wwstream.KeysBucket
	KeysStream   = wwstream.KeysStream
)

// The accounts of the streams, where nobody can log in, and the system's.
const (
	accountEvents = "EVENTS"
	accountPulse  = "PULSE"
	accountKeys   = "KEYS"
	accountSystem = "SYS"
)

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
func (r Role) account() string { return strings.ToUpper(string(r)) }

// InboxPrefix is the prefix of our own inboxes of r. That no role hears
// another's answers is for the accounts to see to.
func (r Role) InboxPrefix() string { return "_INBOX_" + string(r) }

// uses is the permission table.
func (r Role) uses() []use {
	switch r {
	case Pen:
		return slices.Concat(
			[]use{
				{serve, Pen.account(), "ww.cmd.>", false},
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
			[]use{{call, Pen.account(), "ww.cmd.>", false}},
			reading(accountEvents, EventsStream), reading(accountPulse, PulseStream),
			hearing(), keys())
	case Reader:
		return slices.Concat(reading(accountEvents, EventsStream), hearing())
	case Monitor:
		return []use{
			{call, accountSystem, "$SYS.REQ.SERVER.PING.JSZ", true},
			{call, accountSystem, "$SYS.REQ.SERVER.PING.HEALTHZ", true},
			accountInfo(accountEvents),
		}
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
			creating(accountKeys, KeysStream))
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
