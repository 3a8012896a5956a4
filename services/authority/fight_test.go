package authority_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/services/authority/authoritytest"
)

// TestPensFight runs the fight of pens in fake time, with seeds of its own and
// one that is new each time.
func TestPensFight(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6, rand.Uint64()}
	for _, lossy := range []int{0, 20} {
		for i, seed := range seeds {
			t.Run(fmt.Sprintf("lossy %d/seed %d", lossy, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ledger := eventstest.NewLedger()
					open := func(testing.TB) (events.Log, events.Pulses) {
						l := ledger.Connect()
						return l, l
					}
					authoritytest.Pens(t, open, authoritytest.Fight{Seed: seed, Pens: 2 + i%2, Lossy: lossy, Delay: 20 * time.Millisecond})
				})
			})
		}
	}
}
