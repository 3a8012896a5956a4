package command

import (
	"errors"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
)

// maxPointer bounds a pointer in an answer, in bytes.
const maxPointer = 256

// CatalogueFault says with a fault what is wrong with a catalogue's document.
// The detail quotes it: a catalogue is configuration, and only operators
// publish one.
func CatalogueFault(err error) error {
	p, ok := errors.AsType[*catalogue.Problem](err)
	if !ok {
		return fault.Wrap(fault.InvalidCatalogue, err)
	}
	f := fault.Wrap(fault.InvalidCatalogue, err).WithDetail("%s", fault.Public(p.Text))
	if len(p.Pointer) <= maxPointer {
		f = f.WithPointer(fault.Pointer(p.Pointer))
	}
	return f
}
