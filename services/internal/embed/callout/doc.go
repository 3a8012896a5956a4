// Package callout lets those log in to NATS who are enrolled in the ledger, and
// ends their connections when they are retired.
//
// The configuration of the servers names the installation's own roles and
// nobody else. About every other login a server asks on embed.CalloutSubject,
// encrypted to embed.Sealer, and any node with a directory may answer. A Service
// checks that the client has the private half of its nkey, finds the nkey in the
// directory, and answers with a short-lived JWT, signed with embed.Issuer: the
// account of the kind, the enrolled one's own allow lists (embed.Enrolled), and
// its id as the name under which the server shows it. Everything else is refused
// with one text: a stranger, a retired one, a node that does not know whether it
// is up to date.
//
// A server waits two seconds for an answer. Without one nobody new gets in;
// who is connected stays connected until the JWT ends, within the hour.
//
// # Retirement
//
// Sweep ends every connection whose holder may not log in any more: all servers
// list the connections of the two accounts, and the holders are looked up in the
// directory. The caller sweeps when the directory has applied a retirement, and
// from time to time for what slips through: a login that was answered just
// before, a server that was slow to list, a node that was down.
package callout
