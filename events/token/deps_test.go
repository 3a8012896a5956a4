package token_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImportsLittle: whoever imports this package gets these modules and no
// others.
func TestImportsLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	allowed := []string{
		"github.com/go-json-experiment/json", "github.com/oklog/ulid/v2", "go4.org/netipx",
		"watchword.dev/events/catalogue", "watchword.dev/events/token",
	}
	for _, path := range strings.Fields(string(out)) {
		if !slices.ContainsFunc(allowed, func(a string) bool { return path == a || strings.HasPrefix(path, a+"/") }) {
			t.Errorf("depends on %s", path)
		}
	}
}
