package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/token"
	"watchword.dev/services/e2e/proc"
)

// overHTTP compares POST /v1/verify of the real binary with a handler that
// decodes the same body and knows one answer, by turns, each in a process of
// its own.
type overHTTP struct {
	binary string // that is measured
	server *proc.Server
	addr   string // of the server

	bare     *exec.Cmd
	bareAddr string

	mu     sync.Mutex
	tokens []issued
	asks   []asking
}

// issued is a token that was made over HTTP.
type issued struct {
	number int // by which its grant is known
	id     token.ID
	secret string
}

// asking is a prepared request for the server, and for the bare handler, with
// the beginning of the right answer.
type asking struct {
	request, bare []byte
	answer        string
	policy        bool // whether a policy must be named
}

func benchHTTP(ctx context.Context, r *run) error {
	dir, remove, err := r.sub("http")
	if err != nil {
		return err
	}
	defer remove()
	b := &overHTTP{}
	defer b.stop()
	if err := b.start(ctx, r, dir); err != nil {
		return err
	}
	turn := time.Duration(r.o.seconds * float64(time.Second))
	r.say("http: creating tokens")
	created := newSeries("creations over HTTP", "tokens/s")
	for range r.o.rounds {
		rate, err := b.create(ctx, r.o.clients, turn/2)
		if err != nil {
			return err
		}
		created.add(rate)
	}
	if err := b.prepare(); err != nil {
		return err
	}
	r.say("http: verifying %d tokens", len(b.tokens))
	ours, bare := newSeries("POST /v1/verify", "req/s"), newSeries("bare handler", "req/s")
	ourCPU, bareCPU := newSeries("processor time of the server", "us/req"), newSeries("processor time of the bare handler", "us/req")
	verify := load{addr: b.addr, clients: r.o.clients, request: b.request, check: b.check}
	limit := load{addr: b.bareAddr, clients: r.o.clients, request: b.bareRequest, check: checkBare}
	for n := range r.o.rounds + 1 {
		for side := range 2 {
			l, rate, cpu, pid := &verify, ours, ourCPU, b.server.PID()
			if (n+side)%2 == 1 {
				l, rate, cpu, pid = &limit, bare, bareCPU, b.bare.Process.Pid
			}
			before, long := cpuSeconds(pid), turn
			if n == 0 {
				long /= 4 // warms up
			}
			v, err := l.run(ctx, long)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, b.server.Log())
			}
			if n > 0 {
				rate.add(v)
				cpu.add((cpuSeconds(pid) - before) / (v * long.Seconds()) * 1e6)
			}
		}
	}
	p := compared("http.verify", atLeast(0.8, "x a bare net/http handler that decodes the same body"), ours, bare)
	p.add(ourCPU.figure(), bareCPU.figure(), constant("clients", "", float64(r.o.clients)),
		constant("tokens", "", float64(len(b.tokens))), created.figure())
	return r.publish(p)
}

