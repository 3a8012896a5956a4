package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

// tokenView is a token as the management API shows it.
type tokenView struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Status     string         `json:"status"`
	IssuedOn   time.Time      `json:"issued_on"`
	ModifiedOn time.Time      `json:"modified_on"`
	RolledOn   time.Time      `json:"rolled_on,omitzero"`
	LastUsedOn time.Time      `json:"last_used_on,omitzero"`
	NotBefore  time.Time      `json:"not_before,omitzero"`
	ExpiresOn  time.Time      `json:"expires_on,omitzero"`
	Policies   []policyView   `json:"policies"`
	Condition  *conditionView `json:"condition,omitzero"`
	Value      string         `json:"value,omitzero"`
}

type policyView struct {
	ID        string         `json:"id,omitzero"`
	Effect    string         `json:"effect"`
	Resources jsontext.Value `json:"resources"`
	Groups    []groupView    `json:"permission_groups"`
}

type groupView struct {
	ID     string   `json:"id"`
	Name   string   `json:"name,omitzero"`
	Scopes []string `json:"scopes,omitzero"`
}

type conditionView struct {
	RequestIP struct {
		In    []string `json:"in,omitzero"`
		NotIn []string `json:"not_in,omitzero"`
	} `json:"request_ip"`
}

// tokenFlags say which token a verb is about, and what it shall be.
type tokenFlags struct {
	accountOwned string // account id: the account's tokens instead of the user's

	name                 string
	permissions          []string
	zones, accounts      []string
	resources            []string
	allZones             string
	ipIn, ipNotIn        []string
	expires, notBefore   string
	policies             string
	secretFile           string
	quiet                bool
	reason               string
	grace                time.Duration
	force                bool
	status               string
	includeExpired       bool
	clearIP, clearExpiry bool
	dryRun               bool

	from templateFlags
}

func (f *tokenFlags) base() string {
	if f.accountOwned != "" {
		return "/client/v4/accounts/" + url.PathEscape(f.accountOwned) + "/tokens"
	}
	return "/client/v4/user/tokens"
}

func (a *App) tokenCommand() *cobra.Command {
	f := &tokenFlags{}
	cmd := &cobra.Command{Use: "token", Short: "Create, list, change, roll, revoke and verify tokens"}
	cmd.PersistentFlags().StringVar(&f.accountOwned, "account-owned", "", "work on the tokens of this account instead of your own")
	cmd.AddCommand(
		a.tokenCreateCommand(f), a.tokenListCommand(f), a.tokenShowCommand(f), a.tokenUpdateCommand(f), a.tokenRollCommand(f),
		a.tokenSwitchCommand(f, "disable", "Suspend a token; `enable` ends that"),
		a.tokenSwitchCommand(f, "enable", "End a token's suspension"),
		a.tokenRevokeCommand(f), a.tokenReceiptsCommand(f), a.tokenVerifyCommand(f), a.tokenLinkCommand(),
	)
	return cmd
}

func (f *tokenFlags) scopeFlags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "name of the token, up to 120 characters")
	fl.StringArrayVarP(&f.permissions, "permission", "p", nil, "permission group, by name or id, e.g. \"DNS Write\" (repeatable)")
	fl.StringArrayVar(&f.zones, "zone", nil, "a zone that the permissions apply to (repeatable)")
	fl.StringVar(&f.allZones, "all-zones-of", "", "all zones of this account")
	fl.StringArrayVar(&f.accounts, "account", nil, "an account that the permissions apply to (repeatable)")
	fl.StringArrayVar(&f.resources, "resource", nil, "a full resource key, e.g. com.cloudflare.api.account.zone.<id> (repeatable)")
	fl.StringVar(&f.policies, "policies", "", "file with the policies as JSON, - for standard input, instead of the flags above")
	fl.StringArrayVar(&f.ipIn, "ip", nil, "only from this address or CIDR (repeatable)")
	fl.StringArrayVar(&f.ipNotIn, "not-ip", nil, "not from this address or CIDR (repeatable)")
	fl.StringVar(&f.expires, "expires", "", "end of validity: RFC 3339, a date, or a duration such as 720h or 90d")
	fl.StringVar(&f.notBefore, "not-before", "", "begin of validity, in the same forms")
}

