package enforcer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The limits of a download.
const (
	snapshotStall   = 15 * time.Second // without a byte
	snapshotResumes = 5                // in a row without a byte
)

// Snapshot asks the verifiers for a copy of their index: GET /v1/snapshot. The
// reader goes on at the same verifier, where it was, when the connection is lost,
// and ends with an error when that does not help. Its bytes prove themselves: see
// package localindex, which reads them.
func (c *Client) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	var errs []error
	for _, v := range c.order() {
		d := &download{c: c, ctx: ctx, url: v.base + "/v1/snapshot"}
		err := d.open()
		if err == nil {
			return d, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("enforcer: no verifier has given a snapshot: %w", errors.Join(errs...))
}

// download is a snapshot on its way.
type download struct {
	c      *Client
	ctx    context.Context
	url    string
	tag    string // of the snapshot, once it has begun
	at     int64
	size   int64
	failed int // in a row

	body   io.ReadCloser // nil between two attempts
	cancel context.CancelFunc
	stall  *time.Timer // ends an attempt that brings nothing
}

// open asks for the snapshot, or for the rest of it.
func (d *download) open() error {
	ctx, cancel := context.WithCancel(d.ctx)
	stall := time.AfterFunc(snapshotStall, cancel)
	resp, err := d.ask(ctx)
	if err != nil {
		stall.Stop()
		cancel()
		return err
	}
	d.body, d.cancel, d.stall = resp.Body, cancel, stall
	if d.tag == "" {
		d.tag, d.size = resp.Header.Get("Etag"), resp.ContentLength
	}
	return nil
}

// errGone says that the rest cannot be had any more: what was read is worth
// nothing.
var errGone = errors.New("enforcer: the verifier does not give the rest")

func (d *download) ask(ctx context.Context) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", d.c.bearer)
	r.Header.Set("Accept-Encoding", "identity")
	want := http.StatusOK
	if d.at > 0 {
		r.Header.Set("If-Range", d.tag)
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.at))
		want = http.StatusPartialContent
	}
	resp, err := d.c.http.Do(r)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusOK && (want != http.StatusOK || d.tag != "" && resp.Header.Get("Etag") != d.tag):
		err = fmt.Errorf("%w: it has another snapshot by now", errGone)
	case resp.StatusCode/100 == 4 && resp.StatusCode != http.StatusTooManyRequests:
		err = fmt.Errorf("%w: %s answered %d", errGone, d.url, resp.StatusCode)
	case resp.StatusCode != want:
		err = fmt.Errorf("%s answered %d", d.url, resp.StatusCode)
	case resp.ContentLength < 0 || d.tag != "" && resp.ContentLength != d.size-d.at:
		err = fmt.Errorf("%s does not say how long its answer is", d.url)
	case d.at > 0 && resp.Header.Get("Content-Range") != "bytes "+strconv.FormatInt(d.at, 10)+"-"+strconv.FormatInt(d.size-1, 10)+"/"+strconv.FormatInt(d.size, 10):
		err = fmt.Errorf("%s answered with another part", d.url)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// Read implements io.Reader.
func (d *download) Read(b []byte) (int, error) {
	for {
		if d.at == d.size {
			return 0, io.EOF
		}
		if d.body != nil {
			n, err := d.body.Read(b)
			if n > 0 {
				d.at += int64(n)
				d.failed = 0
				d.stall.Reset(snapshotStall)
				return n, nil
			}
			if err == nil {
				continue
			}
			d.drop()
		}
		if err := d.again(); err != nil {
			return 0, err
		}
	}
}

// again goes on after a loss, unless that makes no sense.
func (d *download) again() error {
	d.failed++
	pause := followAgain << min(d.failed-1, 4)
	if err := rest(d.ctx, &pause); err != nil {
		return err
	}
	err := d.open()
	if errors.Is(err, errGone) || err != nil && d.failed >= snapshotResumes {
		return fmt.Errorf("enforcer: a snapshot was lost after %d of %d bytes: %w", d.at, d.size, err)
	}
	return nil
}

func (d *download) drop() {
	d.stall.Stop()
	d.cancel()
	d.body.Close()
	d.body = nil
}

// Close ends the download.
func (d *download) Close() error {
	if d.body != nil {
		d.drop()
	}
	return nil
}
