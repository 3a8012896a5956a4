package aggregate

import (
	"fmt"
	"sync/atomic"

	"watchword.dev/events/catalogue"
)

// Catalogues turns published catalogues into ones to decide by, and keeps the
// last: most decisions ask for the same. The zero value is ready.
type Catalogues struct {
	// Builtin is what holds before anything is published; the built-in
	// catalogue when nil.
	Builtin *catalogue.Catalogue

	last atomic.Pointer[builtCatalogue]
}

type builtCatalogue struct {
	id      [16]byte
	version uint32
	cat     *catalogue.Catalogue
}

// Of returns the catalogue of c, with the numbers that all its predecessors
// left it. An error means that this program cannot read what was published.
func (k *Catalogues) Of(c *Catalogue) (*catalogue.Catalogue, error) {
	if c == nil || c.Version == 0 {
		if k.Builtin != nil {
			return k.Builtin, nil
		}
		return catalogue.Cloudflare(), nil
	}
	// The id tells two publications of one version apart: the first of them
	// may never have come into the ledger.
	if b := k.last.Load(); b != nil && b.version == c.Version && b.id == c.ID {
		return b.cat, nil
	}
	cat, err := catalogue.FromDocument(nil, c.Document)
	if err != nil {
		return nil, fmt.Errorf("version %d of the published catalogue: %w", c.Version, err)
	}
	k.last.Store(&builtCatalogue{c.ID, c.Version, cat})
	return cat, nil
}
