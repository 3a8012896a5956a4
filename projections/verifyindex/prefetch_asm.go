//go:build amd64 || arm64

package verifyindex

import "unsafe"

// prefetch asks for a line of memory, and for those behind it when lines is
// more than one, and waits for none. What is not mapped is passed over.
//
//go:noescape
func prefetch(p unsafe.Pointer, lines int)
