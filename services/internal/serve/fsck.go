package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	json "github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"watchword.dev/projections/directory"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/cli"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/fsck"
)

func fsckCommand(app *cli.App) *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use: "fsck", Short: "Check the ledger, its chain, and the projections against it", Args: cobra.NoArgs,
		Long: `Read the whole ledger and check that nothing is missing and that every event
follows from the one before it; then build each projection anew and compare it row by
row with the one that serves. Nothing is changed. The usage of credentials does not
come from the ledger and is not checked; "watchword rebuild usage" builds it anew.

With a running server the work is done there. Without one it is done here, on a
copy of the ledger that needs as much room on the same disk. The exit code is 0 when nothing is wrong, and 5 otherwise.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := app.JSON()
			if err != nil {
				return err
			}
			show := newProgress(app, "fsck")
			report, err := check(cmd.Context(), app, data, show)
			show.finish(err)
			if err != nil {
				return err
			}
			return showReport(app, report, asJSON)
		},
	}
	bindData(cmd.Flags(), &data)
	return cmd
}

// check checks a data directory, by itself or by the server that uses it.
func check(ctx context.Context, app *cli.App, data string, show *progress) (fsck.Report, error) {
	var report fsck.Report
	o, err := openOffline(ctx, data)
	if errors.Is(err, embed.ErrLocked) {
		j, err := upkeepOver(ctx, app, data, "/v1/upkeep/fsck", show)
		if err != nil {
			return report, err
		}
		return report, json.Unmarshal(j.Result, &report)
	}
	if err != nil {
		return report, err
	}
	defer o.close()
	d, x := o.n.directoryParts(), o.n.indexParts()
	ddir, err := d.home.Current()
	if err != nil {
		return report, err
	}
	xdir, err := x.home.Current()
	if err != nil {
		return report, err
	}
	scratch, remove, err := o.n.scratch()
	if err != nil {
		return report, err
	}
	defer remove()
	vouched, err := o.n.vouched(ctx)
	if err != nil {
		return report, err
	}
	report, err = fsck.Check(ctx, fsck.Config{
		Ledger: o.n.ledger, Scratch: filepath.Join(scratch, "anew"), Progress: show.update,
		Stores: []fsck.Store{{Kind: fsck.Directory(), Dir: ddir}, {Kind: fsck.Index(int64(o.n.cfg.IndexMemory)), Dir: xdir}},
	})
	holdAgainst(vouched, &report)
	return report, err
}

// fsck checks the running node.
func (n *node) fsck(ctx context.Context, progress func(done, head uint64)) (any, error) {
	scratch, remove, err := n.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	vouched, err := n.vouched(ctx)
	if err != nil {
		return nil, err
	}
	report, err := fsck.Check(ctx, fsck.Config{
		Ledger: n.ledger, Scratch: filepath.Join(scratch, "anew"), Progress: progress,
		Stores: []fsck.Store{
			{Kind: fsck.Directory(), Dir: filepath.Join(scratch, directory.Name), Live: n.directory.get().Store()},
			{Kind: fsck.Index(int64(n.cfg.IndexMemory)), Dir: filepath.Join(scratch, verifyindex.Name), Live: n.index.get()},
		},
	})
	holdAgainst(vouched, &report)
	return report, err
}

// vouched returns the sequence for which the pen's newest pulse vouches.
func (n *node) vouched(ctx context.Context) (uint64, error) {
	b, _, err := n.ledger.LastPulse(ctx)
	if err != nil || b == nil {
		return 0, err
	}
	var newest struct {
		Sequence uint64 `json:"sequence"`
	}
	if err := json.Unmarshal(b, &newest); err != nil {
		return 0, fmt.Errorf("the newest pulse of the pen cannot be read: %w", err)
	}
	return newest.Sequence, nil
}

// holdAgainst compares the end of the ledger with what a pulse from before the
// check vouches for: a ledger that has lost its end looks whole by itself.
func holdAgainst(vouched uint64, report *fsck.Report) {
	if vouched > report.Commits {
		report.Findings = append(report.Findings, fsck.Finding{Where: "ledger", What: fmt.Sprintf(
			"it has lost its end: it has %d commits, the pen's newest pulse vouches for %d", report.Commits, vouched)})
	}
}

// scratchPrefix begins the names of the directories that scratch makes.
const scratchPrefix = "fsck-"

// sweepScratch removes what a check has left behind that was killed.
func (n *node) sweepScratch() {
	left, err := filepath.Glob(n.cfg.Path(scratchPrefix + "*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		n.log.Warn("remove what an earlier fsck has left", "error", err)
	}
}

// scratch makes a directory on the disk of the data, so that copies of stores
// can be links.
func (n *node) scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(n.cfg.Data, scratchPrefix)
	return dir, func() {
		if err := os.RemoveAll(dir); err != nil {
			n.log.Warn("remove what fsck has built", "error", err)
		}
	}, err
}

// showReport prints what was found and turns it into the exit code.
func showReport(app *cli.App, r fsck.Report, asJSON bool) error {
	if asJSON {
		if err := app.PrintJSON(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(app.Out, "ledger       %d commits, %d events, epoch %d, head %s\n", r.Commits, r.Events, r.Epoch, r.Head)
		for _, s := range r.Stores {
			fmt.Fprintf(app.Out, "%-12s at sequence %d, %d rows compared\n", s.Name, s.Sequence, s.Rows)
		}
		for _, f := range r.Findings {
			fmt.Fprintf(app.Out, "WRONG  %s\n", f)
		}
	}
	if r.Clean() {
		return nil
	}
	hint := "a projection that is wrong can be built anew: watchword rebuild NAME"
	for _, f := range r.Findings {
		if f.Where == "ledger" {
			hint = "the ledger itself is wrong: stop the server, keep a copy of the store, and restore; rebuild nothing"
		}
	}
	return cli.Fail(cli.ExitProof, fmt.Errorf("%d things are wrong", len(r.Findings)), hint)
}
