package directory

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
)

var _ projector.Owned = (*Directory)(nil)

func openMem(t testing.TB, fs vfs.FS) *Directory {
	t.Helper()
	d, err := Open(Options{Dir: "directory", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	d.waypoints.every = 3 // so that short lists have some
	return d
}

func closing(t testing.TB, d *Directory) *Directory {
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func apply(t testing.TB, d *Directory, commits ...events.Commit) {
	t.Helper()
	if err := d.Apply(commits); err != nil {
		t.Fatal(err)
	}
}

func dump(t testing.TB, d *Directory) string {
	t.Helper()
	return projectiontest.Dump(t, d.Store().DB())
}

// asker is what a Directory and a View have in common.
type asker interface {
	Position() events.Position
	Installation() (events.LogOpened, bool, error)
	Token(token.ID) (aggregate.Token, bool, error)
	Tokens(TokenQuery) (Page[aggregate.Token], error)
	TokensAfter(Owner, token.ID, int) ([]aggregate.Token, error)
	Sweep(Selection) (aggregate.Sweep, bool, error)
	LivingCount(Selection) (uint64, error)
	LivingAfter(Selection, token.ID, int, func(*aggregate.Token) error) (token.ID, error)
	TokenCounts(Owner) (Counts, bool, error)
	User(token.ID) (aggregate.User, bool, error)
	UserByEmail(string) (aggregate.User, bool, error)
	Account(token.ID) (aggregate.Account, bool, error)
	Accounts(token.ID) ([]aggregate.Account, error)
	Member(token.ID) (aggregate.Member, bool, error)
	MemberOf(account, user token.ID) (aggregate.Member, bool, error)
	Members(token.ID) ([]aggregate.Member, error)
	Memberships(token.ID) ([]aggregate.Member, error)
	Enforcer(token.ID) (aggregate.Enforcer, bool, error)
	Enforcers() ([]aggregate.Enforcer, error)
	Consumer(token.ID) (aggregate.Consumer, bool, error)
	Consumers() ([]aggregate.Consumer, error)
	ByNkey(string) (aggregate.Credential, bool, error)
	Resource(string) (aggregate.Resource, bool, error)
	Catalogue() (aggregate.Catalogue, bool, error)
	Credential(token.Digest) (aggregate.Credential, bool, error)
	Request(string) (aggregate.Request, bool, error)
	AllAccounts(Listing) (Page[aggregate.Account], error)
	AllUsers(Listing) (Page[aggregate.User], error)
	MembersPage(token.ID, Listing) (Page[aggregate.Member], error)
	Resources(ResourceQuery) (Page[aggregate.Resource], error)
}

// expect compares one answer with the model's.
func expect[T any](t testing.TB, what string, got T, ok bool, err error, want T, wantOK bool) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if ok != wantOK {
		t.Fatalf("%s: found %v, want %v", what, ok, wantOK)
	}
	if reflect.DeepEqual(want, got) {
		return // the usual case, and much faster
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func deref[T any](v *T) (T, bool) {
	if v == nil {
		return *new(T), false
	}
	return *v, true
}

// check asks everything that can be asked and compares it with the model.
func (m *model) check(t testing.TB, d asker) {
	t.Helper()
	if d.Position() != m.at {
		t.Fatalf("at %+v, want %+v", d.Position(), m.at)
	}
	opened, ok, err := d.Installation()
	want, wantOK := deref(m.opened)
	expect(t, "installation", opened, ok, err, want, wantOK)
	for id, want := range m.tokens {
		got, ok, err := d.Token(id)
		expect(t, "token", got, ok, err, *want, true)
	}
	m.checkPeople(t, d)
	m.checkTokens(t, d)
	m.checkLookups(t, d)
	m.checkResources(t, d)
	m.checkLists(t, d)
	m.checkSweeps(t, d)
}

func (m *model) checkResources(t testing.TB, d asker) {
	t.Helper()
	alive := map[string]*aggregate.Resource{}
	for _, s := range m.resources {
		if alive[s.Key()] == nil || s.Status == aggregate.Active {
			alive[s.Key()] = s
		}
	}
	for key, want := range alive {
		got, ok, err := d.Resource(key)
		if want.Status == aggregate.Active {
			expect(t, "resource", got, ok, err, *want, true)
		} else {
			expect(t, "removed resource", got, ok, err, aggregate.Resource{}, false)
		}
	}
	got, ok, err := d.Catalogue()
	expect(t, "catalogue", got, ok, err, m.published, m.published.Version > 0)
}

func (m *model) checkPeople(t testing.TB, d asker) {
	t.Helper()
	for id, want := range m.users {
		got, ok, err := d.User(id)
		expect(t, "user", got, ok, err, *want, true)
		got, ok, err = d.UserByEmail(want.EmailIndex)
		if want.Status == aggregate.Active {
			expect(t, "user by address", got, ok, err, *want, true)
		} else {
			expect(t, "removed user by address", got, ok, err, aggregate.User{}, false)
		}
		for account := range m.accounts {
			var want *aggregate.Member
			for _, b := range m.members {
				if b.Account == account && b.User == id && b.Status == aggregate.Active {
					want = b
				}
			}
			got, ok, err := d.MemberOf(account, id)
			w, wantOK := deref(want)
			expect(t, "member of", got, ok, err, w, wantOK)
		}
		got2, err := d.Memberships(id)
		want2 := m.memberships(func(b *aggregate.Member) (token.ID, bool) { return b.Account, b.User == id })
		expect(t, "memberships", got2, true, err, want2, true)
		accounts, err := d.Accounts(id)
		wantAccounts := []aggregate.Account{}
		for _, b := range want2 {
			wantAccounts = append(wantAccounts, *m.accounts[b.Account])
		}
		expect(t, "accounts", accounts, true, err, wantAccounts, true)
	}
	for id, want := range m.accounts {
		got, ok, err := d.Account(id)
		expect(t, "account", got, ok, err, *want, true)
		members, err := d.Members(id)
		wantMembers := m.memberships(func(b *aggregate.Member) (token.ID, bool) { return b.User, b.Account == id })
		expect(t, "members", members, true, err, wantMembers, true)
	}
	for id, want := range m.members {
		got, ok, err := d.Member(id)
		expect(t, "member", got, ok, err, *want, true)
	}
	m.checkEnrolled(t, d)
}

func (m *model) owners() (all []Owner) {
	for id := range m.users {
		all = append(all, Owner{Kind: events.OwnedByUser, ID: id}, Owner{Kind: events.OwnedByAccount, ID: id})
	}
	for id := range m.accounts {
		all = append(all, Owner{Kind: events.OwnedByAccount, ID: id}, Owner{Kind: events.OwnedByUser, ID: id})
	}
	return all
}

// checkTokens reads every owner's list by pages of several sizes, both ways:
// together the pages are the list, without a gap and without a repetition, and
// hold nothing of another owner.
func (m *model) checkTokens(t testing.TB, d asker) {
	t.Helper()
	for _, o := range m.owners() {
		counts, ok, err := d.TokenCounts(o)
		live, all := m.list(o, false), m.list(o, true)
		expect(t, "counts", counts, ok, err, Counts{Live: uint64(len(live)), All: uint64(len(all)), Seq: m.counted[o]}, len(all) > 0)
		checkWalk(t, d, o, live)
		for _, ended := range []bool{false, true} {
			want := m.list(o, ended)
			for _, descending := range []bool{false, true} {
				if descending {
					slices.Reverse(want)
				}
				q := TokenQuery{Owner: o, Ended: ended, Listing: Listing{PerPage: 1 + len(want)/3, Descending: descending}}
				checkPages(t, d, q, want)
				for _, q.ValidAt = range m.ends(o) {
					checkPages(t, d, q, slices.DeleteFunc(slices.Clone(want), func(k aggregate.Token) bool { return past(&k, q.ValidAt) }))
				}
			}
		}
	}
}

// checkWalk walks over an owner's tokens by steps that do not divide them.
func checkWalk(t testing.TB, d asker, o Owner, want []aggregate.Token) {
	t.Helper()
	var got []aggregate.Token
	for after := (token.ID{}); ; after = got[len(got)-1].ID {
		step, err := d.TokensAfter(o, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(step) == 0 {
			break
		}
		got = append(got, step...)
	}
	if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("a walk over the tokens of %v finds %d, want %d", o, len(got), len(want))
	}
}

// past says whether a token is left out because its validity has ended.
func past(k *aggregate.Token, at time.Time) bool {
	end := k.Grant.ExpiresOn
	return !at.IsZero() && k.Status != aggregate.Revoked && !end.IsZero() && !at.Before(end)
}

// ends returns when the validity of an owner's tokens ends, and the moments
// before.
func (m *model) ends(o Owner) (all []time.Time) {
	for _, k := range m.list(o, true) {
		if end := k.Grant.ExpiresOn; !end.IsZero() && !slices.Contains(all, end) {
			all = append(all, end, end.Add(-time.Millisecond))
		}
	}
	return all
}

func checkPages(t testing.TB, d asker, q TokenQuery, want []aggregate.Token) {
	t.Helper()
	total := uint64(len(want))
	for q.Page = 1; ; q.Page++ {
		page, err := d.Tokens(q)
		n := min(q.PerPage, len(want))
		w := Page[aggregate.Token]{Items: append([]aggregate.Token{}, want[:n]...), Total: total, Seq: d.Position().Seq}
		expect(t, fmt.Sprintf("page %+v", q), page, true, err, w, true)
		if want = want[n:]; n == 0 {
			return
		}
	}
}

func (m *model) checkLookups(t testing.TB, d asker) {
	t.Helper()
	for _, digest := range m.digests {
		want, wantOK := m.credential(digest)
		got, ok, err := d.Credential(digest)
		expect(t, "credential", got, ok, err, want, wantOK)
	}
	for digest, want := range m.requests {
		wantOK := m.at.Time.Sub(want.Time) <= aggregate.RequestWindow
		if !wantOK {
			want = aggregate.Request{}
		}
		got, ok, err := d.Request(digest)
		expect(t, "request", got, ok, err, want, wantOK)
	}
}

// TestStories checks after every commit of random stories that each question
// is answered as by looking at everything there is.
func TestStories(t *testing.T) {
	for range 3 {
		story, m := projectiontest.NewStory(projectiontest.Seed(t)), newModel()
		d := closing(t, openMem(t, vfs.NewMem()))
		for at := 0; at < 150; at++ {
			if at == len(story.Commits) {
				story.Step()
			}
			m.apply(t, story.Commits[at])
			apply(t, d, story.Commits[at])
			m.check(t, d)
		}
	}
}

// TestRebuild checks that the rows do not depend on how the commits came in
// batches, and no answer on what has reached the disk.
func TestRebuild(t *testing.T) {
	rng := projectiontest.Seed(t)
	story, m := projectiontest.Tell(rng, 800), newModel()
	for _, c := range story.Commits {
		m.apply(t, c)
	}
	one := closing(t, openMem(t, vfs.NewMem()))
	apply(t, one, story.Commits...)
	many := closing(t, openMem(t, vfs.NewMem()))
	projectiontest.ApplyAll(t, rng, many, story.Commits)
	m.check(t, many)
	if got, want := dump(t, many), dump(t, one); got != want {
		t.Errorf("rows differ (-one batch +many):\n%s", cmp.Diff(want, got))
	}
	if err := many.Store().DB().Flush(); err != nil {
		t.Fatal(err)
	}
	m.check(t, many)
}

// TestCrashAnywhere checks that a directory that lost its memory at any moment
// is at one sequence, answers as one that never went on from there, and ends
// up as one built in a single clean run.
func TestCrashAnywhere(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 300)
	check := func(d *Directory) {
		m := newModel()
		for _, c := range story.Commits[:d.Applied()] {
			m.apply(t, c)
		}
		m.check(t, d)
	}
	projectiontest.CrashAnywhere(t, rng, story.Commits,
		func(fs vfs.FS) (*Directory, error) { return Open(Options{Dir: "directory", FS: fs}) },
		func(d *Directory) string { return dump(t, d) }, check)
}

// TestRunner checks that the directory can be fed by the runner from a log, and
// that it shows what is in it by then.
func TestRunner(t *testing.T) {
	story, m := projectiontest.Tell(projectiontest.Seed(t), 300), newModel()
	for _, c := range story.Commits {
		m.apply(t, c)
	}
	d := closing(t, openMem(t, vfs.NewMem()))
	run := projector.NewRunner(story.Ledger(t).Connect(), d, projector.Options{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run.Run(ctx) }()
	if err := run.Wait(ctx, story.At.Seq); err != nil {
		t.Error(err)
	}
	m.check(t, d)
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestReaders checks that every view is the directory at one sequence, while
// commits are applied. What a view must say is what the model said there.
func TestReaders(t *testing.T) {
	s, begin := newLedger(t)
	d := closing(t, openMem(t, vfs.NewMem()))
	apply(t, d, begin...)
	owner := Owner{Kind: events.OwnedByUser, ID: s.user}

	// Tokens come and go one by one, so at every sequence the owner has as
	// many tokens as secrets lead to.
	var secrets []token.Digest
	var history []events.Commit
	for i := range 300 {
		id, secret := s.id(), s.digest()
		secrets, history = append(secrets, secret), append(history, s.create(id, secret, ""))
		if i%2 == 1 {
			history = append(history, s.commit("token", id, &events.TokenRevoked{}))
		}
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for ended := false; !ended; {
				select {
				case <-done:
					ended = true // and look once more
				default:
				}
				if err := lookOnce(d, owner, secrets); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, c := range history {
		apply(t, d, c)
	}
	close(done)
	readers.Wait()
}

// lookOnce opens a view and finds the same tokens in three ways.
func lookOnce(d *Directory, o Owner, secrets []token.Digest) error {
	before := d.Applied()
	v, err := d.View()
	if err != nil {
		return err
	}
	defer v.Close()
	if v.Position().Seq < before {
		return fmt.Errorf("a view is at %d after %d was applied", v.Position().Seq, before)
	}
	counts, _, err := v.TokenCounts(o)
	if err != nil {
		return err
	}
	found := uint64(0)
	for _, secret := range secrets {
		if _, ok, err := v.Credential(secret); err != nil {
			return err
		} else if ok {
			found++
		}
	}
	page, err := v.Tokens(TokenQuery{Owner: o, Listing: Listing{Page: 1, PerPage: MaxPerPage}})
	if err != nil {
		return err
	}
	if found != counts.Live || page.Total != counts.Live || uint64(len(page.Items)) != counts.Live || page.Seq != v.Position().Seq {
		return fmt.Errorf("at %d: %d digests, %d counted, %d listed, %d in all at %d",
			v.Position().Seq, found, counts.Live, len(page.Items), page.Total, page.Seq)
	}
	// The directory itself reads a page at one sequence too, or this fails
	// for a count that does not fit the list.
	_, err = d.Tokens(TokenQuery{Owner: o, Listing: Listing{Page: 1, PerPage: MaxPerPage, Descending: true}})
	return err
}

// TestStops checks that what cannot be applied changes nothing, however much
// of its batch was good.
func TestStops(t *testing.T) {
	s, begin := newLedger(t)
	d := closing(t, openMem(t, vfs.NewMem()))
	apply(t, d, begin...)
	u, a, gone, known := s.user, s.account, s.id(), s.id()
	apply(t, d, s.create(known, token.Digest{1}, ""))
	apply(t, d, s.commit("member", s.id(), &events.MemberAdded{Account: a, User: u}))
	apply(t, d, s.commit("user", gone, &events.UserRegistered{EmailIndex: "other"}))
	apply(t, d, s.commit("user", gone, &events.UserRemoved{}))
	scrapped := s.id()
	apply(t, d, s.commit("consumer", scrapped, &events.ConsumerEnrolled{Nkey: "UCONSUMER"}))
	apply(t, d, s.commit("consumer", scrapped, &events.ConsumerRetired{}))

	tests := []struct {
		name string
		data events.Event
		id   token.ID
		want error
	}{
		{"unknown type", &stranger{}, s.id(), events.ErrUnknown},
		{"created twice", &events.TokenCreated{OwnerKind: events.OwnedByUser, Owner: u, Secret: token.Digest{2}}, known, aggregate.ErrImpossible},
		{"secret of another", &events.TokenCreated{OwnerKind: events.OwnedByUser, Owner: u, Secret: token.Digest{1}}, s.id(), aggregate.ErrImpossible},
		{"key with the secret of a token", &events.APIKeyIssued{Secret: token.Digest{1}}, u, aggregate.ErrImpossible},
		{"enforcer with the secret of a token", &events.EnforcerEnrolled{Secret: token.Digest{1}}, s.id(), aggregate.ErrImpossible},
		{"enforcer with the nkey of a consumer", &events.EnforcerEnrolled{Secret: token.Digest{4}, Nkey: "UCONSUMER"}, s.id(), aggregate.ErrImpossible},
		{"consumer with the nkey of a retired one", &events.ConsumerEnrolled{Nkey: "UCONSUMER"}, s.id(), aggregate.ErrImpossible},
		{"unknown consumer", &events.ConsumerRetired{}, s.id(), aggregate.ErrImpossible},
		{"no kind of owner", &events.TokenCreated{OwnerKind: "team", Owner: u, Secret: token.Digest{2}}, s.id(), aggregate.ErrImpossible},
		{"removed owner", &events.TokenCreated{OwnerKind: events.OwnedByUser, Owner: gone, Secret: token.Digest{2}}, s.id(), aggregate.ErrImpossible},
		{"unknown token", &events.TokenRevoked{}, s.id(), aggregate.ErrImpossible},
		{"member twice", &events.MemberAdded{Account: a, User: u}, s.id(), aggregate.ErrImpossible},
		{"address of another", &events.UserRegistered{EmailIndex: "user's index"}, s.id(), aggregate.ErrImpossible},
		{"key of nobody", &events.APIKeyIssued{Secret: token.Digest{3}}, s.id(), aggregate.ErrImpossible},
	}
	before := dump(t, d)
	good := s.commit("account", s.id(), &events.AccountCreated{Name: "good"})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			end := good.End
			end.Seq++
			bad := events.Commit{Seq: end.Seq, End: end, Records: []events.Record{{
				Envelope: events.Envelope{Name: tt.data.EventName(), Subject: "x/" + tt.id.String(), Number: 99, Time: end.Time},
				Seq:      end.Seq, Data: tt.data,
			}}}
			if err := d.Apply([]events.Commit{good, bad}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if got := dump(t, d); got != before {
				t.Errorf("rows changed:\n%s", cmp.Diff(before, got))
			}
		})
	}
	t.Run("owner removed in the same batch", func(t *testing.T) {
		at := d.Position()
		var batch []events.Commit
		for i, data := range []events.Event{
			&events.TokenCreated{OwnerKind: events.OwnedByUser, Owner: u, Secret: token.Digest{4}},
			&events.UserRemoved{},
			&events.TokenCreated{OwnerKind: events.OwnedByUser, Owner: u, Secret: token.Digest{5}},
		} {
			at.Seq++
			id := []token.ID{s.id(), u, s.id()}[i]
			batch = append(batch, events.Commit{Seq: at.Seq, End: at, Records: []events.Record{{
				Envelope: events.Envelope{Name: data.EventName(), Subject: "x/" + id.String(), Time: at.Time}, Seq: at.Seq, Data: data,
			}}})
		}
		if err := d.Apply(batch); !errors.Is(err, aggregate.ErrImpossible) {
			t.Errorf("got %v, want %v", err, aggregate.ErrImpossible)
		}
		if got := dump(t, d); got != before {
			t.Errorf("rows changed:\n%s", cmp.Diff(before, got))
		}
		if err := d.Apply(batch[:2]); err != nil {
			t.Errorf("without the last: %v", err)
		}
	})
	if err := d.Apply([]events.Commit{{Seq: d.Applied() + 2}}); !errors.Is(err, events.ErrGap) {
		t.Errorf("after a gap: %v, want %v", err, events.ErrGap)
	}
}

type stranger struct{}

func (stranger) EventName() string { return "token.praised.v1" }

// TestPageRange checks the pages that cannot be, and those far behind the end.
func TestPageRange(t *testing.T) {
	s, begin := newLedger(t)
	d := closing(t, openMem(t, vfs.NewMem()))
	apply(t, d, begin...)
	apply(t, d, s.create(s.id(), s.digest(), ""))
	const far = int(^uint(0) >> 1)
	tests := []struct {
		page, per int
		kind      events.OwnerKind
		n         int
		bad       bool
	}{
		{1, 1, events.OwnedByUser, 1, false},
		{1, MaxPerPage, events.OwnedByUser, 1, false},
		{2, 1, events.OwnedByUser, 0, false},
		{far, 1, events.OwnedByUser, 0, false},
		{far, MaxPerPage, events.OwnedByUser, 0, false},
		{1, 20, events.OwnedByAccount, 0, false}, // the same id is another owner
		{0, 20, events.OwnedByUser, 0, true},
		{-1, 20, events.OwnedByUser, 0, true},
		{1, 0, events.OwnedByUser, 0, true},
		{1, MaxPerPage + 1, events.OwnedByUser, 0, true},
		{1, 20, "team", 0, true},
	}
	for _, tt := range tests {
		page, err := d.Tokens(TokenQuery{Owner: Owner{Kind: tt.kind, ID: s.user}, Listing: Listing{Page: tt.page, PerPage: tt.per}})
		if (err != nil) != tt.bad || len(page.Items) != tt.n {
			t.Errorf("page %d of %d: %d tokens, %v", tt.page, tt.per, len(page.Items), err)
		}
	}
}

// TestResourcesKeepTheirBytes checks that a policy's resources come out of a
// row as the event has them: clients compare the text.
func TestResourcesKeepTheirBytes(t *testing.T) {
	const resources = `{"com.cloudflare.api.account.zone.\u0062":"*","com.cloudflare.api.account.zone.a":"*","b\/c":"*"}`
	s, begin := newLedger(t)
	d := closing(t, openMem(t, vfs.NewMem()))
	apply(t, d, begin...)
	id := s.id()
	end := s.m.at
	end.Seq++
	end.Number++
	apply(t, d, events.Commit{Seq: end.Seq, End: end, Records: []events.Record{{
		Envelope: events.Envelope{Name: "token.created.v1", Subject: "token/" + id.String(), Time: end.Time, Number: end.Number}, Seq: end.Seq,
		Data: &events.TokenCreated{OwnerKind: events.OwnedByUser, Owner: s.user, Secret: s.digest(), Grant: token.Grant{
			Policies: []token.Policy{{Effect: token.EffectAllow, Resources: jsontext.Value(resources)}}}},
	}}})
	got, ok, err := d.Token(id)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if string(got.Grant.Policies[0].Resources) != resources {
		t.Errorf("got %s\nwant %s", got.Grant.Policies[0].Resources, resources)
	}
}

// TestRequestsAreForgotten checks that the rows of old requests go away: a
// directory does not grow by what nobody can ask for any more.
func TestRequestsAreForgotten(t *testing.T) {
	s, begin := newLedger(t)
	d := closing(t, openMem(t, vfs.NewMem()))
	apply(t, d, begin...)
	s.now = s.now.Truncate(stretch).Add(stretch) // the start of a stretch: the last to go
	made := s.now
	for i := range 5 {
		apply(t, d, s.create(s.id(), s.digest(), fmt.Sprint("request ", i)))
	}
	rows := func() (n int) {
		for line := range strings.Lines(dump(t, d)) {
			if strings.HasPrefix(line, `"`+string(rune(tableRequest))) {
				n++
			}
		}
		return n
	}
	if rows() != 5 {
		t.Fatalf("%d rows of requests, want 5", rows())
	}
	tests := []struct {
		after   time.Duration
		found   bool
		rowsMax int
	}{
		{aggregate.RequestWindow, true, 5},
		{aggregate.RequestWindow + time.Millisecond, false, 5},
		{aggregate.RequestWindow + 2*stretch, false, 0},
	}
	for _, tt := range tests {
		s.now = made.Add(tt.after)
		apply(t, d, s.commit("pen", s.id(), &events.PenOpened{Term: 9, Node: "n"}))
		if _, ok, err := d.Request("request 3"); err != nil || ok != tt.found {
			t.Errorf("after %v: found %v, %v, want %v", tt.after, ok, err, tt.found)
		}
		if rows() > tt.rowsMax {
			t.Errorf("after %v: %d rows, want at most %d", tt.after, rows(), tt.rowsMax)
		}
	}
}

// TestClose checks that closing waits for a view, and that later questions are
// refused and do not reach a closed store.
func TestClose(t *testing.T) {
	s, begin := newLedger(t)
	d := openMem(t, vfs.NewMem())
	apply(t, d, begin...)
	v, err := d.View()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	// Close refuses new questions before it waits.
	for err = nil; err == nil; {
		_, _, err = d.User(token.ID{})
	}
	if !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
	s.m.check(t, v)
	select {
	case err := <-closed:
		t.Errorf("closed under a view: %v", err)
	default:
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := d.View(); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
	if err := d.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
