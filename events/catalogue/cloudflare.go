package catalogue

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	json "github.com/go-json-experiment/json"
)

// packJSON is the built-in pack: the publicly known Cloudflare groups with
// their real ids. Lines are only ever added, at the end: an installation
// numbers its groups by this order.
//
//go:embed cloudflare.json
var packJSON []byte

// Cloudflare returns the built-in catalogue, which has the ids, names and
// scopes of Cloudflare's permission groups. Cloudflare does not publish what a
// group contains, so the permissions are derived from its name: "DNS Write" on
// zones holds dns.records.read and dns.records.write.
func Cloudflare() *Catalogue { return cloudflare() }

var cloudflare = sync.OnceValue(func() *Catalogue {
	c, err := parsePack(packJSON)
	if err != nil {
		// The pack is part of the program: this is a mistake in the program.
		panic(err)
	}
	return c
})

func parsePack(raw []byte) (*Catalogue, error) {
	var pack struct {
		Types     []ResourceType `json:"types"`
		Groups    []Group        `json:"groups"`
		Templates []Template     `json:"templates"`
	}
	if err := json.Unmarshal(raw, &pack); err != nil {
		return nil, fmt.Errorf("catalogue: built-in pack: %w", err)
	}
	var perms []Permission
	seen := map[string]bool{}
	for i := range pack.Groups {
		g := &pack.Groups[i]
		for _, p := range derive(g.Name) {
			g.Permissions = append(g.Permissions, p.Name)
			if !seen[p.Name] {
				seen[p.Name] = true
				perms = append(perms, p)
			}
		}
	}
	return build(nil, &Document{Name: "Cloudflare", ResourceTypes: pack.Types, Permissions: perms, Groups: pack.Groups, Templates: pack.Templates})
}

// derive gives the permissions of a group by its name: the last word is the
// verb, what stands before it the base. Write and Edit hold the base's read
// and write, every other verb only itself.
func derive(name string) []Permission {
	base, verb := split(name)
	verbs := []string{verb}
	if verb == "write" {
		verbs = []string{"read", "write"}
	}
	out := make([]Permission, 0, len(verbs))
	for _, v := range verbs {
		out = append(out, Permission{Name: base + "." + v, Class: classOf(base, v)})
	}
	return out
}

// verbs are the last words of group names that tell what may be done.
var verbs = []string{"read", "write", "edit", "revoke", "run", "purge", "report", "admin", "bind", "send"}

func split(name string) (base, verb string) {
	if o, ok := wholeNames[name]; ok {
		return o.base, o.verb
	}
	at := strings.LastIndexByte(name, ' ')
	word := strings.ToLower(name[at+1:])
	if at < 0 || !slices.Contains(verbs, word) {
		return slug(name), "use"
	}
	if word == "edit" {
		word = "write"
	}
	if b, ok := wellKnownBases[name[:at]]; ok {
		return b, word
	}
	return slug(name[:at]), word
}

// slug makes a permission's base out of words: a colon separates levels,
// everything else that is no letter or digit becomes one underscore.
func slug(words string) string {
	levels := strings.Split(strings.TrimRight(words, ": "), ":")
	for i, level := range levels {
		parts := strings.FieldsFunc(strings.ToLower(level), func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9')
		})
		levels[i] = strings.Join(parts, "_")
	}
	return strings.Join(levels, ".")
}

// classOf is strict about whatever can give rights to somebody or spend money.
func classOf(base, verb string) Class {
	switch {
	case verb == "read":
		return Read
	case verb == "admin", adminBases[base]:
		return Admin
	}
	return Write
}

// adminBases are the bases of which every verb but read is of class admin.
var adminBases = map[string]bool{
	"account.tokens":    true,
	"account.settings":  true,
	"user.tokens":       true,
	"user.details":      true,
	"user.memberships":  true,
	"account.billing":   true,
	"account.sso":       true,
	"account.scim":      true,
	"account.secrets":   true,
	"zero_trust.seats":  true,
	"access.identities": true,
}

