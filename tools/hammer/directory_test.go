package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOrganisation reads the files of an organisation back: what the model says
// of each account is in them.
func TestOrganisation(t *testing.T) {
	o := newOrganisation(7)
	people, tokens := filepath.Join(t.TempDir(), "people.csv"), filepath.Join(t.TempDir(), "tokens.jsonl")
	if err := o.writeDirectory(people); err != nil {
		t.Fatal(err)
	}
	if err := o.writeTokens(tokens); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(people)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	kinds, ids, third := map[string]int{}, map[string]bool{}, []string(nil)
	for _, r := range rows[1:] {
		kinds[r[0]]++
		if r[0] != "member" {
			ids[r[1]] = true
		}
		if r[0] == "resource" && r[4] == o.account(2).String() {
			third = append(third, r[3])
		}
	}
	if want := fmt.Sprint(map[string]int{"account": 7, "user": 70, "member": 70, "resource": 700}); fmt.Sprint(kinds) != want || len(ids) != 777 {
		t.Errorf("%v with %d ids, want %s", kinds, len(ids), want)
	}
	if !slices.IsSorted(third) || len(third) != orgZones || third[3] != o.zoneName(2+3*o.accounts) {
		t.Errorf("zones of an account: %q", third)
	}
	raw, err := os.ReadFile(tokens)
	if err != nil {
		t.Fatal(err)
	}
	owners, secrets := map[string][]string{}, map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		var r struct{ Owner, Name, Secret string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		owners[r.Owner], secrets[r.Secret] = append(owners[r.Owner], r.Name), true
	}
	if len(owners) != 77 || len(secrets) != o.tokens() {
		t.Errorf("%d owners of %d secrets, want %d", len(owners), len(secrets), o.tokens())
	}
	for owner, want := range map[string]struct {
		first string
		n     int
	}{o.account(2).String(): {o.ownedName(2, 0), orgOwned}, o.email(69): {o.usersName(69, 0), orgTokens}} {
		if got := owners[owner]; len(got) != want.n || got[0] != want.first {
			t.Errorf("tokens of %s: %q", owner, got)
		}
	}
}

// TestWrongPageIsFound holds answers against a model that they do not fit.
func TestWrongPageIsFound(t *testing.T) {
	b := &ofDirectory{o: newOrganisation(10), made: map[int]int{}}
	var a listAnswer
	for body, want := range map[string]bool{
		`{"success":true,"result":[{"name":"a"},{"name":"b"}],"result_info":{"count":2,"total_count":9}}`: true,
		`{"success":true,"result":[{"name":"b"},{"name":"a"}],"result_info":{"count":2,"total_count":9}}`: false,
		`{"success":true,"result":[{"name":"a"},{"name":"b"}],"result_info":{"count":2,"total_count":8}}`: false,
		`{"success":true,"result":[{"name":"a"}],"result_info":{"count":1,"total_count":9}}`:              false,
	} {
		a = listAnswer{}
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatal(err)
		}
		if err := sameList(&a, a.Result.names(), []string{"a", "b"}, 9); (err == nil) != want {
			t.Errorf("%s: %v", body, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"success":true,"result":{"name":"made","value":"s"}}`), &a); err != nil || a.Result[0].Value != "s" {
		t.Errorf("one thing: %+v, %v", a, err)
	}
	if n := onPage(51, b.o.zones()); n != 0 {
		t.Errorf("%d on the page behind the last", n)
	}
	if n, err := outcomes("directory", "created", []byte(`{"counts":{"user":{"created":2,"failed":1},"zone":{"created":3}}}`)); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := outcomes("tokens", "created", []byte(`{"counts":{"created":4,"refused":1}}`)); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
