package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/aggregate"
)

// EachToken calls visit with every token, ended ones too, as of one sequence.
// It reads the whole table. It ends with the first error of visit, or when ctx
// does.
func (q *queries) EachToken(ctx context.Context, visit func(*aggregate.Token) error) error {
	return each(ctx, q, tableToken, visit)
}

// EachMember does the same with every membership, ended ones too.
func (q *queries) EachMember(ctx context.Context, visit func(*aggregate.Member) error) error {
	return each(ctx, q, tableMember, visit)
}

// EachResource does the same with every registered resource, removed ones too.
func (q *queries) EachResource(ctx context.Context, visit func(*aggregate.Resource) error) error {
	return each(ctx, q, tableResource, visit)
}

func each[T any](ctx context.Context, q *queries, table byte, visit func(*T) error) error {
	_, err := more(q, func(r pebble.Reader) (none struct{}, err error) {
		it, err := scan(r, []byte{table})
		if err != nil {
			return none, err
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		for ok := it.First(); ok; ok = it.Next() {
			if ctx.Err() != nil {
				return none, ctx.Err()
			}
			row, err := it.ValueAndErr()
			if err != nil {
				return none, readError(err)
			}
			v, err := decode[T](row)
			if err != nil {
				return none, fmt.Errorf("directory: row %q: %w", table, err)
			}
			if err := visit(&v); err != nil {
				return none, err
			}
		}
		return none, readError(it.Error())
	})
	return err
}
