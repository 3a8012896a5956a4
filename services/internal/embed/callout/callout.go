package callout

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/embed"
)

const (
	// A login is good for lifetime less up to a quarter, so that those who
	// came together do not all come again together.
	lifetime = time.Hour
	// answerTime is how long a server waits for an answer.
	answerTime = 2 * time.Second
	// group is the queue group of all that answer.
	group   = "watchword"
	workers = 4
	waiting = 1024 // questions that may wait here; more are left to the server's timeout

	keyHeader = "Nats-Server-Xkey"
	refusal   = "refused"
)

// Directory is what the ledger says of those who enroll.
type Directory interface {
	// ByNkey finds who was ever enrolled with a public nkey.
	ByNkey(public string) (aggregate.Credential, bool, error)
	Enforcer(token.ID) (aggregate.Enforcer, bool, error)
	Consumer(token.ID) (aggregate.Consumer, bool, error)
}

// Config is what a Service needs. All of it must be set.
type Config struct {
	Conn      *nats.Conn    // as embed.Auth
	Issuer    nkeys.KeyPair // of embed.Issuer
	Sealer    nkeys.KeyPair // of embed.Sealer
	Directory Directory
	// Fresh waits until the directory has reached what the pen has last
	// vouched for, or says why it cannot be rested on.
	Fresh func(context.Context) error
	Log   *slog.Logger
}

// Service answers logins and ends connections. It is safe for concurrent use.
type Service struct {
	cfg Config

	admitted, refused, failed, ended atomic.Uint64
}

// New returns a Service. Nothing happens before Serve.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// Stats are counts since the start.
type Stats struct {
	Admitted uint64 // logins of those who are enrolled
	Refused  uint64 // of all others
	Failed   uint64 // refused because this node could not tell
	Ended    uint64 // connections of those who are retired
}

// Stats returns what the service has counted.
func (s *Service) Stats() Stats {
	return Stats{s.admitted.Load(), s.refused.Load(), s.failed.Load(), s.ended.Load()}
}

