package sse

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"

	"watchword.dev/events"
)

// Newest returns where the ledger ends now: where one begins to read who needs
// nothing of what was before, such as a cache.
func (r *Reader) Newest(ctx context.Context) (events.Position, error) {
	resp, err := r.open(ctx, url.Values{After: {Newest}, Follow: {"false"}}, "")
	if err != nil {
		return events.Position{}, err
	}
	defer resp.Body.Close()
	e, err := newScanner(resp.Body).next()
	if err != nil {
		return events.Position{}, fmt.Errorf("sse: newest: %w", err)
	}
	p, err := e.place()
	if err != nil {
		return events.Position{}, err
	}
	at := events.Position{Seq: p.Sequence, Number: p.Number, Epoch: p.Epoch, Time: p.Time}
	if n, err := hex.Decode(at.Hash[:], []byte(p.Chain[:min(len(p.Chain), 2*len(at.Hash))])); err != nil || n != len(at.Hash) {
		return events.Position{}, lost("where the answer begins has no place in the chain")
	}
	return at, nil
}