// start builds and starts the binary, and starts this program as the limit.
func (b *overHTTP) start(ctx context.Context, r *run, dir string) (err error) {
	if b.binary = r.o.binary; b.binary == "" {
		r.say("building the binary")
		if b.binary, err = proc.Build(ctx, dir); err != nil {
			return err
		}
	}
	if b.server, err = proc.Start(b.binary, filepath.Join(dir, "data"), proc.Unlimited...); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := b.server.Ready(wait); err != nil {
		return err
	}
	u, err := url.Parse(b.server.Admin.BaseURL)
	if err != nil {
		return err
	}
	b.addr = u.Host
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.bare = exec.Command(self, bareCommand)
	b.bare.Stderr = os.Stderr
	b.bare.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := b.bare.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.bare.Start(); err != nil {
		b.bare = nil
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	b.bareAddr = strings.TrimSpace(line)
	return err
}

func (b *overHTTP) stop() {
	if b.server != nil {
		b.server.Kill()
	}
	if b.bare != nil {
		b.bare.Process.Kill()
		b.bare.Wait() // killed
	}
}

// httpRequest returns the bytes of a POST, or of a GET when there is no body.
func httpRequest(host, path string, header map[string]string, body []byte) []byte {
	var s strings.Builder
	method := "GET"
	if body != nil {
		method = "POST"
	}
	fmt.Fprintf(&s, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: hammer\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", method, path, host, len(body))
	for name, value := range header {
		fmt.Fprintf(&s, "%s: %s\r\n", name, value)
	}
	s.WriteString("\r\n")
	s.Write(body)
	return []byte(s.String())
}

// create lets clients create tokens for some time.
func (b *overHTTP) create(ctx context.Context, clients int, long time.Duration) (float64, error) {
	header := map[string]string{"X-Auth-Email": b.server.Admin.Email, "X-Auth-Key": b.server.Admin.APIKey}
	numbers := make([]int, clients) // of the tokens under way
	var next atomic.Int64
	next.Store(int64(len(b.tokens)))
	l := load{addr: b.addr, clients: clients}
	l.request = func(client, _ int) []byte {
		numbers[client] = int(next.Add(1))
		i := numbers[client]
		body := fmt.Sprintf(`{"name":"deploy key %d","policies":[{"effect":"allow","permission_groups":[{"id":%q}],"resources":{%q:"*"}},`+
			`{"effect":"deny","permission_groups":[{"id":%q}],"resources":{%q:"*"}}],"condition":{"request_ip":{"in":["10.0.0.0/8"],"not_in":["10.77.0.0/16"]}}}`,
			i, groupDNSWrite, zoneKey+idOf('z', 2*i).String(), groupDNSWrite, zoneKey+idOf('z', 2*i+1).String())
		return httpRequest(b.addr, "/client/v4/user/tokens", header, []byte(body))
	}
	l.check = func(client, _, status int, body []byte) error {
		var answer struct {
			Success bool `json:"success"`
			Result  struct {
				ID    token.ID `json:"id"`
				Value string   `json:"value"`
			} `json:"result"`
		}
		if err := json.Unmarshal(body, &answer); err != nil || status != 200 || !answer.Success || answer.Result.Value == "" {
			return wrong("create a token: %d %s", status, body)
		}
		b.mu.Lock()
		b.tokens = append(b.tokens, issued{numbers[client], answer.Result.ID, answer.Result.Value})
		b.mu.Unlock()
		return nil
	}
	return l.run(ctx, long)
}

// prepare makes the requests: about random tokens, of which some must be
// refused for one reason or another.
func (b *overHTTP) prepare() error {
	if len(b.tokens) == 0 {
		return errors.New("no token was created")
	}
	header := map[string]string{"Authorization": "Bearer " + b.server.Admin.EnforcerKey}
	rng := rand.New(rand.NewPCG(23, 29))
	for range 20_000 {
		t := b.tokens[rng.IntN(len(b.tokens))]
		secret, zone, from := t.secret, 2*t.number, netip.AddrFrom4([4]byte{10, 1, byte(rng.Uint32()), 9})
		a := asking{policy: true, answer: fmt.Sprintf(`{"decision":"allow","reason":"","token_id":%q,`, t.id)}
		refused := func(reason string) {
			a.answer = fmt.Sprintf(`{"decision":"deny","reason":%q,"token_id":%q,`, reason, t.id)
		}
		switch rng.IntN(20) {
		case 0:
			zone++
			refused("denied_by_policy")
		case 1:
			zone += 1 << 40
			a.policy = false
			refused("no_policy")
		case 2:
			from = netip.AddrFrom4([4]byte{10, 77, 1, 1})
			a.policy = false
			refused("address")
		case 3:
			secret, a.policy = stranger(t.number), false
			a.answer = `{"decision":"deny","reason":"unknown","sequence":`
		}
		body, err := json.Marshal(bareBody{
			Secret: secret, Permission: permDNSWrite, ClientIP: from.String(),
			Resource: []string{accountKey + b.server.Admin.AccountID, zoneKey + idOf('z', zone).String()},
		})
		if err != nil {
			return err
		}
		a.request = httpRequest(b.addr, "/v1/verify", header, body)
		a.bare = httpRequest(b.bareAddr, "/v1/verify", header, body)
		b.asks = append(b.asks, a)
	}
	return nil
}

// nth is the n-th question of a client: each goes its own way through all.
func (b *overHTTP) nth(client, n int) *asking {
	return &b.asks[(client*7919+n)%len(b.asks)]
}

func (b *overHTTP) request(client, n int) []byte     { return b.nth(client, n).request }
func (b *overHTTP) bareRequest(client, n int) []byte { return b.nth(client, n).bare }

func (b *overHTTP) check(client, n, status int, body []byte) error {
	a := b.nth(client, n)
	if s := string(body); status != 200 || !strings.HasPrefix(s, a.answer) || strings.Contains(s, `"policy_id":`) != a.policy {
		return wrong("verify: %d %s, want 200 and %s…", status, body, a.answer)
	}
	return nil
}

func checkBare(_, _, status int, body []byte) error {
	if status != 200 || string(body) != bareAnswer {
		return fmt.Errorf("the bare handler answered %d %.100q", status, body)
	}
	return nil
}
