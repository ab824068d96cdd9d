package embedded_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// Every sealed value in the files is visited, and none that has ended.
func TestSealed(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "dsapp.db"), embedded.Options{})
	for _, r := range []activation.Record{
		{Identifier: "id-1", Facts: []byte("facts"), Verifier: []byte("verifier"), Data: []byte("data"), Lifetime: time.Minute},
		{Identifier: "id-2", Facts: []byte("ended"), Lifetime: time.Nanosecond},
	} {
		r.Kind = activation.KindMDL
		if _, _, err := s.Create(t.Context(), r, activation.Generation{}); err != nil {
			t.Fatal(err)
		}
	}
	// One is archived, one is released there, one is recent.
	for i, key := range []string{"archived", "released"} {
		mustClaim(t, s, ownership.Claim{Key: key, Token: ownership.Token{byte(i)}, Owner: []byte(key)}, "device-1", time.Minute)
	}
	if err := errors.Join(s.Archive(), s.Release(t.Context(), ownership.Login, "released", ownership.Token{1}, "device-1")); err != nil {
		t.Fatal(err)
	}
	_, claimed := s.Claim(t.Context(), ownership.Login, ownership.Claim{Key: "1", Owner: []byte("owner")}, "device-1", time.Minute)
	_, secret := s.SimulationSecret(t.Context(), []byte("secret"))
	var got []string
	visited := s.Sealed(t.Context(), func(value []byte) { got = append(got, string(value)) })
	if err := errors.Join(claimed, secret, visited); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if want := []string{"archived", "data", "facts", "owner", "secret", "verifier"}; !slices.Equal(got, want) {
		t.Errorf("visited %q, want %q", got, want)
	}
}