func (f *tokenFlags) secretFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.secretFile, "secret-file", "", "write the secret to this new file (mode 0600) instead of printing it")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print the secret alone")
}

// body builds the request of a create or an update from the flags.
func (a *App) body(ctx context.Context, c *client, f *tokenFlags) (map[string]any, error) {
	out := map[string]any{"name": f.name}
	policies, err := a.policies(ctx, c, f)
	if err != nil {
		return nil, err
	}
	if policies != nil {
		out["policies"] = policies
	}
	if len(f.ipIn)+len(f.ipNotIn) > 0 {
		ip := map[string]any{}
		if len(f.ipIn) > 0 {
			ip["in"] = f.ipIn
		}
		if len(f.ipNotIn) > 0 {
			ip["not_in"] = f.ipNotIn
		}
		out["condition"] = map[string]any{"request_ip": ip}
	}
	for key, text := range map[string]string{"expires_on": f.expires, "not_before": f.notBefore} {
		if text == "" {
			continue
		}
		t, err := parseWhen(text, time.Now())
		if err != nil {
			return nil, err
		}
		out[key] = t.UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	return out, nil
}

// policies returns the policies that the flags describe; nil when they
// describe none.
func (a *App) policies(ctx context.Context, c *client, f *tokenFlags) (any, error) {
	resources := map[string]any{}
	for _, z := range f.zones {
		resources["com.cloudflare.api.account.zone."+z] = "*"
	}
	for _, r := range f.resources {
		resources[r] = "*"
	}
	for _, id := range f.accounts {
		resources["com.cloudflare.api.account."+id] = "*"
	}
	if f.allZones != "" {
		if len(resources) > 0 {
			return nil, Fail(ExitLocal, errors.New("--all-zones-of cannot stand beside other resources"), "write the policies into a file and use --policies")
		}
		resources["com.cloudflare.api.account."+f.allZones] = map[string]string{"com.cloudflare.api.account.zone.*": "*"}
	}
	if f.policies != "" {
		if len(f.permissions)+len(resources) > 0 {
			return nil, Fail(ExitLocal, errors.New("--policies replaces --permission and the resource flags"))
		}
		b, err := a.readFile(f.policies)
		if err != nil {
			return nil, err
		}
		if !jsontext.Value(b).IsValid() {
			return nil, Fail(ExitLocal, fmt.Errorf("%s is not valid JSON", f.policies))
		}
		return jsontext.Value(b), nil
	}
	if len(f.permissions) == 0 && len(resources) == 0 {
		return nil, nil
	}
	if len(f.permissions) == 0 || len(resources) == 0 {
		return nil, Fail(ExitLocal, errors.New("a policy needs both a permission and a resource"),
			`for example: --permission "DNS Write" --zone <zone id>`, "`watchword permissions` lists the permission groups")
	}
	groups := make([]map[string]string, 0, len(f.permissions))
	for _, p := range f.permissions {
		id, err := c.groupID(ctx, f, p, resources)
		if err != nil {
			return nil, err
		}
		groups = append(groups, map[string]string{"id": id})
	}
	return []any{map[string]any{"effect": "allow", "resources": resources, "permission_groups": groups}}, nil
}

// groupID finds a permission group by its id or name. Where two groups have
// the same name it takes the one whose scope fits a resource.
func (c *client) groupID(ctx context.Context, f *tokenFlags, nameOrID string, resources map[string]any) (string, error) {
	if isID(nameOrID) {
		return nameOrID, nil
	}
	var groups []groupView
	if err := c.call(ctx, http.MethodGet, f.base()+"/permission_groups?name="+url.QueryEscape(nameOrID), nil, &groups); err != nil {
		return "", err
	}
	for _, g := range groups {
		for _, s := range g.Scopes {
			for key := range resources {
				rest, ok := strings.CutPrefix(key, s+".")
				if ok && !strings.Contains(rest, ".") || len(groups) == 1 {
					return g.ID, nil
				}
			}
		}
	}
	return "", Fail(ExitLocal, fmt.Errorf("no permission group is named %q for these resources", nameOrID), "`watchword permissions` lists them")
}

func (a *App) tokenCreateCommand(f *tokenFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create", Short: "Create a token; its secret is shown this once", Args: cobra.NoArgs,
		Example: `  watchword token create --name "dns deployer" --permission "DNS Write" --zone <zone id>
  watchword token create --name ci --policies policies.json --ip 192.0.2.0/24 --expires 90d --secret-file ci.secret
  watchword token create --template edit-zone-dns --param zone=<zone id> --dry-run`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			body, err := a.creation(cmd.Context(), c, f)
			if err != nil {
				return err
			}
			if f.dryRun {
				return a.preview(cmd.Context(), c, f, body)
			}
			file, err := openSecretFile(f.secretFile)
			if err != nil {
				return err
			}
			var t tokenView
			if err := c.call(cmd.Context(), http.MethodPost, f.base(), body, &t); err != nil {
				file.discard()
				return err
			}
			return a.showSecret(c, f, file, t, t.Value)
		},
	}
	f.scopeFlags(cmd)
	f.secretFlags(cmd)
	f.from.add(cmd)
	cmd.Flags().StringVar(&f.from.link, "from-link", "", "make the token that this link asks for (see `watchword token link`)")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only say what the token would be able to do, and whether you may create it")
	return cmd
}

