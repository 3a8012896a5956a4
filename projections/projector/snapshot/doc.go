// Package snapshot carries the store of a projection to another machine, so that
// a new region or enforcing service does not read the ledger from its beginning.
//
// # The stream
//
// A snapshot is one stream of bytes: a line with a manifest, and then the files
// that it names, one behind the other:
//
//	{"format":1,"projection":"verifyindex","version":3,
//	 "position":{"epoch":1,"sequence":41,"number":57,"chain":"<sha-256>","time":"…"},
//	 "files":[{"name":"000012.sst","size":1048576,"sha256":"…"},…],"digest":"<sha-256>"}
//
// (broken here for reading). The digest is that of the manifest without it, so
// that it covers all. The bytes of one snapshot never change: whoever has lost
// the connection goes on where it was.
//
// # What it proves
//
// Load refuses what is not, byte for byte, what was taken. Whether what was taken
// is true is known from elsewhere: the sender is somebody who is trusted to
// decide, and the first commit that is read afterwards, and each pulse, must fit
// the position.
package snapshot
