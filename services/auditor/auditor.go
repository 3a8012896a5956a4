package auditor

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"watchword.dev/events/fault"
	"watchword.dev/events/proof"
	"watchword.dev/projections/audittrail"
	"watchword.dev/services/internal/durable"
	"watchword.dev/services/internal/web"
)

// Every is how old the newest signed head is at most when a newer one could be
// signed.
const Every = time.Second

// Config is what a Service needs. Trail, Key and File must be set.
type Config struct {
	// Trail returns the trail that answers now.
	Trail func() *audittrail.Trail
	Key   ed25519.PrivateKey // signs tree heads and nothing else
	File  string             // keeps the last signed head
	Now   func() time.Time   // time.Now when nil
	Log   *slog.Logger       // slog.Default() when nil
}

// Service signs tree heads and shows the tree.
type Service struct {
	Config

	mu     sync.Mutex
	signed []byte     // the last head as signed; nil before the first
	head   proof.Head // the same
	at     time.Time  // when the tree was last looked at
	forked error      // why nothing more is signed
}

// New returns a service that goes on from the head in the file. When that cannot
// be read, or is not one that this installation has signed, the service signs
// nothing and Err says why: the rest of the node needs no heads.
func New(cfg Config) (*Service, error) {
	if cfg.Trail == nil || len(cfg.Key) != ed25519.PrivateKeySize || cfg.File == "" {
		return nil, errors.New("auditor: a trail, a key and a file are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Service{Config: cfg}
	kept, err := durable.ReadPrivate(cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	h := proof.Head{}
	if err == nil {
		h, err = s.open(kept)
	}
	if err != nil {
		s.forked = fmt.Errorf("auditor: the last head that was signed is not known: %w", err)
		s.Log.Error("no tree heads are signed", "error", s.forked, "file", cfg.File)
		return s, nil
	}
	s.signed, s.head = kept, h
	return s, nil
}

// open reads a head that our key has signed, for whichever epoch.
func (s *Service) open(signed []byte) (proof.Head, error) {
	h, err := proof.Peek(signed)
	if err != nil {
		return h, err
	}
	key, err := proof.LogKey(h.Origin, s.Key.Public().(ed25519.PublicKey))
	if err != nil {
		return h, err
	}
	_, err = proof.Policy{Log: key}.Open(signed)
	return h, err
}

// VerifierKey returns the key under which the heads of the present epoch are
// signed, as text; "" before the ledger is opened.
func (s *Service) VerifierKey() (string, error) {
	epochs, err := ask(s, (*audittrail.Trail).Epochs)
	if err != nil || len(epochs) == 0 {
		return "", err
	}
	key, err := proof.LogKey(epochs[len(epochs)-1].Origin(), s.Key.Public().(ed25519.PublicKey))
	return key.String(), err
}

// Err returns why no head is signed any more, or nil.
func (s *Service) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forked
}

// Signed returns the newest signed head.
func (s *Service) Signed() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.Now(); s.forked == nil && (s.at.IsZero() || now.Sub(s.at) >= Every || now.Before(s.at)) {
		s.at = now // whatever comes of it: a full disk is not asked again by everybody
		if err := s.sign(); err != nil {
			return nil, err
		}
	}
	switch {
	case s.forked != nil:
		return nil, fault.Wrap(fault.NotReady, s.forked)
	case s.signed == nil:
		return nil, fault.Wrap(fault.NotReady, errors.New("auditor: the ledger is not opened yet"))
	}
	return slices.Clone(s.signed), nil
}

// sign signs the newest tree if it extends the one before. Mu is held.
func (s *Service) sign() error {
	h, err := ask(s, func(t *audittrail.Trail) (proof.Head, error) {
		size := t.Size()
		if size == 0 {
			return s.head, nil
		}
		h, err := t.Head(size)
		if err != nil || s.signed == nil {
			return h, err
		}
		return s.next(t, h)
	})
	if errors.Is(err, proof.ErrUnproved) {
		s.forked = err
		s.Log.Error("the ledger contradicts a tree head that was signed; no more are signed", "error", err, "signed", s.File)
		return nil
	}
	if err != nil || h == s.head {
		return err
	}
	log, err := proof.NewLog(h.Origin, s.Key)
	if err != nil {
		return err
	}
	signed, err := proof.Sign(h, log)
	if err != nil {
		return err
	}
	// Kept before it is shown: after a crash we may not remember a head that
	// nobody has seen, but never show one that we do not remember.
	if err := durable.WritePrivate(s.File, signed); err != nil {
		return err
	}
	s.signed, s.head = signed, h
	return nil
}

// next returns what is to be signed after the last head: h if its tree extends
// that one or is of a later epoch, and the last head itself when the trail is
// behind it, as one that is being filled is.
func (s *Service) next(t *audittrail.Trail, h proof.Head) (proof.Head, error) {
	last, before, err := proof.ParseOrigin(s.head.Origin)
	if err != nil {
		return h, err
	}
	installation, epoch, err := proof.ParseOrigin(h.Origin)
	switch {
	case err != nil:
		return h, err
	case installation != last:
		return h, fmt.Errorf("%w: the last head is of another installation", proof.ErrUnproved)
	case epoch > before:
		return h, nil
	case epoch < before || h.Size < s.head.Size:
		return s.head, nil
	}
	hashes, err := t.Consistency(s.head.Size, h.Size)
	if err != nil {
		return h, err
	}
	return h, proof.CheckConsistency(hashes, h.Size, h.Root, s.head.Size, s.head.Root)
}

// ask asks the trail that answers, and the next one if it has just been replaced.
func ask[T any](s *Service, question func(*audittrail.Trail) (T, error)) (T, error) {
	for {
		t := s.Trail()
		answer, err := question(t)
		if errors.Is(err, audittrail.ErrClosed) && s.Trail() != t {
			continue
		}
		return answer, err
	}
}

// Where the tree is shown.
const (
	CheckpointPath = "/audit/checkpoint"
	TilePath       = "/audit/tile/{path...}"
)

// Routes adds the service's routes to rt.
func (s *Service) Routes(rt *web.Router) {
	rt.Handle(http.MethodGet, CheckpointPath, s.checkpoint)
	rt.Handle(http.MethodGet, TilePath, s.tile)
}

func (s *Service) checkpoint(x *web.Exchange) error {
	signed, err := s.Signed()
	if err != nil {
		return err
	}
	x.Bytes("text/plain; charset=utf-8", signed)
	return nil
}

// tile answers with hashes that never change.
func (s *Service) tile(x *web.Exchange) error {
	tile, err := proof.ParseTile("tile/" + x.Param("path"))
	if err != nil {
		return fault.Wrap(fault.ObjectNotFound, err)
	}
	hashes, err := ask(s, func(t *audittrail.Trail) ([]byte, error) { return t.Tile(tile) })
	if errors.Is(err, audittrail.ErrBeyond) {
		return fault.Wrap(fault.ObjectNotFound, err)
	}
	if err != nil {
		return err
	}
	x.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	x.Bytes("application/octet-stream", hashes)
	return nil
}
