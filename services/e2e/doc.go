// Package e2e tests the watchword binary as a binary: scripts of a terminal
// (testdata/script), bad input over HTTP, kills and shutdowns. Its neighbour
// cloudflare drives it with Cloudflare's own client.
package e2e
