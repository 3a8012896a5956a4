// Package proc builds and runs the real watchword binary as a child, for the end-to-end tests and
// the tools that load it, kill it and look at what is left.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	json "github.com/go-json-experiment/json"
)

// Admin is the part of admin.json that the tools need.
type Admin struct {
	Email       string `json:"email"`
	UserID      string `json:"user_id"`
	APIKey      string `json:"api_key"`
	AccountID   string `json:"account_id"`
	EnforcerKey string `json:"enforcer_key"`
	BaseURL     string `json:"base_url"`

	NATSURL      string `json:"nats_url"`
	NATSSeedFile string `json:"nats_seed_file"`
}

// Build compiles the binary of this workspace into dir and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "watchword")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "watchword.dev/services/cmd/watchword")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the binary: %w\n%s", err, b)
	}
	return out, nil
}

// Server is a running child.
type Server struct {
	Data  string
	Admin Admin
	URL   string // its own, once it is ready; a further node's Admin has the first one's

	cmd   *exec.Cmd
	log   tail
	ready watch
	done  chan struct{}
	err   error // how it ended; valid after done
}

// Options say how to run a child.
type Options struct {
	Binary string
	Data   string    // the data directory
	Args   []string  // further flags of serve; they win over the free ports
	Dir    string    // working directory; empty: the parent's
	Env    []string  // as in exec.Cmd
	Log    io.Writer // gets all that the child writes; may be nil
}

// Unlimited are flags of serve that switch every limit off, for clients that
// ask as fast as they can and make as many tokens, and for those that are wrong
// on purpose.
var Unlimited = []string{
	"--limit-requests", "0", "--limit-address", "0", "--limit-wrong", "0", "--user-tokens-max", "0", "--account-tokens-max", "0",
}

// Start runs `serve` on free ports over the data directory and does not wait.
func Start(binary, data string, args ...string) (*Server, error) {
	return Launch(Options{Binary: binary, Data: data, Args: args})
}

// Launch is Start with more to choose.
func Launch(o Options) (*Server, error) {
	s := &Server{Data: o.Data, done: make(chan struct{}), ready: watch{found: make(chan string, 1)}}
	all := append([]string{"serve", "--data", o.Data, "--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"}, o.Args...)
	s.cmd = exec.Command(o.Binary, all...)
	s.cmd.Dir, s.cmd.Env = o.Dir, o.Env
	out := []io.Writer{&s.log, &s.ready}
	if o.Log != nil {
		out = append(out, o.Log)
	}
	w := io.MultiWriter(out...)
	s.cmd.Stdout, s.cmd.Stderr = w, w
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Binary, err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// Ready waits until the child says that it is ready and /readyz agrees, and
// reads the credentials.
//
// The URL is taken from the child's own log: until then base_url in admin.json
// is that of the start before, whose port another process may have by now. So
// the child must log at level INFO.
func (s *Server) Ready(ctx context.Context) error {
	ended := func(err error) error {
		if err != nil {
			return fmt.Errorf("the server was not ready in time: %w\n%s", err, s.Log())
		}
		return fmt.Errorf("the server ended while it started: %w\n%s", errors.Join(s.err, errors.New("see its log")), s.Log())
	}
	var url string
	select {
	case url = <-s.ready.found:
	case <-ctx.Done():
		return ended(ctx.Err())
	case <-s.done:
		return ended(nil)
	}
	for s.probe(ctx, url) != nil {
		select {
		case <-ctx.Done():
			return ended(ctx.Err())
		case <-s.done:
			return ended(nil)
		case <-time.After(5 * time.Millisecond):
		}
	}
	s.URL = url
	b, err := os.ReadFile(filepath.Join(s.Data, "admin.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, &s.Admin)
}

// probe asks whether the child is ready.
func (s *Server) probe(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Kill ends the child as a power cut of the process would: SIGKILL, at once.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	<-s.done
}

// Stop asks the child to end and waits; it kills it after the time-out.
func (s *Server) Stop(timeout time.Duration) error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.done:
		return s.err
	case <-time.After(timeout):
		s.Kill()
		return fmt.Errorf("the server did not end within %v\n%s", timeout, s.Log())
	}
}

// Signal sends a signal and does not wait.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// Done is closed when the child has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// ExitError says how the child ended, once Done is closed; nil is exit code 0.
func (s *Server) ExitError() error { return s.err }

// PID is the child's process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log returns the end of what the child wrote.
func (s *Server) Log() string { return s.log.String() }

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() > 2*tailSize {
		rest := bytes.Clone(t.buf.Bytes()[t.buf.Len()-tailSize:])
		t.buf.Reset()
		t.buf.Write(rest)
	}
	return t.buf.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf.Bytes()
	return string(b[max(0, len(b)-tailSize):])
}

// readyLine is what the child logs, as text or JSON, when its doors are open.
var readyLine = regexp.MustCompile(`(?:msg=ready http=|"msg":"ready","http":")(http[^\s"]+)`)

// watch finds readyLine in what is written to it.
type watch struct {
	found chan string
	line  []byte // the end of what was written, without a line break
}

// Write implements io.Writer.
func (w *watch) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			w.line = append(w.line, b)
			continue
		}
		if m := readyLine.FindSubmatch(w.line); m != nil {
			select {
			case w.found <- string(m[1]):
			default:
			}
		}
		w.line = w.line[:0]
	}
	return len(p), nil
}
