// Package cloudflare drives the watchword binary with Cloudflare's own Go
// clients, unmodified: one set of tests over what Client says of each of them.
//
// The packages below it adapt the clients, one each. v6 and v7 import the
// client's subpackages only: its root package compiles for two minutes of
// processor time.
package cloudflare