// creation builds the request of a create from the flags.
func (a *App) creation(ctx context.Context, c *client, f *tokenFlags) (map[string]any, error) {
	body, err := a.body(ctx, c, f)
	if err != nil {
		return nil, err
	}
	if err := f.fromTemplate(body); err != nil {
		return nil, err
	}
	if f.name == "" && body["template"] == nil {
		return nil, Fail(ExitLocal, errors.New("a token needs a name"), "add --name")
	}
	return body, nil
}

// showSecret hands over a fresh secret: into the file, or on standard output.
func (a *App) showSecret(c *client, f *tokenFlags, file *secretFile, t tokenView, secret string) error {
	if err := file.write(secret); err != nil {
		// The token exists; losing its secret silently would be worse
		// than showing it.
		fmt.Fprintf(a.Err, "watchword: cannot write the secret file (%v); the secret is: %s\n", err, secret)
		return Fail(ExitLocal, err)
	}
	asJSON, err := a.json()
	switch {
	case err != nil:
		return err
	case f.quiet && file == nil:
		_, err := fmt.Fprintln(a.Out, secret)
		return err
	case f.quiet:
		return nil
	case asJSON:
		t.Value = secret
		if file != nil {
			t.Value = ""
		}
		return a.printJSON(t)
	}
	bearer := secret
	fmt.Fprintf(a.Out, "id      %s\n", t.ID)
	if t.Name != "" {
		fmt.Fprintf(a.Out, "name    %s\n", terminalSafe(t.Name))
	}
	if file != nil {
		bearer = "$(cat '" + strings.ReplaceAll(f.secretFile, "'", `'\''`) + "')"
		fmt.Fprintf(a.Out, "secret  written to %s\n", f.secretFile)
	} else {
		fmt.Fprintf(a.Out, "secret  %s\n        This is the only time that it is shown.\n", secret)
	}
	fmt.Fprintf(a.Out, "\nTest it:\n  curl -s -H \"Authorization: Bearer %s\" %s%s/verify\n", bearer, c.ctx.BaseURL, f.base())
	return nil
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// parseWhen reads a time, a date or a duration from now.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if d, err := time.ParseDuration(days + "h"); err == nil {
			return now.Add(24 * d), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, Fail(ExitLocal, fmt.Errorf("cannot read the time %q", s), "use 2027-03-01T00:00:00Z, 2027-03-01, 720h or 90d")
}

// readFile reads a file, or standard input for "-".
func (a *App) readFile(name string) ([]byte, error) {
	var b []byte
	var err error
	if name == "-" {
		b, err = readAll(a.In)
	} else {
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, Fail(ExitLocal, err)
	}
	return b, nil
}
