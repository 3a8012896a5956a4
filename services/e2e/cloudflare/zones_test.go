package cloudflare_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"

	"watchword.dev/services/e2e/cloudflare"
)

// zoneCount makes three pages of v0's fifty, the last one short.
const zoneCount = 120

// TestZones lists zones and looks them up as programs that edit records do:
// with the operator's key, and with a token for one zone, which must find that
// one and no other. It runs before what runs side by side: nothing else makes
// zones meanwhile.
func TestZones(t *testing.T) {
	var want []cloudflare.Zone
	for n := range zoneCount {
		want = append(want, newZone(t, fmt.Sprintf("zone-%03d.example.net", n)))
	}
	one, other := want[77], want[78]
	for _, c := range clients() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			o := newOne(t, c, c.Kinds[0])
			secret := o.make(cloudflare.Wish{Name: "one zone", Policies: []cloudflare.Policy{
				policy("allow", zoneScope+"."+one.ID, zoneRead, dnsWrite)}}).Secret
			for what, q := range map[string]struct {
				as   cloudflare.As
				name string
				want []cloudflare.Zone
			}{
				"all":                    {o.operator(), "", want},
				"by name":                {o.operator(), one.Name, want[77:78]},
				"by an unknown name":     {o.operator(), "nowhere.example.net", nil},
				"all of one":             {o.bearer(secret), "", want[77:78]},
				"one by name":            {o.bearer(secret), one.Name, want[77:78]},
				"another by name of one": {o.bearer(secret), other.Name, nil},
			} {
				got, err := c.Zones(o.ctx, q.as, q.name)
				slices.SortFunc(got, func(a, b cloudflare.Zone) int { return strings.Compare(a.Name, b.Name) })
				if err != nil || !slices.Equal(got, q.want) {
					t.Errorf("%s: %d zones %.200v, %v; want %d", what, len(got), got, err, len(q.want))
				}
			}
		})
	}
}

// TestZonePages checks that page, per_page, count, total_count and total_pages
// agree: v0 counts on each.
func TestZonePages(t *testing.T) {
	for n := range 7 {
		newZone(t, fmt.Sprintf("page-%d.example.org", n))
	}
	type info struct { // as result_info has them
		Page, PerPage, Count, TotalCount, TotalPages int
	}
	account := "&account.id=" + server.Admin.AccountID
	for query, want := range map[string]info{
		"name=starts_with:page-&per_page=5":                  {1, 5, 5, 7, 2},
		"name=starts_with:page-&per_page=5&page=2":           {2, 5, 2, 7, 2},
		"name=starts_with:page-&per_page=5&page=3":           {3, 5, 0, 7, 2},
		"name=starts_with:page-&per_page=50" + account:       {1, 50, 7, 7, 1},
		"name=starts_with:page-&status=active":               {1, 20, 7, 7, 1},
		"name=page-3.example.org" + account:                  {1, 20, 1, 1, 1},
		"name=page-3.example.org&status=pending":             {1, 20, 0, 0, 0},
		"name=page-3.example.org&account.id=" + unknown:      {1, 20, 0, 0, 0},
		"name=nowhere.example.org&per_page=50&status=active": {1, 50, 0, 0, 0},
	} {
		status, text := raw(t, http.MethodGet, "/zones?"+query, "", key())
		var got struct {
			Result []struct {
				ID string `json:"id"`
			} `json:"result"`
			Info struct {
				Page       int `json:"page"`
				PerPage    int `json:"per_page"`
				Count      int `json:"count"`
				TotalCount int `json:"total_count"`
				TotalPages int `json:"total_pages"`
			} `json:"result_info"`
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s", query, status, text)
		}
		if info(got.Info) != want || len(got.Result) != want.Count || got.Result == nil {
			t.Errorf("%s: %d zones, %+v, want %+v", query, len(got.Result), got.Info, want)
		}
	}
}

// newZone registers a zone in the operator's account. The end of the test
// removes it.
func newZone(t *testing.T, name string) cloudflare.Zone {
	t.Helper()
	status, text := raw(t, http.MethodPost, "/zones", `{"name":"`+name+`","account":{"id":"`+server.Admin.AccountID+`"}}`, key())
	id := between(text, `"id":"`)
	if status != http.StatusOK || len(id) != 32 {
		t.Fatalf("zone: %d %s", status, text)
	}
	t.Cleanup(func() { raw(t, http.MethodDelete, "/zones/"+id, "", key()) })
	return cloudflare.Zone{ID: id, Name: name, Status: "active", AccountID: server.Admin.AccountID}
}
