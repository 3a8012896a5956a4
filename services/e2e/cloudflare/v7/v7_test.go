package v7

import (
	"os"
	"strings"
	"testing"
)

// TestGenerated checks that v7.go is what `go generate` would write.
func TestGenerated(t *testing.T) {
	source, err := os.ReadFile("../v6/v6.go")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("v7.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(source), "package v6\n")
	want := "// Code generated from v6.go by go generate. DO NOT EDIT.\n\npackage v7\n" + strings.ReplaceAll(body, "v6", "v7")
	if string(got) != want {
		t.Error("v7.go is not made of v6.go: run `go generate ./services/e2e/cloudflare/v7`")
	}
}
