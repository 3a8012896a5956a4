package serve

import (
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// callerOf returns the operator as a caller of commands.
func callerOf(r *running) command.Caller {
	return command.Caller{Kind: token.KindKey, Digest: token.Sum(r.APIKey), EmailIndex: r.n.keys.EmailIndex(r.Email)}
}

// revokeOf returns the command that revokes a token of the operator.
func revokeOf(t *testing.T, r *running, id string) command.Command {
	t.Helper()
	parsed, err := token.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	return command.RevokeToken{Target: command.Target{ID: parsed, OwnerKind: events.OwnedByUser}}
}
