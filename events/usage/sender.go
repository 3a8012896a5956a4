package usage

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Publisher delivers a report durably, or returns an error: then it may have
// been delivered or not, and is delivered again.
type Publisher interface {
	Publish(ctx context.Context, subject string, report []byte) error
}

// SenderConfig is what a Sender needs. Recorder and Publisher must be set.
type SenderConfig struct {
	Recorder  *Recorder
	Publisher Publisher
	// Reporter is Node, or the id of an enforcer.
	Reporter string
	// Every is how often the recorder is emptied; 4 s when zero. Windows end
	// at multiples of it, so that one of a minute's divisor crosses no minute.
	Every time.Duration
	// Backlog is how many rows are kept while nothing can be delivered;
	// 100,000 when zero.
	Backlog int
	Log     *slog.Logger // nil discards
}

// Sender empties a Recorder and delivers what was counted, once.
type Sender struct {
	cfg      SenderConfig
	instance string
	number   uint64

	ready   []Report // cut, the first of them perhaps delivered already
	backlog []Window
	kept    int // rows in backlog

	sent, failed, lost atomic.Uint64
}

// The pace of a Sender that cannot keep its own.
const (
	soonest     = time.Second // between two windows when the recorder is full
	publishTime = 5 * time.Second
	farewell    = 3 * time.Second // to deliver the last reports at the end
)

// NewSender returns a sender for a new instance of its reporter.
func NewSender(cfg SenderConfig) *Sender {
	if cfg.Every <= 0 {
		cfg.Every = 4 * time.Second
	}
	if cfg.Backlog <= 0 {
		cfg.Backlog = 100_000
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Sender{cfg: cfg, instance: strings.ToLower(rand.Text())}
}

// Stats are what a Sender has done.
type Stats struct {
	Sent   uint64 // reports that were delivered
	Failed uint64 // deliveries that failed; each was tried again
	Lost   uint64 // uses that had no room
}

// Stats returns the figures of this moment.
func (s *Sender) Stats() Stats {
	return Stats{Sent: s.sent.Load(), Failed: s.failed.Load(), Lost: s.lost.Load()}
}

// Run sends until ctx ends, and then what is left, within a few seconds.
func (s *Sender) Run(ctx context.Context) {
	for {
		now := s.cfg.Recorder.o.Now()
		timer := time.NewTimer(now.Truncate(s.cfg.Every).Add(s.cfg.Every).Sub(now))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
			defer cancel()
			s.Send(last)
			return
		case <-s.cfg.Recorder.Full():
			timer.Stop()
			s.Send(ctx)
			select {
			case <-time.After(soonest):
			case <-ctx.Done():
			}
			continue
		}
		s.Send(ctx)
	}
}

// Send empties the recorder and delivers as much as can be delivered now. It is
// what Run calls; nobody else may meanwhile.
func (s *Sender) Send(ctx context.Context) {
	s.keep(s.cfg.Recorder.Drain())
	for {
		if len(s.ready) == 0 && !s.cut() {
			return
		}
		if err := s.deliver(ctx, &s.ready[0]); err != nil {
			s.failed.Add(1)
			s.cfg.Log.Warn("a report of usage was not delivered; it is kept", "error", err, "rows", s.kept)
			return
		}
		s.sent.Add(1)
		s.ready = s.ready[1:]
	}
}

func (s *Sender) deliver(ctx context.Context, r *Report) error {
	b, err := r.Encode()
	if err != nil {
		// It would never be taken. What it holds is not what was meant.
		s.cfg.Log.Error("a report of usage cannot be written", "error", err)
		s.lost.Add(r.uses())
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	return s.cfg.Publisher.Publish(ctx, r.Subject(), b)
}

func (r *Report) uses() (n uint64) {
	for i := range r.Rows {
		n += r.Rows[i].Count
	}
	return n
}

// keep adds a window to those that wait: to the last one when both are of the
// same minute. When there are too many rows the oldest windows are lost.
func (s *Sender) keep(w Window) {
	s.lost.Add(w.Lost)
	if len(w.Rows) == 0 && w.Lost == 0 {
		return
	}
	if n := len(s.backlog); n > 0 && s.backlog[n-1].From.Truncate(time.Minute).Equal(w.From.Truncate(time.Minute)) {
		last := &s.backlog[n-1]
		s.kept -= len(last.Rows)
		for what, count := range w.Rows {
			last.Rows[what] += count
		}
		last.To, last.Lost = w.To, last.Lost+w.Lost
		s.kept += len(last.Rows)
	} else {
		s.backlog, s.kept = append(s.backlog, w), s.kept+len(w.Rows)
	}
	for len(s.backlog) > 1 && s.kept > s.cfg.Backlog {
		old := s.backlog[0]
		s.backlog, s.kept = s.backlog[1:], s.kept-len(old.Rows)
		lost := uint64(0)
		for _, count := range old.Rows {
			lost += count
		}
		s.lost.Add(lost)
		s.backlog[0].Lost += old.Lost + lost
	}
}

// cut makes reports of the oldest window that waits, if one does.
func (s *Sender) cut() bool {
	if len(s.backlog) == 0 {
		return false
	}
	w := s.backlog[0]
	s.backlog, s.kept = s.backlog[1:], s.kept-len(w.Rows)
	rows := make([]Row, 0, len(w.Rows))
	for what, count := range w.Rows {
		rows = append(rows, Row{what, min(count, maxCount)})
	}
	slices.SortFunc(rows, func(a, b Row) int { return a.compare(&b.What) })
	from, to := w.From.UTC().Truncate(time.Millisecond), w.To.UTC().Truncate(time.Millisecond)
	if to.Sub(from) > MaxWindow {
		from = to.Add(-MaxWindow) // the machine slept
	}
	for first := true; first || len(rows) > 0; first = false {
		n := min(len(rows), MaxRows)
		s.number++
		r := Report{
			Reporter: s.cfg.Reporter, Instance: s.instance, Number: s.number, From: from, To: to, Rows: rows[:n:n],
		}
		if first {
			r.Lost = min(w.Lost, maxCount)
		}
		rows = rows[n:]
		s.ready = append(s.ready, r)
	}
	return true
}

func (a *What) compare(b *What) int {
	return cmp.Or(a.Credential.Compare(b.Credential), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Permission, b.Permission),
		cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID), a.Account.Compare(b.Account), cmp.Compare(a.Result, b.Result))
}
