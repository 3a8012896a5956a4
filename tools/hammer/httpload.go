package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// client is one connection that sends prepared requests and waits for each
// answer. net/http's own client costs more than the server that is to be
// measured, and both share the machine.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	body []byte // of the last answer
}

func dial(addr string) (*client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

// exchange sends a whole request and returns the status and the body of the
// answer, which must have a length. The body is valid until the next exchange.
func (c *client) exchange(request []byte) (status int, body []byte, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("no HTTP answer: %.40q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, err
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "Content-Length: "
		if len(line) > len(name) && string(line[:len(name)]) == name {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return 0, nil, err
			}
		}
	}
	if length < 0 || length > 1<<20 {
		return 0, nil, fmt.Errorf("an answer of length %d", length)
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.in, c.body)
	return status, c.body, err
}

// load is a turn of many clients on one server.
type load struct {
	addr    string
	clients int
	// request returns the n-th request of a client, check what is wrong
	// with the answer to it.
	request func(client, n int) []byte
	check   func(client, n, status int, body []byte) error
}

// run loads the server for some time and returns the answers a second.
func (l *load) run(ctx context.Context, long time.Duration) (float64, error) {
	ctx, stop := context.WithTimeout(ctx, long+30*time.Second)
	defer stop()
	var wg sync.WaitGroup
	var answers atomic.Int64
	failed := make(chan error, l.clients)
	began := time.Now()
	for k := range l.clients {
		wg.Go(func() {
			n, err := l.one(ctx, k, began.Add(long))
			answers.Add(int64(n))
			if err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	select {
	case err := <-failed:
		return 0, err
	default:
		return float64(answers.Load()) / took.Seconds(), nil
	}
}

func (l *load) one(ctx context.Context, k int, until time.Time) (n int, err error) {
	c, err := dial(l.addr)
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		c.conn.SetDeadline(deadline)
	}
	for ; time.Now().Before(until); n++ {
		status, body, err := c.exchange(l.request(k, n))
		if err != nil {
			return n, err
		}
		if err := l.check(k, n, status, body); err != nil {
			return n, err
		}
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
	}
	return n, nil
}

// cpuSeconds is the processor time that a process has used; 0 where the system
// does not tell.
func cpuSeconds(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold spaces
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, err1 := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	const ticks = 100 // USER_HZ, on every Linux that Go runs on
	return (user + system) / ticks
}
