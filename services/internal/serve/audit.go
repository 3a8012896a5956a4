package serve

import (
	"context"

	"watchword.dev/events"
	"watchword.dev/projections/audittrail"
	"watchword.dev/projections/projector"
	"watchword.dev/services/auditor"
)

// signedHead is the file of the data directory that keeps the last tree head that
// this node has signed.
const signedHead = "signed-tree-head"

// auditParts is what a node has for those who do not trust it.
type auditParts struct {
	trail   *live[*audittrail.Trail]
	service *auditor.Service
}

// trailParts is the projection, not opened yet.
func (n *node) trailParts() *live[*audittrail.Trail] {
	return &live[*audittrail.Trail]{
		home: projector.Home{Dir: n.cfg.Path(audittrail.Name)}, read: n.ledger, log: n.log, o: n.feeding,
		open: func(dir string) (*audittrail.Trail, error) {
			return audittrail.Open(audittrail.Options{Dir: dir, Log: n.log})
		},
		follow: func(t *audittrail.Trail, r events.Reader, o projector.Options) *projector.Runner {
			return projector.NewRunner(r, t, o)
		},
	}
}

// openAudit opens the trail and what signs its heads.
func (n *node) openAudit() error {
	a := &auditParts{trail: n.trailParts()}
	if err := a.trail.start(); err != nil {
		return err
	}
	n.audit = a
	var err error
	a.service, err = auditor.New(auditor.Config{
		Trail: a.trail.get, Key: n.keys.AuditKey(), File: n.cfg.Path(signedHead), Log: n.log,
	})
	return err
}

// tellAuditKey says under which key the heads of the ledger are signed: whoever
// checks them must have it from somewhere else than from whom they check.
func (n *node) tellAuditKey(ctx context.Context) error {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil
	}
	key, err := "", n.audit.trail.Wait(ctx, n.index.get().Sequence()) // the epoch is in the name of the key
	if err == nil {
		key, err = n.audit.service.VerifierKey()
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		n.log.Warn("nobody was told under which key tree heads are signed", "error", err)
	default:
		n.log.Info("tree heads of the ledger are signed", "verifier_key", key)
	}
	<-ctx.Done()
	return nil
}
