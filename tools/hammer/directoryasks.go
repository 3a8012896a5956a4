package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
)

const zoneType = "com.cloudflare.api.account.zone"

// inquiry is one kind of request: next makes one, with what must be true of the
// answer to it.
type inquiry struct {
	name string
	next func() (request []byte, check func(*listAnswer) error)
}

// listAnswer is what the inquiries look at.
type listAnswer struct {
	Success bool       `json:"success"`
	Result  listResult `json:"result"`
	Info    struct {
		Count int `json:"count"`
		Total int `json:"total_count"`
	} `json:"result_info"`
}

// listResult is a list, or one thing.
type listResult []listed

type listed struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Value string `json:"value"`
}

// UnmarshalJSON reads one thing as a list of one.
func (l *listResult) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		*l = make(listResult, 1)
		return json.Unmarshal(b, &(*l)[0])
	}
	return json.Unmarshal(b, (*[]listed)(l))
}

func (l listResult) names() []string {
	all := make([]string, len(l))
	for i := range l {
		all[i] = l[i].Name
	}
	return all
}

// perPage is the size of a page: Cloudflare's own.
const perPage = 20

// askEach is how often each inquiry is made in a round.
const askEach = 200

// ask measures every inquiry, one request at a time.
func (b *ofDirectory) ask(ctx context.Context, r *run) (err error) {
	if b.conn, err = dial(b.addr); err != nil {
		return err
	}
	defer b.conn.conn.Close()
	if b.plain, err = dial(b.bareAddr); err != nil {
		return err
	}
	defer b.plain.conn.Close()
	if err := b.giveKeys(min(500, b.o.accounts)); err != nil {
		return err
	}
	for _, q := range b.inquiries() {
		r.say("directory: %s", q.name)
		if err := b.measure(ctx, r, q); err != nil {
			return err
		}
	}
	return nil
}

// giveKeys gives some administrators API keys: nobody else may see the tokens of
// their accounts.
func (b *ofDirectory) giveKeys(n int) error {
	for _, i := range b.rng.Perm(b.o.accounts)[:n] {
		status, body, err := b.conn.exchange(httpRequest(b.addr, "/client/v4/users/"+b.o.user(i).String()+"/api_key", b.header, []byte("{}")))
		if err != nil {
			return err
		}
		var answer struct {
			Result struct {
				APIKey string `json:"api_key"`
			} `json:"result"`
		}
		if err := json.Unmarshal(body, &answer); err != nil || status != 200 || answer.Result.APIKey == "" {
			return wrong("a key of user %d: %d", i, status)
		}
		b.admins = append(b.admins, admin{i, map[string]string{"X-Auth-Email": b.o.email(i), "X-Auth-Key": answer.Result.APIKey}})
	}
	return nil
}

// measure makes an inquiry by turns with the bare handler.
func (b *ofDirectory) measure(ctx context.Context, r *run, q inquiry) error {
	ours, promised, bare := newSeries("median of a round", "ms"), newSeries("promised", "ms"), newSeries("a bare handler writing as many bytes", "ms")
	every := newSeries("all", "ms")
	for n := range r.o.rounds + 1 {
		one, other := newSeries("", ""), newSeries("", "")
		for range askEach {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			took, length, err := b.once(q)
			if err != nil {
				return err
			}
			one.add(took)
			if took, err = b.onceBare(length); err != nil {
				return err
			}
			other.add(took)
		}
		if n == 0 {
			continue // warms up
		}
		ours.add(one.figure().Median)
		bare.add(other.figure().Median)
		promised.add(answerMax)
		every.values = append(every.values, one.values...)
	}
	p := compared("directory."+q.name, atMost(1, fmt.Sprintf("x %d ms", answerMax)), ours, promised)
	sorted := slices.Sorted(slices.Values(every.values))
	p.add(constant("99 of 100", "ms", sorted[len(sorted)*99/100]), constant("slowest", "ms", sorted[len(sorted)-1]),
		bare.figure(), quotients("to the bare handler", ours, bare).figure())
	return r.publish(p)
}

