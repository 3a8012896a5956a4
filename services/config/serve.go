package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"watchword.dev/services/internal/throttle"
)

// Serve is the configuration of `watchword serve`, for all roles. The doc tags
// are the manual: README's table and the flags' help are made of them.
type Serve struct {
	// Where things are.
	Config string `key:"config" doc:"YAML file with any of these settings, by the names of the flags."`
	Data   string `key:"data" default:"./data" doc:"Directory of the ledger, the indexes, the keys and admin.json."`
	Node   string `key:"node" doc:"Stable name of this node in pulses, receipts and logs. Empty: the host's name."`

	// What runs and where it listens.
	Roles   []string `key:"roles" default:"all" doc:"Parts to run, comma-separated: authority, management, introspection, or all."`
	Listen  string   `key:"listen" default:"127.0.0.1:8420" doc:"Address of HTTP. Port 0 takes a free one; base_url in admin.json names it."`
	BaseURL string   `key:"base-url" doc:"URL under which clients reach HTTP. Empty: made of the listen address."`
	TLSCert string   `key:"tls-cert-file" doc:"File with the certificate chain (PEM) for HTTPS. Empty: plain HTTP, for loopback or behind a proxy."`
	TLSKey  string   `key:"tls-key-file" doc:"File with its private key (PEM)."`
	Metrics string   `key:"metrics-listen" doc:"Address of /metrics for Prometheus. Empty: none."`
	// TrustedProxies is read by ClientNetworks.
	TrustedProxies []string `key:"trusted-proxies" doc:"Networks (CIDR) of the proxies whose word about the client's address counts. Empty: the peer is the client."`
	AddressHeader  string   `key:"client-address-header" default:"x-forwarded-for" doc:"The only header in which trusted proxies name the client: x-forwarded-for, forwarded (RFC 7239), or one with a single address, such as cf-connecting-ip, that every proxy replaces."`

	// What answers proxies.
	Routes         string `key:"routes" doc:"YAML file that says which permission a request to a service behind a proxy needs (GET /v1/forward-auth, ext_authz). It is read again when it changes, and at SIGHUP. Empty: proxies get 503."`
	ExtAuthzListen string `key:"ext-authz-listen" doc:"Address of Envoy's ext_authz (gRPC), with the certificate of HTTPS if there is one. Port 0 takes a free one. Empty: none."`
	ExtAuthzKey    Secret `key:"ext-authz-key" doc:"Enforcer key of callers of ext_authz that show none in the metadata watchword-enforcer-key. Only where nobody else reaches that address."`

	// The event log.
	NATSListen  string `key:"nats-listen" default:"127.0.0.1:4222" doc:"Address of the embedded NATS server, always authenticated. Port 0 takes a free one; empty: none."`
	NATSURL     string `key:"nats-url" doc:"NATS cluster to use instead of the embedded server, comma-separated URLs."`
	NATSSeedDir string `key:"nats-seed-dir" doc:"Directory with <role>.seed of NATS. Empty: nats in the data directory."`
	EventsMax   Bytes  `key:"events-max-bytes" default:"0" doc:"Cap of the ledger, at which it refuses changes. A later start can raise it. 0: half of what the disk has free at the first start."`
	StoreMax    Bytes  `key:"nats-max-bytes" default:"0" doc:"Cap of all that the embedded NATS server stores. 0: 80 % of the disk."`

	// Who is who.
	Catalogue     string `key:"catalogue" doc:"YAML file with the catalogue that the first start publishes; later ones are published by watchword catalogue publish. Empty: the built-in one."`
	Brand         string `key:"brand" default:"ww" doc:"First letters of every secret, 2 to 4 lower-case ones, the same on all nodes for ever."`
	OperatorEmail string `key:"operator-email" default:"operator@example.com" doc:"Address of the operator that the first start registers."`
	Master        Secret `key:"master-key" doc:"Master key of personal fields, 64 hex digits. Empty: master.key in the data directory, made by the first start."`

	// How much and how long.
	IndexMemory     Bytes         `key:"index-memory" default:"512MiB" doc:"Memory for tokens in the verification index: all of them if they fit, else a cache of what lies on disk."`
	DirectoryMemory Bytes         `key:"directory-memory" default:"64MiB" doc:"Memory of the directory's block cache."`
	StaleRead       time.Duration `key:"stale-read" default:"5m" doc:"Age of the index past which a permission of class read is answered with unavailable."`
	StaleWrite      time.Duration `key:"stale-write" default:"30s" doc:"The same for class write."`
	StaleAdmin      time.Duration `key:"stale-admin" default:"10s" doc:"The same for class admin."`
	WaitMax         time.Duration `key:"wait-max" default:"5s" doc:"Longest wait for a sequence (Watchword-At-Least, reads of one's own writes)."`
	ShutdownTimeout time.Duration `key:"shutdown-timeout" default:"10s" doc:"Longest wait for running requests at shutdown."`

	// How often. Each node counts for itself.
	LimitRequests throttle.Limit `key:"limit-requests" default:"1200/5m" doc:"Requests of one token or API key to the management API, and of one address without a good one: so many at once, and so many in each time from then on. 0: no limit."`
	LimitAddress  throttle.Limit `key:"limit-address" default:"200/1s" doc:"Requests from one address (IPv6: its /64), whoever sends them, but for verifications. 0: no limit."`
	LimitWrong    throttle.Limit `key:"limit-wrong" default:"30/1m" doc:"Wrong credentials from one address, and under one e-mail address or beginning of a secret; beyond, they are answered with 429. Good ones never are for that. 0: no limit."`

	// How many. The same on all nodes.
	UserTokens    Count `key:"user-tokens-max" default:"50" doc:"How many tokens a user may have, not counting revoked ones: disabled and expired ones count. 0: no limit."`
	AccountTokens Count `key:"account-tokens-max" default:"500" doc:"The same for an account. Its token policy may say less, and more if an operator sets it. 0: no limit."`

	// What it says.
	LogLevel  slog.Level `key:"log-level" default:"INFO" doc:"Least level that is logged: DEBUG, INFO, WARN or ERROR."`
	LogFormat string     `key:"log-format" default:"text" doc:"Form of the log on stderr: text or json."`
}

