// Package cloudflare drives the watchword binary with Cloudflare's own Go
// client, unmodified. It imports the client's subpackages only: the client's
// root package compiles for two minutes of processor time.
package cloudflare
