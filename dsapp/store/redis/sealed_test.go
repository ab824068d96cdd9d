package redis_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// Every sealed value is visited, in every deployment, and none of another prefix, although a
// prefix may have the characters of a pattern.
func TestSealed(t *testing.T) {
	t.Parallel()
	for name, d := range deployments(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, d.settings)
			s := redis.New(client, redis.Options{KeyPrefix: "sealed[*]"})
			fill(t, s)
			fill(t, redis.New(client, redis.Options{KeyPrefix: "sealedx"}))
			var got []string
			if err := s.Sealed(t.Context(), func(value []byte) { got = append(got, string(value)) }); err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			if want := []string{"data", "facts", "owner", "secret", "state", "verifier"}; !slices.Equal(got, want) {
				t.Errorf("visited %q, want %q", got, want)
			}
			infos, err := s.Info(t.Context())
			if err != nil || len(infos) == 0 {
				t.Fatalf("%d servers, error %v", len(infos), err)
			}
			for _, i := range infos {
				if i.Role != "master" || i.Policy != "noeviction" || i.UsedMemory == 0 || i.Denied || !strings.Contains(i.Version, ".") {
					t.Errorf("server %+v", i)
				}
			}
		})
	}
}

// fill stores one value of each kind.
func fill(t *testing.T, s *redis.Store) {
	t.Helper()
	g := activation.Generation{1}
	_, _, created := s.Create(t.Context(), activation.Record{
		Identifier: "id-1", Generation: g, Kind: activation.KindMDL,
		Facts: []byte("facts"), Verifier: []byte("verifier"), Data: []byte("data"), Lifetime: time.Minute,
	}, activation.Generation{})
	_, put := s.PutHandshake(t.Context(), "id-1", activation.Handshake{Generation: g, State: []byte("state"), Lifetime: time.Minute})
	_, claimed := s.Claim(t.Context(), ownership.Login, ownership.Claim{Key: "1", Owner: []byte("owner")}, "device-1", time.Minute)
	_, secret := s.SimulationSecret(t.Context(), []byte("secret"))
	if err := errors.Join(created, put, claimed, secret); err != nil {
		t.Fatal(err)
	}
}

// Without the rights, Sealed says which one is needed, and Info says that it was denied.
func TestSealedNeedsScan(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Command(t, append([]string{"ACL", "SETUSER", "gateway", "on", ">gateway-password", "~dsapp:*", "-@all"}, permissions...)...)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Username: "gateway", Password: "gateway-password"}), redis.Options{})
	if err := s.Sealed(t.Context(), func([]byte) {}); !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "+scan") {
		t.Errorf("error %v", err)
	}
	if infos, err := s.Info(t.Context()); err != nil || len(infos) != 1 || !infos[0].Denied || infos[0].Address != server.Addr() {
		t.Errorf("%+v, error %v", infos, err)
	}
	server.Command(t, "ACL", "SETUSER", "gateway", "+scan", "+info")
	if err := s.Sealed(t.Context(), func([]byte) {}); err != nil {
		t.Error(err)
	}
}
