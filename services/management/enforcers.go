package management

import (
	"strings"

	"github.com/nats-io/nkeys"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// The bounds of an enforcer's fields.
const (
	maxRegion  = 63
	maxCeiling = 24 * 60 * 60 // seconds
)

// enforcerAnswer is an enforcer as operators see it. Key is its secret, shown
// when it is enrolled and never again.
type enforcerAnswer struct {
	ID         token.ID `json:"id"`
	Name       string   `json:"name"`
	Region     string   `json:"region,omitempty"`
	Ceiling    int32    `json:"ceiling_seconds,omitempty"`
	Nkey       string   `json:"nkey,omitempty"`
	Status     string   `json:"status"`
	EnrolledOn string   `json:"enrolled_on"`
	RetiredOn  string   `json:"retired_on,omitempty"`
	Key        string   `json:"key,omitempty"`
	// Kind is "node" for the installation's own nodes, which enforce too.
	Kind      string       `json:"kind"`
	Instances []liveAnswer `json:"instances,omitempty"`
}

func enforcerAnswerOf(n *aggregate.Enforcer) enforcerAnswer {
	a := enforcerAnswer{
		ID: n.ID, Name: n.Name, Region: n.Region, Ceiling: n.CeilingSeconds, Nkey: n.Nkey, Status: "active",
		EnrolledOn: seconds(n.Enrolled), RetiredOn: seconds(n.Retired), Kind: "enforcer",
	}
	if n.Status == aggregate.Revoked {
		a.Status = "retired"
	}
	return a
}

// listEnforcers answers with all enforcers, retired ones too, and their live
// instances. The first one is the installation itself.
func (s *Service) listEnforcers(x *web.Exchange) error {
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if !c.operator() {
		return fault.New(fault.NotPermitted)
	}
	found, err := s.Directory.Enforcers()
	if err != nil {
		return err
	}
	live := s.live()
	all := make([]enforcerAnswer, 0, len(found)+1)
	if s.Receipts != nil {
		id := s.Receipts.Installation()
		all = append(all, enforcerAnswer{ID: id, Name: nodeName, Status: "active", EnrolledOn: seconds(id.Time()), Kind: "node", Instances: live[id]})
	}
	for i := range found {
		a := enforcerAnswerOf(&found[i])
		a.Instances = live[a.ID]
		all = append(all, a)
	}
	return x.Result(all)
}

type enforcerBody struct {
	Name    string `json:"name"`
	Region  string `json:"region"`
	Ceiling int32  `json:"ceiling_seconds"`
	Nkey    string `json:"nkey"`
}

// enrollEnforcer lets a service ask, and shows its key, this once.
func (s *Service) enrollEnforcer(x *web.Exchange) error {
	c, err := s.operator(x)
	if err != nil {
		return err
	}
	var b enforcerBody
	if err := x.Decode(&b); err != nil {
		return err
	}
	if err := s.checkName(b.Name); err != nil {
		return err
	}
	if err := checkRegion(b.Region); err != nil {
		return err
	}
	if b.Nkey != "" {
		if err := checkNkey(b.Nkey); err != nil {
			return err
		}
	}
	if b.Ceiling < 0 || b.Ceiling > maxCeiling {
		return fault.New(fault.InvalidField).WithPointer("/ceiling_seconds").WithDetail("at most %d", maxCeiling)
	}
	secret, err := s.Format.Generate(token.KindEnforcer)
	if err != nil {
		return err
	}
	r, err := s.do(x, c, command.EnrollEnforcer{
		ID: s.IDs.New(), Name: b.Name, Region: b.Region, CeilingSeconds: b.Ceiling, Nkey: b.Nkey, Secret: secret.Digest(),
	})
	if err != nil {
		return err
	}
	a := enforcerAnswerOf(r.Enforcer)
	a.Key = secret.Reveal()
	return x.Result(a)
}

// retireEnforcer ends an enforcer's key for good.
func (s *Service) retireEnforcer(x *web.Exchange) error {
	id, err := x.ID("enforcer_id")
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
	if _, err := s.do(x, c, command.RetireEnforcer{ID: id, Reason: reason}); err != nil {
		return err
	}
	return x.Result(idAnswer{id})
}

// operator returns the sender of a command that is an operator's to give.
func (s *Service) operator(x *web.Exchange) (*caller, error) {
	c, err := s.writer(x, token.ID{})
	if err == nil && !c.operator() {
		err = fault.New(fault.NotPermitted)
	}
	return c, err
}

func checkRegion(s string) error {
	if len(s) > maxRegion || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return fault.New(fault.InvalidField).WithPointer("/region").WithDetail("region has up to %d letters, digits, _ and -", maxRegion)
	}
	return nil
}

// checkNkey takes a user's public key, never a seed: the private half stays
// where it was made.
func checkNkey(s string) error {
	if !nkeys.IsValidPublicUserKey(s) {
		return fault.New(fault.InvalidField).WithPointer("/nkey").WithDetail("nkey is the public key of a user: U and 55 letters and digits")
	}
	return nil
}
