package projector

import (
	"container/heap"
	"context"
	"sync"
)

// waiters are those who wait for a sequence, the lowest first: an advance
// looks only at those that it wakes, however many others there are.
type waiters struct {
	mu      sync.Mutex
	applied uint64
	stopped error // set once; nobody waits any more
	queue   waitQueue
}

type waiter struct {
	seq  uint64
	at   int // place in the queue; -1 when taken out
	done chan struct{}
}

// wait returns nil when applied has reached seq, the error of stop, or that
// of ctx.
func (w *waiters) wait(ctx context.Context, seq uint64) error {
	w.mu.Lock()
	if w.applied >= seq || w.stopped != nil {
		defer w.mu.Unlock()
		return w.answer(seq)
	}
	me := &waiter{seq: seq, done: make(chan struct{})}
	heap.Push(&w.queue, me)
	w.mu.Unlock()

	select {
	case <-me.done:
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.answer(seq)
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if me.at >= 0 {
		heap.Remove(&w.queue, me.at)
		return ctx.Err()
	}
	return w.answer(seq) // woken at the same moment
}

// answer is what a waiter for seq is told; w.mu is held.
func (w *waiters) answer(seq uint64) error {
	if w.applied >= seq {
		return nil
	}
	return w.stopped
}

// advance wakes everybody who waits for seq or less.
func (w *waiters) advance(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applied = max(w.applied, seq)
	for len(w.queue) > 0 && w.queue[0].seq <= w.applied {
		close(heap.Pop(&w.queue).(*waiter).done)
	}
}

// stop wakes everybody: no sequence beyond applied will come.
func (w *waiters) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped != nil {
		return
	}
	w.stopped = err
	for len(w.queue) > 0 {
		close(heap.Pop(&w.queue).(*waiter).done)
	}
}

// waitQueue is a heap by sequence.
type waitQueue []*waiter

func (q waitQueue) Len() int           { return len(q) }
func (q waitQueue) Less(i, j int) bool { return q[i].seq < q[j].seq }

func (q waitQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *waitQueue) Push(x any) {
	w := x.(*waiter)
	w.at = len(*q)
	*q = append(*q, w)
}

func (q *waitQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	w.at = -1
	return w
}
