package introspection

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// slow is the obvious decoder of a question.
type slow struct {
	Secret     *string  `json:"secret"`
	Permission *string  `json:"permission"`
	Resource   []string `json:"resource"`
	ClientIP   *string  `json:"client_ip"`
}

// FuzzParse holds the decoder by hand against the obvious one: what it takes
// it reads alike, and it takes nothing that the other refuses.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"secret":"s","permission":"p","resource":["a","b"],"client_ip":"192.0.2.1"}`,
		`[{"secret":"s","permission":"p"},{"secret":"t\u00e9\n","permission":"p","resource":[],"x":{"y":[1]}}]`,
		`{"requests":[{"secret":"s","permission":"p"}]}`,
		`{"requests":[{"secret":"s","permission":"p"}],"secret":"x"}`,
		`{"secret":"s","secret":"t","permission":"p"}`,
		`{"s\u0065cret":"s","permission":"p"}`,
		`{"secret":"s","permission":"p","client_ip":null}`,
		`{"secret":"s","permission":"p","client_ip":"::ffff:192.0.2.1"} `,
		`[]`, ``, `null`, `{`, "{\"secret\":\"\xff\"}", `{"secret":"\ud800","permission":"p"}`,
	} {
		f.Add([]byte(s))
	}
	var w work
	f.Fuzz(func(t *testing.T, body []byte) {
		defer w.reset()
		w.body.Write(body)
		err := w.parse()
		if err != nil {
			if status := err.Entry().Status; status < 400 || status >= 500 {
				t.Fatalf("status %d: %v", status, err)
			}
			return
		}
		if !jsontext.Value(body).IsValid() {
			t.Fatalf("invalid JSON was taken: %q", body)
		}
		want, batch := obvious(t, body)
		if batch != w.batch || len(want) != len(w.asked) {
			t.Fatalf("%d questions, batch %v; want %d, %v: %q", len(w.asked), w.batch, len(want), batch, body)
		}
		for i, q := range w.asked {
			same(t, &w, q, want[i])
		}
	})
}

// obvious decodes with reflection.
func obvious(t *testing.T, body []byte) (all []slow, batch bool) {
	t.Helper()
	switch jsontext.Value(body).Kind() {
	case jsontext.KindBeginArray:
		if err := json.Unmarshal(body, &all); err != nil {
			t.Fatalf("taken, and refused by the obvious decoder: %v: %q", err, body)
		}
		return all, true
	default:
		var v struct {
			slow
			Requests *[]slow `json:"requests"`
		}
		if err := json.Unmarshal(body, &v); err != nil {
			t.Fatalf("taken, and refused by the obvious decoder: %v: %q", err, body)
		}
		if v.Requests != nil {
			return *v.Requests, true
		}
		return []slow{v.slow}, false
	}
}

func same(t *testing.T, w *work, q question, want slow) {
	t.Helper()
	if want.Secret == nil || want.Permission == nil {
		t.Fatal("a question without secret or permission was taken")
	}
	if q.secret != *want.Secret || q.permission != *want.Permission || !slices.Equal(w.keys[q.first:q.end], want.Resource) {
		t.Errorf("got %q %q %q, want %q %q %q", q.secret, q.permission, w.keys[q.first:q.end], *want.Secret, *want.Permission, want.Resource)
	}
	address := netip.Addr{}
	if want.ClientIP != nil && *want.ClientIP != "" {
		address = netip.MustParseAddr(*want.ClientIP).Unmap()
	}
	if q.address != address {
		t.Errorf("address %v, want %v", q.address, address)
	}
}

// TestWorkForgets: memory that is used again holds nothing of the request
// before.
func TestWorkForgets(t *testing.T) {
	const secret = "correct-horse-battery-staple"
	var w work
	w.body.WriteString(`[{"secret":"` + secret + `","permission":"p","resource":["` + secret + `"]}]`)
	if err := w.parse(); err != nil {
		t.Fatal(err)
	}
	raw, text := w.raw, w.text
	w.reset()
	for name, b := range map[string][]byte{"body": raw[:cap(raw)], "text": text[:cap(text)]} {
		if strings.Contains(string(b), secret) {
			t.Errorf("%s still holds the secret", name)
		}
	}
	for _, k := range w.keys[:cap(w.keys)] {
		if k != "" {
			t.Errorf("a key is left: %q", k)
		}
	}
	for _, q := range w.asked[:cap(w.asked)] {
		if q != (question{}) {
			t.Errorf("a question is left: %+v", q)
		}
	}
}

// TestParseAllocates: nothing, once the memory is there.
func TestParseAllocates(t *testing.T) {
	body := []byte(`{"secret":"wwu_` + strings.Repeat("a", 44) + `","permission":"dns.records.write","resource":["com.cloudflare.api.account.x","com.cloudflare.api.account.zone.y"],"client_ip":"192.0.2.10"}`)
	var w work
	n := testing.AllocsPerRun(100, func() {
		w.body.Write(body)
		if err := w.parse(); err != nil {
			t.Fatal(err)
		}
		w.reset()
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}
