package callout

import (
	"context"
	"errors"
	"fmt"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/token"
	"watchword.dev/services/internal/embed"
)

const (
	// page is how many connections a server lists at a time.
	page = 1000
	// listTime is how long the first server may take to list its connections,
	// quiet how long the next one may take after that.
	listTime = 2 * time.Second
	quiet    = 250 * time.Millisecond
	kickTime = 2 * time.Second
)

// listing is one server's page of the connections of an account.
type listing struct {
	Server struct {
		ID string `json:"id"`
	} `json:"server"`
	Data struct {
		Connections []connection `json:"connections"`
	} `json:"data"`
}

type connection struct {
	Number  uint64 `json:"cid"`
	Account string `json:"account"`
	Holder  string `json:"authorized_user"` // the id, as the login has named it
}

// Sweep ends the connections of all who may not log in any more, on all
// servers, and returns how many those were. What it could not do, and a server
// that does not answer, is left to the next Sweep.
func (s *Service) Sweep(ctx context.Context) (ended int, err error) {
	// Page by page, until no server has a full one.
	for offset, more := 0, true; more; offset += page {
		more = false
		err := s.list(ctx, offset, func(l *listing) error {
			more = more || len(l.Data.Connections) >= page
			var all []error
			for _, c := range l.Data.Connections {
				if s.entitled(&c) {
					continue
				}
				if err := s.kick(ctx, l.Server.ID, c.Number); err != nil {
					all = append(all, err)
					continue
				}
				s.cfg.Log.Info("a connection is ended: its holder is retired", "account", c.Account, "id", c.Holder)
				ended++
				s.ended.Add(1)
			}
			return errors.Join(all...)
		})
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// entitled says whether the holder of a connection may have it. Who cannot be
// looked up may: a directory that fails must not cut everybody off.
func (s *Service) entitled(c *connection) bool {
	id, err := token.ParseID(c.Holder)
	if err != nil {
		return false
	}
	for _, r := range enrolled {
		if c.Account == r.Account() {
			active, err := s.active(r, id)
			return active || err != nil
		}
	}
	return false
}

// enrolled are the roles of those who enroll.
var enrolled = []embed.Role{embed.Enforcer, embed.Consumer}

// list asks all servers for a page of the connections of each kind and calls
// visit for each answer.
func (s *Service) list(ctx context.Context, offset int, visit func(*listing) error) error {
	nc := s.cfg.Conn
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("callout: list connections: %w", err)
	}
	defer sub.Unsubscribe()
	ask := fmt.Appendf(nil, `{"auth":true,"offset":%d,"limit":%d}`, offset, page)
	for _, r := range enrolled {
		if err := nc.PublishRequest(embed.Connections(r), inbox, ask); err != nil {
			return fmt.Errorf("callout: list connections: %w", err)
		}
	}
	for wait := listTime; ; wait = quiet {
		limit, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(limit)
		cancel()
		switch {
		case err != nil && wait == quiet && ctx.Err() == nil:
			return nil // all that answer have
		case err != nil:
			return fmt.Errorf("callout: list connections: %w", err)
		}
		var l listing
		if err := json.Unmarshal(m.Data, &l); err != nil {
			return fmt.Errorf("callout: list connections: %w", err)
		}
		if err := visit(&l); err != nil {
			return err
		}
	}
}

// kick ends one connection of one server. One that is gone by now is fine.
func (s *Service) kick(ctx context.Context, server string, number uint64) error {
	ctx, cancel := context.WithTimeout(ctx, kickTime)
	defer cancel()
	if _, err := s.cfg.Conn.RequestWithContext(ctx, embed.Kick(server), fmt.Appendf(nil, `{"cid":%d}`, number)); err != nil {
		return fmt.Errorf("callout: end a connection: %w", err)
	}
	return nil
}
