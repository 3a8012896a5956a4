package serve

import (
	"net/http"
	"strconv"
	"testing"
)

// TestVerifyAtLeast asks a token's own verification for a sequence: one that is
// there, one that never comes, and what is none.
func TestVerifyAtLeast(t *testing.T) {
	r := start(t, settings(t, t.TempDir(), "--wait-max", "200ms"), nil)
	c := r.create()
	head, err := r.n.authority.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for least, want := range map[string]int{
		"0":                            http.StatusOK,
		strconv.FormatUint(head, 10):   http.StatusOK,
		strconv.FormatUint(head+9, 10): http.StatusServiceUnavailable,
		"soon":                         http.StatusBadRequest,
		"-1":                           http.StatusBadRequest,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.BaseURL+"/client/v4/user/tokens/verify", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.Value)
		req.Header.Set("Watchword-At-Least", least)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("at least %s with the head at %d: %s, want %d", least, head, resp.Status, want)
		}
		if got, err := strconv.ParseUint(resp.Header.Get("Watchword-Sequence"), 10, 64); want == http.StatusOK && (err != nil || got < head) {
			t.Errorf("at least %s: the answer rests on %q", least, resp.Header.Get("Watchword-Sequence"))
		}
	}
}
