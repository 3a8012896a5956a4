// Package projectiontest holds what the tests of all projections share: random
// stories that a ledger could tell, dumps of stores, and the harness that kills
// the machine at any moment.
package projectiontest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// Secret is a secret that a story handed out.
type Secret struct {
	Text  string
	Token token.ID // or the enforcer, or the user
	// Foreign marks one that another system made.
	Foreign bool
}

// Digest returns what the ledger holds of the secret.
func (s Secret) Digest() token.Digest {
	if s.Foreign {
		return token.SumForeign(sha256.Sum256([]byte(s.Text)))
	}
	return token.Sum(s.Text)
}

// Story is a random history that obeys the rules of the ledger: every event
// fits the state that the ones before it add up to. The same seed tells the
// same story.
type Story struct {
	Commits  []events.Commit
	Payloads [][]byte // of the commits
	At       events.Position
	Now      time.Time // of the last event

	Tokens    map[token.ID]*aggregate.Token
	Users     map[token.ID]*aggregate.User
	Accounts  map[token.ID]*aggregate.Account
	Members   map[token.ID]*aggregate.Member
	Enforcers map[token.ID]*aggregate.Enforcer
	Consumers map[token.ID]*aggregate.Consumer
	Resources map[token.ID]*aggregate.Resource
	Sweeps    []aggregate.Sweep
	Secrets   []Secret // of tokens, in the order of their making
	Keys      []Secret // of enforcers
	UserKeys  []Secret // API keys of users, in the order of their making
	Catalogue *catalogue.Catalogue

	rng *rand.Rand
	// order holds the ids of each map in the order of their making: a map's
	// own order differs between runs.
	tokens, users, accounts, members, enforcers, consumers, resources []token.ID

	busy    map[token.ID]bool // named by the commit under way
	claimed map[string]bool   // resources that the commit under way registers
	term    uint64
	version uint32 // of the catalogue
}

// Brand is the brand of the secrets in a story.
const Brand = "ww"

// NewStory returns a story that has just begun: the log is open and there is a
// user with an account.
func NewStory(rng *rand.Rand) *Story {
	s := &Story{
		Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), rng: rng, Catalogue: catalogue.Cloudflare(),
		Tokens: map[token.ID]*aggregate.Token{}, Users: map[token.ID]*aggregate.User{},
		Accounts: map[token.ID]*aggregate.Account{}, Members: map[token.ID]*aggregate.Member{},
		Enforcers: map[token.ID]*aggregate.Enforcer{}, Consumers: map[token.ID]*aggregate.Consumer{}, Resources: map[token.ID]*aggregate.Resource{},
		busy: map[token.ID]bool{}, claimed: map[string]bool{},
	}
	s.Append(s.draft("log", s.id(), &events.LogOpened{Installation: s.id(), Brand: Brand, PulseKey: make([]byte, 32)}))
	s.Append(s.penOpened())
	s.Append(s.userRegistered())
	s.Append(s.accountCreated())
	return s
}

// Tell returns a story of n commits.
func Tell(rng *rand.Rand, n int) *Story {
	s := NewStory(rng)
	for len(s.Commits) < n {
		s.Step()
	}
	return s
}

// Append adds a commit of the given drafts, which must have one subject, and
// moves the story's state over it. It panics when they do not fit: that is a
// mistake in the test.
func (s *Story) Append(drafts ...events.Draft) events.Commit {
	payload, c, err := events.Compose(s.At, drafts)
	if err != nil {
		panic(fmt.Sprintf("projectiontest: %v", err))
	}
	for i := range c.Records {
		if err := s.evolve(&c.Records[i]); err != nil {
			panic(fmt.Sprintf("projectiontest: %v", err))
		}
	}
	s.Commits, s.Payloads, s.At = append(s.Commits, c), append(s.Payloads, payload), c.End
	clear(s.busy)
	clear(s.claimed)
	return c
}

// Step adds one random commit, mostly of one event.
func (s *Story) Step() events.Commit {
	if s.rng.IntN(4) == 0 {
		s.Now = s.Now.Add(time.Duration(s.rng.IntN(int(time.Hour))))
	}
	s.Now = s.Now.Add(time.Millisecond).Truncate(time.Millisecond)
	for {
		if drafts := s.drafts(); len(drafts) > 0 {
			return s.Append(drafts...)
		}
	}
}

// drafts returns what could happen next, or nothing when there is nobody to
// whom the chosen thing could happen.
func (s *Story) drafts() []events.Draft {
	total := 0
	for _, p := range plots {
		total += p.weight
	}
	at := s.rng.IntN(total)
	i := 0
	for at >= plots[i].weight {
		at -= plots[i].weight
		i++
	}
	n := 1
	if plots[i].many && s.rng.IntN(5) == 0 {
		n += s.rng.IntN(4)
	}
	var drafts []events.Draft
	for range n {
		d, ok := plots[i].draft(s)
		if !ok {
			break
		}
		drafts = append(drafts, d)
	}
	return drafts
}

func (s *Story) draft(aggregate string, id token.ID, data events.Event) events.Draft {
	s.busy[id] = true
	d := events.Draft{Data: data}
	d.ID, d.Source, d.Subject, d.Time = s.id(), "watchword/test", aggregate+"/"+id.String(), s.Now
	d.Actor = events.Actor{Kind: events.ActorSystem}
	if len(s.users) > 0 && s.rng.IntN(2) == 0 {
		d.Actor = events.Actor{Kind: events.ActorUser, ID: s.users[s.rng.IntN(len(s.users))]}
		d.RequestID = fmt.Sprintf("request-%d", s.rng.IntN(1000))
	}
	if t := s.Tokens[id]; t != nil {
		d.Account = t.Account()
	}
	return d
}

