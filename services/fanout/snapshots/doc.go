// Package snapshots serves the verification index to enforcing services that
// begin: GET /v1/snapshot, in the form that package projector/snapshot describes.
//
// A snapshot is taken when somebody asks and the newest is too old, and is kept
// for a while after its last reader: one that loses the connection goes on where
// it was, by Range and If-Range. On disk it costs what the index has rewritten
// since, in memory one buffer for each reader.
package snapshots
