package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// progressLine shows on a terminal how far a long piece of work is.
type progressLine struct {
	w     io.Writer // nil where nobody looks
	total int

	mu    sync.Mutex
	done  int
	shown time.Time
}

func newProgressLine(w io.Writer, total int) *progressLine {
	p := &progressLine{total: total}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.w = w
		}
	}
	return p
}

// step says that one thing more is done.
func (p *progressLine) step() {
	p.mu.Lock()
	p.done++
	done := p.done
	p.mu.Unlock()
	p.at(done, fmt.Sprintf("%d of %d", done, p.total))
}

// at shows that so much of the total is done, in words beside the bar.
func (p *progressLine) at(done int, words string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil || time.Since(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = time.Now()
	const width = 30
	full := min(width*done/max(p.total, 1), width)
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), words)
}

// end takes the line away. There may have been none.
func (p *progressLine) end() {
	if p != nil && p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
