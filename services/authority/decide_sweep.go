package authority

import (
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// sweep revokes what a selection has. Operators sweep anything; whoever may manage
// the tokens of a user or an account sweeps those.
//
// Through the newest sweep that reaches as far nothing is left to revoke, nor is
// there when the same command is heard twice.
func (r *rules) sweep(v *view, p *principal, c *command.Sweep, now time.Time) (outcome, error) {
	of, ok := aggregate.SelectionOf(c.By, c.Selected)
	if !ok || len(c.Selected) > textMax || !cleanText(c.Selected) {
		return outcome{}, fault.New(fault.InvalidField).WithPointer("/selected")
	}
	account, err := r.maySweep(v, p, of, now)
	if err != nil {
		return outcome{}, err
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	if c.ID.IsZero() {
		return outcome{}, fault.InvalidField
	}
	through := c.Through
	if through == 0 {
		through = v.before
	}
	if through > v.before {
		return outcome{}, fault.New(fault.InvalidField).WithPointer("/through").WithDetail("the ledger ends at %d", int64(v.before))
	}
	if s, ok := v.sweep(of); ok && (s.Through >= through || s.ID == c.ID) {
		return outcome{sweep: of}, nil
	}
	e := &events.RevocationSwept{By: of.By, Selected: of.Template, Through: through, Reason: c.Reason, Origin: p.caller.Origin}
	if of.By == events.SweepOwner {
		e.Selected = of.Owner.String()
	}
	if !account.IsZero() {
		e.By = events.SweepAccount
	}
	return outcome{sweep: of, draft: r.draft(p, "revocation", c.ID, account, now, e)}, nil
}

// maySweep says whether the principal may sweep a selection, and returns the
// account whose tokens it has, if it is one. To all but operators, what does not
// exist is like what belongs to others.
func (r *rules) maySweep(v *view, p *principal, of aggregate.Selection, now time.Time) (account token.ID, err error) {
	if p.system {
		return account, fault.NotPermitted
	}
	operates := p.operates()
	if of.By != events.SweepOwner {
		if !operates {
			return account, fault.NotPermitted
		}
		return account, nil
	}
	if _, ok := v.account(of.Owner); ok {
		account = of.Owner
	}
	kind := events.OwnedByUser
	if !account.IsZero() {
		kind = events.OwnedByAccount
	}
	if operates {
		if _, ok := v.user(of.Owner); !ok && account.IsZero() {
			return account, fault.ObjectNotFound
		}
		return account, nil
	}
	return account, r.mayManage(v, p, kind, of.Owner, now)
}
