package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// flying is the proof in flight of a registration that busy makes.
var flying = activation.Token{3}

// busy makes a registration with one activation, one wrong proof, one proof in
// flight, the right to a device, and a handshake.
func busy(t testing.TB, s *redis.Store, r activation.Record) {
	t.Helper()
	if _, ok, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !ok {
		t.Fatalf("create: %v, error %v", ok, err)
	}
	for _, token := range []activation.Token{{1}, {2}, flying} {
		if _, err := s.PutHandshake(t.Context(), r.Identifier, handshake(r)); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := s.Take(t.Context(), r.Identifier, token, activation.Tag{}, 10); err != nil || !ok {
			t.Fatalf("take: %v, error %v", ok, err)
		}
		if token == flying {
			break
		}
		if _, ok, err := s.Settle(t.Context(), r.Identifier, settlement(r, token, token[0] == 1)); err != nil || ok != (token[0] == 1) {
			t.Fatalf("settle: %v, error %v", ok, err)
		}
	}
	if _, err := s.PutHandshake(t.Context(), r.Identifier, handshake(r)); err != nil {
		t.Fatal(err)
	}
}

// readers are the calls that read what lies under reg, each reduced to its error.
func readers(s *redis.Store, r activation.Record) map[string]func(context.Context) error {
	id := r.Identifier
	return map[string]func(context.Context) error{
		"Create": func(ctx context.Context) error { _, _, err := s.Create(ctx, record(id), r.Generation); return err },
		"Load":   func(ctx context.Context) error { _, _, err := s.Load(ctx, id); return err },
		"Take": func(ctx context.Context) error {
			_, _, err := s.Take(ctx, id, activation.Token{9}, activation.Tag{}, 10)
			return err
		},
		"Settle": func(ctx context.Context) error {
			_, _, err := s.Settle(ctx, id, settlement(r, flying, true))
			return err
		},
		"AdmitDevice":  func(ctx context.Context) error { _, _, err := s.AdmitDevice(ctx, id, 10); return err },
		"ReturnDevice": func(ctx context.Context) error { return s.ReturnDevice(ctx, id, r.Generation) },
		"AdmitConfirmation": func(ctx context.Context) error {
			_, _, err := s.AdmitConfirmation(ctx, id, 10, activation.KindMDL)
			return err
		},
		"ReturnConfirmation": func(ctx context.Context) error { return s.ReturnConfirmation(ctx, id, r.Generation) },
	}
}

// content is everything that lies under the keys of an identifier.
func content(t testing.TB, server *redistest.Server, identifier string) string {
	t.Helper()
	return server.Command(t, "HGETALL", "dsapp:{"+identifier+"}:reg") + "\n" + server.Command(t, "HGETALL", "dsapp:{"+identifier+"}:hs")
}

