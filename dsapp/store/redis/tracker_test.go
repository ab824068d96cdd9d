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
		identifiers := rapid.Map(rapid.IntRange(1, 6), func(i int) string { return fmt.Sprintf("id-%d", i) })
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if len(tr.holds) > limit || len(tr.order) != len(tr.holds) {
					t.Fatalf("%d identifiers, %d in order, limit %d", len(tr.holds), len(tr.order), limit)
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
				held, added := tr.hold(identifier, d)
				if held != want || added != (want && !before) {
					t.Fatalf("held %v, added %v, want %v, %v", held, added, want, want && !before)
				}
				if want && now.Add(d).After(until) {
					model[identifier] = now.Add(d)
				}
			},
			"release": func(t *rapid.T) {
				identifier := identifiers.Draw(t, "identifier")
				tr.release(identifier)
				delete(model, identifier)
			},
		})
	})
}
