package web

import (
	"bytes"
	"errors"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
)

// MaxDepth is how deep the JSON of a request may nest.
const MaxDepth = 32

// Unmarshal decodes the JSON of a request into dst. It refuses duplicate
// members, invalid UTF-8 and deep nesting; members that dst does not know are
// ignored, as Cloudflare does.
func Unmarshal(b []byte, dst any) error {
	if len(bytes.TrimLeft(b, " \t\r\n")) == 0 {
		return fault.New(fault.MissingBody)
	}
	if TooDeep(b) {
		return fault.New(fault.TooDeep)
	}
	err := json.Unmarshal(b, dst)
	if err == nil {
		return nil
	}
	// The cause is dropped on purpose: it may quote the body.
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return fault.New(fault.DuplicateKey)
	}
	out := fault.New(fault.InvalidJSON)
	if sem, ok := errors.AsType[*json.SemanticError](err); ok {
		// dst knows the member, so its name is one of ours.
		out = out.WithPointer(fault.Pointer(sem.JSONPointer))
	}
	return out
}

// TooDeep reports whether b nests deeper than MaxDepth. It counts brackets
// outside of strings, so it is right for every valid text; others fail later.
func TooDeep(b []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
