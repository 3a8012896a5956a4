package authoritytest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/services/authority"
	"watchword.dev/services/internal/command"
)

// DNSWrite is the permission group "DNS Write" of the built-in catalogue.
const DNSWrite = "4755a26eedb94da69e1066d98aa820be"

// Installation is a small world: an operator who administers one account, and
// a stranger who administers another. Its ids and secrets are made of counted
// numbers, so that a failing run can be read.
type Installation struct {
	ID                          token.ID
	Operator, Stranger          token.ID
	Account, ForeignAccount     token.ID
	Key                         ed25519.PrivateKey
	counter                     atomic.Uint64
	membership, otherMembership token.ID
}

// NewInstallation returns an installation of which nothing is in a ledger yet.
func NewInstallation() *Installation {
	seed := sha256.Sum256([]byte("the pen of a test"))
	in := &Installation{Key: ed25519.NewKeyFromSeed(seed[:])}
	in.ID, in.Operator, in.Stranger = in.NewID(), in.NewID(), in.NewID()
	in.Account, in.ForeignAccount = in.NewID(), in.NewID()
	in.membership, in.otherMembership = in.NewID(), in.NewID()
	return in
}

// NewID returns an id that was not there before.
func (in *Installation) NewID() token.ID {
	id, err := token.ParseID(fmt.Sprintf("0199%028x", in.counter.Add(1)))
	if err != nil {
		panic(err)
	}
	return id
}

// NewSecret returns the digest of a secret that was not there before.
func (in *Installation) NewSecret() token.Digest {
	return token.Sum(fmt.Sprintf("secret %d", in.counter.Add(1)))
}

// Genesis is the first event of the installation's ledger.
func (in *Installation) Genesis() *events.LogOpened {
	return &events.LogOpened{Installation: in.ID, Brand: token.DefaultBrand, PulseKey: in.Key.Public().(ed25519.PublicKey)}
}

// Config returns the settings of a pen of the installation.
func (in *Installation) Config(node string, log events.Log, pulses events.Pulses, past authority.Past) authority.Config {
	return authority.Config{
		Log: log, Pulses: pulses, Past: past, Key: in.Key, Installation: in.ID, Node: node, Genesis: in.Genesis(),
	}
}

// People are the commands that make the operator and the stranger.
func (in *Installation) People() []command.Command {
	return []command.Command{
		in.register(in.Operator, "operator", true), in.register(in.Stranger, "stranger", false),
		command.IssueAPIKey{User: in.Operator, Secret: KeyOf(in.Operator)}, command.IssueAPIKey{User: in.Stranger, Secret: KeyOf(in.Stranger)},
		command.CreateAccount{ID: in.Account, Name: "Example Ltd"}, command.CreateAccount{ID: in.ForeignAccount, Name: "Another Ltd"},
		command.AddMember{ID: in.membership, Account: in.Account, User: in.Operator, Roles: []string{authority.SuperAdministrator}},
		command.AddMember{ID: in.otherMembership, Account: in.ForeignAccount, User: in.Stranger, Roles: []string{authority.SuperAdministrator}},
	}
}

func (in *Installation) register(id token.ID, name string, operator bool) command.Command {
	return command.RegisterUser{
		ID: id, EmailIndex: EmailOf(id), Operator: operator,
		Email: events.Sealed{Key: "k/" + name, Nonce: make([]byte, 12), Ciphertext: []byte("sealed " + name)},
	}
}

// KeyOf is the digest of a user's first API key, EmailOf their e-mail index.
func KeyOf(user token.ID) token.Digest { return token.Sum("key of " + user.String()) }

// EmailOf is the e-mail index of a user.
func EmailOf(user token.ID) string { return "email of " + user.String() }

// ByKey is a user who comes by their API key.
func ByKey(user token.ID) command.Caller {
	return command.Caller{Kind: token.KindKey, Digest: KeyOf(user), EmailIndex: EmailOf(user)}
}

// Grant allows permission groups on one resource.
func Grant(resource string, groups ...string) token.Grant {
	p := token.Policy{Effect: token.EffectAllow, Resources: jsontext.Value(`{"` + resource + `":"*"}`)}
	for _, g := range groups {
		p.Groups = append(p.Groups, token.GroupRef{ID: g})
	}
	return token.Grant{Policies: []token.Policy{p}}
}

// Create is the creation of a token of the caller's own for one zone.
func (in *Installation) Create() command.CreateToken {
	return command.CreateToken{
		Target: command.Target{ID: in.NewID(), OwnerKind: events.OwnedByUser},
		Name:   "a token", Grant: Grant("com.cloudflare.api.account.zone.z1", DNSWrite), Secret: in.NewSecret(),
	}
}

// Settle waits until the directory has applied what the pen knows to be in the
// log.
func Settle(ctx context.Context, p *authority.Pen, d *Directory) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return d.Wait(ctx, p.Stats().Sequence)
}
