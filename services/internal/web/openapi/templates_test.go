package openapi_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

const dnsReadGroup = "82e64a83756745bbbb1c9c2701bf816b"

// previewView is what a dry run answers.
type previewView struct {
	Name     string   `json:"name"`
	Summary  []string `json:"summary"`
	Warnings []string `json:"warnings"`
	Lacking  []struct {
		Message string `json:"message"`
		Pointer string `json:"pointer"`
	} `json:"lacking"`
}

// TestTemplate makes tokens from a template: what they may do is what the
// template says, and they remember it.
func TestTemplate(t *testing.T) {
	l := newLab(t)
	body := `{"name":"deploy","template":"edit-zone-dns","parameters":{"zone":"` + strings.TrimPrefix(zone, zoneType) + `"}}`
	var p previewView
	l.do("POST", userTokens+"?dry_run=true", l.admin.header(), body, 200, 0).into(t, &p)
	if p.Name != "deploy" || len(p.Lacking) != 0 || len(p.Summary) != 1 || !strings.HasPrefix(p.Summary[0], "May edit DNS of zone ") {
		t.Errorf("preview: %+v", p)
	}
	if got := l.do("GET", userTokens, l.admin.header(), nil, 200, 0); !strings.Contains(string(got.body), `"result":[]`) {
		t.Errorf("the dry run left a token: %s", got.body)
	}
	for name, at := range map[string]string{"user": userTokens, "account": l.admin.accountTokens()} {
		a := l.create(at, l.admin.header(), body)
		if a.Name != "deploy" || a.Template != "edit-zone-dns" {
			t.Errorf("%s: created %+v", name, a)
		}
		if d := l.verify(a.Value, zone); d.Decision != "allow" {
			t.Errorf("%s: %+v", name, d)
		}
		if d := l.verify(a.Value, otherZone); d.Reason != "no_policy" {
			t.Errorf("%s, another zone: %+v", name, d)
		}
		var again tokenView
		l.do("GET", at+"/"+a.ID, l.admin.header(), nil, 200, 0).into(t, &again)
		if again.Template != "edit-zone-dns" {
			t.Errorf("%s: read %+v", name, again)
		}
	}
}

// TestTemplateRefusals gets everything about templates wrong.
func TestTemplateRefusals(t *testing.T) {
	l := newLab(t)
	for name, body := range map[string]string{
		"unknown template":  `{"template":"no-such","parameters":{"zone":"a"}}`,
		"unknown parameter": `{"template":"edit-zone-dns","parameters":{"zone":"a","planet":"mars"}}`,
		"missing parameter": `{"template":"edit-zone-dns"}`,
		"a key for an id":   `{"template":"edit-zone-dns","parameters":{"zone":"x\":\"*\",\"com.cloudflare.api.account.zone.y"}}`,
		"policies as well":  strings.Replace(grant("n", dnsWrite, zone), `{`, `{"template":"edit-zone-dns","parameters":{"zone":"a"},`, 1),
		"parameters alone":  strings.Replace(grant("n", dnsWrite, zone), `{`, `{"parameters":{"zone":"a"},`, 1),
		"twice":             `{"template":"edit-zone-dns","parameters":{"zone":["a","a"]}}`,
	} {
		got := l.do("POST", userTokens, l.admin.header(), body, 400, 1001)
		if strings.Contains(string(got.body), "planet") {
			t.Errorf("%s is repeated: %s", name, got.body)
		}
	}
	l.do("POST", userTokens, l.admin.header(), `{"template":"edit-zone-dns","parameters":{"zone":7}}`, 400, 9207)
	l.do("POST", userTokens+"?dry_run=perhaps", l.admin.header(), grant("n", dnsWrite, zone), 400, 1001)
}

// TestLink follows a link to the token that it asks for.
func TestLink(t *testing.T) {
	l := newLab(t)
	got := l.do("GET", "/tokens/new?template=edit-zone-dns&name=from+a+link&zone="+strings.TrimPrefix(zone, zoneType), nil, nil, 200, 0)
	var body jsontext.Value
	got.into(t, &body)
	a := l.create(userTokens, l.admin.header(), string(body))
	if a.Name != "from a link" || a.Template != "edit-zone-dns" || l.verify(a.Value, zone).Decision != "allow" {
		t.Errorf("created: %+v", a)
	}
	for _, bad := range []string{"", "?name=x", "?template=a&template=b", "?template=%zz"} {
		l.do("GET", "/tokens/new"+bad, nil, nil, 400, 1001)
	}
}

// TestPreview checks that a dry run says what is lacking and what is odd, and
// that it tells no names of what is not the caller's.
func TestPreview(t *testing.T) {
	l := newLab(t)
	foreign := "com.cloudflare.api.account." + l.rival.account.String()
	body := `{"name":"zone admin","policies":[{"effect":"allow","permission_groups":[{"id":"` + dnsReadGroup + `"}],"resources":{"` + foreign + `":{"com.cloudflare.api.account.zone.*":"*"}}}]}`
	var p previewView
	l.do("POST", userTokens+"?dry_run=true", l.admin.header(), body, 200, 0).into(t, &p)
	if len(p.Lacking) != 1 || p.Lacking[0].Pointer != "/policies/0/permission_groups/0" {
		t.Errorf("lacking: %+v", p.Lacking)
	}
	if !slices.Contains(p.Warnings, `its name says "admin", but it may administer nothing`) {
		t.Errorf("warnings: %q", p.Warnings)
	}
	if strings.Contains(strings.Join(p.Summary, " "), "rival") {
		t.Errorf("a foreign name: %q", p.Summary)
	}
}

// TestWidens checks that a token gives others no more than it holds, unless its
// user has said that it may.
func TestWidens(t *testing.T) {
	l := newLab(t)
	writes := l.group("API Tokens Write")
	self := userType + l.admin.id.String()
	body := func(widens string) string { return grant("minter", writes, self, `"widens":`+widens) }
	narrow := l.create(userTokens, l.admin.header(), body("null"))
	wide := l.create(userTokens, l.admin.header(), body("true"))
	want := grant("dns", dnsWrite, zone)
	l.do("POST", userTokens, bearer(narrow.Value), want, 400, 1001)
	l.create(userTokens, bearer(wide.Value), want)
	// Nobody gives the mark who does not have it.
	l.do("POST", userTokens, bearer(narrow.Value), body("true"), 403, 9109)
	l.do("PUT", userTokens+"/"+wide.ID, l.admin.header(), body("null"), 200, 0)
	l.create(userTokens, bearer(wide.Value), want)
	l.do("PUT", userTokens+"/"+wide.ID, l.admin.header(), body("false"), 200, 0)
	l.do("POST", userTokens, bearer(wide.Value), want, 400, 1001)
}
