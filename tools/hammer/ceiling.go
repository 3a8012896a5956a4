package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/stream"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projector"
)

// ceiling is what creations could reach at most on this machine: commits of as
// many events as the pen's, composed before the clock starts and published by
// one publisher that waits for the disk at each. Nothing is decided. Once
// nobody reads them; once a directory applies them, as it must be.
type ceiling struct {
	b      *creation
	server *limitServer
	conns  [2]*nats.Conn // of the publisher and of the directory

	log       *stream.Log // the publisher's
	directory *directory.Directory
	runner    *projector.Runner
	stop      context.CancelFunc
	ended     chan error

	at   events.Position
	made int // tokens

	bare, applied       *series
	bareCPU, appliedCPU *series
}

// ceilingEvents is how many events the directory is given in a turn.
const ceilingEvents = 40_000

func (b *creation) ceiling(ctx context.Context, dir string) (*ceiling, error) {
	c := &ceiling{
		b:          b,
		bare:       newSeries("ceiling: composed commits, one publisher, nobody decides or reads", "events/s"),
		applied:    newSeries("ceiling: the same while a directory applies them", "events/s"),
		bareCPU:    newSeries("processor time of an event at the first ceiling", "us"),
		appliedCPU: newSeries("processor time of an event at the second ceiling", "us"),
	}
	if err := c.open(ctx, dir); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *ceiling) open(ctx context.Context, dir string) (err error) {
	if c.server, err = startLimit(filepath.Join(dir, "ceiling"), true, 4<<30); err != nil {
		return err
	}
	var ledgers [2]*stream.Log
	for i := range c.conns {
		if c.conns[i], err = c.server.connect(i == 0); err != nil {
			return err
		}
		if ledgers[i], err = stream.Open(ctx, c.conns[i], stream.Config{}); err != nil {
			return err
		}
	}
	c.log = ledgers[0]
	if c.directory, err = directory.Open(directory.Options{Dir: filepath.Join(dir, "ceiling-directory")}); err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop, c.ended = stop, make(chan error, 1)
	c.runner = projector.NewRunner(ledgers[1], c.directory, projector.Options{})
	go func() { c.ended <- c.runner.Run(run) }()
	w := &world{now: time.Now()}
	payload, commit, err := events.Compose(c.at, []events.Draft{w.opened()})
	if err != nil {
		return err
	}
	c.at = commit.End
	return c.log.Append(ctx, events.Position{}, commit.Subject, payload)
}

func (c *ceiling) close() (err error) {
	if c.stop != nil {
		c.stop()
		if err = <-c.ended; errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	if c.directory != nil {
		err = errors.Join(err, c.directory.Close())
	}
	for _, nc := range c.conns {
		if nc != nil {
			nc.Close()
		}
	}
	if c.server != nil {
		c.server.stop()
	}
	return err
}

// composed is a commit that waits to be appended.
type composed struct {
	at      events.Position
	subject string
	payload []byte
}

// compose makes a turn's commits, of creations like those of the pen.
func (c *ceiling) compose(size int) (all []composed, err error) {
	sample := c.b.sample
	for at := c.at; len(all)*size < ceilingEvents; {
		drafts := make([]events.Draft, size)
		for i := range drafts {
			c.made++
			g := grantOfOne(c.made)
			g.Policies[0].ID = policyID(c.made, 0)
			d := &drafts[i]
			d.Envelope = sample.Envelope
			d.ID, d.Subject = idOf('e', c.made), "token/"+tokenID(c.made).String()
			d.Data = &events.TokenCreated{
				Name: fmt.Sprintf("deploy key %d", c.made), OwnerKind: sample.created().OwnerKind, Owner: sample.created().Owner,
				Secret: digestOf(c.made, 0), Grant: g,
			}
		}
		payload, commit, err := events.Compose(at, drafts)
		if err != nil {
			return nil, fmt.Errorf("compose for the ceiling: %w", err)
		}
		all = append(all, composed{at, commit.Subject, payload})
		at = commit.End
	}
	return all, nil
}

// turn measures both ceilings with commits of size events.
func (c *ceiling) turn(ctx context.Context, size int, long time.Duration) error {
	message := bytes.TrimSuffix(bytes.Repeat(append(bytes.Clone(c.b.payload), '\n'), size), []byte("\n"))
	count, used, began := 0, processSeconds(), time.Now()
	for ; time.Since(began) < long; count += size {
		if _, err := c.b.js.Publish(ctx, "ww.event.token.created", message); err != nil {
			return fmt.Errorf("publish at the ceiling: %w", err)
		}
		c.b.plain.Add(1)
	}
	c.bare.add(float64(count) / time.Since(began).Seconds())
	c.bareCPU.add((processSeconds() - used) * 1e6 / float64(count))

	all, err := c.compose(size)
	if err != nil {
		return err
	}
	used, began = processSeconds(), time.Now()
	for i := range all {
		m := &all[i]
		if err := c.log.Append(ctx, m.at, m.subject, m.payload); err != nil {
			return fmt.Errorf("append at the ceiling: %w", err)
		}
	}
	c.applied.add(float64(len(all)*size) / time.Since(began).Seconds())
	err = c.runner.Wait(ctx, all[len(all)-1].at.Seq+1)
	c.at = c.directory.Position()
	c.appliedCPU.add((processSeconds() - used) * 1e6 / float64(len(all)*size))
	return err
}

// figures shows the ceilings, also in terms of plain publishes: what ratio this
// machine allows at all.
func (c *ceiling) figures(plain *series) []figure {
	return []figure{
		quotients("ratio of the first ceiling", c.bare, plain).figure(), quotients("ratio of the second ceiling", c.applied, plain).figure(),
		c.bare.figure(), c.applied.figure(), c.bareCPU.figure(), c.appliedCPU.figure(),
	}
}

// check counts what the directory holds.
func (c *ceiling) check() error {
	n, _, err := c.directory.TokenCounts(directory.Owner{Kind: c.b.sample.created().OwnerKind, ID: c.b.sample.created().Owner})
	if err == nil && n.All != uint64(c.made) {
		err = wrong("the directory under the ceiling counts %d tokens of %d", n.All, c.made)
	}
	return err
}

// sample is a creation as the pen has written it.
type sample struct {
	events.Envelope
	data events.Event
}

func (s *sample) created() *events.TokenCreated { return s.data.(*events.TokenCreated) }
