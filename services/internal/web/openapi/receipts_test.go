package openapi_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/revocations"
	"watchword.dev/services/fanout/receipts"
	"watchword.dev/services/internal/web"
	"watchword.dev/services/management"
)

// enforcerSeed is the key with which the lab's enforcer signs.
var enforcerSeed = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// office keeps receipts in memory and hands them on at once.
type office struct {
	p      *revocations.Revocations
	runner *projector.Runner
	ledger interface{ Head() uint64 }

	mu   sync.Mutex
	seqs map[revocations.Stream]uint64
	sent time.Time
	err  error // the next publishes fail with it
}

// Publish implements receipt.Publisher.
func (o *office) Publish(ctx context.Context, subject string, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	of := revocations.Kept
	if strings.HasPrefix(subject, receipt.ProgressPrefix) {
		of = revocations.Progress
	}
	o.seqs[of]++
	if err := o.runner.Wait(ctx, o.ledger.Head()); err != nil {
		return err
	}
	_, err := o.p.Hear([]revocations.Message{{Stream: of, Seq: o.seqs[of], Subject: subject, Data: data, Stored: time.Now().UTC()}}, true)
	return err
}

// answers are the receipts service, and how far the projection is. All receipts
// that there are have been heard when it answers.
type answers struct {
	*receipts.Service
	o *office
}

func (a answers) Wait(ctx context.Context, seq uint64) error {
	err := a.o.runner.Wait(ctx, seq)
	if err == nil {
		a.o.p.CaughtUp(seq)
	}
	return err
}

// serveReceipts adds the route of receipts and returns what answers from them.
func (l *lab) serveReceipts(rt *web.Router) management.Receipts {
	l.t.Helper()
	p := must[*revocations.Revocations](l.t)(revocations.Open(revocations.Options{Dir: "revocations", FS: vfs.NewMem()}))
	l.office = &office{
		p: p, ledger: l.ledger, seqs: map[revocations.Stream]uint64{},
		runner: projector.NewRunner(l.ledger.Connect(), p, projector.Options{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.office.runner.Run(ctx); ctx.Err() == nil {
			l.t.Errorf("revocations: %v", err)
		}
	})
	l.t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := p.Close(); err != nil {
			l.t.Error(err)
		}
	})
	s := receipts.New(receipts.Config{
		Projection: func() *revocations.Revocations { return p }, Enforcers: l.index, Directory: l.dir, Publisher: l.office,
	})
	s.Routes(rt)
	return answers{s, l.office}
}

// receiptOf is a receipt of an instance that stands where the directory does.
func (l *lab) receiptOf(of token.ID, instance string, kind receipt.Kind) []byte {
	l.t.Helper()
	l.office.mu.Lock()
	if now := time.Now().UTC().Truncate(time.Millisecond); now.After(l.office.sent) {
		l.office.sent = now
	} else {
		l.office.sent = l.office.sent.Add(time.Millisecond)
	}
	sent := l.office.sent
	l.office.mu.Unlock()
	at := l.dir.Position()
	return must[[]byte](l.t)(receipt.Sign(receipt.Receipt{
		Enforcer: of, Instance: instance, Region: "eu", Kind: kind, Reader: 1, Bound: 10 * time.Second,
		Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Head: at.Hash, AppliedAt: sent, SentAt: sent,
	}, enforcerSeed))
}

// receiptsView is what an owner sees.
type receiptsView struct {
	TokenID string `json:"token_id"`
	Event   *struct {
		Type     string `json:"type"`
		Sequence uint64 `json:"sequence"`
	} `json:"event"`
	Complete  bool   `json:"complete"`
	Why       string `json:"why"`
	Heard     int    `json:"heard"`
	Waiting   int    `json:"waiting"`
	Instances []struct {
		Name         string `json:"name"`
		Region       string `json:"region"`
		Instance     string `json:"instance"`
		State        string `json:"state"`
		Milliseconds *int64 `json:"milliseconds"`
		NotSince     string `json:"not_since"`
	} `json:"instances"`
}

func (l *lab) post(kind receipt.Kind) {
	l.t.Helper()
	l.do("POST", "/v1/receipts", bearer(l.enforcer), string(l.receiptOf(l.enforcerID, "edge1", kind)), 200, 0)
}

