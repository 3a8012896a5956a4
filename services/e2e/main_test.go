package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"watchword.dev/services/e2e/proc"
)

// deadline bounds everything that a test waits for. It is no promise of speed:
// the machine may be busy with other tests.
const deadline = 90 * time.Second

// What TestMain has prepared.
var (
	binary  string // the watchword binary, in a directory of its own
	userBin string // that directory, with the machine's curl where there is one
)

// TestMain builds the binary once for all tests. Under the name of one of the
// commands this program is that command.
func TestMain(m *testing.M) {
	curl, _ := exec.LookPath("curl")
	testscript.Main(&built{m, curl}, map[string]func(){"curl": curlMain, "nats": natsMain})
}

// built is the tests with the binary around them.
type built struct {
	m    *testing.M
	curl string // the machine's own; it goes before ours
}

// Run implements testscript.TestingM.
func (b *built) Run() int {
	dir, err := os.MkdirTemp("", "watchword-e2e-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if binary, err = proc.Build(ctx, dir); err != nil {
		return complain(err)
	}
	userBin = dir
	if b.curl != "" {
		if err := os.Symlink(b.curl, filepath.Join(dir, "curl")); err != nil {
			return complain(err)
		}
	}
	return b.m.Run()
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
