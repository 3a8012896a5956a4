package serve

import (
	"fmt"
	"os"
	"sync"
	"time"

	"watchword.dev/services/internal/cli"
)

// progress shows on standard error how far a long job is: a line that is
// written over on a terminal, a line every few seconds elsewhere.
type progress struct {
	app      *cli.App
	what     string
	terminal bool
	began    time.Time

	mu         sync.Mutex
	shown      time.Time
	done, head uint64
}

func newProgress(app *cli.App, what string) *progress {
	p := &progress{app: app, what: what, began: time.Now()}
	if f, ok := app.Err.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			p.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

func (p *progress) update(done, head uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.head = done, head
	every := 5 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if head == 0 || time.Since(p.shown) < every {
		return
	}
	p.shown = time.Now()
	p.print()
}

// print shows the present state. The caller holds mu.
func (p *progress) print() {
	start, end := "", "\n"
	if p.terminal {
		start, end = "\r\x1b[K", ""
	}
	percent := 100.0
	if p.head > 0 {
		percent = 100 * float64(p.done) / float64(p.head)
	}
	rate := float64(p.done) / max(time.Since(p.began).Seconds(), 1e-3)
	fmt.Fprintf(p.app.Err, "%s%s: %d of %d commits, %.0f %%, %.0f/s%s", start, p.what, p.done, p.head, percent, rate, end)
}

// finish ends the line and says how it went.
func (p *progress) finish(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		fmt.Fprint(p.app.Err, "\r\x1b[K")
	}
	if err == nil {
		fmt.Fprintf(p.app.Err, "%s: done, %d commits in %v\n", p.what, p.done, time.Since(p.began).Round(time.Millisecond))
	}
}
