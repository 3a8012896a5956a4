package introspection

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
)

// inactive is all that is said of a token that is not active, whatever the
// reason: RFC 7662 §2.2.
var inactive = []byte(`{"active":false}`)

// introspectionAnswer is the answer about an active token. Permissions repeats the
// scope as an array, because some clients cannot look into a string.
type introspectionAnswer struct {
	Active      bool     `json:"active"`
	Scope       string   `json:"scope"`
	Permissions []string `json:"permissions"`
	ClientID    string   `json:"client_id"`
	Sub         string   `json:"sub"`
	Exp         int64    `json:"exp,omitzero"`
	Iat         int64    `json:"iat"`
	Nbf         int64    `json:"nbf,omitzero"`
	Iss         string   `json:"iss,omitempty"`
	Aud         string   `json:"aud,omitempty"` // the issuer: tokens are for whoever asks it
	JTI         string   `json:"jti"`
	TokenType   string   `json:"token_type"`
}

// introspect answers RFC 7662. The permissions it lists are those that the
// token's grant allows on some resource and denies on none: the form has no
// place for a resource, so whoever must know on which one asks /v1/verify. A
// token whose grant is bound to addresses is active only for a client_ip that
// it allows, which is our addition to the form.
func (s *Service) introspect(x *web.Exchange) error {
	if _, f := s.oauthEnforcer(x.Request().Header); f != nil {
		if f = x.Throttle(f); f.Entry().Status == http.StatusUnauthorized {
			x.Header().Set("Www-Authenticate", `Basic realm="watchword", Bearer`)
		}
		return s.oauthFault(x, f)
	}
	form, err := readForm(x)
	if err != nil {
		return s.oauthFault(x, fault.From(err))
	}
	secret, from, f := introspected(form)
	if f == nil {
		f = s.reach(x.Request())
	}
	if f != nil {
		return s.oauthFault(x, f)
	}
	id, reason := s.Decider.Identify(strings.TrimPrefix(secret, "secret-token:"), from)
	x.Sequence(id.Sequence)
	switch reason {
	case token.ReasonNone:
	case token.ReasonStale:
		return s.oauthFault(x, fault.New(fault.StaleIndex))
	case token.ReasonNotReady:
		return s.oauthFault(x, fault.New(fault.NotReady))
	default:
		x.JSON(http.StatusOK, inactive)
		return nil
	}
	t, err := s.token(x.Context(), &id)
	if err != nil {
		return s.oauthFault(x, fault.Wrap(fault.NotReady, err))
	}
	if t.Status != aggregate.Active {
		x.JSON(http.StatusOK, inactive) // it ended since the index looked
		return nil
	}
	s.countIntrospected(&t)
	body, err := json.Marshal(s.active(&t))
	if err != nil {
		return err
	}
	x.JSON(http.StatusOK, body)
	return nil
}

// countIntrospected counts a use of a token that is good. For what it is used the
// enforcer decides by itself.
func (s *Service) countIntrospected(t *aggregate.Token) {
	if s.Count == nil {
		return
	}
	kind := usage.UserToken
	switch {
	case t.Foreign:
		kind = usage.ForeignToken
	case t.OwnerKind == events.OwnedByAccount:
		kind = usage.AccountToken
	}
	s.Count.Lane().Use(t.ID, kind, "", nil, usage.Allowed)
}

// token returns what the index has recognised. Two projections of one ledger:
// the other one may be a little behind.
func (s *Service) token(ctx context.Context, id *verifyindex.Identity) (aggregate.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, s.AtLeastWait)
	defer cancel()
	if err := s.Reached.Wait(ctx, id.Sequence); err != nil {
		return aggregate.Token{}, err
	}
	t, ok, err := s.Tokens.Token(id.Token)
	if err == nil && !ok {
		err = errors.New("introspection: the directory lacks a token of the index")
	}
	return t, err
}

