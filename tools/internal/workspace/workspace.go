// Package workspace finds the checkout that a tool works on, whatever folder
// it is started in.
package workspace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// Module is one module of the workspace.
type Module struct {
	Path string // as imported
	Dir  string // absolute
}

// Root returns the folder of the go.work file that governs dir. An empty dir
// is the current one.
func Root(ctx context.Context, dir string) (string, error) {
	out, err := Go(ctx, dir, "env", "GOWORK")
	if err != nil {
		return "", err
	}
	file := strings.TrimSpace(string(out))
	if file == "" || file == "off" {
		return "", errors.New("no go.work here: run this inside the checkout and without GOWORK=off")
	}
	return filepath.Dir(file), nil
}

// Modules returns the modules of the workspace at root, in the order of go
// list.
func Modules(ctx context.Context, root string) ([]Module, error) {
	out, err := Go(ctx, root, "list", "-m", "-json=Path,Dir")
	if err != nil {
		return nil, err
	}
	return Decode[Module](out)
}

// Go runs the go command in dir and returns its standard output. Its error
// holds what the command said.
func Go(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, errs.Bytes())
	}
	return out.Bytes(), nil
}

// Decode reads the concatenated JSON objects that go list prints.
func Decode[T any](stream []byte) ([]T, error) {
	var all []T
	for d := json.NewDecoder(bytes.NewReader(stream)); ; {
		var v T
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("read go list's output: %w", err)
		}
		all = append(all, v)
	}
}
