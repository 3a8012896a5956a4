package introspection

import (
	"net/http"
	"net/netip"
	"slices"

	"watchword.dev/events/fault"
	"watchword.dev/services/internal/web"
)

// forwardAuthPath is asked by nginx (auth_request), Caddy and Traefik (both
// forward_auth) before they let a request pass.
const forwardAuthPath = "/v1/forward-auth"

// forwardAuth answers whether a request may pass that a proxy describes in
// headers. It answers 200, 401, 403 or 503, because nginx takes all else for a
// failure: a proxy without a good key cannot learn anything, which is 503 and
// says nothing about its client's token. Nothing is read from the query, to
// which Caddy adds its client's.
func (s *Service) forwardAuth(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		web.SecurityHeaders(h)
		status, body := web.FailureBody(h, fault.New(fault.MethodNotAllowed))
		send(rw, status, body)
		return
	}
	v := s.forwarded(rw, r)
	for name, lines := range v.Header {
		h[name] = lines
	}
	web.SecurityHeaders(h)
	rw.WriteHeader(v.Status)
	if r.Method != http.MethodHead {
		_, _ = rw.Write(v.Body) // the proxy may have gone
	}
}

// forwarded decides. A handler that panics must not answer with what a proxy
// could take for a yes.
func (s *Service) forwarded(rw http.ResponseWriter, r *http.Request) (v *Verdict) {
	defer func() {
		if p := recover(); p != nil {
			f := web.Recovered(p)
			s.Log.Error("forward-auth", "fault", string(f.Code), "cause", f.Error())
			v = s.Unavailable("a failure of ours")
		}
	}()
	key := ""
	if lines := r.Header[EnforcerKeyHeader]; len(lines) == 1 {
		key = lines[0]
	}
	by, f := s.enforcer(key)
	if f != nil {
		s.throttle(rw, withKey(r, key), f) // it is counted, and the answer stays
		return s.Unavailable("the proxy has no good key: " + string(f.Code))
	}
	p, told, clear := described(r.Header)
	if !told {
		return s.Unavailable("the proxy does not say the method and the target")
	}
	if !clear {
		p.Target = "" // fits no route: its client may have added what differs
	}
	p.Address = s.clientOf(r)
	return s.Pass(r.Context(), &by, &p)
}

// withKey is r as the limits see it: they count by what stands in Authorization.
func withKey(r *http.Request, key string) *http.Request {
	seen := *r
	seen.Header = r.Header.Clone()
	delete(seen.Header, "Authorization")
	if key != "" {
		seen.Header["Authorization"] = []string{"Bearer " + key}
	}
	return &seen
}

// The headers in which proxies tell the same: nginx has none of its own, and
// people write one or the other.
var (
	methodHeaders = []string{"X-Original-Method", "X-Forwarded-Method"}
	targetHeaders = []string{"X-Original-Uri", "X-Forwarded-Uri"}
	hostHeaders   = []string{"X-Original-Host", "X-Forwarded-Host"}
)

// described reads what a proxy tells of the request. A proxy passes on headers
// that it does not know, so its client may have sent the other spelling: what is
// told twice must be the same, else the description is not clear.
func described(h http.Header) (p Passing, told, clear bool) {
	method, m := one(h, methodHeaders)
	target, u := one(h, targetHeaders)
	host, n := one(h, hostHeaders)
	p = Passing{Method: method, Host: host, Target: target, Authorization: h["Authorization"]}
	return p, m > 0 && u > 0, m <= 1 && u <= 1 && n <= 1
}

// one returns the value of the headers of these names, and how many different
// ones there are.
func one(h http.Header, names []string) (value string, different int) {
	var seen []string
	for _, name := range names {
		for _, line := range h[name] {
			if !slices.Contains(seen, line) {
				seen = append(seen, line)
			}
		}
	}
	if len(seen) > 0 {
		value = seen[0]
	}
	return value, len(seen)
}

// clientOf returns the address of the proxy's client. The proxy is known by its
// key, so that its word counts; where it says nothing the address is not known,
// and its own is not taken instead.
func (s *Service) clientOf(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || len(r.Header[s.Address.Header]) == 0 {
		return netip.Addr{}
	}
	a := peer.Addr().Unmap().WithZone("")
	rule := s.Address
	rule.Trusted = append(slices.Clip(rule.Trusted), netip.PrefixFrom(a, a.BitLen()))
	return rule.Of(r)
}
