package ownership_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// What is decided about a request that was never retrieved through the gateway and about
// one that was, for its owner and for others. The store is asked once, and Release removes
// the claim of a request that is over.
func TestDecisions(t *testing.T) {
	t.Parallel()
	theirs := ownership.Caller{Application: "other-app", SerialNumber: device}
	for _, tt := range []struct {
		name     string
		owned    bool
		caller   ownership.Caller
		call     string
		want     ownership.Verdict
		releases bool
	}{
		{"unknown", false, mine, "retrieve", ownership.Forward, false},
		{"unknown", false, mine, "complete", ownership.Forward, false},
		{"unknown", false, mine, "cancel", ownership.Forward, false},
		{"unknown", false, mine, "cancel wrapped", ownership.Forward, false},

		{"owned", true, mine, "retrieve", ownership.AlreadyOwned, false},
		{"owned", true, mine, "complete", ownership.Forward, true},
		{"owned", true, mine, "cancel", ownership.Forward, true},
		{"owned", true, mine, "cancel wrapped", ownership.Forward, true},

		{"other application", true, theirs, "cancel", ownership.Foreign, false},
		{"other application", true, theirs, "cancel wrapped", ownership.Foreign, false},
		{"no application", true, ownership.Caller{SerialNumber: device}, "cancel", ownership.Foreign, false},
		{"other device", true, ownership.Caller{Application: application, SerialNumber: "VDS1000000-2"}, "cancel", ownership.Foreign, false},
		{"same device, lowercase", true, ownership.Caller{Application: application, SerialNumber: strings.ToLower(device)}, "cancel", ownership.Foreign, false},
		{"other application and device", true, ownership.Caller{Application: "other-app", SerialNumber: "VDS1000000-2"}, "cancel", ownership.Foreign, false},
	} {
		for i, kind := range kinds {
			for _, policy := range []ownership.UnknownRequests{"", ownership.ForwardUnknown, ownership.RefuseUnknown} {
				t.Run(fmt.Sprintf("%s: %s %s %s", tt.name, tt.call, kind, policy), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, func(c *ownership.Config) { c.Unknown = policy })
					// Neither another kind nor another request has any influence.
					w.claimed(kinds[1-i], plain, application, device, "primary")
					w.claimed(kind, plain+"0", application, "VDS1000000-3", "primary")
					left := []string{plain, plain + "0"}
					want, instances := tt.want, []string(nil)
					if tt.owned {
						w.claimed(kind, plain, application, device, "backup")
						if left = slices.Insert(left, 0, plain); tt.releases {
							left = left[1:]
						}
						if tt.want == ownership.Forward {
							instances = []string{"backup"}
						}
					} else if policy == ownership.RefuseUnknown && strings.HasPrefix(tt.call, "cancel") {
						want = ownership.Foreign
					}
					call := calls[tt.call]
					d, err := call.do(t.Context(), w.Service, kind, tt.caller)
					w.is(d, err, call.asks, want, tt.owned, instances...)
					w.released(d, tt.releases, left...)
				})
			}
		}
	}
}

// With RefusePlain a cancellation by a plain key is refused for everybody without a look-
// up. Wrapped keys are treated as always.
func TestPlainCancelIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *ownership.Config) { c.PlainCancel = ownership.RefusePlain })
	w.claimed(ownership.Login, plain, application, device, "primary")
	for _, claimant := range []ownership.Caller{mine, {Application: "other-app", SerialNumber: device}} {
		d, err := w.Cancelling(t.Context(), ownership.Login, plain, claimant)
		if err != nil || d.Verdict != ownership.PlainKey || len(w.store.TakeCalls()) != 0 {
			t.Errorf("decision %+v, error %v", d, err)
		}
		w.released(d, false, plain)
	}
	d, err := w.Cancelling(t.Context(), ownership.Login, form.Key(wrapped), mine)
	w.is(d, err, "Pending", ownership.Forward, true, "primary")
}

// A wrapped key goes to the instances of all requests of the device that the application
// may cancel. Only for a single request it is known which one the key means.
func TestWrappedKeyOfSeveralRequests(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.claimed(kind, "3", application, device, "second")
			w.claimed(kind, "1", application, device, "third")
			w.claimed(kind, "4", application, device, "third")
			w.claimed(kind, "2", "other-app", device, "first")
			w.claimed(kind, "5", application, "VDS1000000-2", "first")
			d, err := w.Cancelling(t.Context(), kind, form.Key(wrapped), mine)
			w.is(d, err, "Pending", ownership.Forward, true, "third", "second")
			w.released(d, false, "1", "2", "3", "4", "5")

			// With another application's beside it, it is not clear either.
			for _, key := range []string{"3", "4"} {
				d, err := w.Completing(t.Context(), kind, form.PlainKey(key))
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Release(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
			w.store.TakeCalls()
			d, err = w.Cancelling(t.Context(), kind, form.Key(wrapped), mine)
			w.is(d, err, "Pending", ownership.Forward, true, "third")
			w.released(d, false, "1", "2", "5")
		})
	}
}

// Release removes only the claim that was decided about, not a later one to the same
// request.
func TestReleaseOfAnEarlierClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, plain, application, device, "primary")
	d, err := w.Completing(t.Context(), ownership.Login, plain)
	w.is(d, err, "Owner", ownership.Forward, true, "primary")
	w.released(d, true)
	w.claimed(ownership.Login, plain, "other-app", device, "backup")
	w.released(d, true, plain)
}
