package aggregate

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// Resource is the state of one registration of a resource.
type Resource struct {
	ID       token.ID  `json:"id"` // of the registration
	Type     string    `json:"type"`
	Resource string    `json:"resource"`
	Name     string    `json:"name"`
	Parent   string    `json:"parent"` // the key of what it lies in
	Status   Status    `json:"status"`
	Created  time.Time `json:"created"`
	Modified time.Time `json:"modified"`
	Seq      uint64    `json:"seq"`
}

// ResourceKey returns the key under which policies name a resource.
func ResourceKey(kind, id string) string { return kind + "." + id }

// Key returns the key under which policies name the resource.
func (s *Resource) Key() string { return ResourceKey(s.Type, s.Resource) }

// Apply moves the registration over a record about it.
func (s *Resource) Apply(r *events.Record) error {
	d, registered := r.Data.(*events.ResourceRegistered)
	if s.Seq == 0 != registered || s.Status == Revoked {
		return fmt.Errorf("%w: %s at %d on resource %v (%s)", ErrImpossible, r.Name, r.Number, r.SubjectID(), s.Status)
	}
	kind, id, ok := ResourceOf(r)
	if !ok || !registered && (kind != s.Type || id != s.Resource) {
		return fmt.Errorf("%w: %s at %d is not about %s", ErrImpossible, r.Name, r.Number, s.Key())
	}
	switch e := r.Data.(type) {
	case *events.ResourceRegistered:
		*s = Resource{ID: r.SubjectID(), Type: kind, Resource: id, Name: d.Name, Parent: d.Parent, Status: Active, Created: r.Time}
	case *events.ResourceUpdated:
		s.Name = e.Name
	case *events.ResourceMoved:
		s.Parent = e.Parent
	case *events.ResourceRemoved:
		s.Status = Revoked
	}
	s.Modified, s.Seq = r.Time, r.Seq
	return nil
}

// ResourceOf returns the two parts of the key that an event about a resource
// carries; ok is false for other events.
func ResourceOf(r *events.Record) (kind, id string, ok bool) {
	switch e := r.Data.(type) {
	case *events.ResourceRegistered:
		return e.Type, e.Resource, true
	case *events.ResourceUpdated:
		return e.Type, e.Resource, true
	case *events.ResourceMoved:
		return e.Type, e.Resource, true
	case *events.ResourceRemoved:
		return e.Type, e.Resource, true
	}
	return "", "", false
}

// Catalogue is a published catalogue. The zero value stands for the built-in
// one.
type Catalogue struct {
	ID        token.ID       `json:"id"`
	Version   uint32         `json:"version"`
	Document  jsontext.Value `json:"document"`
	Published time.Time      `json:"published"`
	Seq       uint64         `json:"seq"`
}

// Apply moves the catalogue over the record of its successor.
func (c *Catalogue) Apply(r *events.Record) error {
	d, ok := r.Data.(*events.CataloguePublished)
	if !ok || d.Version != c.Version+1 {
		return fmt.Errorf("%w: %s at %d on version %d of the catalogue", ErrImpossible, r.Name, r.Number, c.Version)
	}
	*c = Catalogue{ID: r.SubjectID(), Version: d.Version, Document: d.Document, Published: r.Time, Seq: r.Seq}
	return nil
}
