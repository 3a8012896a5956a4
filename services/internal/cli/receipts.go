package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

// receiptsView says who has heard of what was done to a token.
type receiptsView struct {
	TokenID string `json:"token_id"`
	Event   *struct {
		Type     string    `json:"type"`
		Sequence uint64    `json:"sequence"`
		Time     time.Time `json:"time"`
	} `json:"event"`
	Complete   bool      `json:"complete"`
	Why        string    `json:"why"`
	CompleteBy time.Time `json:"complete_by"`
	Heard      int       `json:"heard"`
	Waiting    int       `json:"waiting"`
	Millis     *struct {
		P50 int64 `json:"p50"`
		P90 int64 `json:"p90"`
		P99 int64 `json:"p99"`
		Max int64 `json:"max"`
	} `json:"milliseconds"`
	Instances []struct {
		Name         string    `json:"name"`
		Region       string    `json:"region"`
		Instance     string    `json:"instance"`
		State        string    `json:"state"`
		Milliseconds *int64    `json:"milliseconds"`
		NotSince     time.Time `json:"not_since"`
		LeaseEndsOn  time.Time `json:"lease_ends_on"`
	} `json:"instances"`
	LeftOff int `json:"left_off"`
}

// whyTexts are the reasons in words.
var whyTexts = map[string]string{
	"all_heard":       "every live instance refuses it",
	"bound_over":      "whoever has not heard answers nothing any more",
	"waiting":         "somebody has not heard yet",
	"new_epoch":       "an instance may still follow the ledger of before the promotion",
	"not_caught_up":   "the server has not read all receipts yet",
	"nothing_to_hear": "nothing was taken from this token yet",
}

// summary is the state in one line.
func (r *receiptsView) summary() string {
	text := fmt.Sprintf("%d of %d have heard", r.Heard, r.Heard+r.Waiting)
	if r.Millis != nil {
		text += fmt.Sprintf(", the slowest after %d ms", r.Millis.Max)
	}
	if r.Waiting > 0 && len(r.Instances) > 0 {
		text += fmt.Sprintf(", waiting for %s", terminalSafe(r.Instances[0].Name+" "+r.Instances[0].Instance))
	}
	return text
}

func (a *App) tokenReceiptsCommand(f *tokenFlags) *cobra.Command {
	var sequence uint64
	cmd := &cobra.Command{Use: "receipts ID", Short: "Say who has heard of a token's revocation, or of another change", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			path := f.base() + "/" + url.PathEscape(args[0]) + "/receipts"
			if sequence > 0 {
				path += fmt.Sprintf("?sequence=%d", sequence)
			}
			var raw jsontext.Value
			if err := c.call(cmd.Context(), http.MethodGet, path, nil, &raw); err != nil {
				return err
			}
			return a.printReceipts(raw)
		}}
	cmd.Flags().Uint64Var(&sequence, "sequence", 0, "of the event at this sequence instead of the newest")
	return cmd
}

// printReceipts prints who has heard: the server's own words with -o json, a
// table else.
func (a *App) printReceipts(raw jsontext.Value) error {
	if asJSON, err := a.json(); asJSON || err != nil {
		return errors.Join(err, a.printJSON(raw))
	}
	var r receiptsView
	if err := json.Unmarshal(raw, &r); err != nil {
		return Fail(ExitRemote, fmt.Errorf("the server's answer does not fit: %w", err))
	}
	if r.Event == nil {
		fmt.Fprintln(a.Out, whyTexts[r.Why])
		return nil
	}
	rows := make([][]string, 0, len(r.Instances))
	for _, i := range r.Instances {
		took, note := "", ""
		switch {
		case i.Milliseconds != nil:
			took = fmt.Sprintf("%d ms", *i.Milliseconds)
		case i.State == "waiting":
			note = fmt.Sprintf("not since %s; its lease ends %s", clock(i.NotSince), clock(i.LeaseEndsOn))
		case !i.NotSince.IsZero():
			note = "last heard of " + clock(i.NotSince)
		}
		rows = append(rows, []string{terminalSafe(i.Name), terminalSafe(i.Region), terminalSafe(i.Instance), strings.ReplaceAll(i.State, "_", " "), took, note})
	}
	if err := a.table([]string{"ENFORCER", "REGION", "INSTANCE", "STATE", "TOOK", ""}, rows); err != nil {
		return err
	}
	if r.LeftOff > 0 {
		fmt.Fprintf(a.Out, "and %d more\n", r.LeftOff)
	}
	verdict := "not complete"
	if r.Complete {
		verdict = "complete"
	}
	fmt.Fprintf(a.Out, "%s at sequence %d, %s: %s\n", strings.TrimPrefix(terminalSafe(r.Event.Type), "watchword."), r.Event.Sequence, verdict, whyTexts[r.Why])
	if m := r.Millis; m != nil {
		fmt.Fprintf(a.Out, "p50 %d ms, p90 %d ms, p99 %d ms, slowest %d ms\n", m.P50, m.P90, m.P99, m.Max)
	}
	if !r.Complete && !r.CompleteBy.IsZero() {
		fmt.Fprintf(a.Out, "complete by %s at the latest\n", clock(r.CompleteBy))
	}
	return nil
}

// clock writes a time, and its day when that is not today.
func clock(t time.Time) string { return clockAt(t.Local(), time.Now()) }

func clockAt(t, now time.Time) string {
	if t.Format(time.DateOnly) == now.In(t.Location()).Format(time.DateOnly) {
		return t.Format("15:04:05.000")
	}
	return t.Format("2006-01-02 15:04:05")
}

// receiptPoll is how long the server holds an answer back that is not complete
// yet; the line moves as often.
const receiptPoll = 250 * time.Millisecond

