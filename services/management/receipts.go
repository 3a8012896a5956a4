package management

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/revocations"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// Receipts knows who has heard of what. The service of that name is one.
type Receipts interface {
	Waiter // until a sequence of the ledger is known there
	Newest(of revocations.Subject, names ...string) (revocations.Event, bool, error)
	About(of revocations.Subject, seq uint64) (revocations.Event, bool, error)
	Report(revocations.Event) (revocations.Report, error)
	// Await is Report as soon as the event is complete, or ctx ends.
	Await(ctx context.Context, e revocations.Event) (revocations.Report, error)
	Instances() []revocations.Instance
	// Installation is under which id the nodes themselves report.
	Installation() token.ID
	Applied() uint64
}

const (
	waitForReceipts = "receipts"
	defaultWait     = 5 * time.Second
	maxWait         = 25 * time.Second // below the bound of an answer
	// maxInstances is how many instances an answer names; who waits, and the
	// slowest, come first.
	maxInstances = 1000
	// nodeName is how the installation's own nodes are called.
	nodeName = "watchword"
)

// receiptsAnswer says who has heard of an event. Event is null when nothing
// happened to the token that anybody had to hear of.
type receiptsAnswer struct {
	TokenID    token.ID         `json:"token_id"`
	Event      *eventAnswer     `json:"event"`
	Complete   bool             `json:"complete"`
	Why        string           `json:"why"`
	CompleteBy string           `json:"complete_by,omitempty"`
	Heard      int              `json:"heard"`
	Waiting    int              `json:"waiting"`
	Millis     *millisAnswer    `json:"milliseconds,omitempty"`
	Instances  []instanceAnswer `json:"instances"`
	LeftOff    int              `json:"left_off,omitzero"`
}

type eventAnswer struct {
	Type     string `json:"type"`
	Sequence uint64 `json:"sequence"`
	Number   uint64 `json:"number"`
	Epoch    uint32 `json:"epoch"`
	Time     string `json:"time"`
}

type millisAnswer struct {
	P50 int64 `json:"p50"`
	P90 int64 `json:"p90"`
	P99 int64 `json:"p99"`
	Max int64 `json:"max"`
}

// instanceAnswer is an instance and what it has to do with the event.
type instanceAnswer struct {
	EnforcerID   token.ID `json:"enforcer_id"`
	Name         string   `json:"name"`
	Region       string   `json:"region,omitempty"`
	Instance     string   `json:"instance"`
	State        string   `json:"state"`
	AppliedOn    string   `json:"applied_on,omitempty"`
	Milliseconds *int64   `json:"milliseconds,omitempty"`
	// NotSince is when it was last heard of, not having heard of the event.
	NotSince    string `json:"not_since,omitempty"`
	LeaseEndsOn string `json:"lease_ends_on,omitempty"`
}

// millis writes a time to the millisecond, and none as "".
func millis(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(events.TimeFormat)
}

func eventAnswerOf(e *revocations.Event) *eventAnswer {
	return &eventAnswer{Type: events.TypePrefix + e.Name, Sequence: e.Seq, Number: e.Number, Epoch: e.Epoch, Time: millis(e.Time)}
}

// receiptsAnswerOf shows a report. Names are those of the directory.
func (s *Service) receiptsAnswerOf(id token.ID, r *revocations.Report) (*receiptsAnswer, error) {
	names, err := s.enforcerNames()
	if err != nil {
		return nil, err
	}
	a := &receiptsAnswer{
		TokenID: id, Event: eventAnswerOf(&r.Event), Complete: r.Complete, Why: string(r.Why), CompleteBy: millis(r.By),
		Heard: r.Counts[revocations.Applied], Waiting: r.Counts[revocations.Waiting],
		Instances: make([]instanceAnswer, 0, min(len(r.Instances), maxInstances)),
	}
	timed := false
	for i := range r.Instances {
		h := &r.Instances[i]
		timed = timed || !h.AppliedAt.IsZero()
		if len(a.Instances) == maxInstances {
			a.LeftOff++
			continue
		}
		n := instanceAnswer{
			EnforcerID: h.Enforcer, Name: names[h.Enforcer], Region: h.Region, Instance: h.Name, State: string(h.State), AppliedOn: millis(h.AppliedAt),
		}
		switch {
		case !h.AppliedAt.IsZero():
			n.Milliseconds = new(h.Took.Milliseconds())
		case h.State != revocations.Applied:
			n.NotSince, n.LeaseEndsOn = millis(h.LastSeen), millis(h.LeaseEnds)
		}
		a.Instances = append(a.Instances, n)
	}
	if timed {
		a.Millis = &millisAnswer{r.P50.Milliseconds(), r.P90.Milliseconds(), r.P99.Milliseconds(), r.Max.Milliseconds()}
	}
	return a, nil
}

