package redis

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
)

// The tracker agrees with a plain map of identifiers and times: it holds no more than the limit,
// and no identifier for too short or too long.
func TestIdentifierTracker(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const limit = 3
		now := clock.New()
		tr := newTracker(limit, now.Now)
		model := map[string]time.Time{}
		tickets := map[string]ticket{} // of the latest hold, 0 if it began nothing
		identifiers := rapid.Map(rapid.IntRange(1, 6), func(i int) string { return fmt.Sprintf("id-%d", i) })
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if n := tr.held.Len(); n > limit {
					t.Fatalf("%d identifiers, limit %d", n, limit)
				}
			},
			"time": func(t *rapid.T) {
				now.Advance(time.Duration(rapid.IntRange(1, 5).Draw(t, "seconds")) * time.Second)
				for identifier, until := range model {
					if !now.Now().Before(until) {
						delete(model, identifier)
					}
				}
			},
			"hold": func(t *rapid.T) {
				identifier := identifiers.Draw(t, "identifier")
				d := time.Duration(rapid.IntRange(1, 9).Draw(t, "seconds")) * time.Second
				until, before := model[identifier]
				want := before || len(model) < limit
				held, got := tr.hold(identifier, d)
				if held != want || (got != 0) != (want && !before) {
					t.Fatalf("held %v, ticket %v, want %v, new %v", held, got, want, want && !before)
				}
				tickets[identifier] = got
				if want && now.Now().Add(d).After(until) {
					model[identifier] = now.Now().Add(d)
				}
			},
			"release": func(t *rapid.T) {
				identifier := identifiers.Draw(t, "identifier")
				last := tickets[identifier]
				if last == 0 {
					// An unknown ticket releases nothing.
					last = ticket(rapid.Uint64().Draw(t, "ticket")) | 1<<63
				} else {
					delete(model, identifier)
				}
				tr.release(identifier, last)
				delete(tickets, identifier)
			},
		})
	})
}
