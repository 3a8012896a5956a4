package management

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// maxGrace bounds what is taken for a duration at all; how long a grace may
// really be the authority decides.
const maxGrace = 10 * 365 * 24 * time.Hour

// createToken makes a token and shows its secret, this once.
func (s *Service) createToken(x *web.Exchange, of ownership) error {
	account, err := of.account(x)
	if err != nil {
		return err
	}
	c, err := s.writer(x, account)
	if err != nil {
		return err
	}
	raw, err := x.Body(web.MaxBody)
	if err != nil {
		return err
	}
	var b tokenBody
	if err := x.DecodeBytes(raw, &b); err != nil {
		return err
	}
	if b.Status != "" && b.Status != statusActive && b.Status != statusDisabled {
		return fault.New(fault.InvalidStatus).WithPointer("/status")
	}
	dry, err := oneOf(x.Request().URL.Query(), "dry_run", "false", "true")
	if err != nil {
		return err
	}
	if err := s.fill(&b, c.holder(of, account)); err != nil {
		return err
	}
	g, err := s.grant(&b)
	if err != nil {
		return err
	}
	cmd := command.CreateToken{
		Target: command.Target{ID: s.IDs.New(), OwnerKind: of.kind, Owner: account},
		Name:   b.Name, Grant: g, Disabled: b.Status == statusDisabled, Template: b.Template,
		Widens: b.Widens != nil && *b.Widens,
	}
	if dry {
		return s.preview(x, c, cmd)
	}
	if cmd.Request, cmd.Repeat, err = s.repeat(x, c, account, token.ID{}, raw); err != nil {
		return err
	}
	secret, err := s.secret(of)
	if err != nil {
		return err
	}
	cmd.Secret = secret.Digest()
	r, err := s.do(x, c, cmd)
	if err != nil {
		return err
	}
	a := s.answer(r.Token)
	a.Value = secret.Reveal()
	return x.Result(a)
}

// secret makes the secret of a token.
func (s *Service) secret(of ownership) (token.Secret, error) {
	return s.Format.Generate(of.secrets())
}

// updateToken replaces a token's name and grant. What the body leaves out is
// cleared, but for the status, which stays.
func (s *Service) updateToken(x *web.Exchange, of ownership) error {
	at, err := of.target(x)
	if err != nil {
		return err
	}
	c, err := s.writer(x, at.Owner)
	if err != nil {
		return err
	}
	var b tokenBody
	if err := x.Decode(&b); err != nil {
		return err
	}
	switch b.Status {
	case "", statusActive, statusDisabled:
	case statusExpired:
		b.Status = "" // the computed status, sent back by who reads and writes
	default:
		return fault.New(fault.InvalidStatus).WithPointer("/status")
	}
	g, err := s.grant(&b)
	if err != nil {
		return err
	}
	r, err := s.do(x, c, command.UpdateToken{Target: at, Name: b.Name, Grant: g, Status: b.Status, Widens: b.Widens})
	if err != nil {
		return err
	}
	return x.Result(s.answer(r.Token))
}

// rollBody is Watchword's addition to a request that Cloudflare's clients send
// empty.
type rollBody struct {
	Grace jsontext.Value `json:"grace"`
	Force bool           `json:"force"`
}

// rollToken replaces a token's secret and shows the new one, this once.
func (s *Service) rollToken(x *web.Exchange, of ownership) error {
	at, err := of.target(x)
	if err != nil {
		return err
	}
	c, err := s.writer(x, at.Owner)
	if err != nil {
		return err
	}
	raw, err := x.Body(web.MaxBody)
	if err != nil {
		return err
	}
	var b rollBody
	if err := x.DecodeOptionalBytes(raw, &b); err != nil {
		return err
	}
	wait, err := waitParameter(x.Request().URL.Query())
	if err != nil {
		return err
	}
	cmd := command.RollToken{Target: at, Force: b.Force}
	if cmd.Grace, err = parseGrace(b.Grace); err != nil {
		return err
	}
	if cmd.Request, cmd.Repeat, err = s.repeat(x, c, at.Owner, at.ID, raw); err != nil {
		return err
	}
	secret, err := s.secret(of)
	if err != nil {
		return err
	}
	cmd.Secret = secret.Digest()
	r, err := s.do(x, c, cmd)
	if err != nil {
		return err
	}
	if heard := s.heardOf(x, at, r.Seq, wait); heard != nil {
		return x.Result(rolledAnswer{secret.Reveal(), heard})
	}
	return x.Result(secret.Reveal())
}

// rolledAnswer is the answer to who asked for receipts too. Others get the bare
// secret, as Cloudflare's clients want it.
type rolledAnswer struct {
	Value    string          `json:"value"`
	Receipts *receiptsAnswer `json:"receipts"`
}

