package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/token"
	"watchword.dev/services/authority"
	"watchword.dev/services/config"
	"watchword.dev/services/internal/cataloguefile"
	"watchword.dev/services/internal/cli"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/durable"
	"watchword.dev/services/internal/keyring"
)

// Names of files in the data directory.
const (
	adminFile     = "admin.json"
	bootstrapFile = "bootstrap.json"
	masterFile    = "master.key"
	natsDir       = "nats"
)

// bootstrap is the plan of a first start: every id and secret that it will
// use. It is written before anything else happens, so that a first start that
// is cut off goes on with the same ids and secrets and nothing is made twice.
//
// What a crash leaves behind:
//
//	before bootstrap.json: nothing;
//	before admin.json: the plan; the next start carries out the rest of it,
//	and each command that was done already changes nothing;
//	before bootstrap.json is removed: both; the next start removes it.
type bootstrap struct {
	Installation token.ID `json:"installation"`
	Brand        string   `json:"brand"`
	Email        string   `json:"email"`
	User         token.ID `json:"user"`
	Account      token.ID `json:"account"`
	Member       token.ID `json:"member"`
	Enforcer     token.ID `json:"enforcer"`
	APIKey       string   `json:"api_key"`
	EnforcerKey  string   `json:"enforcer_key"`
	// Catalogue is the document to publish, empty for the built-in one, and
	// Publication the id of that.
	Catalogue   jsontext.Value `json:"catalogue,omitzero"`
	Publication token.ID       `json:"publication,omitzero"`
}

// planned reads the plan of a first start that is not complete, or nil.
func planned(cfg *config.Serve) (*bootstrap, error) {
	b, err := durable.ReadPrivate(cfg.Path(bootstrapFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var plan bootstrap
	if err := json.Unmarshal(b, &plan); err != nil {
		return nil, fmt.Errorf("%s: %w", bootstrapFile, err)
	}
	return &plan, nil
}

// plan makes the plan of a first start in a data directory that has never been
// used, or returns the one that is there. In a directory that has been used
// there is none.
func plan(cfg *config.Serve) (*bootstrap, error) {
	p, err := planned(cfg)
	if p != nil || err != nil {
		return p, err
	}
	for _, used := range []string{adminFile, natsDir, "directory", "verifyindex"} {
		if _, err := os.Lstat(cfg.Path(used)); !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return newPlan(cfg)
}

// newPlan writes the plan of a first start.
func newPlan(cfg *config.Serve) (*bootstrap, error) {
	doc, err := readCatalogue(cfg)
	if err != nil {
		return nil, err
	}
	ids := token.NewGenerator(nil)
	p := &bootstrap{
		Catalogue: doc, Publication: ids.New(),
		Installation: ids.New(), Brand: cfg.Brand, Email: cfg.OperatorEmail,
		User: ids.New(), Account: ids.New(), Member: ids.New(), Enforcer: ids.New(),
	}
	format := token.Format{Brand: cfg.Brand}
	for kind, into := range map[token.Kind]*string{token.KindKey: &p.APIKey, token.KindEnforcer: &p.EnforcerKey} {
		s, err := format.Generate(kind)
		if err != nil {
			return nil, err
		}
		*into = s.Reveal()
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return p, durable.CreatePrivate(cfg.Path(bootstrapFile), b)
}

// carryOut makes the operator, an account and an enforcer, and publishes the
// catalogue.
func (p *bootstrap) carryOut(ctx context.Context, pen *authority.Pen, keys *keyring.Keyring) error {
	email, err := keys.Seal(ctx, p.User, p.Email)
	if err != nil {
		return err
	}
	cmds := []command.Command{
		command.RegisterUser{ID: p.User, Email: email, EmailIndex: keys.EmailIndex(p.Email), Operator: true},
		command.IssueAPIKey{User: p.User, Secret: token.Sum(p.APIKey)},
		command.CreateAccount{ID: p.Account, Name: "Default account"},
		command.AddMember{ID: p.Member, Account: p.Account, User: p.User, Roles: []string{authority.SuperAdministrator}},
		command.EnrollEnforcer{ID: p.Enforcer, Name: "first", Secret: token.Sum(p.EnforcerKey)},
	}
	if len(p.Catalogue) > 0 {
		cmds = append(cmds, command.PublishCatalogue{ID: p.Publication, Document: p.Catalogue})
	}
	return authority.Bootstrap(ctx, pen, cmds...)
}

// readCatalogue reads the file of the catalogue that a first start publishes;
// nil where there is none.
func readCatalogue(cfg *config.Serve) (jsontext.Value, error) {
	if cfg.Catalogue == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(cfg.Catalogue)
	if err != nil {
		return nil, fmt.Errorf("the catalogue: %w", err)
	}
	f, _, err := cataloguefile.Load(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("the catalogue: %s:%w", cfg.Catalogue, err)
	}
	return f.Document, nil
}

// writeAdmin writes admin.json at the end of a first start, and at later ones
// when an address in it has changed. It does nothing where there is none.
func writeAdmin(cfg *config.Serve, p *bootstrap, where cli.Admin, announce io.Writer, log *slog.Logger) error {
	path := cfg.Path(adminFile)
	var a cli.Admin
	b, err := durable.ReadPrivate(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &a); err != nil {
			if p == nil {
				log.Warn("admin.json is damaged and is left as it is", "file", path, "error", err)
				return nil
			}
			a = cli.Admin{} // of a first start that was cut off: it is written anew
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case p == nil:
		return nil // another node's first start, or the file was put away
	}
	if p != nil {
		a.Email, a.UserID, a.AccountID = p.Email, p.User.String(), p.Account.String()
		a.APIKey, a.EnforcerKey = p.APIKey, p.EnforcerKey
	}
	a.BaseURL, a.NATSURL, a.NATSSeedFile = where.BaseURL, where.NATSURL, where.NATSSeedFile
	text, err := json.Marshal(a, jsontext.Multiline(true))
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if string(text) != string(b) {
		if err := durable.WritePrivate(path, text); err != nil {
			return err
		}
	}
	if p == nil {
		return nil
	}
	announceAdmin(announce, path, a)
	if err := os.Remove(cfg.Path(bootstrapFile)); err != nil {
		return err
	}
	return durable.SyncDir(cfg.Data)
}

// announceAdmin shows the credentials of a new installation, this once.
func announceAdmin(w io.Writer, path string, a cli.Admin) {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	fmt.Fprintf(w, `
A new installation. These credentials are shown this once; they also stand in
%s (mode 0600).

  operator        %s
  Global API Key  %s
  user id         %s
  account id      %s
  enforcer key    %s

Try it:
  curl -s -H "X-Auth-Email: %s" -H "X-Auth-Key: %s" %s/client/v4/user

`, path, a.Email, a.APIKey, a.UserID, a.AccountID, a.EnforcerKey, a.Email, a.APIKey, a.BaseURL)
}
