// Package proc builds and runs the real watchword binary as a child, for the end-to-end tests and
// the tools that load it, kill it and look at what is left.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

	cmd  *exec.Cmd
	log  tail
	done chan struct{}
	err  error // how it ended; valid after done
}

// Start runs `serve` on free ports over the data directory and does not wait.
func Start(binary, data string, args ...string) (*Server, error) {
	s := &Server{Data: data, done: make(chan struct{})}
	all := append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"}, args...)
	s.cmd = exec.Command(binary, all...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// Ready waits until /readyz answers 200, and reads the credentials. The
// base_url of admin.json is that of the last start, so it may name a port of
// the start before for a moment.
func (s *Server) Ready(ctx context.Context) error {
	for {
		if err := s.probe(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server was not ready in time: %w\n%s", ctx.Err(), s.Log())
		case <-s.done:
			return fmt.Errorf("the server ended while it started: %w\n%s", errors.Join(s.err, errors.New("see its log")), s.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) probe(ctx context.Context) error {
	b, err := os.ReadFile(filepath.Join(s.Data, "admin.json"))
	if err != nil {
		return err
	}
	var a Admin
	if err := json.Unmarshal(b, &a); err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.BaseURL+"/readyz", nil)
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
	s.Admin = a
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