// What no script has written where it counts or says what a registration is makes
// every call that reads it fail, as what is damaged and not as what is absent, and
// nothing is changed. It goes with the registration.
func TestDamagedRegistrations(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	const missing = "-"
	noNumbers := []string{missing, "", "-1", "+1", "01", " 1", "1 ", "1.0", "1e0", "0x1", "nan", "inf", "one", "1\n", "1\x00", strings.Repeat("9", 30)}
	counters := append([]string{strconv.Itoa(activation.MaxCounter + 1)}, noNumbers...)
	forged := map[string][]string{
		"g": {missing, "", strings.Repeat("g", 15), strings.Repeat("g", 17)},
		"k": {missing, "", "other", "MDL", "mdl "},
		"b": {"", "0", "true"},
		"e": append([]string{"1" + strings.Repeat("0", 15)}, noNumbers...),
		// There are two attempts, one proof in flight, one activation and one right.
		"r": append([]string{"0"}, counters...),
		"i": append([]string{"3", "0"}, counters...),
		"a": append([]string{"0"}, counters...),
		"n": append([]string{"2"}, counters...),
		"c": counters,
	}
	n := 0
	for field, values := range forged {
		for _, value := range values {
			n++
			r := record(fmt.Sprintf("id-%d", n))
			busy(t, s, r)
			key := "dsapp:{" + r.Identifier + "}:reg"
			if value == missing {
				server.Command(t, "HDEL", key, field)
			} else {
				server.Command(t, "HSET", key, field, value)
			}
			before := content(t, server, r.Identifier)
			for name, call := range readers(s, r) {
				if field == "i" && value == "0" && name != "Settle" {
					// Only the proof in flight shows that it is wrong.
					continue
				}
				if err := call(t.Context()); !errors.Is(err, activation.ErrDamaged) || !errors.Is(err, activation.ErrUnavailable) {
					t.Errorf("%s with %s %q: error %v", name, field, value, err)
				}
				if after := content(t, server, r.Identifier); after != before {
					t.Fatalf("%s with %s %q: %q became %q", name, field, value, before, after)
				}
			}
			if field == "g" {
				continue
			}
			if err := s.Remove(t.Context(), r.Identifier, r.Generation); err != nil {
				t.Error(err)
			}
			if got := keys(t, server); strings.Contains(strings.Join(got, " "), r.Identifier) {
				t.Errorf("%s %q: not removed", field, value)
			}
		}
	}
}

// Calls of a registration without an exchange are counted in the same bounds, and
// may be more than its activations.
func TestDamagedAffinity(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	r.Kind, r.Verifier, r.Data = activation.KindAffinity, nil, nil
	create(t, s, r)
	for range 2 {
		if _, ok, err := s.AdmitDevice(t.Context(), "id-1", 3); err != nil || !ok {
			t.Fatalf("admit device: %v, error %v", ok, err)
		}
	}
	if got := server.Command(t, "HMGET", "dsapp:{id-1}:reg", "n", "a"); got != "2\n0" {
		t.Errorf("counters %q", got)
	}
	for _, value := range []string{"-1", "-9000000000000000000", strconv.Itoa(activation.MaxCounter + 1)} {
		server.Command(t, "HSET", "dsapp:{id-1}:reg", "n", value)
		if _, ok, err := s.AdmitDevice(t.Context(), "id-1", 3); !errors.Is(err, activation.ErrDamaged) || ok {
			t.Errorf("n %s: %v, error %v", value, ok, err)
		}
	}
}

