// Package terraform replays what Terraform's Cloudflare providers v4 and v5
// asked the watchword binary, against one node, and against two nodes whose
// projections trail the ledger.
//
// The files in testdata were recorded by a proxy between the binary and the
// real thing: Terraform 1.11 with the providers built from their source, each
// step an apply, a plan, an import or a destroy that ended as it should, and
// each plan without changes where nothing had changed outside. They hold the
// requests byte for byte, and the answers with names for what differs from
// run to run.
package terraform
