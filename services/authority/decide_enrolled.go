package authority

import (
	"time"

	"github.com/nats-io/nkeys"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

func (r *rules) enrollEnforcer(v *view, p *principal, c *command.EnrollEnforcer, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if c.ID.IsZero() || len(c.Region) > textMax || !cleanText(c.Region) || c.CeilingSeconds < 0 {
		return outcome{}, fault.InvalidField
	}
	if n, ok := v.enforcer(c.ID); ok {
		if n.Status == aggregate.Active && n.Secret == c.Secret && n.Name == c.Name && n.Nkey == c.Nkey {
			return outcome{enforcer: c.ID}, nil
		}
		return outcome{}, fault.Conflict
	}
	if err := checkSecret(v, c.Secret); err != nil {
		return outcome{}, err
	}
	if c.Nkey != "" {
		if err := checkNkey(v, c.Nkey); err != nil {
			return outcome{}, err
		}
	}
	return outcome{enforcer: c.ID, draft: r.draft(p, "enforcer", c.ID, token.ID{}, now, &events.EnforcerEnrolled{
		Name: c.Name, Region: c.Region, Secret: c.Secret, CeilingSeconds: c.CeilingSeconds, Nkey: c.Nkey, Origin: p.caller.Origin,
	})}, nil
}

func (r *rules) retireEnforcer(v *view, p *principal, c *command.RetireEnforcer, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	if n, ok := v.enforcer(c.ID); !ok || n.Status != aggregate.Active {
		return outcome{}, fault.EnforcerNotFound
	}
	return outcome{enforcer: c.ID, draft: r.draft(p, "enforcer", c.ID, token.ID{}, now, &events.EnforcerRetired{
		Reason: c.Reason, Origin: p.caller.Origin,
	})}, nil
}

func (r *rules) enrollConsumer(v *view, p *principal, c *command.EnrollConsumer, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if c.ID.IsZero() || len(c.Region) > textMax || !cleanText(c.Region) {
		return outcome{}, fault.InvalidField
	}
	if n, ok := v.consumer(c.ID); ok {
		if n.Status == aggregate.Active && n.Nkey == c.Nkey && n.Name == c.Name {
			return outcome{consumer: c.ID}, nil
		}
		return outcome{}, fault.Conflict
	}
	if err := checkNkey(v, c.Nkey); err != nil {
		return outcome{}, err
	}
	return outcome{consumer: c.ID, draft: r.draft(p, "consumer", c.ID, token.ID{}, now, &events.ConsumerEnrolled{
		Name: c.Name, Region: c.Region, Nkey: c.Nkey, Origin: p.caller.Origin,
	})}, nil
}

func (r *rules) retireConsumer(v *view, p *principal, c *command.RetireConsumer, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	if n, ok := v.consumer(c.ID); !ok || n.Status != aggregate.Active {
		return outcome{}, fault.ConsumerNotFound
	}
	return outcome{consumer: c.ID, draft: r.draft(p, "consumer", c.ID, token.ID{}, now, &events.ConsumerRetired{
		Reason: c.Reason, Origin: p.caller.Origin,
	})}, nil
}

// checkNkey says whether an nkey can be enrolled: it must be a user's public
// key, and never have been anybody's, or a receipt could be taken for another's.
func checkNkey(v *view, public string) error {
	if !nkeys.IsValidPublicUserKey(public) {
		return fault.New(fault.InvalidField).WithPointer("/nkey")
	}
	if v.nkeyTaken(public) {
		return fault.Conflict
	}
	return nil
}