// enforcerNames are the names of all who report.
func (s *Service) enforcerNames() (map[token.ID]string, error) {
	all, err := s.Directory.Enforcers()
	if err != nil {
		return nil, err
	}
	names := map[token.ID]string{s.Receipts.Installation(): nodeName}
	for i := range all {
		names[all[i].ID] = all[i].Name
	}
	return names, nil
}

// getReceipts answers who has heard of what was done to a token: of the newest
// event that took something away, or of the one at ?sequence=.
func (s *Service) getReceipts(x *web.Exchange, of ownership) error {
	at, err := of.target(x)
	if err != nil {
		return err
	}
	q := x.Request().URL.Query()
	seq, err := sequenceParameter(q)
	if err != nil {
		return err
	}
	wait, err := waitParameter(q)
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	owner, err := s.owner(c, of, at.Owner)
	if err != nil {
		return err
	}
	t, ok, err := s.Directory.Token(at.ID)
	if err != nil {
		return err
	}
	if !ok || t.OwnerKind != owner.Kind || t.Owner != owner.ID {
		return fault.New(fault.TokenNotFound)
	}
	if s.Receipts == nil {
		return fault.New(fault.NotReady)
	}
	ctx, cancel := context.WithTimeout(x.Context(), s.ReadWait)
	defer cancel()
	if err := s.Receipts.Wait(ctx, s.Directory.Applied()); err != nil {
		return fault.Wrap(fault.NotReady, err)
	}
	e, ok, err := s.eventOf(&t, owner, seq)
	if err != nil {
		return err
	}
	if !ok {
		return x.Result(receiptsAnswer{TokenID: t.ID, Why: "nothing_to_hear", Instances: []instanceAnswer{}})
	}
	a, err := s.heard(x.Context(), t.ID, e, wait)
	if err != nil {
		return err
	}
	return x.Result(a)
}

// eventOf returns what happened to a token that enforcers had to hear of: the
// event at seq, or the newest one when seq is zero. What ended its owner, and
// sweeps that reached it, count too.
func (s *Service) eventOf(t *aggregate.Token, owner directory.Owner, seq uint64) (newest revocations.Event, there bool, err error) {
	own := revocations.TokenSubject(t.ID)
	if seq > 0 {
		return s.Receipts.About(own, seq)
	}
	if t.Status == aggregate.Revoked {
		if e, ok, err := s.Receipts.Newest(own, events.TokenRevoked{}.EventName()); ok || err != nil {
			return e, ok, err
		}
	}
	subject, removed := revocations.UserSubject(owner.ID), events.UserRemoved{}.EventName()
	sweeps := []revocations.Subject{
		revocations.SweepSubject(events.SweepOwner, owner.ID.String()), revocations.SweepSubject(events.SweepAll, ""),
	}
	if owner.Kind == events.OwnedByAccount {
		subject, removed = revocations.AccountSubject(owner.ID), events.AccountRemoved{}.EventName()
		sweeps = append(sweeps, revocations.SweepSubject(events.SweepAccount, owner.ID.String()))
	}
	if t.Template != "" {
		sweeps = append(sweeps, revocations.SweepSubject(events.SweepTemplate, t.Template))
	}
	for _, sweep := range sweeps {
		// What has ended was changed last by what has ended it.
		if e, ok, err := s.Receipts.About(sweep, t.Seq); t.Status == aggregate.Revoked && (ok || err != nil) {
			return e, ok, err
		}
	}
	consider := func(e revocations.Event, ok bool, problem error) {
		if err == nil {
			err = problem
		}
		if ok && e.Seq > newest.Seq && !t.Created.After(e.Time) && (e.Through == 0 || t.Number <= e.Through) {
			newest, there = e, true
		}
	}
	consider(s.Receipts.Newest(own))
	consider(s.Receipts.Newest(subject, removed))
	for _, sweep := range sweeps {
		consider(s.Receipts.Newest(sweep))
	}
	return newest, there, err
}

// heard reports on an event, at once or when it is complete.
func (s *Service) heard(ctx context.Context, id token.ID, e revocations.Event, wait time.Duration) (*receiptsAnswer, error) {
	var r revocations.Report
	var err error
	if wait > 0 {
		bounded, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		r, err = s.Receipts.Await(bounded, e)
	} else {
		r, err = s.Receipts.Report(e)
	}
	if err != nil {
		return nil, err
	}
	return s.receiptsAnswerOf(id, &r)
}