// The roles of a process.
const (
	RoleAll           = "all"
	RoleAuthority     = "authority"
	RoleManagement    = "management"
	RoleIntrospection = "introspection"
)

var (
	brandForm  = regexp.MustCompile(`^[a-z]{2,4}$`)
	headerForm = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)
)

// Validate reports every setting that cannot work, joined.
func (s *Serve) Validate() error {
	var errs []error
	bad := func(key, format string, a ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, a...)))
	}
	if s.Data == "" {
		bad("data", "must name a directory")
	}
	if len(s.Roles) == 0 {
		bad("roles", "must name at least one")
	}
	for _, r := range s.Roles {
		if !slices.Contains([]string{RoleAll, RoleAuthority, RoleManagement, RoleIntrospection}, r) {
			bad("roles", "%q is none of all, authority, management, introspection", r)
		}
	}
	for _, a := range []struct{ key, addr string }{
		{"listen", s.Listen}, {"nats-listen", s.NATSListen}, {"metrics-listen", s.Metrics}, {"ext-authz-listen", s.ExtAuthzListen},
	} {
		if a.addr == "" && a.key != "listen" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			bad(a.key, "%q is not host:port", a.addr)
		}
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		bad("tls-cert-file, tls-key-file", "both or neither")
	}
	if s.BaseURL != "" {
		if u, err := url.Parse(s.BaseURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			bad("base-url", "%q is no http or https URL", s.BaseURL)
		}
	}
	if _, err := s.ClientNetworks(); err != nil {
		errs = append(errs, err)
	}
	if !headerForm.MatchString(s.AddressHeader) {
		bad("client-address-header", "%q is no name of a header", s.AddressHeader)
	}
	if !brandForm.MatchString(s.Brand) {
		bad("brand", "%q is not 2 to 4 lower-case letters", s.Brand)
	}
	if s.IndexMemory < 1<<20 || s.DirectoryMemory < 1<<20 {
		bad("index-memory, directory-memory", "at least 1MiB each")
	}
	if s.EventsMax < 0 || s.StoreMax < 0 || s.StoreMax > 0 && s.EventsMax > s.StoreMax {
		bad("events-max-bytes", "must be at most nats-max-bytes, and neither negative")
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"stale-read", s.StaleRead}, {"stale-write", s.StaleWrite}, {"stale-admin", s.StaleAdmin},
		{"wait-max", s.WaitMax}, {"shutdown-timeout", s.ShutdownTimeout},
	} {
		if d.d <= 0 || d.d > 24*time.Hour {
			bad(d.key, "%v is not between 0 and 24h", d.d)
		}
	}
	if s.LogFormat != "text" && s.LogFormat != "json" {
		bad("log-format", "%q is neither text nor json", s.LogFormat)
	}
	return errors.Join(errs...)
}

// Runs says whether a role is to run.
func (s *Serve) Runs(role string) bool {
	return slices.Contains(s.Roles, RoleAll) || slices.Contains(s.Roles, role)
}

// ClientNetworks are the trusted proxies, parsed.
func (s *Serve) ClientNetworks() ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, t := range s.TrustedProxies {
		p, err := netip.ParsePrefix(t)
		if err != nil {
			return nil, fmt.Errorf("trusted-proxies: %q is no network like 192.0.2.0/24", t)
		}
		nets = append(nets, p.Masked())
	}
	return nets, nil
}

// Limits are the bounds on requests and wrong credentials.
func (s *Serve) Limits() throttle.Limits {
	return throttle.Limits{Requests: s.LimitRequests, Address: s.LimitAddress, Wrong: s.LimitWrong}
}

// Path is a file in the data directory.
func (s *Serve) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Data}, elem...)...)
}