// parseGrace reads "24h" or a number of seconds.
func parseGrace(v jsontext.Value) (time.Duration, error) {
	refused := fault.New(fault.InvalidGrace).WithPointer("/grace")
	var d time.Duration
	switch v.Kind() {
	case jsontext.KindInvalid, jsontext.KindNull: // absent
	case jsontext.KindString:
		var text string
		var err error
		if err = json.Unmarshal(v, &text); err != nil {
			return 0, refused
		}
		if d, err = time.ParseDuration(text); err != nil {
			return 0, refused
		}
	case jsontext.KindNumber:
		n, err := strconv.ParseFloat(string(v), 64)
		if err != nil || math.Abs(n) > maxGrace.Seconds() {
			return 0, refused
		}
		d = time.Duration(n * float64(time.Second))
	default:
		return 0, refused
	}
	if d < 0 || d > maxGrace {
		return 0, refused
	}
	return d, nil
}

// reasonBody is Watchword's addition to requests that need no body.
type reasonBody struct {
	Reason string `json:"reason"`
}

func (s *Service) readReason(x *web.Exchange) (string, error) {
	var b reasonBody
	if err := x.DecodeOptional(&b); err != nil {
		return "", err
	}
	return b.Reason, s.checkReason(b.Reason)
}

// revokeToken ends a token for good.
func (s *Service) revokeToken(x *web.Exchange, of ownership) error {
	wait, err := waitParameter(x.Request().URL.Query())
	if err != nil {
		return err
	}
	at, r, err := s.change(x, of, func(at command.Target, reason string) command.Command {
		return command.RevokeToken{Target: at, Reason: reason}
	})
	if err != nil {
		return err
	}
	return x.Result(revokedAnswer{at.ID, s.heardOf(x, at, r.Seq, wait)})
}

type revokedAnswer struct {
	ID       token.ID        `json:"id"`
	Receipts *receiptsAnswer `json:"receipts,omitempty"`
}

type idAnswer struct {
	ID token.ID `json:"id"`
}

// disableToken suspends a token.
func (s *Service) disableToken(x *web.Exchange, of ownership) error {
	return s.switchToken(x, of, func(at command.Target, reason string) command.Command {
		return command.DisableToken{Target: at, Reason: reason}
	})
}

// enableToken ends a suspension.
func (s *Service) enableToken(x *web.Exchange, of ownership) error {
	return s.switchToken(x, of, func(at command.Target, reason string) command.Command {
		return command.EnableToken{Target: at, Reason: reason}
	})
}

func (s *Service) switchToken(x *web.Exchange, of ownership, cmd func(command.Target, string) command.Command) error {
	_, r, err := s.change(x, of, cmd)
	if err != nil {
		return err
	}
	return x.Result(s.answer(r.Token))
}

// change sends the command about the token that the path names, with the
// reason that the body may give.
func (s *Service) change(x *web.Exchange, of ownership, cmd func(command.Target, string) command.Command) (command.Target, command.Result, error) {
	var r command.Result
	at, err := of.target(x)
	if err != nil {
		return at, r, err
	}
	c, err := s.writer(x, at.Owner)
	if err != nil {
		return at, r, err
	}
	reason, err := s.readReason(x)
	if err != nil {
		return at, r, err
	}
	r, err = s.do(x, c, cmd(at, reason))
	return at, r, err
}

// do sends a command and gives this node's projections a moment to see it. The
// command is durable by then, so a projection that is slow changes nothing
// about the answer.
func (s *Service) do(x *web.Exchange, c *caller, cmd command.Command) (command.Result, error) {
	r, err := s.ask(x, c, cmd)
	if err != nil {
		return r, err
	}
	if r.Token == nil && r.Enforcer == nil && r.Consumer == nil && r.User == nil && r.Account == nil && r.Member == nil && r.Resource == nil {
		// The form of the answer depends on it.
		return r, fault.Wrap(fault.Internal, errors.New("management: a result without what it is about"))
	}
	x.Sequence(r.Seq)
	s.settle(x.Context(), r.Seq)
	return r, nil
}

// ask gives a command to the authority.
func (s *Service) ask(x *web.Exchange, c *caller, cmd command.Command) (command.Result, error) {
	by, err := s.sender(x, c)
	if err != nil {
		return command.Result{}, err
	}
	c.commands(cmd)
	ctx, cancel := context.WithTimeout(x.Context(), s.CommandWait)
	defer cancel()
	r, err := s.Authority.Do(ctx, by, cmd)
	if err != nil {
		return r, outcome(err)
	}
	return r, nil
}

// outcome returns the fault with which the authority answered a command. When
// there was no answer, nobody knows whether the command was accepted.
func outcome(err error) error {
	_, whole := errors.AsType[*fault.Error](err)
	_, bare := errors.AsType[fault.Code](err)
	if whole || bare {
		return err
	}
	return fault.Wrap(fault.OutcomeUnknown, err)
}

func (s *Service) settle(ctx context.Context, seq uint64) {
	if s.SettleTime <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.SettleTime)
	defer cancel()
	for _, w := range s.Settle {
		if w.Wait(ctx, seq) != nil {
			return // it is late or has stopped; its health says so
		}
	}
}
