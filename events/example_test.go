package events_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/token"
)

// A commit is composed behind a position, appended there, and read back by
// whoever follows the ledger.
func Example() {
	ctx := context.Background()
	log := eventstest.NewLedger().Connect()

	id := token.ID{0x01, 0x9b, 0x7c, 0xde, 15: 0x07}
	draft := events.Draft{
		Envelope: events.Envelope{
			ID:      token.ID{0x01, 0x9b, 0x7c, 0xde, 15: 0x08},
			Source:  "watchword/example",
			Subject: "token/" + id.String(),
			Time:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Actor:   events.Actor{Kind: events.ActorOperator},
		},
		Data: &events.TokenRevoked{Reason: "leaked"},
	}
	at := events.Position{} // the beginning
	payload, commit, err := events.Compose(at, []events.Draft{draft})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Append(ctx, at, commit.Subject, payload); err != nil {
		fmt.Println(err)
		return
	}

	enough := errors.New("enough")
	err = log.Read(ctx, events.Position{}, func(c events.Commit) error {
		for _, r := range c.Records {
			switch data := r.Data.(type) {
			case *events.TokenRevoked:
				fmt.Printf("%d: %s of %s: %s\n", r.Number, r.Name, r.SubjectID(), data.Reason)
			}
		}
		return enough
	})
	fmt.Println(errors.Is(err, enough))
	// Output:
	// 1: token.revoked.v1 of 019b7cde000000000000000000000007: leaked
	// true
}
