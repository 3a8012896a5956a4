// Package management is the HTTP API by which people and programs manage
// tokens: Cloudflare's /client/v4 surface, which unmodified clients of that API
// use with only the base URL changed, and Watchword's additions to it.
//
// Its handlers are thin. A read asks the authority for the head of the ledger,
// waits until the directory has reached it, and only then authenticates,
// authorises and answers: so it sees every write that was acknowledged before
// it, on whatever node. A write makes ids and secrets here, sends a command
// that holds the secret's digest only, and shows the secret once, in its
// answer.
package management
