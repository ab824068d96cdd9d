package expiring

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A Map agrees with a plain map of values and times: it removes nothing before its end, Expire
// removes everything that has ended, and DeleteFirst removes what ends first.
func TestMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type kept struct {
			value int
			end   time.Time
		}
		now := time.Unix(0, 0)
		m, model := New[int](), map[string]kept{}
		keys := rapid.Map(rapid.IntRange(1, 6), func(i int) string { return fmt.Sprintf("key-%d", i) })
		first := func() (end time.Time) {
			for _, k := range model {
				if end.IsZero() || k.end.Before(end) {
					end = k.end
				}
			}
			return end
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if m.Len() != len(model) || len(m.entries) != len(model) {
					t.Fatalf("%d values and %d keys, want %d", m.Len(), len(m.entries), len(model))
				}
				for key, k := range model {
					if value, end, ok := m.Get(key); !ok || value != k.value || !end.Equal(k.end) {
						t.Fatalf("%s: %d until %v (%v), want %d until %v", key, value, end, ok, k.value, k.end)
					}
				}
				key, end, ok := m.First()
				if ok != (len(model) > 0) || ok && (!end.Equal(first()) || !model[key].end.Equal(end)) {
					t.Fatalf("first is %s until %v (%v)", key, end, ok)
				}
			},
			"put": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				k := kept{rapid.Int().Draw(t, "value"), now.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "seconds")) * time.Second)}
				m.Put(key, k.value, k.end)
				model[key] = k
			},
			"delete": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				m.Delete(key)
				delete(model, key)
			},
			"delete first": func(t *rapid.T) {
				end := first()
				m.DeleteFirst()
				for key, k := range model {
					if _, _, ok := m.Get(key); !ok && k.end.Equal(end) {
						delete(model, key)
						return
					}
				}
			},
			"expire": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "seconds")) * time.Second)
				m.Expire(now, m.Len())
				for key, k := range model {
					if !now.Before(k.end) {
						delete(model, key)
					}
				}
			},
			"expire one": func(t *rapid.T) {
				before, end := m.Len(), first()
				m.Expire(now, 1)
				want := before
				if before > 0 && !now.Before(end) {
					want--
				}
				if m.Len() != want {
					t.Fatalf("%d of %d are left, want %d", m.Len(), before, want)
				}
				for key := range model {
					if _, _, ok := m.Get(key); !ok {
						delete(model, key)
					}
				}
			},
		})
	})
}
