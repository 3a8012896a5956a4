// Package sse follows the ledger over HTTP, for programs without NATS: it is
// the client of GET /v1/feed, whose answer is a stream of server-sent events.
//
//	r, err := sse.New(sse.Config{URL: "https://watchword.example", Key: key})
//	err = r.Read(ctx, checkpoint, apply)
//
// # The stream
//
// The first event says where in the ledger the answer begins; a reader compares
// the chain with what it has read there. Then comes each commit, its lines as
// they are stored, so that a reader checks sequence, number, epoch and chain for
// itself; and in between, each second, the pen's signed pulse, or a comment when
// there is none:
//
//	event: position
//	data: {"epoch":1,"sequence":41,"number":57,"chain":"9f86d0…","time":"…","head":42,"pulse_key":"…"}
//
//	id: 1-42
//	data: {"specversion":"1.0","id":"…
//	data: {"specversion":"1.0","id":"…
//
//	event: pulse
//	data: {"term":3,"epoch":1,"sequence":42,…,"signature":"…"}
//
// The id is the epoch and the sequence. A client resumes by sending the last one
// back, as Last-Event-ID or as the parameter after. 410 says that the ledger is
// not the one that the id comes from.
package sse
