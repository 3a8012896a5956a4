package callout

import (
	"testing"
	"time"
	"fmt"
	"path/filepath"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/nats-io/jwt/v2"
	"watchword.dev/services/internal/embed"
	"watchword.dev/events/token"
)

func TestExp(t *testing.T) {
	cfg := embed.Config{Dir: filepath.Join(t.TempDir(), "nats"), MaxStoreBytes: 1 << 30, EventsMaxBytes: 64 << 20, Listen: "127.0.0.1:0",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s, err := embed.Start(cfg)
	if err != nil { t.Fatal(err) }
	t.Cleanup(s.Shutdown)
	auth, err := s.Connect(embed.Auth)
	if err != nil { t.Fatal(err) }
	issuer, err := embed.ReadSeed(embed.Issuer, s.SeedFile(embed.Issuer))
	sealer, err := embed.ReadSeed(embed.Sealer, s.SeedFile(embed.Sealer))
	ipub, _ := issuer.PublicKey()
	_ = ipub
	id := token.NewGenerator(nil).New()
	_, err = auth.QueueSubscribe(embed.CalloutSubject, "q", func(m *nats.Msg) {
		x := m.Header.Get("Nats-Server-Xkey")
		b, err := sealer.Open(m.Data, x)
		fmt.Println("open", err)
		c, err := jwt.DecodeAuthorizationRequestClaims(string(b))
		fmt.Println(err, c)
		uc := jwt.NewUserClaims(c.UserNkey)
		uc.Name = id.String()
		uc.Audience = "ENFORCER"
		pub, sub := embed.Enrolled(embed.Enforcer, id)
		uc.Permissions.Pub.Allow = pub
		uc.Permissions.Sub.Allow = sub
		uc.Expires = time.Now().Add(time.Hour).Unix()
		ut, err := uc.Encode(issuer)
		fmt.Println(err)
		rc := jwt.NewAuthorizationResponseClaims(c.UserNkey)
		rc.Audience = c.Server.ID
		rc.Jwt = ut
		rt, err := rc.Encode(issuer)
		sealed, err := sealer.Seal([]byte(rt), x)
		fmt.Println("reply", m.Reply, m.Respond(sealed))
	})
	if err != nil { t.Fatal(err) }
	auth.Flush()
	u, _ := nkeys.CreateUser()
	up, _ := u.PublicKey()
	nc, err := nats.Connect(s.ClientURL(), nats.Nkey(up, u.Sign), nats.CustomInboxPrefix("_INBOX_"+id.String()), nats.Name("test"))
	if err != nil { t.Fatal(err) }
	fmt.Println(nc.Status())
	m, err := nc.Request("$JS.API.DIRECT.GET.WATCHWORD_EVENTS", []byte(`{"seq":1}`), 2*time.Second)
	fmt.Println("direct", m, err)
	m, err = nc.Request("ww.receipt."+id.String()+".a", []byte(`{"seq":1}`), 2*time.Second)
	fmt.Println("receipt", m, err)
	r, err := auth.Request(embed.Connections(embed.Enforcer), []byte(`{"auth":true,"limit":10}`), 2*time.Second)
	if err == nil { fmt.Println("connz", string(r.Data)) } else { fmt.Println(err) }
}
