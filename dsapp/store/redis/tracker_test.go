package redis

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The tracker agrees with a plain map of identifiers and moments: never more than
// the limit, nobody forgotten too early or kept too long.
func TestTracker(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const limit = 3
		now := time.Unix(0, 0)
		tr := newTracker(limit, func() time.Time { return now })
		model := map[string]time.Time{}
		claims := map[string]ticket{} // the latest, unless somebody held after it
		identifiers := rapid.Map(rapid.IntRange(1, 6), func(i int) string { return fmt.Sprintf("id-%d", i) })
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if n := tr.held.Len(); n > limit {
					t.Fatalf("%d identifiers, limit %d", n, limit)
				}
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "seconds")) * time.Second)
				for identifier, until := range model {
					if !now.Before(until) {
						delete(model, identifier)
					}
				}
			},
			"hold": func(t *rapid.T) {
				identifier := identifiers.Draw(t, "identifier")
				d := time.Duration(rapid.IntRange(1, 9).Draw(t, "seconds")) * time.Second
				until, before := model[identifier]
				want := before || len(model) < limit
				held, c := tr.hold(identifier, d)
				if held != want || (c != 0) != (want && !before) {
					t.Fatalf("held %v, claim %v, want %v, new %v", held, c, want, want && !before)
				}
				claims[identifier] = c
				if want && now.Add(d).After(until) {
					model[identifier] = now.Add(d)
				}
			},
			"release": func(t *rapid.T) {
				identifier := identifiers.Draw(t, "identifier")
				c := claims[identifier]
				if c == 0 {
					// A claim that is not the latest releases nothing.
					c = ticket(rapid.Uint64().Draw(t, "claim")) | 1<<63
				} else {
					delete(model, identifier)
				}
				tr.release(identifier, c)
				delete(claims, identifier)
			},
		})
	})
}
