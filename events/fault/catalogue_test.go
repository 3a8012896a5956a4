package fault

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestCatalogue holds every entry to the rules of the wire.
func TestCatalogue(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	secretLike := regexp.MustCompile(`%|ww[a-z]_|[0-9A-Za-z_-]{33,}`)
	owners := map[int]Code{}
	for _, e := range All() {
		bad := func(format string, args ...any) {
			t.Helper()
			t.Errorf(string(e.Code)+": "+format, args...)
		}
		if !name.MatchString(string(e.Code)) {
			bad("not a lower-case name")
		}
		if e.Status < 400 || e.Status > 599 || e.Status == 408 || e.Status == 409 {
			bad("status %d: a refusal is 400 or above, and clients repeat 408 and 409 for minutes", e.Status)
		}
		if e.Status < 500 && e.RetryAfter != 0 && e.Status != 429 {
			bad("asks to repeat what cannot succeed")
		}
		if (e.Status == 503 || e.Status == 429) && e.RetryAfter <= 0 {
			bad("status %d without Retry-After", e.Status)
		}
		if e.Number < 1000 {
			bad("number %d: Cloudflare's schema asks for at least 1000", e.Number)
		}
		if e.Number >= OwnNumbers {
			if other, taken := owners[e.Number]; taken {
				bad("shares number %d with %s", e.Number, other)
			}
			owners[e.Number] = e.Code
		}
		if e.When == "" || !strings.HasSuffix(strings.TrimSuffix(e.When, ")"), ".") {
			bad("When is no sentence: %q", e.When)
		}
		texts := []string{e.Text}
		for _, l := range e.Chain {
			texts = append(texts, l.Text)
			if l.Number < 1000 {
				bad("chain number %d", l.Number)
			}
		}
		for _, text := range texts {
			if text == "" || strings.TrimSpace(text) != text || secretLike.MatchString(text) {
				bad("text %q", text)
			}
		}
	}
}

// TestWire holds the catalogue to the contract with Cloudflare's clients, to
// the letter: wrangler switches on numbers and scripts search for texts.
func TestWire(t *testing.T) {
	tests := []struct {
		code   Code
		status int
		number int
		text   string
		chain  int
	}{
		{MissingCredentials, 400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers", 0},
		{MalformedAuthorization, 400, 6003, "Invalid request headers", 6111},
		{MalformedAPIKey, 400, 6003, "Invalid request headers", 6103},
		{MalformedAuthEmail, 400, 6003, "Invalid request headers", 6102},
		{InvalidAPIKey, 403, 9103, "Unknown X-Auth-Key or X-Auth-Email", 0},
		{InvalidAPIToken, 401, 1000, "Invalid API Token", 0},
		{InvalidAccessToken, 403, 9109, "Invalid access token", 0},
		{AddressRefused, 403, 9109, "Cannot use the access token from location", 0},
		{NotPermitted, 403, 9109, "Unauthorized to access requested resource", 0},
		{PermissionMissing, 403, 10000, "Authentication error", 0},
		{AccountTokenRefused, 400, 9106, "Authentication failed", 0},
		{GroupNotHeld, 400, 1001, "Failed common permission check against resources.", 0},
		{GroupScopeMismatch, 400, 1001, "Failed common permission check against resources.", 0},
		{GroupNotForUserTokens, 400, 1001, "User tokens cannot reference roles with granular resource scopes", 0},
		{NoAccountList, 400, 1001, "List accounts endpoint does not support account owned tokens.", 0},
		{InvalidJSON, 400, 9207, "Request body is invalid.", 0},
		{InvalidID, 404, 7003, "Could not route to the requested path, perhaps your object identifier is invalid?", 7000},
		{UnknownRoute, 404, 7000, "No route for that URI", 0},
		{TokenNotFound, 404, 1003, "token not found", 0},
		{RateLimited, 429, 20014, "Too many requests", 0},
	}
	for _, tt := range tests {
		e := tt.code.Entry()
		if e.Code != tt.code || e.Status != tt.status || e.Number != tt.number || e.Text != tt.text {
			t.Errorf("%s: %+v, want %+v", tt.code, e, tt)
		}
		switch {
		case tt.chain == 0 && e.Chain == nil:
		case len(e.Chain) == 1 && e.Chain[0].Number == tt.chain:
		default:
			t.Errorf("%s: chain %v, want %d", tt.code, e.Chain, tt.chain)
		}
	}
}

// TestEveryConstantHasAnEntry reads the source, because the compiler does not
// notice a code without an entry.
func TestEveryConstantHasAnEntry(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "catalogue.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var declared []Code
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); ok && id.Name == "Code" {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared = append(declared, Code(text))
		}
		return true
	})
	var held []Code
	for _, e := range All() {
		held = append(held, e.Code)
	}
	slices.Sort(declared)
	slices.Sort(held)
	if !slices.Equal(declared, held) {
		t.Errorf("declared %q\nin the catalogue %q", declared, held)
	}
	if len(declared) < 60 {
		t.Errorf("only %d constants found: this test reads the source wrongly", len(declared))
	}
}

func TestDoubleCodePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a code that stands twice was accepted")
		}
	}()
	index([]Entry{{Code: Internal}, {Code: NoPen}, {Code: Internal}})
}

// TestRequestTextDoesNotCompile checks the promise of the package doc: a
// string variable can be neither a detail's format nor a pointer's field.
func TestRequestTextDoesNotCompile(t *testing.T) {
	fset := token.NewFileSet()
	std := importer.ForCompiler(fset, "source", nil)
	var files []*ast.File
	for _, name := range []string{"fault.go", "catalogue.go"} {
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	self, err := (&types.Config{Importer: std}).Check("fault", fset, files, nil)
	if err != nil {
		t.Fatal(err)
	}
	compile := func(statement string) error {
		src := "package p\nimport \"fault\"\nfunc f(s string) { " + statement + " }"
		f, err := parser.ParseFile(fset, "p.go", src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		only := importOne{self}
		_, err = (&types.Config{Importer: only}).Check("p", fset, []*ast.File{f}, nil)
		return err
	}
	for statement, ok := range map[string]bool{
		`fault.New(fault.Internal).WithDetail("at most %d", len(s))`: true,
		`fault.New(fault.Internal).WithDetail(s)`:                    false,
		`fault.New(fault.Internal).WithDetail("a " + s)`:             false,
		`_ = fault.Pointer("/a").Field("b")`:                         true,
		`_ = fault.Pointer("/a").Field(s)`:                           false,
		`fault.New(fault.Internal).WithPointer("/a")`:                true,
		`fault.New(fault.Internal).WithPointer(s)`:                   false,
	} {
		if err := compile(statement); (err == nil) != ok {
			t.Errorf("%s: compiles: %v, want %v (%v)", statement, err == nil, ok, err)
		}
	}
}

type importOne struct{ pkg *types.Package }

func (i importOne) Import(string) (*types.Package, error) { return i.pkg, nil }
