package management

import (
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// consumerAnswer is a consumer of the events as operators see it. It has no
// key of ours: it logs in to NATS with the private half of its nkey.
type consumerAnswer struct {
	ID         token.ID `json:"id"`
	Name       string   `json:"name"`
	Region     string   `json:"region,omitempty"`
	Nkey       string   `json:"nkey"`
	Status     string   `json:"status"`
	EnrolledOn string   `json:"enrolled_on"`
	RetiredOn  string   `json:"retired_on,omitempty"`
}

func consumerAnswerOf(n *aggregate.Consumer) consumerAnswer {
	a := consumerAnswer{
		ID: n.ID, Name: n.Name, Region: n.Region, Nkey: n.Nkey, Status: "active",
		EnrolledOn: seconds(n.Enrolled), RetiredOn: seconds(n.Retired),
	}
	if n.Status == aggregate.Revoked {
		a.Status = "retired"
	}
	return a
}

// listConsumers answers with all consumers, retired ones too.
func (s *Service) listConsumers(x *web.Exchange) error {
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if !c.operator() {
		return fault.New(fault.NotPermitted)
	}
	found, err := s.Directory.Consumers()
	if err != nil {
		return err
	}
	all := make([]consumerAnswer, 0, len(found))
	for i := range found {
		all = append(all, consumerAnswerOf(&found[i]))
	}
	return x.Result(all)
}

type consumerBody struct {
	Name   string `json:"name"`
	Region string `json:"region"`
	Nkey   string `json:"nkey"`
}

// enrollConsumer lets a program read the events.
func (s *Service) enrollConsumer(x *web.Exchange) error {
	c, err := s.operator(x)
	if err != nil {
		return err
	}
	var b consumerBody
	if err := x.Decode(&b); err != nil {
		return err
	}
	if err := s.checkName(b.Name); err != nil {
		return err
	}
	if err := checkRegion(b.Region); err != nil {
		return err
	}
	if err := checkNkey(b.Nkey); err != nil {
		return err
	}
	r, err := s.do(x, c, command.EnrollConsumer{ID: s.IDs.New(), Name: b.Name, Region: b.Region, Nkey: b.Nkey})
	if err != nil {
		return err
	}
	return x.Result(consumerAnswerOf(r.Consumer))
}

// retireConsumer ends that for good, its live connections included.
func (s *Service) retireConsumer(x *web.Exchange) error {
	id, err := x.ID("consumer_id")
	if err != nil {
		return err
	}
	c, err := s.operator(x)
	if err != nil {
		return err
	}
	reason, err := s.readReason(x)
	if err != nil {
		return err
	}
	if _, err := s.do(x, c, command.RetireConsumer{ID: id, Reason: reason}); err != nil {
		return err
	}
	return x.Result(idAnswer{id})
}
