package routes

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"watchword.dev/events/catalogue"
)

const example = "../../../deploy/routes/dns.yaml"

func shipped(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func load(t testing.TB, text string) *Map {
	t.Helper()
	m, err := Load([]byte(text), catalogue.Cloudflare())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// entry is a route with everything in it.
func entry(methods, path string) string {
	return fmt.Sprintf("  - methods: %s\n    path: %s\n    permission: dns.records.read\n    resource:\n      - com.cloudflare.api.account.0123\n", methods, path)
}

// TestFind: what the shipped file says of requests.
func TestFind(t *testing.T) {
	m := load(t, shipped(t))
	const records = "/accounts/a1/zones/z-1/records"
	for _, c := range []struct{ method, host, target, permission string }{
		{"GET", "", records, "dns.records.read"},
		{"HEAD", "any", records, "dns.records.read"},
		{"GET", "", records + "?path=/accounts/b/zones/c/records", "dns.records.read"},
		{"GET", "", "/accounts/a1/zones/z%2D1/records", "dns.records.read"},
		{"GET", "", "/%61ccounts/a1/zones/z-1/%72ecords", "dns.records.read"},
		{"GET", "", records + "/1.2", "dns.records.read"},
		{"GET", "", records + "/%C3%A4", "dns.records.read"},
		{"GET", "", records + "/", ""},
		{"GET", "", records + "/1/2", ""},
		{"POST", "", records, "dns.records.write"},
		{"POST", "", records + "/", ""},
		{"PUT", "", records, ""},
		{"PUT", "", records + "/", "dns.records.write"},
		{"DELETE", "", records + "/1/2/", "dns.records.write"},
		{"delete", "", records + "/1", ""},
		{"TRACE", "", records, ""},
		{"", "", records, ""},
		{"GET", "", "/Accounts/a1/zones/z-1/records", ""},
		{"GET", "", "/accounts/a1/zones//records", ""},
		{"GET", "", "/", ""},
		{"GET", "", "/accounts/a1/zones/z-1", ""},
		{"GET", "other.example.com", "/accounts/a1/zones/z-1", ""},
		{"GET", "zones.example.com", "/accounts/a1/zones/z-1", "zone.read"},
		{"GET", "Zones.Example.com.:8443", "/accounts/a1/zones/z-1", "zone.read"},
	} {
		need, ok, err := m.Find(c.method, c.host, c.target)
		if ok != (c.permission != "") || need.Permission != c.permission || ok && err != nil {
			t.Errorf("%s %q %s: %+v, %v, %v", c.method, c.host, c.target, need, ok, err)
		}
		if ok && strings.Join(need.Resource, " ") != "com.cloudflare.api.account.a1 com.cloudflare.api.account.zone.z-1" {
			t.Errorf("%s: %q", c.target, need.Resource)
		}
	}
}

// TestNoNextRoute: what fits a route but for the id in it is not left to a
// weaker one further down.
func TestNoNextRoute(t *testing.T) {
	m := load(t, shipped(t)+entry(`["*"]`, "/**"))
	for _, zone := range []string{"a.b", "*", "%2A", "a%20b", "a:b", strings.Repeat("a", catalogue.MaxID+1)} {
		if need, ok, err := m.Find("GET", "", "/accounts/a1/zones/"+zone+"/records"); ok || err == nil {
			t.Errorf("%s: %+v, %v", zone, need, err)
		}
	}
	if _, ok, err := m.Find("GET", "", "/elsewhere"); !ok || err != nil {
		t.Errorf("the last route takes nothing: %v", err)
	}
}

// TestAmbiguous: what programs understand in different ways fits nothing, even
// where a route takes everything.
func TestAmbiguous(t *testing.T) {
	m := load(t, "routes:\n"+entry(`["*"]`, "/**"))
	for _, target := range []string{
		"", "*", "a", "http://h/a", "//a", "/a//b", "/a//", "/a/./b", "/a/../b", "/..", "/a/.", "/a/%2e/b", "/a/%2E%2e", "/a/.%2e/b",
		"/a%2fb", "/a%2Fb", `/a\b`, "/a%5cb", "/a%252fb", "/a%25", "/a;b", "/a%3Bb", "/a/..;/b", "/a%00", "/a%0d%0a", "/a%7f", "/a\x01", "/a b", "/a\x7f",
		"/a#b", "/a%", "/a%2", "/a%zz", "/a%FF", "/a\xc3\xa4", "/%C0%AE%C0%AE/b", "/a%E0%80%AF", "/" + strings.Repeat("a/", 64) + "b", "/" + strings.Repeat("a", 8<<10),
	} {
		if need, ok, err := m.Find("GET", "", target); ok || err == nil {
			t.Errorf("%q: %+v, %v", target, need, err)
		}
	}
	for _, target := range []string{"/", "/a", "/a/", "/a/b/", "/a%20b", "/...", "/.well-known/x", "/a:b@c,d=e+f!g$h&i'j(k)*", "/~a", "/%C3%A4", "/a?b=//../..;%2f#"} {
		if _, ok, err := m.Find("GET", "", target); !ok || err != nil {
			t.Errorf("%q: %v", target, err)
		}
	}
}

// FuzzSplit: whatever is accepted, net/url and path see the same segments.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"/a/b", "/a%2fb", "/../a", "/a;b/?c", "/%C3%A4/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		segments, err := Split(target)
		if err != nil {
			return
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			// The query is not ours to judge.
			if u, err = url.ParseRequestURI(strings.SplitN(target, "?", 2)[0]); err != nil {
				t.Fatalf("%q: %v", target, err)
			}
		}
		mine := "/" + strings.Join(segments, "/")
		clean := path.Clean(mine)
		if clean != "/" && strings.HasSuffix(mine, "/") {
			clean += "/"
		}
		if u.Path != mine || clean != mine {
			t.Errorf("%q: %q, net/url %q, cleaned %q", target, mine, u.Path, clean)
		}
	})
}