// wellKnownBases replaces the derived base where a shorter or clearer name is
// what an enforcer's author expects.
var wellKnownBases = map[string]string{
	"API Tokens":                         "user.tokens",
	"User Details":                       "user.details",
	"Memberships":                        "user.memberships",
	"Account API Tokens":                 "account.tokens",
	"Account Settings":                   "account.settings",
	"Account Analytics":                  "account.analytics",
	"Account DNS Settings":               "account.dns_settings",
	"Account Firewall Access Rules":      "account.firewall_access_rules",
	"Account Rule Lists":                 "account.rule_lists",
	"Account Rulesets":                   "account.rulesets",
	"Account WAF":                        "account.waf",
	"Account API Gateway":                "account.api_gateway",
	"Account: SSL and Certificates":      "account.certificates",
	"Billing":                            "account.billing",
	"SSO Connector":                      "account.sso",
	"Secrets Store":                      "account.secrets",
	"Zone":                               "zone",
	"Zone Settings":                      "zone.settings",
	"Zone DNS Settings":                  "zone.dns_settings",
	"Zone Versioning":                    "zone.versioning",
	"Zone WAF":                           "zone.waf",
	"Zone Transform Rules":               "zone.transform_rules",
	"Domain API Gateway":                 "zone.api_gateway",
	"Domain Page Shield":                 "zone.page_shield",
	"Page Shield":                        "page_shield",
	"SSL and Certificates":               "zone.certificates",
	"DNS":                                "dns.records",
	"DNS Firewall":                       "dns.firewall",
	"DNS View":                           "dns.views",
	"Cache":                              "cache",
	"Cache Settings":                     "cache.settings",
	"Analytics":                          "analytics",
	"Logs":                               "logs",
	"Load Balancers":                     "load_balancing.balancers",
	"Load Balancers Account":             "load_balancing.account_balancers",
	"Load Balancing: Monitors and Pools": "load_balancing.pools",
	"Workers Scripts":                    "workers.scripts",
	"Workers Routes":                     "workers.routes",
	"Workers Tail":                       "workers.tail",
	"Workers KV Storage":                 "workers.kv",
	"Workers AI":                         "workers.ai",
	"Workers CI":                         "workers.ci",
	"Workers Containers":                 "workers.containers",
	"Workers Observability":              "workers.observability",
	"Workers R2 Storage":                 "r2.buckets",
	"Workers R2 Storage Bucket Item":     "r2.objects",
	"Workers R2 Data Catalog":            "r2.data_catalog",
	"Workers R2 SQL":                     "r2.sql",
	"Email Routing Addresses":            "email_routing.addresses",
	"Email Routing Rules":                "email_routing.rules",
	"Access: Organizations, Identity Providers, and Groups": "access.identities",
	"Cloudflare Tunnel": "tunnel",
	"Cloudflare DEX":    "dex",
}

// wholeNames are the groups whose last word is not the verb. Most of them are
// the older spelling of a write group.
var wholeNames = map[string]struct{ base, verb string }{
	"Account API Gateway":       {"account.api_gateway", "write"},
	"Domain API Gateway":        {"zone.api_gateway", "write"},
	"Domain Page Shield":        {"zone.page_shield", "write"},
	"Page Shield":               {"page_shield", "write"},
	"Cloudflare DEX":            {"dex", "write"},
	"Realtime":                  {"realtime", "write"},
	"SCIM Provisioning":         {"account.scim", "provision"},
	"AI Search Index Engine":    {"ai_search", "index"},
	"Auto Rag Write Run Engine": {"auto_rag", "run"},
	"Magic Firewall Packet Captures - Read PCAPs API":  {"magic_firewall.captures", "read"},
	"Magic Firewall Packet Captures - Write PCAPs API": {"magic_firewall.captures", "write"},
}
