package web

import (
	"errors"
	"strings"
	"testing"

	"watchword.dev/events/fault"
)

func TestUnmarshal(t *testing.T) {
	type thing struct {
		Name  string            `json:"name"`
		Inner map[string]string `json:"inner"`
	}
	deep := func(n int) string { return `{"x":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}` }
	for name, c := range map[string]struct {
		in      string
		err     error
		pointer fault.Pointer
	}{
		"good":                     {in: `{"name":"a"}`},
		"strangers are ignored":    {in: `{"name":"a","more":{"b":[1,2]}}`},
		"null":                     {in: `{"name":null,"inner":null}`},
		"empty":                    {in: ``, err: fault.MissingBody},
		"blank":                    {in: " \r\n\t", err: fault.MissingBody},
		"broken":                   {in: `{"name":`, err: fault.InvalidJSON},
		"more behind it":           {in: `{"name":"a"}{}`, err: fault.InvalidJSON},
		"not UTF-8":                {in: "{\"name\":\"\xff\"}", err: fault.InvalidJSON},
		"a comment":                {in: `{"name":"a"/**/}`, err: fault.InvalidJSON},
		"wrong type":               {in: `{"name":7}`, err: fault.InvalidJSON, pointer: "/name"},
		"wrong type inside":        {in: `{"inner":{"a":1}}`, err: fault.InvalidJSON, pointer: "/inner/a"},
		"twice":                    {in: `{"name":"a","name":"b"}`, err: fault.DuplicateKey},
		"twice, spelled otherwise": {in: `{"name":"a","n\u0061me":"b"}`, err: fault.DuplicateKey},
		"twice in a stranger":      {in: `{"more":{"a":1,"a":2}}`, err: fault.DuplicateKey},
		"deep as allowed":          {in: deep(MaxDepth)},
		"too deep":                 {in: deep(MaxDepth + 1), err: fault.TooDeep},
		"brackets in a string":     {in: `{"name":"` + strings.Repeat("[{", 100) + `\""}`},
	} {
		t.Run(name, func(t *testing.T) {
			var v thing
			err := Unmarshal([]byte(c.in), &v)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil && fault.From(err).Pointer != c.pointer {
				t.Errorf("pointer %q, want %q", fault.From(err).Pointer, c.pointer)
			}
		})
	}
}

func FuzzTooDeep(f *testing.F) {
	f.Add(`{"a":[[]]}`)
	f.Add(`"\\"[`)
	f.Add(strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth))
	f.Fuzz(func(t *testing.T, s string) {
		var v any
		err := Unmarshal([]byte(s), &v)
		if err == nil && depthOf(v) > MaxDepth {
			t.Errorf("%q is deeper than %d and was taken", s, MaxDepth)
		}
	})
}

func depthOf(v any) int {
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
	case []any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
	default:
		return 0
	}
	return deepest + 1
}

func TestText(t *testing.T) {
	for s, want := range map[string]bool{
		"dns deployer": true, "": false, " \t": false, "a\nb": false, "a\rb": false, "a\x00b": false, "a\x7fb": false,
		"a\u0085b": false, "a\u2028b": false, "\xff": false, "Zürich 東京 🔑": true,
		strings.Repeat("ü", MaxName): true, strings.Repeat("ü", MaxName+1): false,
	} {
		if got := ValidName(s); got != want {
			t.Errorf("ValidName(%q) = %v", s, got)
		}
	}
}
