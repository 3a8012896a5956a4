package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// api is where the management API stands.
const api = "/client/v4"

// row is a thing of the directory as the management API shows it.
type row map[string]any

func (r row) text(name string) string {
	switch v := r[name].(type) {
	case nil:
		return ""
	case string:
		return v
	case []any: // roles
		var all []string
		for _, one := range v {
			if o, ok := one.(map[string]any); ok {
				all = append(all, row(o).text("name"))
			}
		}
		return strings.Join(all, ", ")
	case map[string]any: // the account of a zone
		return row(v).text("id")
	default:
		return fmt.Sprint(v)
	}
}

// directoryFlags say what a verb about the directory is about.
type directoryFlags struct {
	account, name, prefix, email, reason string
	kind, id, parent                     string
	roles                                []string
	all, operator                        bool
	secretFile                           string
}

// noun is one kind of thing in the directory, with where it stands and what a
// list shows of it.
type noun struct {
	name, short string
	columns     []string
	at          func(f *directoryFlags) string
	put         string // the method that changes one
}

var (
	accounts = noun{"account", "Accounts", []string{"id", "name", "created_on"}, func(*directoryFlags) string { return api + "/accounts" }, http.MethodPut}
	members  = noun{"member", "Members of an account", []string{"id", "email", "roles"}, func(f *directoryFlags) string {
		return api + "/accounts/" + url.PathEscape(f.account) + "/members"
	}, http.MethodPut}
	users     = noun{"user", "Users", []string{"id", "email", "name", "operator", "has_api_key"}, func(*directoryFlags) string { return api + "/users" }, http.MethodPatch}
	zones     = noun{"zone", "Zones", []string{"id", "name", "account"}, func(*directoryFlags) string { return api + "/zones" }, http.MethodPatch}
	resources = noun{"resource", "Resources of any type", []string{"type", "id", "name", "parent"}, func(*directoryFlags) string { return api + "/resources" }, http.MethodPut}
)

// directoryCommands returns the verbs about who and what there is.
func (a *App) directoryCommands() []*cobra.Command {
	return []*cobra.Command{
		a.nounCommand(accounts, "NAME", nil), a.nounCommand(members, "EMAIL", []string{"account"}),
		a.nounCommand(users, "EMAIL", nil), a.nounCommand(zones, "NAME", nil), a.nounCommand(resources, "NAME", nil),
	}
}

