package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword.dev/events/stream"
	"watchword.dev/projections/audittrail"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/revocations"
	used "watchword.dev/projections/usage"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/config"
	"watchword.dev/services/internal/cli"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/upkeep"
)

// rebuildable are the projections.
var rebuildable = []string{directory.Name, verifyindex.Name, used.Name, revocations.Name, audittrail.Name}

// pollEvery is how often a client looks how far a job is.
const pollEvery = 500 * time.Millisecond

func rebuildCommand(app *cli.App) *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use: "rebuild {directory|verifyindex|usage|revocations|audittrail}", Short: "Build a projection anew beside the old one", Args: cobra.ExactArgs(1),
		ValidArgs: rebuildable,
		Long: `Build a projection anew from the first event, beside the one that serves. When it
has caught up it takes over; until then, and if it fails, nothing changes. The
projection usage is built from the reports of usage, which are kept for 90 days,
and revocations reads the receipts again once a server runs on it.

With a running server the work is done there. Without one it is done here, on
the data directory.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if !slices.Contains(rebuildable, name) {
				return cli.Fail(cli.ExitLocal, fmt.Errorf("there is no projection %q", name), "the projections are "+strings.Join(rebuildable, ", "))
			}
			show := newProgress(app, "rebuild "+name)
			o, err := openOffline(cmd.Context(), data)
			if errors.Is(err, embed.ErrLocked) {
				_, err = upkeepOver(cmd.Context(), app, data, "/v1/upkeep/rebuild/"+name, show)
				show.finish(err)
				return err
			}
			if err != nil {
				return err
			}
			defer o.close()
			err = o.rebuild(cmd.Context(), name, show.update)
			show.finish(err)
			return err
		},
	}
	bindData(cmd.Flags(), &data)
	return cmd
}

// offline is the ledger and the projections of a data directory that no server
// is using.
type offline struct {
	n      *node
	lock   io.Closer
	remove func() // the copy of the ledger
}

// openOffline opens a data directory, or returns embed.ErrLocked when a server
// is using it. It works on a copy of the ledger: JetStream cuts a store that was
// not closed cleanly at the first byte that it finds wrong, and what it cuts off
// may be what somebody wants to see.
func openOffline(ctx context.Context, data string) (*offline, error) {
	store := filepath.Join(data, natsDir)
	if _, err := os.Stat(store); errors.Is(err, fs.ErrNotExist) {
		return nil, cli.Fail(cli.ExitLocal, fmt.Errorf("%s holds no ledger", data), "name the server's data directory with --data")
	}
	lock, err := embed.Lock(store)
	if err != nil {
		return nil, err
	}
	n := &node{cfg: &config.Serve{Data: data, IndexMemory: 1 << 30, DirectoryMemory: 64 << 20}, log: slog.New(slog.DiscardHandler)}
	n.sweepScratch()
	o := &offline{n: n, lock: lock, remove: func() {}}
	scratch, remove, err := n.scratch()
	if err == nil {
		o.remove = remove
		err = o.open(ctx, store, filepath.Join(scratch, natsDir))
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *offline) open(ctx context.Context, store, copied string) error {
	if err := copyStore(copied, store); err != nil {
		return fmt.Errorf("copy the ledger: %w", err)
	}
	var err error
	if o.n.nats, err = openNATS(o.n.cfg, copied, o.n.log); err != nil {
		return err
	}
	nc, err := o.n.nats.connect(embed.Node, false)
	if err != nil {
		return err
	}
	o.n.ledger, err = stream.Open(ctx, nc, stream.Config{})
	return err
}

func (o *offline) close() {
	if o.n.nats != nil {
		o.n.nats.close()
	}
	o.remove()
	o.lock.Close()
}

// copyStore copies the regular files below from, with their modes. The lock
// stays behind.
func copyStore(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(target, info.Mode().Perm())
		case !info.Mode().IsRegular() || path == filepath.Join(from, "lock"):
			return nil
		}
		src, err := os.Open(path)
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(dst, src)
		return errors.Join(err, dst.Close())
	})
}

// rebuild builds a projection whose old generation nobody has open.
func (o *offline) rebuild(ctx context.Context, name string, progress func(done, head uint64)) error {
	switch name {
	case directory.Name:
		return rebuildOffline(ctx, o.n.directoryParts(), progress)
	case audittrail.Name:
		return rebuildOffline(ctx, o.n.trailParts(), progress)
	case revocations.Name:
		return rebuildOffline(ctx, o.n.revocationParts(), progress)
	case used.Name:
		u, err := o.n.usageOf()
		if err != nil {
			return err
		}
		return errors.Join(u.rebuild(ctx, progress), u.close())
	}
	return rebuildOffline(ctx, o.n.indexParts(), progress)
}

func rebuildOffline[P projector.Owned](ctx context.Context, l *live[P], progress func(done, head uint64)) error {
	dir, err := l.home.Current()
	if err != nil {
		return err
	}
	// One that cannot be opened says nothing, and is what a rebuild is for.
	if old, err := l.open(dir); err == nil {
		if err := errors.Join(reaches(ctx, l.read, old), old.Close()); err != nil {
			return err
		}
	}
	p, err := projector.Rebuild(ctx, l.read, l.home, l.open, progress)
	if err != nil {
		return err
	}
	return errors.Join(p.Close(), l.home.Prune())
}

// upkeepOver starts a job on the running server of a data directory and waits
// for its end.
func upkeepOver(ctx context.Context, app *cli.App, data, path string, show *progress) (upkeep.Job, error) {
	app.UseAdmin(filepath.Join(data, adminFile))
	var j upkeep.Job
	if err := app.Call(ctx, http.MethodPost, path, nil, &j); err != nil {
		return j, err
	}
	started := j.Started
	for j.Finished.IsZero() {
		show.update(j.Done, j.Head)
		select {
		case <-ctx.Done():
			return j, cli.Fail(cli.ExitLocal, ctx.Err(), "the server goes on with it; GET /v1/upkeep shows how far it is")
		case <-time.After(pollEvery):
		}
		if err := app.Call(ctx, http.MethodGet, "/v1/upkeep", nil, &j); err != nil {
			return j, err
		}
		if !j.Started.Equal(started) {
			return j, cli.Fail(cli.ExitRemote, errors.New("the server has restarted meanwhile; nothing has changed"))
		}
	}
	show.update(j.Done, j.Head)
	if j.Failed != "" {
		return j, cli.Fail(cli.ExitRemote, errors.New(j.Failed))
	}
	return j, nil
}