// once makes one request and returns how many milliseconds it took, and the
// length of the answer.
func (b *ofDirectory) once(q inquiry) (float64, int, error) {
	request, check := q.next()
	began := time.Now()
	status, body, err := b.conn.exchange(request)
	took := time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(request), "\r\n")
	var a listAnswer
	if err := json.Unmarshal(body, &a); err != nil || status != 200 || !a.Success {
		return 0, 0, wrong("%s: %d %.500s", line, status, body)
	}
	if err := check(&a); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", line, err)
	}
	return float64(took.Nanoseconds()) / 1e6, len(body), nil
}

func (b *ofDirectory) onceBare(length int) (float64, error) {
	request := httpRequest(b.bareAddr, fmt.Sprintf("/?%d", length), b.header, nil)
	began := time.Now()
	status, body, err := b.plain.exchange(request)
	took := time.Since(began)
	if err == nil && (status != 200 || len(body) != length) {
		err = fmt.Errorf("the bare handler answered %d with %d bytes, want %d", status, len(body), length)
	}
	return float64(took.Nanoseconds()) / 1e6, err
}

// get is a request of the operator, getAs one of somebody else.
func (b *ofDirectory) get(path string, q url.Values) []byte { return b.getAs(b.header, path, q) }

func (b *ofDirectory) getAs(header map[string]string, path string, q url.Values) []byte {
	return httpRequest(b.addr, "/client/v4"+path+"?"+q.Encode(), header, nil)
}

// administrator is some one of those who have a key.
func (b *ofDirectory) administrator() *admin { return &b.admins[b.rng.IntN(len(b.admins))] }

func (b *ofDirectory) tokensOf(a *admin) string {
	return "/accounts/" + b.o.account(a.i).String() + "/tokens"
}

// sameList compares a page with the model's.
func sameList(a *listAnswer, got, want []string, total int) error {
	if !slices.Equal(got, want) || a.Info.Total != total || a.Info.Count != len(want) {
		return wrong("%d of %d: %q, want %d of %d: %q", a.Info.Count, a.Info.Total, got, len(want), total, want)
	}
	return nil
}

// inquiries are all that is measured.
func (b *ofDirectory) inquiries() []inquiry {
	return []inquiry{
		{"tokens of an account", b.askTokens},
		{"tokens of a user", b.askOwnTokens},
		{"tokens by the beginning of a name", b.askByPrefix},
		{"accounts", b.askAccounts},
		{"users", b.askUsers},
		{"zones of an account", b.askZones},
		{"zones of all accounts", b.askAllZones},
		{"a zone by its name", b.askZoneByName},
		{"create a token", b.askCreate},
	}
}

func pageQuery(page int, more ...string) url.Values {
	q := url.Values{"per_page": {fmt.Sprint(perPage)}, "page": {fmt.Sprint(page)}}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return q
}

// onPage returns how many of total are on a page of a list.
func onPage(page, total int) int { return max(0, min(perPage, total-(page-1)*perPage)) }

// askTokens asks for a page of an account's tokens. They are in the order of
// their ids, which the server chose: what the model knows is the set.
func (b *ofDirectory) askTokens() ([]byte, func(*listAnswer) error) {
	by, page := b.administrator(), 1+b.rng.IntN(orgOwned/perPage+1)
	i, total := by.i, orgOwned+b.made[by.i]
	return b.getAs(by.header, b.tokensOf(by), pageQuery(page)), func(a *listAnswer) error {
		seen := map[string]bool{}
		for _, t := range a.Result {
			if seen[t.ID] || !strings.HasSuffix(t.Name, fmt.Sprintf(" of %06d", i)) {
				return wrong("token %q in the list of account %d", t.Name, i)
			}
			seen[t.ID] = true
		}
		if a.Info.Total != total || len(a.Result) != onPage(page, total) {
			return wrong("%d of %d tokens, want %d of %d", len(a.Result), a.Info.Total, onPage(page, total), total)
		}
		return nil
	}
}

// askOwnTokens lets a user ask for their own.
func (b *ofDirectory) askOwnTokens() ([]byte, func(*listAnswer) error) {
	by := b.administrator()
	return b.getAs(by.header, "/user/tokens", pageQuery(1)), func(a *listAnswer) error {
		got, want := a.Result.names(), []string(nil)
		slices.Sort(got)
		for nth := range orgTokens {
			want = append(want, b.o.usersName(by.i, nth))
		}
		return sameList(a, got, want, orgTokens)
	}
}

