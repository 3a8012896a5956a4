package snapshot

// Forge returns a manifest of empty files, right in itself.
func Forge(names ...string) []byte {
	m := Manifest{Format: Format, Projection: "rows", Version: 2}
	for _, n := range names {
		m.Files = append(m.Files, File{Name: n, SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"})
	}
	return must(m.line())
}

// Moved returns the manifest of s with another sequence, right in itself.
func Moved(s *Snapshot, seq uint64) []byte {
	m := s.Manifest
	m.Position.Sequence = seq
	return must(m.line())
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