// TestMistakes: each mistake is told with its line and column.
func TestMistakes(t *testing.T) {
	good := shipped(t)
	for _, c := range []struct{ name, old, new, at, want string }{
		{"unknown key", "    permission: zone.read", "    permision: zone.read", "permision", `unknown key "permision"`},
		{"unknown key at the top", "routes:", "rules:", "rules:", "unknown key"},
		{"unknown permission", "permission: zone.read", "permission: zone.reed", "zone.reed", "no permission"},
		{"unknown type", "account.zone.{zone}", "account.zoo.{zone}", "com.cloudflare.api.account.zoo.{zone}", "no resource type"},
		{"wrong order", "      - com.cloudflare.api.account.{account}\n      - com.cloudflare.api.account.zone.{zone}", "      - com.cloudflare.api.account.zone.{zone}\n      - com.cloudflare.api.account.{account}", "com.cloudflare.api.account.{account}", "does not lie in"},
		{"unknown hole", "account.zone.{zone}", "account.zone.{sone}", "com.cloudflare.api.account.zone.{sone}", "no {sone}"},
		{"any id", "account.zone.{zone}", "account.zone.*", "com.cloudflare.api.account.zone.*", "is no <type>"},
		{"part of an id", "account.zone.{zone}", "account.zone.x{zone}", "com.cloudflare.api.account.zone.x{zone}", "is no <type>"},
		{"no slash", "path: /accounts/{account}/zones/{zone}\n", "path: accounts\n", "accounts\n", "begins with a slash"},
		{"dots", "path: /accounts/{account}/zones/{zone}\n", "path: /accounts/../{account}/{zone}\n", "/accounts/../{account}/{zone}\n", "dots"},
		{"two slashes", "path: /accounts/{account}/zones/{zone}\n", "path: //{account}/{zone}\n", "//{account}/{zone}\n", "two slashes"},
		{"star within", "path: /accounts/{account}/zones/{zone}\n", "path: /**/{account}/{zone}\n", "/**/{account}/{zone}\n", "the last"},
		{"half a segment", "path: /accounts/{account}/zones/{zone}\n", "path: /a{account}/{zone}\n", "/a{account}/{zone}\n", "whole segment"},
		{"hole twice", "path: /accounts/{account}/zones/{zone}\n", "path: /{zone}/{account}/{zone}\n", "/{zone}/{account}/{zone}\n", "stands twice"},
		{"encoded", "path: /accounts/{account}/zones/{zone}\n", "path: /%61/{account}/{zone}\n", "/%61/{account}/{zone}\n", "in it"},
		{"small method", "[PUT, PATCH", "[put, PATCH", "put, P", "capital"},
		{"all and another", "[PUT, PATCH", "['*', PATCH", "'*'", "stands alone"},
		{"no method", "methods: [PUT, PATCH, DELETE]", "methods: []", "methods: []", "names its methods"},
		{"host with a port", "hosts: [zones.example.com]", "hosts: ['zones.example.com:80']", "'zones.example.com:80'", "without a port"},
		{"number for a text", "permission: zone.read", "permission: 7", "7\n", "must be text"},
		{"text for a list", "methods: [PUT, PATCH, DELETE]", "methods: POST", "POST\n", "must be text or a list"},
		{"alias", "permission: zone.read", "permission: &p zone.read", "&p", "aliases"},
		{"hidden", "  - hosts: [zones.example.com]", "  - methods: ['*']\n    path: /**\n    permission: zone.read\n    resource: [com.cloudflare.api.account.0]\n  - hosts: [zones.example.com]", "hosts: [zones", "no request reaches"},
	} {
		if strings.Count(good, c.old) == 0 {
			t.Fatalf("%s: the file has no %q", c.name, c.old)
		}
		text := strings.Replace(good, c.old, c.new, 1)
		at := strings.Index(text, c.at)
		line := strings.Count(text[:at], "\n") + 1
		column := at - strings.LastIndexByte(text[:at], '\n')
		_, err := Load([]byte(text), catalogue.Cloudflare())
		if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("%d:%d: ", line, column)) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %d:%d: … %s", c.name, err, line, column, c.want)
		}
	}
	for _, text := range []string{"", "[]", "routes: []", "routes: {}", "routes:\n" + strings.Repeat(entry("[GET]", "/a"), MaxRoutes+1)} {
		if _, err := Load([]byte(text), catalogue.Cloudflare()); err == nil {
			t.Errorf("%.20q is accepted", text)
		}
	}
}