// Serve answers until ctx ends. The caller calls it when the directory has
// caught up for the first time: who answers takes a share of the questions.
func (s *Service) Serve(ctx context.Context) error {
	questions := make(chan *nats.Msg, waiting)
	sub, err := s.cfg.Conn.ChanQueueSubscribe(embed.CalloutSubject, group, questions)
	if err != nil {
		return fmt.Errorf("callout: %w", err)
	}
	defer sub.Unsubscribe()
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for {
				select {
				case m := <-questions:
					s.answer(ctx, m)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	all.Wait()
	return nil
}

// errLogin is why somebody is refused. Only the log of this node hears more.
var errLogin = errors.New("callout: not let in")

// answer answers one question of a server.
func (s *Service) answer(ctx context.Context, m *nats.Msg) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	server := m.Header.Get(keyHeader)
	ask, err := s.open(m.Data, server)
	if err != nil {
		s.cfg.Log.Warn("a question about a login that is no server's", "error", err)
		return
	}
	reply := jwt.NewAuthorizationResponseClaims(ask.UserNkey)
	reply.Audience = ask.Server.ID
	role, id, err := s.admit(ctx, ask)
	if err == nil {
		reply.Jwt, err = s.user(ask.UserNkey, role, id)
	}
	if err != nil {
		reply.Error, reply.Jwt = refusal, ""
	}
	s.note(ctx, ask, err)
	signed, err := reply.Encode(s.cfg.Issuer)
	if err == nil {
		var sealed []byte
		if sealed, err = s.cfg.Sealer.Seal([]byte(signed), server); err == nil {
			err = m.Respond(sealed)
		}
	}
	if err != nil {
		s.cfg.Log.Warn("answer a login", "error", err)
	}
}

// note counts an answer, and says why it is no.
func (s *Service) note(ctx context.Context, ask *jwt.AuthorizationRequestClaims, err error) {
	level := slog.LevelWarn
	switch {
	case err == nil:
		s.admitted.Add(1)
		return
	case errors.Is(err, errLogin):
		s.refused.Add(1)
		level = slog.LevelDebug // anybody can cause these
	default:
		s.failed.Add(1)
	}
	s.cfg.Log.Log(ctx, level, "a login is refused", "nkey", ask.ConnectOptions.Nkey, "host", ask.ClientInformation.Host, "error", err)
}

// open decrypts a server's question.
func (s *Service) open(sealed []byte, server string) (*jwt.AuthorizationRequestClaims, error) {
	plain, err := s.cfg.Sealer.Open(sealed, server)
	if err != nil {
		return nil, err
	}
	return jwt.DecodeAuthorizationRequestClaims(string(plain))
}

// admit says as what and as whom a client may log in.
func (s *Service) admit(ctx context.Context, ask *jwt.AuthorizationRequestClaims) (embed.Role, token.ID, error) {
	none := token.ID{}
	if err := proven(ask); err != nil {
		return "", none, err
	}
	// Fresh first: what is read after it was there by then.
	if err := s.cfg.Fresh(ctx); err != nil {
		return "", none, err
	}
	held, known, err := s.cfg.Directory.ByNkey(ask.ConnectOptions.Nkey)
	switch {
	case err != nil:
		return "", none, err
	case !known:
		return "", none, fmt.Errorf("%w: nobody is enrolled with this nkey", errLogin)
	}
	role := roleOf(held.Kind)
	switch active, err := s.active(role, held.ID); {
	case err != nil:
		return "", none, err
	case !active:
		return "", none, fmt.Errorf("%w: %s %v is retired", errLogin, role, held.ID)
	}
	return role, held.ID, nil
}

// proven checks that the client has signed the server's nonce with the private
// half of the nkey that it names. The server itself has not looked: it knows
// only the keys of its configuration.
func proven(ask *jwt.AuthorizationRequestClaims) error {
	public, nonce := ask.ConnectOptions.Nkey, ask.ClientInformation.Nonce
	if nonce == "" || !nkeys.IsValidPublicUserKey(public) {
		return fmt.Errorf("%w: no nkey of a user", errLogin)
	}
	key, err := nkeys.FromPublicKey(public)
	if err != nil {
		return fmt.Errorf("%w: %w", errLogin, err)
	}
	signature, err := base64.RawURLEncoding.DecodeString(ask.ConnectOptions.SignedNonce)
	if err != nil { // older clients
		if signature, err = base64.StdEncoding.DecodeString(ask.ConnectOptions.SignedNonce); err != nil {
			return fmt.Errorf("%w: no signature", errLogin)
		}
	}
	if err := key.Verify([]byte(nonce), signature); err != nil {
		return fmt.Errorf("%w: %w", errLogin, err)
	}
	return nil
}

func roleOf(k token.Kind) embed.Role {
	switch k {
	case token.KindEnforcer:
		return embed.Enforcer
	case token.KindConsumer:
		return embed.Consumer
	}
	return ""
}

// active says whether the directory has one of this kind that is not retired.
func (s *Service) active(r embed.Role, id token.ID) (bool, error) {
	switch r {
	case embed.Enforcer:
		n, ok, err := s.cfg.Directory.Enforcer(id)
		return ok && n.Status == aggregate.Active, err
	case embed.Consumer:
		n, ok, err := s.cfg.Directory.Consumer(id)
		return ok && n.Status == aggregate.Active, err
	}
	return false, nil
}

// user is the JWT that lets one in. It names the key pair that the server has
// made for this login alone, so it is good for nothing else.
func (s *Service) user(loginKey string, r embed.Role, id token.ID) (string, error) {
	c := jwt.NewUserClaims(loginKey)
	c.Name, c.Audience = id.String(), r.Account()
	c.Expires = time.Now().Add(lifetime - rand.N(lifetime/4)).Unix()
	c.AllowedConnectionTypes.Add(jwt.ConnectionTypeStandard)
	publish, subscribe := embed.Enrolled(r, id)
	c.Permissions.Pub.Allow.Add(publish...)
	c.Permissions.Sub.Allow.Add(subscribe...)
	return c.Encode(s.cfg.Issuer)
}
