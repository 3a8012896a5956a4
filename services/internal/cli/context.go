package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

// Admin is what the first start of a server writes to data/admin.json.
type Admin struct {
	Email        string `json:"email"`
	UserID       string `json:"user_id"`
	APIKey       string `json:"api_key"`
	AccountID    string `json:"account_id"`
	EnforcerKey  string `json:"enforcer_key"`
	BaseURL      string `json:"base_url"`
	NATSURL      string `json:"nats_url,omitzero"`
	NATSSeedFile string `json:"nats_seed_file,omitzero"`
}

// Context says where a server is and how to speak to it. Secrets stand in
// files that it names, or in itself: the file of contexts has mode 0600.
type Context struct {
	BaseURL   string `json:"base_url"`
	Email     string `json:"email,omitzero"`
	APIKey    string `json:"api_key,omitzero"`
	TokenFile string `json:"token_file,omitzero"`
	AccountID string `json:"account_id,omitzero"`
	AdminFile string `json:"admin_file,omitzero"` // all of the above, read at each use

	NATSURL      string `json:"nats_url,omitzero"`
	NATSSeedFile string `json:"nats_seed_file,omitzero"`
}

type contexts struct {
	Current  string             `json:"current,omitzero"`
	Contexts map[string]Context `json:"contexts"`
}

const defaultAdminFile = "data/admin.json"

func (a *App) contextsFile() (string, error) {
	if f := a.Getenv("WATCHWORD_CONTEXTS_FILE"); f != "" {
		return f, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", Fail(ExitLocal, err, "set WATCHWORD_CONTEXTS_FILE")
	}
	return filepath.Join(dir, "watchword", "contexts.json"), nil
}

func (a *App) loadContexts() (contexts, error) {
	all := contexts{Contexts: map[string]Context{}}
	file, err := a.contextsFile()
	if err != nil {
		return all, err
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return all, Fail(ExitLocal, fmt.Errorf("read contexts: %w", err))
	}
	return all, nil
}

func (a *App) saveContexts(all contexts) error {
	file, err := a.contextsFile()
	if err != nil {
		return err
	}
	b, err := json.Marshal(all, jsontext.Multiline(true), json.Deterministic(true))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return Fail(ExitLocal, err)
	}
	tmp := file + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return Fail(ExitLocal, err)
	}
	return os.Rename(tmp, file)
}

// resolve finds the context to use: the flags and the environment first, then
// the current context, then ./data/admin.json.
func (a *App) resolve() (Context, error) {
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	var c Context
	name := first(a.context, a.Getenv("WATCHWORD_CONTEXT"))
	admin := first(a.adminFile, a.Getenv("WATCHWORD_ADMIN_FILE"))
	if admin == "" {
		all, err := a.loadContexts()
		if err != nil {
			return c, err
		}
		name = first(name, all.Current)
		if name != "" {
			known := false
			if c, known = all.Contexts[name]; !known {
				return c, Fail(ExitLocal, fmt.Errorf("no context is named %q", name), "`watchword ctx list` shows those there are")
			}
			admin = c.AdminFile
		} else if _, err := os.Stat(defaultAdminFile); err == nil && a.Getenv("WATCHWORD_TOKEN_FILE") == "" {
			admin = defaultAdminFile
		}
	}
	if admin != "" {
		if err := c.fromAdmin(admin); err != nil {
			return c, err
		}
	}
	c.BaseURL = strings.TrimRight(first(a.url, a.Getenv("WATCHWORD_URL"), c.BaseURL), "/")
	c.TokenFile = first(a.Getenv("WATCHWORD_TOKEN_FILE"), c.TokenFile)
	if c.BaseURL == "" {
		return c, Fail(ExitLocal, errors.New("no server is chosen"),
			"run this where the server's data directory is, or name its file with --admin-file",
			"or add a context: watchword ctx add NAME --base-url http://127.0.0.1:8420 --token-file FILE")
	}
	return c, nil
}

