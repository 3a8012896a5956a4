package authority

import (
	"errors"
	"fmt"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// publishCatalogue replaces the catalogue, which operators do. What the event
// holds is the document of the whole result, the numbers of all that was ever
// dropped included: readers need no other.
//
// Whom it affects is not looked at here. The command names the version for
// which that was found out, and does nothing at another one.
func (r *rules) publishCatalogue(v *view, p *principal, c *command.PublishCatalogue, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if c.ID.IsZero() {
		return outcome{}, fault.InvalidField
	}
	present := v.published()
	if present.Version > 0 && present.ID == c.ID {
		return outcome{}, nil
	}
	if c.After != present.Version {
		return outcome{}, fault.Conflict
	}
	next, err := catalogue.FromDocument(r.catalogue, c.Document)
	if err != nil {
		return outcome{}, command.CatalogueFault(err)
	}
	before, after := r.catalogue.Document(), next.Document()
	doc, err := json.Marshal(after)
	if err != nil {
		return outcome{}, fault.Wrap(fault.Internal, fmt.Errorf("authority: write the catalogue: %w", err))
	}
	if len(doc) > catalogue.MaxDocument {
		return outcome{}, command.CatalogueFault(errors.New("with all that was dropped it is too large"))
	}
	if old, err := json.Marshal(before); err == nil && string(old) == string(doc) {
		return outcome{}, nil
	}
	return outcome{draft: r.draft(p, "catalogue", c.ID, token.ID{}, now, &events.CataloguePublished{
		Version: present.Version + 1, Document: doc, Forced: c.Forced, Origin: p.caller.Origin,
	})}, nil
}
