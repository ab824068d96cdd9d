package ownership

import (
	"slices"
	"testing"
)

// Every cell of the decision table: what is known of the owner against what the call
// does.
func TestDecide(t *testing.T) {
	t.Parallel()
	c := Caller{Application: "bank-app", SerialNumber: "VDS1000000-1"}
	claim := func(key string, o Owner) openedClaim {
		return openedClaim{kind: Login, key: key, token: Token{1}, owner: o}
	}
	own := claim("1", Owner{c.Application, c.SerialNumber, "primary"})
	ownBackup := claim("2", Owner{c.Application, c.SerialNumber, "backup"})
	ownAgain := claim("3", Owner{c.Application, c.SerialNumber, "primary"})
	otherApplication := claim("4", Owner{"other-app", c.SerialNumber, "backup"})
	otherDevice := claim("5", Owner{c.Application, "VDS1000000-2", "backup"})
	otherCase := claim("6", Owner{c.Application, "vds1000000-1", "backup"})
	stranger := claim("7", Owner{"other-app", "VDS1000000-2", "backup"})
	unknown := []openedClaim(nil)

	for _, tt := range []struct {
		name    string
		op      operation
		found   []openedClaim
		want    Verdict
		to      []string
		release string // key
	}{
		{"retrieve unknown", retrieving, unknown, Forward, nil, ""},
		{"retrieve own", retrieving, []openedClaim{own}, AlreadyOwned, nil, ""},
		{"retrieve another's", retrieving, []openedClaim{stranger}, AlreadyOwned, nil, ""},

		{"complete unknown", completing, unknown, Forward, nil, ""},
		{"complete own", completing, []openedClaim{own}, Forward, []string{"primary"}, "1"},
		{"complete another's", completing, []openedClaim{stranger}, Forward, []string{"backup"}, "7"},

		{"cancel unknown", cancelling, unknown, Forward, nil, ""},
		{"cancel own", cancelling, []openedClaim{own}, Forward, []string{"primary"}, "1"},
		{"cancel that of another application", cancelling, []openedClaim{otherApplication}, Foreign, nil, ""},
		{"cancel that of another device", cancelling, []openedClaim{otherDevice}, Foreign, nil, ""},
		{"cancel that of a device in other case", cancelling, []openedClaim{otherCase}, Foreign, nil, ""},
		{"cancel a stranger's", cancelling, []openedClaim{stranger}, Foreign, nil, ""},

		{"cancel wrapped unknown", cancellingWrapped, unknown, Forward, nil, ""},
		{"cancel wrapped own", cancellingWrapped, []openedClaim{own}, Forward, []string{"primary"}, "1"},
		{"cancel wrapped that of another application", cancellingWrapped, []openedClaim{otherApplication}, Foreign, nil, ""},
		{"cancel one of two on two instances", cancellingWrapped, []openedClaim{own, ownBackup}, Forward, []string{"primary", "backup"}, ""},
		{"cancel one of two, listed the other way", cancellingWrapped, []openedClaim{ownBackup, own}, Forward, []string{"backup", "primary"}, ""},
		{"cancel one of two on one instance", cancellingWrapped, []openedClaim{own, ownAgain}, Forward, []string{"primary"}, ""},
		{"cancel one of three", cancellingWrapped, []openedClaim{own, ownBackup, ownAgain}, Forward, []string{"primary", "backup"}, ""},
		{"cancel beside another application's", cancellingWrapped, []openedClaim{otherApplication, own}, Forward, []string{"primary"}, ""},
		{"cancel among other applications'", cancellingWrapped, []openedClaim{otherApplication, stranger}, Foreign, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, policy := range []UnknownRequests{ForwardUnknown, RefuseUnknown} {
				want := tt.want
				if policy == RefuseUnknown && tt.op >= cancelling && tt.found == nil {
					want = Foreign
				}
				d := decide(tt.op, tt.found, c, policy)
				if d.Verdict != want || d.Known != (tt.found != nil) || !slices.Equal(d.Instances, tt.to) || d.StoreErr != nil {
					t.Errorf("unknown requests: %s: %+v, want %s to %v", policy, d, want, tt.to)
				}
				var release string
				if d.release != nil {
					release = d.release.key
				}
				if release != tt.release {
					t.Errorf("unknown requests: %s: releases %q, want %q", policy, release, tt.release)
				}
			}
		})
	}
}