// TestReceipts goes from a revocation to the receipt of the last one that had to
// hear of it, as the token's owner sees it.
func TestReceipts(t *testing.T) {
	l := newLab(t)
	as := l.rival.header()
	l.post(receipt.Hello)
	made := l.create(userTokens, as, grant("t", dnsWrite, typeZone+"."+l.zoneOf(l.rival)))
	at := userTokens + "/" + made.ID
	see := func(path string) (r receiptsView) {
		t.Helper()
		l.do("GET", path, as, nil, 200, 0).into(t, &r)
		return r
	}
	if r := see(at + "/receipts"); r.Event != nil || r.Complete || r.Why != "nothing_to_hear" {
		t.Errorf("of a token that is as it was made: %+v", r)
	}
	// A roll that waits in vain is done all the same, and its secret is shown.
	var rolled struct {
		Value    string       `json:"value"`
		Receipts receiptsView `json:"receipts"`
	}
	l.do("PUT", at+"/value?wait=receipts&timeout=20ms", as, nil, 200, 0).into(t, &rolled)
	if r := rolled.Receipts; rolled.Value == "" || r.Complete || r.Why != "waiting" || r.Waiting != 1 || r.Event.Type != "watchword.token.rolled.v1" ||
		r.Instances[0].Name != "edge" || r.Instances[0].Region != "eu" || r.Instances[0].State != "waiting" || r.Instances[0].NotSince == "" {
		t.Errorf("rolled: %+v", rolled)
	}
	// Without the wait the answer is Cloudflare's.
	var bare string
	l.do("PUT", at+"/value", as, `{"force":true}`, 200, 0).into(t, &bare)

	var revoked struct {
		ID       string       `json:"id"`
		Receipts receiptsView `json:"receipts"`
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		l.do("DELETE", at+"?wait=receipts&timeout=20s", as, nil, 200, 0).into(t, &revoked)
	}()
	for see(at+"/receipts").Event.Type != "watchword.token.revoked.v1" {
		select {
		case <-answered:
			t.Fatalf("answered %+v before anybody has heard", revoked)
		default:
		}
	}
	l.post(receipt.Revocation)
	<-answered
	if r := revoked.Receipts; revoked.ID != made.ID || !r.Complete || r.Why != "all_heard" || r.Heard != 1 || r.Instances[0].Milliseconds == nil {
		t.Errorf("revoked: %+v", revoked)
	}
	if r := see(at + "/receipts?sequence=" + strconv.FormatUint(rolled.Receipts.Event.Sequence, 10)); r.Event.Type != "watchword.token.rolled.v1" || !r.Complete {
		t.Errorf("the roll before it: %+v", r)
	}
	if r := see(at + "/receipts?sequence=1"); r.Event != nil {
		t.Errorf("what is not about the token: %+v", r)
	}
	for _, q := range []string{"sequence=0", "sequence=x", "wait=rain", "wait=receipts&timeout=26s", "wait=receipts&timeout=-1s", "wait=receipts&timeout=0", "wait=receipts&timeout=soon"} {
		l.do("GET", at+"/receipts?"+q, as, nil, 400, 1001)
	}
	l.do("DELETE", at+"?wait=rain", as, nil, 400, 1001)

	// Operators see who lives, others do not.
	var all []struct {
		Name      string `json:"name"`
		Kind      string `json:"kind"`
		Instances []struct {
			State string `json:"state"`
			Lag   uint64 `json:"lag"`
		} `json:"instances"`
	}
	l.do("GET", "/v1/enforcers", l.admin.header(), nil, 200, 0).into(t, &all)
	if len(all) != 2 || all[0].Kind != "node" || all[1].Name != "edge" || len(all[1].Instances) != 1 || all[1].Instances[0].State != "live" || all[1].Instances[0].Lag != 0 {
		t.Errorf("enforcers: %+v", all)
	}
	l.do("GET", "/v1/enforcers", as, nil, 403, 9109)
}

// TestReceiptsOfOthers: nobody but the owner sees them, and what is another's is
// as unknown as what is not there, also for a token that was revoked.
func TestReceiptsOfOthers(t *testing.T) {
	l := newLab(t)
	made := l.create(userTokens, l.admin.header(), grant("t", dnsWrite, zone))
	l.do("DELETE", userTokens+"/"+made.ID, l.admin.header(), nil, 200, 0)
	foreign := l.do("GET", userTokens+"/"+made.ID+"/receipts", l.rival.header(), nil, 404, 1003)
	unknown := l.do("GET", userTokens+"/00000000000000000000000000000001/receipts", l.rival.header(), nil, 404, 1003)
	if !bytes.Equal(foreign.body, unknown.body) {
		t.Errorf("%s\n%s", foreign.body, unknown.body)
	}
	l.do("GET", l.admin.accountTokens()+"/"+made.ID+"/receipts", l.rival.header(), nil, 404, 1003)
	l.do("GET", l.admin.accountTokens()+"/"+made.ID+"/receipts", l.admin.header(), nil, 404, 1003)
	l.do("GET", userTokens+"/"+made.ID+"/receipts", nil, nil, 400, 9106)
}
