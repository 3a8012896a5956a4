// Package wrangler runs Cloudflare's command line, unmodified, against the
// watchword binary. npm installs it as testdata/package-lock.json pins it,
// together with the version of Node that it needs.
package wrangler
