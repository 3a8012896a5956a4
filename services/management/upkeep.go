package management

import (
	"watchword.dev/events/fault"
	"watchword.dev/services/internal/web"
)

// Operator returns nil when x was sent by somebody who runs the installation,
// with their API key, and else the fault that refuses it.
func (s *Service) Operator(x *web.Exchange) error {
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if !c.operator() {
		return fault.New(fault.NotPermitted)
	}
	return nil
}