// heardOf is heard for an answer to a command that was accepted: whatever goes
// wrong here, the command is done, and the answer says so. It is nil when nobody
// asked for receipts.
func (s *Service) heardOf(x *web.Exchange, at command.Target, seq uint64, wait time.Duration) *receiptsAnswer {
	if wait == 0 {
		return nil
	}
	unknown := &receiptsAnswer{TokenID: at.ID, Why: string(revocations.NotRead), Instances: []instanceAnswer{}}
	if s.Receipts == nil {
		return unknown
	}
	ctx, cancel := context.WithTimeout(x.Context(), wait)
	defer cancel()
	if err := s.Receipts.Wait(ctx, seq); err != nil {
		return unknown
	}
	e, ok, err := s.Receipts.About(revocations.TokenSubject(at.ID), seq)
	if err == nil && ok {
		deadline, _ := ctx.Deadline()
		var a *receiptsAnswer
		if a, err = s.heard(x.Context(), at.ID, e, max(time.Until(deadline), time.Millisecond)); err == nil {
			return a
		}
	}
	if err != nil {
		s.Log.Error("who has heard of a change cannot be said", "error", err)
	}
	return unknown
}

// waitParameter reads ?wait=receipts&timeout=5s; zero means not to wait.
func waitParameter(q url.Values) (time.Duration, error) {
	if !q.Has("wait") {
		return 0, nil
	}
	if q.Get("wait") != waitForReceipts {
		return 0, fault.New(fault.InvalidParameter).WithDetail("wait can be receipts, and nothing else")
	}
	if !q.Has("timeout") {
		return defaultWait, nil
	}
	d, err := time.ParseDuration(q.Get("timeout"))
	if n, nerr := strconv.Atoi(q.Get("timeout")); nerr == nil && n >= 0 && n <= int(maxWait/time.Second) {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d <= 0 || d > maxWait {
		return 0, fault.New(fault.InvalidParameter).WithDetail("timeout is a time such as 5s, at most %v", maxWait)
	}
	return d, nil
}

func sequenceParameter(q url.Values) (uint64, error) {
	if !q.Has("sequence") {
		return 0, nil
	}
	seq, err := strconv.ParseUint(q.Get("sequence"), 10, 63)
	if err != nil || seq == 0 {
		return 0, fault.New(fault.InvalidParameter).WithDetail("sequence is that of an event about the token")
	}
	return seq, nil
}

// liveAnswer is an instance as operators see it.
type liveAnswer struct {
	Instance     string  `json:"instance"`
	Region       string  `json:"region,omitempty"`
	State        string  `json:"state"`
	Sequence     uint64  `json:"sequence"`
	Epoch        uint32  `json:"epoch"`
	Lag          uint64  `json:"lag"`
	AppliedOn    string  `json:"applied_on"`
	FirstSeenOn  string  `json:"first_seen_on,omitempty"`
	LastSeenOn   string  `json:"last_seen_on"`
	SilentFor    float64 `json:"silent_seconds"`
	LeaseEndsOn  string  `json:"lease_ends_on"`
	BoundSeconds float64 `json:"bound_seconds"`
	SkewSeconds  float64 `json:"skew_seconds"`
	Reader       int     `json:"reader"`
}

// shownFor is how long an instance is listed that verifies no more.
const shownFor = 24 * time.Hour

// live are the instances of each enforcer.
func (s *Service) live() map[token.ID][]liveAnswer {
	all := map[token.ID][]liveAnswer{}
	if s.Receipts == nil {
		return all
	}
	now, head := s.Now(), s.Receipts.Applied()
	for _, i := range s.Receipts.Instances() {
		if i.State != revocations.Waiting && now.Sub(i.LastSeen) > shownFor {
			continue
		}
		a := liveAnswer{
			Instance: i.Name, Region: i.Region, State: string(i.State), Sequence: i.Seq, Epoch: i.Epoch,
			AppliedOn: millis(i.Applied), FirstSeenOn: millis(i.FirstSeen), LastSeenOn: millis(i.LastSeen),
			SilentFor: max(now.Sub(i.LastSeen), 0).Seconds(), LeaseEndsOn: millis(i.LeaseEnds),
			BoundSeconds: i.Bound.Seconds(), SkewSeconds: i.Skew.Seconds(), Reader: i.Reader,
		}
		if i.State == revocations.Waiting {
			a.State = "live"
		}
		if head > i.Seq {
			a.Lag = head - i.Seq
		}
		all[i.Enforcer] = append(all[i.Enforcer], a)
	}
	return all
}
