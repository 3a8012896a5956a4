package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxAnswer bounds what the client reads of one answer.
const maxAnswer = 64 << 20

// client speaks to one server.
type client struct {
	ctx  Context
	http *http.Client
}

func (a *App) client() (*client, error) {
	c, err := a.resolve()
	if err != nil {
		return nil, err
	}
	return &client{ctx: c, http: &http.Client{Timeout: 60 * time.Second, CheckRedirect: stay}}, nil
}

// stay follows no redirect: the server sends none, and net/http would carry
// X-Auth-Key along to wherever one points.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// envelope is the form of every answer of the management API.
type envelope struct {
	Result  jsontext.Value `json:"result"`
	Success bool           `json:"success"`
	Errors  []apiError     `json:"errors"`
	Info    jsontext.Value `json:"result_info,omitzero"`

	Messages []struct {
		Message string `json:"message"`
	} `json:"messages"`
}

type apiError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	// Documentation ends in the name of the error.
	Documentation string `json:"documentation_url"`
	Source        struct {
		Pointer string `json:"pointer"`
	} `json:"source,omitzero"`
}

// authorize adds the context's credential.
func (c *client) authorize(r *http.Request) error {
	switch {
	case c.ctx.TokenFile != "":
		b, err := os.ReadFile(c.ctx.TokenFile)
		if err != nil {
			return Fail(ExitLocal, err)
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(b)))
	case c.ctx.APIKey != "":
		r.Header.Set("X-Auth-Email", c.ctx.Email)
		r.Header.Set("X-Auth-Key", c.ctx.APIKey)
	default:
		return Fail(ExitLocal, errors.New("the context has no credential"), "set WATCHWORD_TOKEN_FILE or add one with `watchword ctx add`")
	}
	return nil
}

// call sends a request with the context's credential and decodes the result
// of the answer into out, which may be nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	r, err := c.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	if err := c.authorize(r); err != nil {
		return err
	}
	return c.do(r, out)
}

func (c *client) request(ctx context.Context, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.ctx.BaseURL+path, body)
	if err != nil {
		return nil, Fail(ExitLocal, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "watchword-cli")
	return r, nil
}

func (c *client) do(r *http.Request, out any) error {
	e, err := c.answer(r)
	if err != nil || out == nil || len(e.Result) == 0 {
		return err
	}
	if v, ok := out.(*jsontext.Value); ok {
		*v = e.Result
		return nil
	}
	if err := json.Unmarshal(e.Result, out); err != nil {
		return Fail(ExitRemote, fmt.Errorf("the server's answer does not fit: %w", err))
	}
	return nil
}

// answer sends a request and returns the envelope of its answer, unless that is
// a refusal.
func (c *client) answer(r *http.Request) (e envelope, err error) {
	resp, err := c.http.Do(r)
	if err != nil {
		return e, Fail(ExitLocal, fmt.Errorf("cannot reach the server: %w", err), "is it running? `watchword serve` starts one")
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return e, Fail(ExitLocal, err)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, Fail(ExitRemote, fmt.Errorf("the server answered %s with something else than JSON", resp.Status))
	}
	if resp.StatusCode >= 400 || !e.Success {
		return e, remoteError(resp, e.Errors)
	}
	return e, nil
}

// statusError is a refusal with its HTTP status.
type statusError struct {
	status     int
	text       string
	retryAfter time.Duration // zero: the server did not say
}

func (e *statusError) Error() string { return e.text }

// refusalHints say by the name of an error what can be done about it.
var refusalHints = map[string]string{
	"group_not_held": "nobody gives what they do not hold: by a role in every account that the token reaches (`watchword member list --account ID`), or by the token in use",
	"invalid_roles":  "`watchword member roles --account ID` lists the roles",
	"quota_reached":  "expired and disabled tokens count: `watchword token revoke ID` makes room",
}

// remoteError turns a refusal into an error with hints.
func remoteError(resp *http.Response, errs []apiError) error {
	text, code := resp.Status, 0
	if len(errs) > 0 {
		text, code = strings.TrimRight(errs[0].Message, "."), errs[0].Code
		if p := errs[0].Source.Pointer; p != "" {
			text += " (at " + p + ")"
		}
	}
	err := &statusError{status: resp.StatusCode, text: fmt.Sprintf("%s [HTTP %d, code %d]", text, resp.StatusCode, code)}
	if s, bad := strconv.Atoi(resp.Header.Get("Retry-After")); bad == nil {
		err.retryAfter = time.Duration(s) * time.Second
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return Fail(ExitDenied, err, "the credential in use may be wrong, revoked, or may not do this")
	case http.StatusTooManyRequests:
		if err.retryAfter > 0 {
			return Fail(ExitRemote, err, fmt.Sprintf("the server limits how often one may ask; try again in %v", err.retryAfter))
		}
	case http.StatusServiceUnavailable:
		return Fail(ExitRemote, err, "the server is starting or has no pen at the moment; try again shortly", "its /readyz says what it waits for")
	}
	if len(errs) > 0 {
		_, name, _ := strings.Cut(errs[0].Documentation, "#")
		if h, ok := refusalHints[name]; ok {
			return Fail(ExitRemote, err, h)
		}
	}
	return Fail(ExitRemote, err)
}

// isID says whether s has the form of an id.
func isID(s string) bool { return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" }

// table prints rows under a header, or nothing but the header's absence when
// there are none.
func (a *App) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// printJSON prints v for programs, on one line.
func (a *App) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.Out, "%s\n", b)
	return err
}

// terminalSafe makes text from elsewhere harmless to a terminal.
func terminalSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x202e {
			return '?'
		}
		return r
	}, s)
}

// Call sends a request with the context's credential and decodes the result
// into out, which may be nil. Errors carry exit codes and hints.
func (a *App) Call(ctx context.Context, method, path string, in, out any) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.call(ctx, method, path, in, out)
}

// UseAdmin makes the credentials in this admin.json the ones in use, unless
// others were chosen by a flag or the environment.
func (a *App) UseAdmin(file string) {
	if a.adminFile == "" && a.context == "" {
		a.adminFile = file
	}
}

// JSON says whether the output is for programs.
func (a *App) JSON() (bool, error) { return a.json() }

// PrintJSON prints v on one line.
func (a *App) PrintJSON(v any) error { return a.printJSON(v) }
