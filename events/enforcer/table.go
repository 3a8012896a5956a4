package enforcer

import (
	"sync"
	"time"

	"watchword.dev/events/token"
	"watchword.dev/events/watermark"
)

// key names a question. It is a keyed hash, so that nothing about a secret can
// be read from the memory of a cache.
type key [16]byte

// kept is a decision that is kept. It does not change.
type kept struct {
	d token.Decision
	// asOf is when it was known to be right.
	asOf time.Time
	// feed is the one that was followed when it was asked for; nil is none.
	feed *watermark.Watermark
	// until is when it is dropped, whatever happens; zero is never.
	until time.Time

	// What it rests on, as places in the marks.
	ids      []uint32
	secret   uint32
	stranger bool // nobody was recognised by the secret

	// elsewhere says that the decision stands under a key with the address.
	elsewhere bool
}

// outlived reports whether a decision that has just come is too old for whoever
// asked for it. Between its arrival and now the process may have been stopped.
func (v *kept) outlived(now time.Time) bool {
	return v.d.Bound > 0 && now.Sub(v.asOf) > v.d.Bound
}

// table keeps decisions, up to a number of them: of those that were not used
// for a while one gives way.
type table struct {
	shards [shards]shard
}

const shards = 16

type shard struct {
	mu    sync.Mutex
	most  int
	at    map[key]int
	slots []slot
	hand  int
}

type slot struct {
	key  key
	kept *kept
	used bool
}

func newTable(most int) *table {
	t := &table{}
	for i := range t.shards {
		t.shards[i].most = max(most/shards, 1)
		t.shards[i].at = map[key]int{}
	}
	return t
}

func (t *table) shard(k key) *shard { return &t.shards[k[0]%shards] }

func (t *table) get(k key) *kept {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.at[k]
	if !ok {
		return nil
	}
	s.slots[i].used = true
	return s.slots[i].kept
}

func (t *table) put(k key, v *kept) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.at[k]; ok {
		s.slots[i].kept = v
		return
	}
	if len(s.slots) < s.most {
		s.at[k] = len(s.slots)
		s.slots = append(s.slots, slot{key: k, kept: v})
		return
	}
	for s.slots[s.hand].used {
		s.slots[s.hand].used = false
		s.hand = (s.hand + 1) % len(s.slots)
	}
	delete(s.at, s.slots[s.hand].key)
	s.slots[s.hand], s.at[k] = slot{key: k, kept: v}, s.hand
	s.hand = (s.hand + 1) % len(s.slots)
}

// clear forgets everything.
func (t *table) clear() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.at, s.slots, s.hand = map[key]int{}, nil, 0
		s.mu.Unlock()
	}
}

func (t *table) len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.slots)
		s.mu.Unlock()
	}
	return n
}