func (a *App) nounCommand(n noun, what string, needed []string) *cobra.Command {
	f := &directoryFlags{}
	cmd := &cobra.Command{Use: n.name, Short: n.short + ": create, list, show, update and remove them"}
	create := a.nounCreate(n, f, what)
	list, show, update, remove := a.nounList(n, f), a.nounOne(n, f, "show", http.MethodGet), a.nounUpdate(n, f), a.nounOne(n, f, "remove", http.MethodDelete)
	cmd.AddCommand(create, list, show, update, remove)
	remove.Flags().StringVar(&f.reason, "reason", "", "why, for the audit trail")
	switch n.name {
	case "account":
		create.Flags().StringVar(&f.id, "id", "", "the id that it gets, 32 hexadecimal digits (default: a fresh one)")
		update.Flags().StringVar(&f.name, "name", "", "the new name")
		list.Flags().BoolVar(&f.all, "all", false, "all there are, for operators")
		cmd.AddCommand(a.policyCommand())
	case "member":
		cmd.PersistentFlags().StringVar(&f.account, "account", "", "id of the account")
		for _, c := range []*cobra.Command{create, update} {
			c.Flags().StringArrayVar(&f.roles, "role", nil, "a role, by name or id (repeatable); member roles lists them")
		}
		cmd.AddCommand(a.memberRolesCommand(f))
	case "user":
		create.Flags().StringVar(&f.id, "id", "", "the id that they get, 32 hexadecimal digits (default: a fresh one)")
		create.Flags().BoolVar(&f.operator, "operator", false, "one of those who run the installation")
		create.Flags().StringVar(&f.name, "name", "", "their name")
		update.Flags().StringVar(&f.name, "name", "", "their new name")
		update.Flags().StringVar(&f.email, "email", "", "their new address")
		list.Flags().StringVar(&f.email, "email", "", "only the one with this address")
		cmd.AddCommand(a.userKeyCommand(f), a.userRevokeKeyCommand(f))
	case "zone":
		create.Flags().StringVar(&f.account, "account", "", "id of the account in which it lies")
		update.Flags().StringVar(&f.account, "account", "", "id of the account to move it to")
		update.Flags().StringVar(&f.name, "name", "", "the new name")
		list.Flags().StringVar(&f.account, "account", "", "only those of this account")
	case "resource":
		cmd.PersistentFlags().StringVar(&f.kind, "type", "", "type of the resource, e.g. com.cloudflare.api.account.zone")
		create.Flags().StringVar(&f.id, "id", "", "its id (default: a fresh one)")
		create.Flags().StringVar(&f.parent, "parent", "", "key of what it lies in, e.g. com.cloudflare.api.account.<id>")
		update.Flags().StringVar(&f.parent, "parent", "", "key of what to move it to")
		update.Flags().StringVar(&f.name, "name", "", "the new name")
		list.Flags().StringVar(&f.parent, "parent", "", "only what lies directly in this")
		list.Flags().BoolVar(&f.all, "all", false, "all of the type, for operators")
	}
	if n.name != "member" && n.name != "user" {
		list.Flags().StringVar(&f.prefix, "name-prefix", "", "only names that begin so")
	}
	for _, name := range needed {
		if err := cmd.MarkPersistentFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

// body is what the flags say of a thing.
func (n noun) body(f *directoryFlags) row {
	b := row{}
	set := func(name, value string) {
		if value != "" {
			b[name] = value
		}
	}
	set("id", f.id)
	set("name", f.name)
	set("email", f.email)
	set("type", f.kind)
	set("parent", f.parent)
	if n.name == "zone" && f.account != "" {
		b["account"] = row{"id": f.account}
	}
	if len(f.roles) > 0 {
		b["roles"] = f.roles
	}
	if f.operator {
		b["operator"] = true
	}
	return b
}

func (n noun) path(f *directoryFlags, id string) string {
	if n.name == "resource" {
		return n.at(f) + "/" + url.PathEscape(f.kind) + "/" + url.PathEscape(id)
	}
	return n.at(f) + "/" + url.PathEscape(id)
}

// find returns the path of a thing by what a person calls it: its id, or the
// address of a user or a member.
func (c *client) find(ctx context.Context, n noun, f *directoryFlags, name string) (string, error) {
	if !strings.Contains(name, "@") || n.name != "user" && n.name != "member" {
		return n.path(f, name), nil
	}
	var found []row
	if err := c.call(ctx, http.MethodGet, n.at(f)+"?email="+url.QueryEscape(name), nil, &found); err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", Fail(ExitRemote, fmt.Errorf("no %s has the address %s", n.name, terminalSafe(name)))
	}
	return n.path(f, found[0].text("id")), nil
}

// callOne is Call about the thing that a person calls by name.
func (a *App) callOne(ctx context.Context, method string, n noun, f *directoryFlags, name, below string, in, out any) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	path, err := c.find(ctx, n, f, name)
	if err != nil {
		return err
	}
	return c.call(ctx, method, path+below, in, out)
}

// called returns how a person may name one of them.
func (n noun) called() string {
	if n.name == "user" || n.name == "member" {
		return "ID|EMAIL"
	}
	return "ID"
}

func (a *App) nounCreate(n noun, f *directoryFlags, what string) *cobra.Command {
	return &cobra.Command{Use: "create " + what, Aliases: []string{"add"}, Short: "Make a new " + n.name, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b := n.body(f)
			if what == "EMAIL" {
				b["email"] = args[0]
			} else {
				b["name"] = args[0]
			}
			var out row
			if err := a.Call(cmd.Context(), http.MethodPost, n.at(f), b, &out); err != nil {
				return err
			}
			return a.printRows(n, out, []row{out})
		}}
}

func (a *App) nounList(n noun, f *directoryFlags) *cobra.Command {
	return &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			for name, value := range map[string]string{"email": f.email, "type": f.kind, "parent": f.parent, "name_prefix": f.prefix} {
				if value != "" {
					q.Set(name, value)
				}
			}
			if n.name == "zone" {
				q.Del("name_prefix")
				if f.prefix != "" {
					q.Set("name", "starts_with:"+f.prefix)
				}
				if f.account != "" {
					q.Set("account.id", f.account)
				}
			}
			if f.all {
				q.Set("all", "true")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.list(cmd.Context(), n.at(f), q)
			if err != nil {
				return err
			}
			return a.printRows(n, all, all)
		}}
}

