// Package serve wires the rooms of Watchword into one running process: the
// embedded or remote NATS, the ledger, the projections, the pen, and HTTP.
//
// Every part is a library with a configuration of its own; this package only
// decides which of them run, in which order they start and stop, and what the
// process says of itself in /livez, /readyz and /metrics.
package serve
