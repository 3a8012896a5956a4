package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// postgres is the peer: a server of our own in a temporary directory, with
// Debian's settings, durable commits and a table with a unique hash.
type postgres struct {
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan error
	pool *pgxpool.Pool

	payload []byte
	begun   atomic.Uint64
	acked   atomic.Int64
}

// installHint is said where there is no PostgreSQL.
const installHint = "install it with `apt-get install postgresql` (or put initdb into PATH)"

// startPostgres starts a server that listens on a unix socket only. An error
// says why this peer cannot be measured here.
func startPostgres(ctx context.Context, dir string, clients int, payload []byte) (*postgres, error) {
	initdb, err := findInitdb()
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "s")
	for _, d := range []string{dir, data, socket} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
		if as != nil {
			if err := os.Chown(d, int(as.Uid), int(as.Gid)); err != nil {
				return nil, err
			}
		}
	}
	if as != nil {
		// That user must be able to come here.
		if err := os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o711); err != nil {
			return nil, err
		}
	}
	attr := &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGINT}
	create := exec.CommandContext(ctx, initdb, "-D", data, "-U", "hammer", "-A", "trust", "-E", "UTF8", "--locale=C")
	create.SysProcAttr, create.Dir = attr, dir
	if out, err := create.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	p := &postgres{payload: bytes.Clone(payload), log: new(bytes.Buffer), done: make(chan error, 1)}
	p.cmd = exec.Command(filepath.Join(filepath.Dir(initdb), "postgres"), "-D", data, "-k", socket,
		"-c", "listen_addresses=", "-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "max_connections="+strconv.Itoa(clients+16))
	p.cmd.SysProcAttr, p.cmd.Dir, p.cmd.Stderr = attr, dir, p.log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	if err := p.prepare(ctx, socket, clients); err != nil {
		return nil, errors.Join(fmt.Errorf("postgres: %w", err), p.close())
	}
	return p, nil
}

// findInitdb looks where Debian puts it, the newest version first, and in
// PATH.
func findInitdb() (string, error) {
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is good
	slices.SortFunc(all, func(a, b string) int { return versionOf(b) - versionOf(a) })
	if len(all) > 0 {
		return all[0], nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("it is not installed; " + installHint)
	}
	return filepath.EvalSymlinks(path)
}

func versionOf(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 for an odd name
	return n
}

// unprivileged is whom the server runs as: it refuses to run as root. nil is
// whoever we are.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("it does not run as root, and there is neither a user postgres nor nobody")
}

// prepare connects and makes the table.
func (p *postgres) prepare(ctx context.Context, socket string, clients int) error {
	cfg, err := pgxpool.ParseConfig(fmt.Sprintf("host=%s user=hammer dbname=postgres", socket))
	if err != nil {
		return err
	}
	cfg.MaxConns, cfg.MinConns = int32(clients), int32(clients)
	if p.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return err
	}
	for tries := 0; ; tries++ {
		if err = p.pool.Ping(ctx); err == nil {
			break
		}
		select {
		case ended := <-p.done:
			p.done <- ended
			return fmt.Errorf("the server has ended: %w\n%s", errors.Join(ended, err), p.log)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if tries == 400 {
			return fmt.Errorf("the server does not answer: %w", err)
		}
	}
	_, err = p.pool.Exec(ctx, "CREATE TABLE token (digest bytea NOT NULL UNIQUE, event bytea NOT NULL)")
	return err
}

// insert stores one event's worth of bytes under a hash of its own, durably.
func (p *postgres) insert(ctx context.Context) error {
	digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, p.begun.Add(1)))
	if _, err := p.pool.Exec(ctx, "INSERT INTO token (digest, event) VALUES ($1, $2)", digest[:], p.payload); err != nil {
		return fmt.Errorf("postgres: insert: %w", err)
	}
	p.acked.Add(1)
	return nil
}

func (p *postgres) check(ctx context.Context) error {
	var rows int64
	if err := p.pool.QueryRow(ctx, "SELECT count(*) FROM token").Scan(&rows); err != nil {
		return err
	}
	if rows != p.acked.Load() {
		return fmt.Errorf("PostgreSQL holds %d rows, %d were acknowledged", rows, p.acked.Load())
	}
	return nil
}

// close ends the server.
func (p *postgres) close() error {
	if p.pool != nil {
		p.pool.Close()
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil { // fast shutdown
		return nil // it has ended
	}
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
	return nil
}