// TestHidden: a route that no request reaches is a mistake, and no other one is.
func TestHidden(t *testing.T) {
	for _, c := range []struct {
		first, second string
		hidden        bool
	}{
		{entry("[GET]", "/a"), entry("[GET]", "/a"), true},
		{entry("[GET]", "/a"), entry("[HEAD]", "/a"), true},
		{entry("[HEAD]", "/a"), entry("[GET]", "/a"), false},
		{entry("[GET]", "/a"), entry("[POST, GET]", "/a"), false},
		{entry("['*']", "/a"), entry("[POST, GET]", "/a"), true},
		{entry("[GET]", "/a"), entry("['*']", "/a"), false},
		{entry("[GET]", "/{x}"), entry("[GET]", "/a"), true},
		{entry("[GET]", "/a"), entry("[GET]", "/{x}"), false},
		{entry("[GET]", "/{x}"), entry("[GET]", "/"), false},
		{entry("[GET]", "/{x}/b"), entry("[GET]", "/a/{y}"), false},
		{entry("[GET]", "/a/**"), entry("[GET]", "/a"), false},
		{entry("[GET]", "/a/**"), entry("[GET]", "/a/"), true},
		{entry("[GET]", "/a/**"), entry("[GET]", "/a/b"), true},
		{entry("[GET]", "/a/**"), entry("[GET]", "/a/b/**"), true},
		{entry("[GET]", "/a/**"), entry("[GET]", "/a/**"), true},
		{entry("[GET]", "/a/b/**"), entry("[GET]", "/a/**"), false},
		{entry("[GET]", "/a/{x}"), entry("[GET]", "/a/**"), false},
		{entry("[GET]", "/**"), entry("[GET]", "/"), true},
	} {
		_, err := Load([]byte("routes:\n"+c.first+c.second), catalogue.Cloudflare())
		if (err != nil) != c.hidden {
			t.Errorf("%s%s: %v", c.first, c.second, err)
		}
	}
}

// TestFile: a changed file holds as soon as it is looked at; a broken one, or a
// catalogue without its permissions, changes nothing and is told.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "routes.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held := catalogue.Cloudflare()
	cat := func() *catalogue.Catalogue { return held }
	if _, err := Open(name, cat, nil); err == nil {
		t.Error("a file that is not there is opened")
	}
	write("routes:\n" + entry("[GET]", "/a"))
	f, err := Open(name, cat, nil)
	if err != nil {
		t.Fatal(err)
	}
	takes := func(path string, broken bool) {
		t.Helper()
		f.Look()
		if _, ok, _ := f.Map().Find("GET", "", path); !ok || (f.Err() != nil) != broken {
			t.Errorf("%s: %v, %v", path, ok, f.Err())
		}
	}
	takes("/a", false)
	write("routes:\n" + entry("[GET]", "/b"))
	takes("/b", false)
	write("routes:\n" + entry("[GET]", "b"))
	takes("/b", true)
	if !strings.HasPrefix(f.Err().Error(), name+":3:11: ") {
		t.Error(f.Err())
	}
	write("routes:\n" + entry("[GET]", "/c"))
	takes("/c", false)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	takes("/c", true)
	write("routes:\n" + entry("[GET]", "/c"))
	takes("/c", false)
	other, err := catalogue.FromDocument(nil, []byte(`{"name":"nothing of its own"}`))
	if err != nil {
		t.Fatal(err)
	}
	held = other
	takes("/c", true)
	held = catalogue.Cloudflare()
	takes("/c", false)
}
