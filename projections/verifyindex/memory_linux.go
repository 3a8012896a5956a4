package verifyindex

import (
	"runtime"
	"syscall"
	"unsafe"
)

// hugePage is the alignment at which the kernel can back memory by huge pages.
const hugePage = 2 << 20

// madvHugepage asks for huge pages; the syscall package does not name it.
const madvHugepage = 14

// allocate returns n zeroed bytes outside of the Go heap, backed by huge pages
// where the kernel has them: the table is larger than what the small pages'
// TLB reaches, and a miss there costs as much as a miss of the cache. Once
// nobody holds the block any more they are given back.
func allocate(n int) (*block, error) {
	if n < hugePage {
		return allocateHeap(n), nil
	}
	raw, err := syscall.Mmap(-1, 0, n+hugePage, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(raw)))) & (hugePage - 1)
	mem := raw[skip : skip+n : skip+n]
	// Without huge pages everything works, only slower.
	_ = syscall.Madvise(mem, madvHugepage)
	b := &block{mem: mem}
	runtime.AddCleanup(b, func(raw []byte) { _ = syscall.Munmap(raw) }, raw)
	return b, nil
}
