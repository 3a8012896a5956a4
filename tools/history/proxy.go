package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// proxy passes TCP connections on to one address, as badly as it is told to.
type proxy struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	conns  map[net.Conn]bool
	cut    bool          // no connection lives
	stall  chan struct{} // open: nothing moves until it is closed; nil otherwise
	delay  time.Duration // of each piece
	closed bool
}

func newProxy(to string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, to: to, conns: map[net.Conn]bool{}}
	go p.accept()
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		go p.serve(near)
	}
}

func (p *proxy) serve(near net.Conn) {
	defer near.Close()
	if !p.add(near) {
		return
	}
	defer p.remove(near)
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer far.Close()
	if !p.add(far) {
		return
	}
	defer p.remove(far)
	done := make(chan struct{}, 2)
	go func() { p.copy(far, near); done <- struct{}{} }()
	go func() { p.copy(near, far); done <- struct{}{} }()
	<-done // the other one ends with the connections
}

// copy passes on what comes, piece by piece.
func (p *proxy) copy(to io.Writer, from io.Reader) {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if stall, delay := p.fault(); stall != nil {
			<-stall
		} else if delay > 0 {
			time.Sleep(delay)
		}
		if n > 0 {
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) fault() (chan struct{}, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stall, p.delay
}

// add reports whether a connection may live.
func (p *proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut || p.closed {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) remove(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// The faults. Each returns what ends it.

// cutOff closes all connections and lets none live.
func (p *proxy) cutOff() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.closeAll()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cut = false
	}
}

// stop lets nothing pass, and loses nothing.
func (p *proxy) stop() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stall := make(chan struct{})
	p.stall = stall
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stall = nil
		close(stall)
	}
}

// slow holds each piece back for a while.
func (p *proxy) slow(d time.Duration) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.delay = 0
	}
}

func (p *proxy) closeAll() {
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.listener.Close()
	p.closeAll()
}