func (s *Story) evolve(r *events.Record) error {
	id := r.SubjectID()
	kind, _, _ := strings.Cut(r.Subject, "/")
	switch kind {
	case "token":
		return evolve(s.Tokens, &s.tokens, id, r)
	case "user", "apikey":
		return evolve(s.Users, &s.users, id, r)
	case "account", "policy":
		return evolve(s.Accounts, &s.accounts, id, r)
	case "member":
		return evolve(s.Members, &s.members, id, r)
	case "enforcer":
		return evolve(s.Enforcers, &s.enforcers, id, r)
	case "consumer":
		return evolve(s.Consumers, &s.consumers, id, r)
	case "catalogue":
		return s.published(r)
	case "resource":
		return evolve(s.Resources, &s.resources, id, r)
	case "revocation":
		sweep, err := aggregate.SweepOf(r)
		s.Sweeps = append(s.Sweeps, sweep)
		return err
	}
	return nil
}

func (s *Story) published(r *events.Record) (err error) {
	s.Catalogue, err = catalogue.FromDocument(s.Catalogue, r.Data.(*events.CataloguePublished).Document)
	return err
}

func evolve[T any, P interface {
	*T
	Apply(*events.Record) error
}](all map[token.ID]P, order *[]token.ID, id token.ID, r *events.Record) error {
	p := all[id]
	if p == nil {
		p = new(T)
		all[id] = p
		*order = append(*order, id)
	}
	return p.Apply(r)
}

// id returns an id of the story's time.
func (s *Story) id() token.ID {
	var id token.ID
	binary.BigEndian.PutUint64(id[:], uint64(s.Now.UnixMilli())<<16|uint64(s.rng.IntN(1<<16)))
	binary.BigEndian.PutUint64(id[8:], s.rng.Uint64())
	return id
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// NewSecret returns a well-formed secret of a kind, made from rng alone.
func NewSecret(rng *rand.Rand, kind token.Kind) string {
	b := []byte(Brand + string(rune(kind)) + "_")
	for range 38 {
		b = append(b, base62[rng.IntN(62)])
	}
	sum := crc32.ChecksumIEEE(b)
	var check [6]byte
	for i := len(check) - 1; i >= 0; i-- {
		check[i] = base62[sum%62]
		sum /= 62
	}
	return string(append(b, check[:]...))
}

// NewKey returns a well-formed Global API Key, made from rng alone.
func NewKey(rng *rand.Rand) string {
	b := []byte(Brand + string(rune(token.KindKey)) + "_")
	for range 5 {
		b = fmt.Appendf(b, "%08x", rng.Uint32())
	}
	return string(fmt.Appendf(b, "%08x", crc32.ChecksumIEEE(b)))
}

// secret makes a secret of a token and remembers it.
func (s *Story) secret(id token.ID, kind events.OwnerKind, foreign bool) token.Digest {
	k := token.KindUser
	if kind == events.OwnedByAccount {
		k = token.KindAccount
	}
	made := Secret{Text: NewSecret(s.rng, k), Token: id, Foreign: foreign}
	if foreign {
		made.Text = fmt.Sprintf("foreign-%x", s.rng.Uint64())
	}
	s.Secrets = append(s.Secrets, made)
	return made.Digest()
}

// pick returns a random id of those that fit, or false when none does.
func (s *Story) pick(of []token.ID, fits func(token.ID) bool) (token.ID, bool) {
	if len(of) == 0 {
		return token.ID{}, false
	}
	start := s.rng.IntN(len(of))
	for i := range of {
		if id := of[(start+i)%len(of)]; !s.busy[id] && fits(id) {
			return id, true
		}
	}
	return token.ID{}, false
}

// liveToken picks a token that can still change: it has not ended and its
// owner is there.
func (s *Story) liveToken(fits func(*aggregate.Token) bool) (*aggregate.Token, bool) {
	id, ok := s.pick(s.tokens, func(id token.ID) bool {
		t := s.Tokens[id]
		return t.Status != aggregate.Revoked && !s.OwnerGone(t) && !s.Swept(t) && fits(t)
	})
	return s.Tokens[id], ok
}

// OwnerGone reports whether the owner of a token was removed.
func (s *Story) OwnerGone(t *aggregate.Token) bool {
	if t.OwnerKind == events.OwnedByAccount {
		return s.Accounts[t.Owner].Status == aggregate.Revoked
	}
	return s.Users[t.Owner].Status == aggregate.Revoked
}

// Swept reports whether a sweep has ended a token.
func (s *Story) Swept(t *aggregate.Token) bool {
	return slices.ContainsFunc(s.Sweeps, func(sweep aggregate.Sweep) bool { return sweep.Takes(t) })
}

func (s *Story) liveUser() (token.ID, bool) {
	return s.pick(s.users, func(id token.ID) bool { return s.Users[id].Status == aggregate.Active })
}

func (s *Story) liveAccount() (token.ID, bool) {
	return s.pick(s.accounts, func(id token.ID) bool { return s.Accounts[id].Status == aggregate.Active })
}

// Messages returns the subjects and payloads of all commits after seq.
func (s *Story) Messages(after uint64) (subjects []string, payloads [][]byte) {
	for i := range s.Commits[after:] {
		subjects = append(subjects, s.Commits[int(after)+i].Subject)
	}
	return subjects, slices.Clone(s.Payloads[after:])
}