// awaitReceipts shows who has heard until all have, or timeout is over, and
// prints the end of it.
func (a *App) awaitReceipts(ctx context.Context, c *client, path string, timeout time.Duration) error {
	line := a.newLine()
	deadline, first := time.Now().Add(timeout), "?"
	if strings.Contains(path, "?") {
		first = "&"
	}
	for {
		left := time.Until(deadline)
		query := ""
		if left > 0 {
			query = first + "wait=receipts&timeout=" + min(left, receiptPoll).Round(time.Millisecond).String()
		}
		if left > 0 && left < time.Millisecond {
			query = ""
		}
		var raw jsontext.Value
		if err := c.call(ctx, http.MethodGet, path+query, nil, &raw); err != nil {
			if s, ok := errors.AsType[*statusError](err); ok && s.status == http.StatusServiceUnavailable && left > receiptPoll {
				line.show("the server is still busy with it")
				if err := pause(ctx, receiptPoll); err == nil {
					continue
				}
			}
			line.end()
			return err
		}
		var r receiptsView
		if err := json.Unmarshal(raw, &r); err != nil {
			line.end()
			return Fail(ExitRemote, fmt.Errorf("the server's answer does not fit: %w", err))
		}
		line.show(r.summary())
		if r.Complete || left <= 0 || query == "" {
			line.end()
			if err := a.printReceipts(raw); err != nil || r.Complete {
				return err
			}
			return Fail(ExitTimeout, fmt.Errorf("not everybody has heard within %v", timeout), "the revocation itself is done; `watchword token receipts` goes on telling")
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// line is one line on standard error that is written over; without a terminal
// nothing is shown.
type line struct {
	app      *App
	terminal bool
}

func (a *App) newLine() *line {
	l := &line{app: a}
	if f, ok := a.Err.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			l.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return l
}

func (l *line) show(text string) {
	if l.terminal {
		fmt.Fprintf(l.app.Err, "\r\x1b[K%s", text)
	}
}

func (l *line) end() { l.show("") }

// instanceView is one process of an enforcing service.
type instanceView struct {
	Instance string    `json:"instance"`
	Region   string    `json:"region,omitzero"`
	State    string    `json:"state"`
	Sequence uint64    `json:"sequence"`
	Epoch    uint32    `json:"epoch"`
	Lag      uint64    `json:"lag"`
	Applied  time.Time `json:"applied_on"`
	First    time.Time `json:"first_seen_on,omitzero"`
	Last     time.Time `json:"last_seen_on"`
	Silent   float64   `json:"silent_seconds"`
	Lease    time.Time `json:"lease_ends_on"`
	Bound    float64   `json:"bound_seconds"`
	Skew     float64   `json:"skew_seconds"`
	Reader   int       `json:"reader"`
}

// live counts the instances that follow the ledger.
func (e *enforcerView) live() (n int) {
	for _, i := range e.Instances {
		if i.State == "live" {
			n++
		}
	}
	return n
}

func (a *App) enforcerShowCommand() *cobra.Command {
	return &cobra.Command{Use: "show {NAME|ID}", Aliases: []string{"get"}, Short: "Show an enforcing service and its instances", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.enforcers(cmd.Context())
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(e enforcerView) bool { return e.ID != args[0] && e.Name != args[0] })
			if len(all) == 0 {
				return Fail(ExitRemote, fmt.Errorf("there is no enforcer %q", args[0]), "`watchword enforcer list` names them")
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(all))
			}
			for _, e := range all {
				fmt.Fprintf(a.Out, "id        %s\nname      %s\nstatus    %s\nenrolled  %s\n", e.ID, terminalSafe(e.Name), e.Status, stamp(e.EnrolledOn))
				if err := a.instanceTable([]enforcerView{e}); err != nil {
					return err
				}
			}
			return nil
		}}
}

func (a *App) enforcerLagCommand() *cobra.Command {
	return &cobra.Command{Use: "lag", Short: "Say how far each live instance is behind the ledger, the slowest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.enforcers(cmd.Context())
			if err != nil {
				return err
			}
			for i := range all {
				all[i].Instances = slices.DeleteFunc(all[i].Instances, func(n instanceView) bool { return n.State != "live" })
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(all))
			}
			return a.instanceTable(all)
		}}
}

// enforcers asks for all of them.
func (a *App) enforcers(ctx context.Context) ([]enforcerView, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	all := []enforcerView{}
	return all, c.call(ctx, http.MethodGet, "/v1/enforcers", nil, &all)
}

// instanceTable prints instances, who is furthest behind first.
func (a *App) instanceTable(all []enforcerView) error {
	type row struct {
		name string
		instanceView
	}
	var rows []row
	for _, e := range all {
		for _, i := range e.Instances {
			rows = append(rows, row{e.Name, i})
		}
	}
	slices.SortStableFunc(rows, func(x, y row) int {
		return cmp.Or(cmp.Compare(y.Lag, x.Lag), cmp.Compare(y.Silent, x.Silent))
	})
	text := make([][]string, 0, len(rows))
	for _, r := range rows {
		text = append(text, []string{
			terminalSafe(r.name), terminalSafe(r.Region), terminalSafe(r.Instance), strings.ReplaceAll(r.State, "_", " "), fmt.Sprint(r.Sequence), fmt.Sprint(r.Lag),
			fmt.Sprintf("%.1f s ago", r.Silent), fmt.Sprintf("%g s", r.Bound),
		})
	}
	return a.table([]string{"ENFORCER", "REGION", "INSTANCE", "STATE", "SEQUENCE", "LAG", "HEARD", "BOUND"}, text)
}
