package cli

import (
	"fmt"
	"io"
	"os"
)

// maxInput bounds what is read from standard input.
const maxInput = 16 << 20

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(b) > maxInput {
		err = fmt.Errorf("more than %d bytes", maxInput)
	}
	return b, err
}

// secretFile is a file made before the secret exists, so that a wrong path is
// found before anything is created on the server. A nil secretFile is none.
type secretFile struct{ f *os.File }

func openSecretFile(name string) (*secretFile, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, Fail(ExitLocal, err, "an existing file is never overwritten: choose another name or remove it")
	}
	return &secretFile{f}, nil
}

// write stores the secret and closes the file.
func (s *secretFile) write(secret string) error {
	if s == nil {
		return nil
	}
	_, err := fmt.Fprintln(s.f, secret)
	if err == nil {
		err = s.f.Sync()
	}
	if cerr := s.f.Close(); err == nil {
		err = cerr
	}
	return err
}

// discard removes the file: there is no secret to put into it.
func (s *secretFile) discard() {
	if s == nil {
		return
	}
	s.f.Close()
	os.Remove(s.f.Name())
}
