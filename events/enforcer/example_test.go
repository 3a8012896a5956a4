package enforcer_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"watchword.dev/events/enforcer"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/token"
)

// A service with a cache: verifiers are asked over HTTP, and what they said is
// kept until the feed says otherwise.
func ExampleCache() {
	ctx, key := context.Background(), os.Getenv("ENFORCER_KEY")
	client, err := enforcer.NewClient(enforcer.ClientConfig{
		URLs: []string{"https://verify-1.example", "https://verify-2.example"}, Key: token.NewSecret(key),
	})
	if err != nil {
		log.Fatal(err)
	}
	cache, err := enforcer.NewCache(enforcer.CacheConfig{Source: client})
	if err != nil {
		log.Fatal(err)
	}
	e, err := enforcer.New(enforcer.Config{Decider: cache})
	if err != nil {
		log.Fatal(err)
	}
	feed, err := sse.New(sse.Config{URL: "https://verify-1.example", Key: key, Pulse: cache.Observe})
	if err != nil {
		log.Fatal(err)
	}
	go enforcer.FollowNewest(ctx, feed, cache, e) // the cache before who asks it

	zone := enforcer.Path("com.cloudflare.api.account.{account}", "com.cloudflare.api.account.zone.{zone}")
	mux := http.NewServeMux()
	mux.Handle("PUT /accounts/{account}/zones/{zone}/records", e.Require("dns.records.write", zone)(http.HandlerFunc(write)))
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", mux))
}

func write(w http.ResponseWriter, r *http.Request) {
	id, _ := enforcer.FromContext(r.Context())
	fmt.Fprintf(w, "written by %v\n", id.Token)
}

// deciding is a decider that knows one secret.
type deciding struct{}

func (deciding) Verify(secret string, ask *token.Request) token.Decision {
	if !strings.HasSuffix(secret, "good") {
		return token.Decision{Reason: token.ReasonUnknown}
	}
	if ask.Permission != "dns.records.read" {
		return token.Decision{Reason: token.ReasonNoPolicy, Token: token.ID{15: 1}}
	}
	return token.Decision{Verdict: token.VerdictAllow, Token: token.ID{15: 1}, Owner: token.ID{15: 2}, OwnerKind: token.OwnerUser}
}

// What a client sees.
func ExampleEnforcer_Require() {
	e, err := enforcer.New(enforcer.Config{Decider: deciding{}, Realm: "dns"})
	if err != nil {
		log.Fatal(err)
	}
	zone := enforcer.Path("com.cloudflare.api.account.zone.{zone}")
	mux := http.NewServeMux()
	mux.Handle("GET /zones/{zone}", e.Require("dns.records.read", zone)(http.HandlerFunc(write)))
	mux.Handle("PUT /zones/{zone}", e.Require("dns.records.write", zone)(http.HandlerFunc(write)))
	for _, c := range [][2]string{{"GET", "Bearer wwu_good"}, {"PUT", "Bearer wwu_good"}, {"GET", "Bearer wwu_bad"}, {"GET", ""}} {
		r := httptest.NewRequest(c[0], "/zones/z1", nil)
		if c[1] != "" {
			r.Header.Set("Authorization", c[1])
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Printf("%d %s.\n", w.Code, w.Header().Get("WWW-Authenticate"))
	}
	// Output:
	// 200 .
	// 403 Bearer realm="dns", error="insufficient_scope", error_description="The access token does not allow this.", scope="dns.records.write".
	// 401 Bearer realm="dns", error="invalid_token", error_description="The access token is not valid here.".
	// 401 Bearer realm="dns".
}

// A stream that ends when its token does.
func ExampleBind() {
	var e *enforcer.Enforcer // as in the other examples
	zone := enforcer.Path("com.cloudflare.api.account.zone.{zone}")
	changes := func(w http.ResponseWriter, r *http.Request, id enforcer.Identity) {
		ctx, stop := id.Bind(r.Context())
		defer stop()
		<-ctx.Done() // beside what the stream waits for
		log.Printf("the stream of token %v has ended: %v", id.Token, context.Cause(ctx))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /zones/{zone}/changes", e.Handle("dns.records.read", zone, changes))
}