// Whatever lies in the place of a handshake, of the list of those that wait, or of
// when contention was told: the calls that read it take it for one, or say that it is
// damaged and change nothing.
func TestDamagedHandshakes(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	const hs = "dsapp:{id-1}:hs"
	r := record("id-1")
	create(t, s, r)
	take := func() error {
		_, _, err := s.Take(t.Context(), "id-1", activation.Token{9}, activation.Tag{}, 3)
		return err
	}
	put := func() error {
		_, err := s.PutHandshake(t.Context(), "id-1", handshake(r))
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	const missing = "-"
	ends := server.Command(t, "HGET", hs, "x")[1:15]
	names, endless := strings.Repeat("n", 48), strings.Repeat("9", 30)
	for field, values := range map[string][]string{
		"1": {
			missing, "", "value", names, names + "20;", names + "1;", names + "1-1;", names + "101;", names + "10x1;", names + "1" + endless + ";", names + "10",
		},
		"x": {
			"value", "1" + ends, "1" + ends + names, "0" + ends + names[:32], "5" + ends + names[:32], "1" + ends[1:] + "x" + names[:32], "1-" + ends[1:] + names[:32],
			"1" + strings.Repeat(" ", 14) + names[:32], strings.Repeat("1"+ends+names[:32], 2), "1" + strings.Repeat("0", 14) + names[:32] + "1" + ends + names[:32],
		},
		"m": {"", "-1", "soon", "1e3", "01", endless},
	} {
		before := server.Command(t, "HMGET", hs, field)
		for _, value := range values {
			if value == missing {
				server.Command(t, "HDEL", hs, field)
			} else {
				server.Command(t, "HSET", hs, field, value)
			}
			forged := content(t, server, "id-1")
			errs := map[string]error{"take": take()}
			if field != "1" {
				// A new handshake does not depend on what is in a place.
				errs["put"] = put()
			}
			for call, err := range errs {
				if !errors.Is(err, activation.ErrDamaged) {
					t.Errorf("%s with %s %q: error %v", call, field, value, err)
				}
			}
			if after := content(t, server, "id-1"); after != forged {
				t.Errorf("%s %q: %q became %q", field, value, forged, after)
			}
		}
		if before == "" {
			server.Command(t, "HDEL", hs, field)
		} else {
			server.Command(t, "HSET", hs, field, before)
		}
	}
	if err := take(); err != nil {
		t.Errorf("the handshake as it was: %v", err)
	}
}

// However a handshake, a counter or a lifetime was changed: no call fails in a
// script, and what is not damaged keeps the counters in their bounds.
func TestSpoilt(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	const reg, hs = "dsapp:{id-1}:reg", "dsapp:{id-1}:hs"
	r := record("id-1")
	fields := []string{"g", "k", "b", "e", "r", "i", "a", "n", "c", "lt", "lo"}
	texts := rapid.OneOf(
		rapid.SampledFrom([]string{"", "0", "1", "2", "3", "4", "1000000", "1000001", "mdl", "affinity", "simulated", ";", "9007199254740993"}),
		rapid.StringMatching(`[-+0-9.ex; ]{0,20}`), rapid.StringN(0, 20, 40),
	)
	rapid.Check(t, func(rt *rapid.T) {
		server.FlushAll(t)
		busy(t, s, r)
		if field := rapid.SampledFrom([]string{"", "1", "x"}).Draw(rt, "handshake"); field != "" {
			text := server.Command(t, "HGET", hs, field)
			from := rapid.IntRange(0, len(text)).Draw(rt, "from")
			to := rapid.IntRange(from, len(text)).Draw(rt, "to")
			server.Command(t, "HSET", hs, field, text[:from]+texts.Draw(rt, "text")+text[to:])
		} else {
			server.Command(t, "HSET", reg, rapid.SampledFrom(fields).Draw(rt, "field"), texts.Draw(rt, "text"))
		}
		calls := readers(s, r)
		calls["PutHandshake"] = func(ctx context.Context) error {
			_, err := s.PutHandshake(ctx, "id-1", handshake(r))
			return err
		}
		for range 4 {
			name := rapid.SampledFrom([]string{
				"Create", "Load", "PutHandshake", "Take", "Settle", "AdmitDevice", "ReturnDevice", "AdmitConfirmation", "ReturnConfirmation",
			}).Draw(rt, "call")
			err := calls[name](t.Context())
			if err != nil && !errors.Is(err, activation.ErrDamaged) {
				rt.Fatalf("%s: %v", name, err)
			}
			if name != "Load" || err != nil {
				continue
			}
			for _, field := range []string{"r", "i", "a", "n", "c"} {
				text := server.Command(t, "HGET", reg, field)
				if n, err := strconv.Atoi(text); text != "" && (err != nil || n < 0 || n > activation.MaxCounter) {
					rt.Fatalf("%s is %q", field, text)
				}
			}
		}
	})
}

// A value of another type where a registration or handshakes should be is damaged,
// too.
func TestOtherTypesAreDamaged(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	create(t, s, r)
	server.Command(t, "SET", "dsapp:{id-1}:hs", "a string")
	if _, err := s.PutHandshake(t.Context(), "id-1", handshake(r)); !errors.Is(err, activation.ErrDamaged) {
		t.Errorf("put handshake: error %v", err)
	}
	server.Command(t, "DEL", "dsapp:{id-1}:hs")
	server.Command(t, "SET", "dsapp:{id-1}:reg", "a string")
	for name, call := range readers(s, r) {
		if err := call(t.Context()); !errors.Is(err, activation.ErrDamaged) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
