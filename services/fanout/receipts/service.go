package receipts

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/revocations"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
)

// Enforcers recognises enforcing services by their keys. verifyindex.Index is
// one.
type Enforcers interface {
	Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason)
}

// Directory knows under which key an enforcer signs.
type Directory interface {
	Enforcer(token.ID) (aggregate.Enforcer, bool, error)
}

// Config is what a Service needs. Projection must be set; without Enforcers,
// Directory and Publisher it takes no receipts over HTTP.
type Config struct {
	Projection func() *revocations.Revocations
	Enforcers  Enforcers
	Directory  Directory
	Publisher  receipt.Publisher
	Now        func() time.Time // time.Now when nil
}

// Service answers who has heard, and takes receipts over HTTP.
type Service struct{ cfg Config }

// New returns a service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg}
}

// Routes adds the service's route to rt. Enforcers may report as often as they
// like; wrong keys are bounded.
func (s *Service) Routes(rt *web.Router) {
	rt.Handle(http.MethodPost, receiptsPath, s.takeReceipt)
	rt.Exempt(receiptsPath)
}

const receiptsPath = "/v1/receipts"

// takeReceipt publishes the receipt of an enforcer that cannot do so itself.
func (s *Service) takeReceipt(x *web.Exchange) error {
	by, err := s.enforcer(x)
	if err != nil {
		return err
	}
	raw, err := x.Body(web.MaxBody)
	if err != nil {
		return err
	}
	// What is not even JSON is told so; what is in it, receipt.Open judges.
	var members map[string]jsontext.Value
	if err := x.DecodeBytes(raw, &members); err != nil {
		return err
	}
	key, err := s.keyOf(by.ID)
	if err != nil {
		return err
	}
	r, err := receipt.Open(raw, key)
	if err != nil {
		return fault.Wrap(fault.ReceiptRefused, err)
	}
	if r.Enforcer != by.ID {
		return fault.Wrap(fault.ReceiptRefused, errors.New("receipts: another enforcer's receipt"))
	}
	if s.cfg.Now().Sub(r.SentAt).Abs() > revocations.MaxSkew {
		return fault.Wrap(fault.ReceiptRefused, errors.New("receipts: a receipt of another time"))
	}
	if err := s.cfg.Publisher.Publish(x.Context(), r.Subject(), raw); err != nil {
		return fault.Wrap(fault.NotReady, err)
	}
	x.JSON(http.StatusOK, []byte(`{"stored":true}`+"\n"))
	return nil
}

// enforcer returns who asks, or the fault that refuses it.
func (s *Service) enforcer(x *web.Exchange) (verifyindex.EnforcerInfo, error) {
	secret := web.BearerSecret(x.Request().Header)
	if secret == "" {
		return verifyindex.EnforcerInfo{}, fault.New(fault.EnforcerKeyNeeded)
	}
	info, reason := s.cfg.Enforcers.Enforcer(secret)
	switch reason {
	case token.ReasonNone:
		x.Recognised()
		return info, nil
	case token.ReasonStale:
		return info, fault.New(fault.StaleIndex)
	case token.ReasonNotReady:
		return info, fault.New(fault.NotReady)
	}
	return info, fault.New(fault.EnforcerKeyNeeded)
}

// keyOf returns the key under which an enforcer signs.
func (s *Service) keyOf(id token.ID) (ed25519.PublicKey, error) {
	n, ok, err := s.cfg.Directory.Enforcer(id)
	if err != nil {
		return nil, err
	}
	if !ok || n.Nkey == "" {
		return nil, fault.New(fault.ReceiptRefused).WithDetail("the enforcer was enrolled without an nkey")
	}
	key, err := receipt.ParsePublic(n.Nkey)
	if err != nil {
		return nil, fault.Wrap(fault.ReceiptRefused, err)
	}
	return key, nil
}

// served asks the projection that serves, and the next one if it has just been
// replaced.
func served[T any](s *Service, question func(*revocations.Revocations) (T, error)) (T, error) {
	for {
		p := s.cfg.Projection()
		answer, err := question(p)
		if errors.Is(err, revocations.ErrClosed) && s.cfg.Projection() != p {
			continue
		}
		return answer, err
	}
}

// found is an event that may not be there.
type found struct {
	event revocations.Event
	ok    bool
}

// Newest returns the newest event about a subject, of one of these names.
func (s *Service) Newest(of revocations.Subject, names ...string) (revocations.Event, bool, error) {
	f, err := served(s, func(p *revocations.Revocations) (f found, err error) {
		f.event, f.ok, err = p.Newest(of, names...)
		return f, err
	})
	return f.event, f.ok, err
}

// About returns the event about a subject at a sequence.
func (s *Service) About(of revocations.Subject, seq uint64) (revocations.Event, bool, error) {
	f, err := served(s, func(p *revocations.Revocations) (f found, err error) {
		f.event, f.ok, err = p.About(of, seq)
		return f, err
	})
	return f.event, f.ok, err
}

// Report says who has heard of an event by now.
func (s *Service) Report(e revocations.Event) (revocations.Report, error) {
	return served(s, func(p *revocations.Revocations) (revocations.Report, error) { return p.Report(e, s.cfg.Now()) })
}

// pause is how long changes are gathered before a report is made anew: with
// many instances each report costs more than the receipt that caused it.
const pause = 2 * time.Millisecond

// Await waits until an event is complete, or ctx ends, and reports. The end of
// ctx is no error.
func (s *Service) Await(ctx context.Context, e revocations.Event) (revocations.Report, error) {
	for {
		changed := s.cfg.Projection().Changed() // before the report: nothing is missed
		r, err := s.Report(e)
		if err != nil || r.Complete || ctx.Err() != nil {
			return r, err
		}
		// Time alone completes it too, and ends leases.
		tick := time.NewTimer(min(max(r.By.Sub(r.At), pause), 250*time.Millisecond))
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-changed:
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
		tick.Stop()
	}
}

// Instances are all processes that enforce, or did.
func (s *Service) Instances() []revocations.Instance {
	return s.cfg.Projection().Instances(s.cfg.Now())
}

// Installation is the id under which the nodes report.
func (s *Service) Installation() token.ID {
	if opened := s.cfg.Projection().Opened(); opened != nil {
		return opened.Installation
	}
	return token.ID{}
}

// Applied is the last sequence of the ledger that the reports rest on.
func (s *Service) Applied() uint64 { return s.cfg.Projection().Position().Seq }