// list reads all pages of a list.
func (c *client) list(ctx context.Context, path string, q url.Values) ([]row, error) {
	all := []row{}
	q.Set("per_page", "1000")
	for page := 1; ; page++ {
		q.Set("page", fmt.Sprint(page))
		var some []row
		if err := c.call(ctx, http.MethodGet, path+"?"+q.Encode(), nil, &some); err != nil {
			return nil, err
		}
		if len(some) == 0 {
			return all, nil
		}
		all = append(all, some...)
	}
}

func (a *App) nounUpdate(n noun, f *directoryFlags) *cobra.Command {
	return &cobra.Command{Use: "update " + n.called(), Short: "Change what the flags name", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out row
			if err := a.callOne(cmd.Context(), n.put, n, f, args[0], "", n.body(f), &out); err != nil {
				return err
			}
			return a.printRows(n, out, []row{out})
		}}
}

// nounOne shows or removes one.
func (a *App) nounOne(n noun, f *directoryFlags, verb, method string) *cobra.Command {
	short := map[string]string{"show": "Show one", "remove": "End one for good, with all that hangs on it"}[verb]
	return &cobra.Command{Use: verb + " " + n.called(), Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var in any
			if f.reason != "" {
				in = row{"reason": f.reason}
			}
			var out row
			if err := a.callOne(cmd.Context(), method, n, f, args[0], "", in, &out); err != nil {
				return err
			}
			if verb == "show" {
				return a.printRows(n, out, []row{out})
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(out))
			}
			_, err := fmt.Fprintf(a.Out, "removed %s\n", out.text("id"))
			return err
		}}
}

// userKeyCommand gives a user a Global API Key.
func (a *App) userKeyCommand(f *directoryFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "key ID|EMAIL", Short: "Give a user a Global API Key, or another one; it is shown this once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := openSecretFile(f.secretFile)
			if err != nil {
				return err
			}
			var out row
			if err := a.callOne(cmd.Context(), http.MethodPost, users, f, args[0], "/api_key", nil, &out); err != nil {
				file.discard()
				return err
			}
			key := out.text("api_key")
			if err := file.write(key); err != nil {
				fmt.Fprintf(a.Err, "watchword: cannot write the secret file (%v); the key is: %s\n", err, key)
				return Fail(ExitLocal, err)
			}
			if file != nil {
				return nil
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(out))
			}
			_, err = fmt.Fprintln(a.Out, key)
			return err
		}}
	cmd.Flags().StringVar(&f.secretFile, "secret-file", "", "write the key to this new file (mode 0600) instead of printing it")
	return cmd
}

// userRevokeKeyCommand ends a user's Global API Key.
func (a *App) userRevokeKeyCommand(f *directoryFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "revoke-key ID|EMAIL", Short: "End a user's Global API Key; their tokens go on working", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var in any
			if f.reason != "" {
				in = row{"reason": f.reason}
			}
			var out row
			if err := a.callOne(cmd.Context(), http.MethodDelete, users, f, args[0], "/api_key", in, &out); err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(out))
			}
			_, err := fmt.Fprintf(a.Out, "revoked the API key of %s\n", out.text("id"))
			return err
		}}
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the audit trail")
	return cmd
}

// memberRolesCommand lists the roles that members can have.
func (a *App) memberRolesCommand(f *directoryFlags) *cobra.Command {
	roles := noun{name: "role", columns: []string{"id", "name", "description"}}
	return &cobra.Command{Use: "roles", Short: "List the roles that members can have", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.list(cmd.Context(), api+"/accounts/"+url.PathEscape(f.account)+"/roles", url.Values{})
			if err != nil {
				return err
			}
			return a.printRows(roles, all, all)
		}}
}

// printRows prints things for a person or whole for a program.
func (a *App) printRows(n noun, whole any, some []row) error {
	if asJSON, err := a.json(); asJSON || err != nil {
		return errors.Join(err, a.printJSON(whole))
	}
	header, rows := make([]string, 0, len(n.columns)), make([][]string, 0, len(some))
	for _, c := range n.columns {
		header = append(header, strings.ToUpper(strings.ReplaceAll(c, "_", " ")))
	}
	for _, r := range some {
		line := make([]string, 0, len(n.columns))
		for _, c := range n.columns {
			line = append(line, terminalSafe(r.text(c)))
		}
		rows = append(rows, line)
	}
	return a.table(header, rows)
}
