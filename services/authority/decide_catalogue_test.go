package authority_test

import (
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// ships is a catalogue without anything of the built-in one.
const ships = `{"name":"ships",
"resource_types":[{"name":"ship","parent":"com.cloudflare.api.account"}],
"permissions":[{"name":"ships.sail","class":"write"}],
"permission_groups":[{"id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"Ships Sail","scopes":["ship"],"permissions":["ships.sail"]}]}`

const shipsSail = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func (s *story) publish(after uint32, doc string) command.PublishCatalogue {
	return command.PublishCatalogue{ID: s.NewID(), After: after, Document: jsontext.Value(doc)}
}

func TestPublishCatalogue(t *testing.T) {
	s := tell(t)
	s.make("dns", authoritytest.Grant(zone, dnsWrite))
	for _, c := range []struct {
		name string
		by   command.Caller
		cmd  command.PublishCatalogue
		want string
	}{
		{"by a stranger", s.stranger(), s.publish(0, ships), "not_permitted"},
		{"by an operator's token", s.by("dns"), s.publish(0, ships), "not_permitted"},
		{"without an id", s.me(), command.PublishCatalogue{Document: jsontext.Value(ships)}, "invalid_field"},
		{"for another version", s.me(), s.publish(1, ships), "conflict"},
		{"with a mistake", s.me(), s.publish(0, strings.Replace(ships, "ships.sail", "ships.sink", 1)), "invalid_catalogue"},
		{"of what holds already", s.me(), s.publish(0, encoded(t, catalogue.Cloudflare())), "unchanged"},
	} {
		if got := s.do(c.by, c.cmd); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	first := s.publish(0, ships)
	s.must(s.me(), first)
	if got := s.do(s.me(), first); got != "unchanged" {
		t.Errorf("a second time: %s", got)
	}
	if got := s.do(s.me(), s.publish(1, ships)); got != "unchanged" {
		t.Errorf("the same again: %s", got)
	}
	if got := s.do(s.me(), s.publish(0, `{}`)); got != "conflict" {
		t.Errorf("for the version before: %s", got)
	}
}

// TestDecideByThePublished: from the publication on, decisions rest on what was
// published, and what it has dropped applies to nothing.
func TestDecideByThePublished(t *testing.T) {
	s := tell(t)
	sail := authoritytest.Grant("ship.s1", shipsSail)
	create := func(g token.Grant) command.CreateToken {
		c := s.Create()
		c.Grant = g
		return c
	}
	mint := authoritytest.Grant(userKey(s.Operator), apiTokensWrite)
	mint.Policies = append(mint.Policies, authoritytest.Grant(zone, dnsWrite).Policies...)
	s.make("minter", mint)
	if got := s.do(s.me(), create(sail)); got != "invalid_resources" {
		t.Errorf("before: %s", got)
	}
	s.must(s.me(), s.publish(0, ships))
	if got := s.do(s.me(), create(sail)); got != "token.created.v1" {
		t.Errorf("a ship: %s", got)
	}
	if got := s.do(s.me(), create(authoritytest.Grant(zone, dnsWrite))); got != "invalid_resources" {
		t.Errorf("a zone: %s", got)
	}
	// A token that names what is gone can still be used for the rest.
	if got := s.do(s.by("minter"), create(authoritytest.Grant(userKey(s.Operator), apiTokensWrite))); got != "token.created.v1" {
		t.Errorf("by a token of before: %s", got)
	}
	s.must(s.me(), s.publish(1, `{}`))
	s.must(s.me(), s.publish(2, ships))
	last, _, _ := s.past.Catalogue()
	alone, err := catalogue.FromDocument(nil, last.Document)
	if err != nil || last.Version != 3 {
		t.Fatalf("version %d: %v", last.Version, err)
	}
	if n, ok := alone.GroupNumber(shipsSail); !ok || int(n) != catalogue.Cloudflare().GroupCount() {
		t.Errorf("what came back has the number %d", n)
	}
}

// TestPublishThroughThePen: the pen decides by what it has published, whether or
// not its directory has heard of that.
func TestPublishThroughThePen(t *testing.T) {
	in(t, nil, func(w *world) {
		doc := command.PublishCatalogue{ID: w.NewID(), Document: jsontext.Value(ships)}
		if _, err := w.pen.Do(w.ctx, authoritytest.ByKey(w.Operator), doc); err != nil {
			t.Fatal(err)
		}
		for _, settled := range []bool{false, true} {
			if settled {
				if err := authoritytest.Settle(w.ctx, w.pen, w.past); err != nil {
					t.Fatal(err)
				}
			}
			c := w.Create()
			c.Grant = authoritytest.Grant("ship.s1", shipsSail)
			if _, err := w.pen.Do(w.ctx, authoritytest.ByKey(w.Operator), c); err != nil {
				t.Fatalf("settled %v: %v", settled, err)
			}
		}
		if n := w.whole()[(events.CataloguePublished{}).EventName()]; n != 1 {
			t.Errorf("%d publications", n)
		}
	})
}

func encoded(t *testing.T, c *catalogue.Catalogue) string {
	t.Helper()
	b, err := json.Marshal(c.Document())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
