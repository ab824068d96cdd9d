package embedded

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
)

// Contention is reported again exactly after ContentionInterval. Until then, and not longer, the
// identifier is kept.
func TestContentionInterval(t *testing.T) {
	t.Parallel()
	now := clock.New()
	hs := newHandshakes(10)
	put := func(source byte, want bool) {
		t.Helper()
		h := activation.Handshake{Source: activation.Tag{source}, Lifetime: 5 * activation.ContentionInterval}
		if got := hs.put("id-1", h, false, now.Now()); got != want {
			t.Fatalf("from %d: contended %v", source, got)
		}
	}
	put(1, false)
	put(2, true)
	now.Advance(activation.ContentionInterval - 1)
	put(1, false)
	now.Advance(1)
	put(2, true)
	for range 2 {
		if _, ok := hs.take("id-1", activation.Tag{}, now.Now()); !ok {
			t.Fatal("no handshake")
		}
	}
	now.Advance(activation.ContentionInterval - 1)
	hs.sweep(now.Now())
	if n := hs.simulated.Len(); n != 1 {
		t.Errorf("%d identifiers are kept, want the one with contention", n)
	}
	hs.sweep(now.Now().Add(1))
	if n, size := hs.simulated.Len(), hs.simulated.size; n != 0 || size != 0 {
		t.Errorf("%d identifiers of size %d are kept", n, size)
	}
}

// After random calls, the size of a pool is the sum of its identifiers' sizes, the size of the
// simulated pool is at most the limit, and no identifier has more than MaxHandshakes.
func TestHandshakesSize(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const limit = 6
		now := clock.New()
		hs := newHandshakes(limit)
		registered := map[string]bool{}
		identifiers := rapid.Map(rapid.IntRange(1, 6), func(i int) string { return fmt.Sprintf("id-%d", i) })
		tags := rapid.Map(rapid.ByteRange(0, 5), func(b byte) activation.Tag { return activation.Tag{b} })
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for name, p := range map[string]*pool{"genuine": &hs.genuine, "simulated": &hs.simulated} {
					size := 0
					for i := range 6 {
						if w, _, ok := p.Get(fmt.Sprintf("id-%d", i+1)); ok {
							size += w.size()
							if len(w.handshakes) > activation.MaxHandshakes {
								t.Fatalf("%d handshakes of one identifier", len(w.handshakes))
							}
						}
					}
					if p.size != size {
						t.Fatalf("%s: size %d, want %d", name, p.size, size)
					}
				}
				if hs.simulated.size > limit {
					t.Fatalf("size %d, limit %d", hs.simulated.size, limit)
				}
			},
			"put": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				h := activation.Handshake{Source: tags.Draw(t, "source"), Lifetime: time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second}
				hs.put(id, h, registered[id], now.Now())
			},
			"take":     func(t *rapid.T) { hs.take(identifiers.Draw(t, "identifier"), tags.Draw(t, "source"), now.Now()) },
			"forget":   func(t *rapid.T) { hs.forget(identifiers.Draw(t, "identifier")) },
			"register": func(t *rapid.T) { registered[identifiers.Draw(t, "identifier")] = rapid.Bool().Draw(t, "registered") },
			"wait":     func(t *rapid.T) { now.Advance(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second) },
			"sweep":    func(*rapid.T) { hs.sweep(now.Now()) },
		})
	})
}