func (c *Context) fromAdmin(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return Fail(ExitLocal, err, "has the server been started once? it writes this file")
	}
	var ad Admin
	if err := json.Unmarshal(b, &ad); err != nil {
		return Fail(ExitLocal, fmt.Errorf("%s: %w", file, err))
	}
	c.AdminFile, c.BaseURL, c.Email, c.APIKey, c.AccountID = file, ad.BaseURL, ad.Email, ad.APIKey, ad.AccountID
	c.NATSURL, c.NATSSeedFile = ad.NATSURL, ad.NATSSeedFile
	return nil
}

func (a *App) ctxCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ctx", Short: "Manage contexts: which server, with which credentials"}
	var c Context
	var keyFile string
	add := &cobra.Command{
		Use: "add NAME", Short: "Add or replace a context and make it the current one", Args: cobra.ExactArgs(1),
		Example: "  watchword ctx add local --admin data/admin.json\n  watchword ctx add prod --base-url https://tokens.example.com --token-file ~/.watchword-token",
		RunE: func(_ *cobra.Command, args []string) error {
			if keyFile != "" {
				b, err := os.ReadFile(keyFile)
				if err != nil {
					return Fail(ExitLocal, err)
				}
				c.APIKey = strings.TrimSpace(string(b))
			}
			if c.AdminFile != "" {
				abs, err := filepath.Abs(c.AdminFile)
				if err != nil {
					return Fail(ExitLocal, err)
				}
				if c.AdminFile = abs; (&Context{}).fromAdmin(abs) != nil {
					return (&Context{}).fromAdmin(abs)
				}
			} else if c.BaseURL == "" {
				return Fail(ExitLocal, errors.New("a context needs --base-url or --admin"))
			}
			all, err := a.loadContexts()
			if err != nil {
				return err
			}
			all.Contexts[args[0]], all.Current = c, args[0]
			return a.saveContexts(all)
		},
	}
	f := add.Flags()
	f.StringVar(&c.AdminFile, "admin", "", "a server's admin.json, read at each use")
	f.StringVar(&c.BaseURL, "base-url", "", "the server's URL, without /client/v4")
	f.StringVar(&c.TokenFile, "token-file", "", "file that holds an API token")
	f.StringVar(&c.Email, "email", "", "e-mail that goes with --api-key-file")
	f.StringVar(&keyFile, "api-key-file", "", "file that holds a Global API Key")
	f.StringVar(&c.AccountID, "account", "", "default account id")
	f.StringVar(&c.NATSURL, "nats-url", "", "NATS URL, for `watchword events`")
	f.StringVar(&c.NATSSeedFile, "nats-seed-file", "", "nkey seed file of a reader, for `watchword events`")
	cmd.AddCommand(add, a.ctxListCommand(), a.ctxUseCommand(), a.ctxRemoveCommand())
	return cmd
}

func (a *App) ctxListCommand() *cobra.Command {
	return &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the contexts", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := a.loadContexts()
			if err != nil {
				return err
			}
			names := make([]string, 0, len(all.Contexts))
			for n := range all.Contexts {
				names = append(names, n)
			}
			slices.Sort(names)
			rows := make([][]string, 0, len(names))
			for _, n := range names {
				c, mark := all.Contexts[n], ""
				if n == all.Current {
					mark = "*"
				}
				where := c.BaseURL
				if c.AdminFile != "" {
					where = c.AdminFile
				}
				rows = append(rows, []string{mark, n, where})
			}
			return a.table([]string{"", "NAME", "SERVER"}, rows)
		}}
}

func (a *App) ctxUseCommand() *cobra.Command {
	return &cobra.Command{Use: "use NAME", Short: "Make a context the current one", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := a.loadContexts()
			if err != nil {
				return err
			}
			if _, ok := all.Contexts[args[0]]; !ok {
				return Fail(ExitLocal, fmt.Errorf("no context is named %q", args[0]))
			}
			all.Current = args[0]
			return a.saveContexts(all)
		}}
}

func (a *App) ctxRemoveCommand() *cobra.Command {
	return &cobra.Command{Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a context", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := a.loadContexts()
			if err != nil {
				return err
			}
			if _, ok := all.Contexts[args[0]]; !ok {
				return Fail(ExitLocal, fmt.Errorf("no context is named %q", args[0]))
			}
			delete(all.Contexts, args[0])
			if all.Current == args[0] {
				all.Current = ""
			}
			return a.saveContexts(all)
		}}
}
