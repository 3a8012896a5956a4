package callout_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/embed/callout"
	"watchword.dev/services/internal/embed/embedtest"
)

// TestLogins checks who gets in: those who are enrolled and have the private
// half of their nkey. All others hear the same.
func TestLogins(t *testing.T) {
	s := standalone(t)
	l := newLedger()
	service := serve(t, auth(t, s), s.SeedFile, l)
	enforcer, consumer, retired := l.enroll(t, embed.Enforcer), l.enroll(t, embed.Consumer), l.enroll(t, embed.Enforcer)
	l.retire(t, retired)
	url := s.ClientURL()
	for _, m := range []member{enforcer, consumer} {
		nc := login(t, url, m)
		if _, err := nc.RequestWithContext(bounded(t), "$JS.API.DIRECT.GET."+embed.EventsStream, []byte(`{"seq":1}`)); err != nil {
			t.Errorf("%s cannot fill a gap: %v", m.role, err)
		}
	}
	other := newKey(t)
	refused(t, url, "a stranger", other)
	refused(t, url, "a retired enforcer", retired.key)
	refused(t, url, "who signs with another key", enforcer.key, nats.Nkey(public(t, enforcer.key), other.Sign))
	refused(t, url, "who signs another nonce", enforcer.key, nats.Nkey(public(t, enforcer.key), func([]byte) ([]byte, error) { return enforcer.key.Sign([]byte("nonce")) }))
	refused(t, url, "who does not sign", enforcer.key, nats.Nkey(public(t, enforcer.key), func([]byte) ([]byte, error) { return nil, nil }))
	refused(t, url, "who has the id only", other, nats.UserInfo(enforcer.id.String(), ""))
	if nc, err := nats.Connect(url, nats.NoReconnect(), nats.Timeout(deadline), nats.UserInfo(enforcer.id.String(), "x")); err == nil {
		nc.Close()
		t.Error("a password got in")
	}
	l.fail(errors.New("the disk is gone"))
	refused(t, url, "while nothing can be looked up", enforcer.key)
	l.fail(nil)
	login(t, url, enforcer)
	if got := service.Stats(); got.Admitted != 3 || got.Refused != 7 || got.Failed != 1 || got.Ended != 0 {
		t.Errorf("counted %+v", got)
	}
}

// TestNotFresh checks that a node that does not know whether it is up to date
// lets nobody in, and everybody again when it does.
func TestNotFresh(t *testing.T) {
	s := standalone(t)
	l := newLedger()
	stale := errors.New("the pen was not heard")
	fresh := make(chan error, 1)
	serve(t, auth(t, s), s.SeedFile, l, func(c *callout.Config) { c.Fresh = func(context.Context) error { return <-fresh } })
	m := l.enroll(t, embed.Enforcer)
	fresh <- stale
	refused(t, s.ClientURL(), "an enforcer", m.key)
	fresh <- nil
	login(t, s.ClientURL(), m)
}

// TestForeignIssuer checks that the seed of Auth alone lets nobody in: the
// servers believe what Issuer has signed and Sealer has encrypted.
func TestForeignIssuer(t *testing.T) {
	s, foreign := standalone(t), standalone(t)
	l := newLedger()
	m := l.enroll(t, embed.Enforcer)
	_, sealer := seeds(t, s.SeedFile)
	serve(t, auth(t, s), foreign.SeedFile, l, func(c *callout.Config) { c.Sealer = sealer })
	refused(t, s.ClientURL(), "with a foreign issuer", m.key)
}

// TestSweep checks that the connections of those who are retired end, on every
// server, and nobody else's.
func TestSweep(t *testing.T) {
	c := embedtest.Start(t, 3)
	l := newLedger()
	// Two nodes answer, each at a server of its own.
	s := serve(t, auth(t, c.Servers[0]), c.SeedFile, l)
	serve(t, auth(t, c.Servers[1]), c.SeedFile, l)
	leaver, stayer, consumer := l.enroll(t, embed.Enforcer), l.enroll(t, embed.Enforcer), l.enroll(t, embed.Consumer)
	closed := make(chan string, 16)
	hear := func(who string) nats.Option { return nats.ClosedHandler(func(*nats.Conn) { closed <- who }) }
	var staying []*nats.Conn
	for _, server := range c.Servers {
		untilIn(t, server.ClientURL(), leaver, hear("leaver"))
		untilIn(t, server.ClientURL(), consumer, hear("consumer"))
		staying = append(staying, untilIn(t, server.ClientURL(), stayer, hear("stayer")))
	}
	sweep := func(want int) {
		t.Helper()
		ended := 0
		for ended < want { // a server may be slow to list
			n, err := s.Sweep(bounded(t))
			if err != nil {
				t.Fatal(err)
			}
			ended += n
		}
		if ended != want {
			t.Errorf("%d connections ended, want %d", ended, want)
		}
	}
	if n, err := s.Sweep(bounded(t)); n != 0 || err != nil {
		t.Fatalf("nobody is retired: %d, %v", n, err)
	}
	l.fail(errors.New("the disk is gone"))
	if n, err := s.Sweep(bounded(t)); n != 0 || err != nil {
		t.Fatalf("nobody can be looked up: %d, %v", n, err)
	}
	l.fail(nil)
	for _, m := range []member{leaver, consumer} {
		l.retire(t, m)
		sweep(3)
		for range 3 {
			select {
			case who := <-closed:
				if who != map[embed.Role]string{embed.Enforcer: "leaver", embed.Consumer: "consumer"}[m.role] {
					t.Errorf("%s was cut off", who)
				}
			case <-bounded(t).Done():
				t.Fatal("a connection did not end")
			}
		}
		refused(t, c.URL(), "retired", m.key)
	}
	for _, nc := range staying {
		if err := nc.FlushWithContext(bounded(t)); err != nil {
			t.Errorf("who is not retired: %v", err)
		}
	}
}

// untilIn logs in to a server of a cluster, which may have to hear first that
// somebody answers.
func untilIn(t *testing.T, url string, m member, more ...nats.Option) *nats.Conn {
	t.Helper()
	for ctx := bounded(t); ; {
		nc, err := nats.Connect(url, options(t, m.key, m.role.InboxPrefixOf(m.id), more...)...)
		if err == nil {
			t.Cleanup(nc.Close)
			return nc
		}
		if !errors.Is(err, nats.ErrAuthorization) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