// active returns the answer about a token that can be used now.
func (s *Service) active(t *aggregate.Token) introspectionAnswer {
	permissions := permissionsOf(t.Grant, s.Catalogue())
	a := introspectionAnswer{
		Active: true, Permissions: permissions, Scope: strings.Join(permissions, " "),
		ClientID: t.ID.String(), Sub: t.Owner.String(), Iat: t.Created.Unix(),
		Iss: s.Issuer(), Aud: s.Issuer(), JTI: t.ID.String(), TokenType: "Bearer",
	}
	if !t.Grant.ExpiresOn.IsZero() {
		a.Exp = t.Grant.ExpiresOn.Unix()
	}
	if !t.Grant.NotBefore.IsZero() {
		a.Nbf = t.Grant.NotBefore.Unix()
	}
	return a
}

// permissionsOf returns, sorted, what the grant allows on some resource, without
// what it denies on any: the form has no place for the resource.
func permissionsOf(g token.Grant, cat *catalogue.Catalogue) []string {
	denied, seen := map[string]bool{}, map[string]bool{}
	out := []string{}
	for _, effect := range []token.Effect{token.EffectDeny, token.EffectAllow} {
		for _, p := range g.Policies {
			if p.Effect != effect {
				continue
			}
			for _, ref := range p.Groups {
				group, _ := cat.Group(ref.ID)
				for _, name := range group.Permissions {
					switch {
					case effect == token.EffectDeny:
						denied[name] = true
					case !denied[name] && !seen[name]:
						seen[name] = true
						out = append(out, name)
					}
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// oauthEnforcer recognises the enforcer by Bearer, or by Basic: its id as the
// user name and its key as the password. A user name that is no id is
// ignored, and the key may also stand there alone.
func (s *Service) oauthEnforcer(h http.Header) (verifyindex.EnforcerInfo, *fault.Error) {
	user, password, basic := web.Basic(h)
	if !basic {
		return s.enforcer(web.BearerSecret(h))
	}
	if password == "" {
		return s.enforcer(user)
	}
	info, f := s.enforcer(password)
	if f != nil {
		return info, f
	}
	if id, err := token.ParseID(user); err == nil && id != info.ID {
		return info, fault.New(fault.EnforcerKeyNeeded)
	}
	return info, nil
}

// readForm reads the body, which must be a form. The query is never looked at.
func readForm(x *web.Exchange) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(x.Request().Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, fault.New(fault.UnsupportedContentType)
	}
	b, err := x.Body(web.MaxBody)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, fault.New(fault.InvalidVerifyRequest)
	}
	return form, nil
}

func introspected(form url.Values) (secret string, from netip.Addr, f *fault.Error) {
	if len(form["token"]) != 1 || len(form["token_type_hint"]) > 1 || len(form["client_ip"]) > 1 {
		return "", from, fault.New(fault.InvalidVerifyRequest)
	}
	if ip := form.Get("client_ip"); ip != "" {
		a, err := netip.ParseAddr(ip)
		if err != nil || a.Zone() != "" {
			return "", from, fault.New(fault.InvalidVerifyRequest)
		}
		from = a.Unmap()
	}
	return form.Get("token"), from, nil
}

// oauthFault answers with the envelope and, beside it, what OAuth clients look
// for.
func (s *Service) oauthFault(x *web.Exchange, f *fault.Error) error {
	code := "invalid_request"
	switch status := f.Entry().Status; {
	case status == http.StatusUnauthorized:
		code = "invalid_client"
	case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests:
		code = "temporarily_unavailable"
	case status >= 500:
		code = "server_error"
	}
	return x.Fail(f, `"error":"`+code+`",`)
}

// metadata answers RFC 8414, as far as there is something to tell.
func (s *Service) metadata(x *web.Exchange) error {
	b, err := json.Marshal(struct {
		Issuer                string   `json:"issuer"`
		IntrospectionEndpoint string   `json:"introspection_endpoint"`
		AuthMethods           []string `json:"introspection_endpoint_auth_methods_supported"`
		ResponseTypes         []string `json:"response_types_supported"`
	}{s.Issuer(), s.Issuer() + "/oauth2/introspect", []string{"client_secret_basic", "Bearer"}, []string{}})
	if err != nil {
		return err
	}
	x.JSON(http.StatusOK, b)
	return nil
}