// askByPrefix looks for ten tokens of an account.
func (b *ofDirectory) askByPrefix() ([]byte, func(*listAnswer) error) {
	by, ten := b.administrator(), b.rng.IntN(orgOwned/10)
	return b.getAs(by.header, b.tokensOf(by), pageQuery(1, "name_prefix", fmt.Sprintf("deploy %d", ten))), func(a *listAnswer) error {
		var want []string
		for nth := range 10 {
			want = append(want, b.o.ownedName(by.i, 10*ten+nth))
		}
		return sameList(a, a.Result.names(), want, len(want))
	}
}

// askAccounts asks for any page of all accounts. The first one is that which
// the server made for itself.
func (b *ofDirectory) askAccounts() ([]byte, func(*listAnswer) error) {
	total := b.o.accounts + 1
	page := 1 + b.rng.IntN((total+perPage-1)/perPage)
	return b.get("/accounts", pageQuery(page, "all", "true")), func(a *listAnswer) error {
		var want []string
		for k := range onPage(page, total) {
			if at := (page-1)*perPage + k; at > 0 {
				want = append(want, b.o.accountName(at-1))
			} else {
				want = append(want, "Default account")
			}
		}
		return sameList(a, a.Result.names(), want, total)
	}
}

// askUsers asks for any page of all users. The operator, who is the youngest,
// is the last.
func (b *ofDirectory) askUsers() ([]byte, func(*listAnswer) error) {
	total := b.o.users() + 1
	page := 1 + b.rng.IntN((total+perPage-1)/perPage)
	return b.get("/users", pageQuery(page)), func(a *listAnswer) error {
		var got, want []string
		for _, u := range a.Result {
			got = append(got, u.ID)
		}
		for k := range onPage(page, total) {
			if at := (page-1)*perPage + k; at < len(b.o.userIDs) {
				want = append(want, b.o.userIDs[at].String())
			} else {
				want = append(want, b.server.Admin.UserID)
			}
		}
		return sameList(a, got, want, total)
	}
}

// askZones asks for a page of an account's zones.
func (b *ofDirectory) askZones() ([]byte, func(*listAnswer) error) {
	i, page := b.rng.IntN(b.o.accounts), 1+b.rng.IntN(orgZones/perPage)
	return b.get("/zones", pageQuery(page, "account.id", b.o.account(i).String())), func(a *listAnswer) error {
		var want []string
		for k := range onPage(page, orgZones) {
			want = append(want, b.o.zoneName(i+((page-1)*perPage+k)*b.o.accounts))
		}
		return sameList(a, a.Result.names(), want, orgZones)
	}
}

// askAllZones asks for any page of all zones that there are.
func (b *ofDirectory) askAllZones() ([]byte, func(*listAnswer) error) {
	total := b.o.zones()
	page := 1 + b.rng.IntN((total+perPage-1)/perPage)
	return b.get("/resources", pageQuery(page, "all", "true", "type", zoneType)), func(a *listAnswer) error {
		var want []string
		for k := range onPage(page, total) {
			want = append(want, b.o.zoneName((page-1)*perPage+k))
		}
		return sameList(a, a.Result.names(), want, total)
	}
}

// askZoneByName looks for one zone among all of them.
func (b *ofDirectory) askZoneByName() ([]byte, func(*listAnswer) error) {
	name := b.o.zoneName(b.rng.IntN(b.o.zones()))
	return b.get("/resources", pageQuery(1, "all", "true", "type", zoneType, "name", name)), func(a *listAnswer) error {
		return sameList(a, a.Result.names(), []string{name}, 1)
	}
}

// askCreate makes a token of an account.
func (b *ofDirectory) askCreate() ([]byte, func(*listAnswer) error) {
	by := b.administrator()
	i := by.i
	name := fmt.Sprintf("made %d of %06d", b.made[i], i)
	body := fmt.Sprintf(`{"name":%q,"policies":[{"effect":"allow","permission_groups":[{"id":%q}],"resources":{"%s%v":"*"}}]}`,
		name, groupDNSWrite, zoneKey, b.o.zone(i))
	return httpRequest(b.addr, "/client/v4"+b.tokensOf(by), by.header, []byte(body)), func(a *listAnswer) error {
		if len(a.Result) != 1 || a.Result[0].Name != name || a.Result[0].Value == "" {
			return wrong("made %q", a.Result.names())
		}
		b.made[i]++
		return nil
	}
}
