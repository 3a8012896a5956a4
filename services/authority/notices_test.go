package authority_test

import (
	"sync"
	"testing"
	"time"

	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
)

// TestNotices lets tokens run to their ends while two loops look for them, as
// when two nodes believe that they have the pen, and the directory lags behind
// for days: each notice stands in the ledger once.
func TestNotices(t *testing.T) {
	in(t, func(c *authority.Config) { c.Beat, c.Lease = time.Hour, 6*time.Hour }, func(w *world) {
		for name, life := range map[string]time.Duration{"long": 40 * day, "days": 3 * day, "short": time.Hour, "none": 0} {
			g := authoritytest.Grant(zone, dnsRead)
			if life > 0 {
				g.ExpiresOn = time.Now().Add(life).Truncate(time.Second)
			}
			c := w.Create()
			c.Name, c.Grant = name, g
			if _, err := w.pen.Do(w.ctx, authoritytest.ByKey(w.Operator), c); err != nil {
				t.Fatal(err)
			}
		}
		var loops sync.WaitGroup
		for range 2 {
			tick := time.NewTicker(time.Hour)
			defer tick.Stop()
			loops.Go(func() { w.pen.GiveNotices(w.ctx, w.past, tick.C) })
		}
		sleep(8 * day)
		w.past.Hold()
		sleep(4 * day) // the notice 30 days ahead falls due meanwhile
		w.past.Release()
		sleep(30 * day)
		got := w.whole()
		// 30, 7 and 1 day ahead of the long one, 1 ahead of the other.
		if got["token.expiring.v1"] != 4 || got["token.expired.v1"] != 3 {
			t.Errorf("%d notices and %d ends, want 4 and 3", got["token.expiring.v1"], got["token.expired.v1"])
		}
		w.stop() // ends the loops, too
		loops.Wait()
	})
}
