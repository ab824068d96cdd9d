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

// inFlight is the token of the proof in flight that createInUse leaves.
var inFlight = activation.Token{3}

// createInUse creates a registration with one activation, one wrong proof, one proof in flight,
// the right to add one device, and a handshake.
func createInUse(t testing.TB, s *redis.Store, r activation.Record) {
	t.Helper()
	create(t, s, r)
	prove(t, s, r, activation.Token{1})
	for _, token := range []activation.Token{{2}, inFlight} {
		put(t, s, r.Identifier, handshake(r))
		take(t, s, r.Identifier, token, 10, true)
	}
	settle(t, s, r, activation.Token{2}, false)
	put(t, s, r.Identifier, handshake(r))
}

// readers returns calls of all methods that read a registration.
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
			_, _, err := s.Settle(ctx, id, settlement(r, inFlight, true))
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

// content returns the values of all keys of an identifier.
func content(t testing.TB, server *redistest.Server, identifier string) string {
	t.Helper()
	return server.Command(t, "HGETALL", "dsapp:{"+identifier+"}:reg") + "\n" + server.Command(t, "HGETALL", "dsapp:{"+identifier+"}:hs")
}

// If a field of a registration has a value that no script can have written, every call that reads
// it fails with activation.ErrDamaged and changes nothing. Remove removes the registration.
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
		// createInUse has made two attempts, one proof in flight, one activation and one
		// right to add a device.
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
			createInUse(t, s, r)
			key := "dsapp:{" + r.Identifier + "}:reg"
			if value == missing {
				server.Command(t, "HDEL", key, field)
			} else {
				server.Command(t, "HSET", key, field, value)
			}
			before := content(t, server, r.Identifier)
			for name, call := range readers(s, r) {
				if field == "i" && value == "0" && name != "Settle" {
					// Only Settle compares this with the proofs in flight.
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

// The counters of a registration of the kind affinity have the same limits, except that n may be
// greater than the number of activations.
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

// If the fields of a handshake, of the index or of contention have a value that no script can have
// written, the calls that read them fail with activation.ErrDamaged and change nothing.
func TestDamagedHandshakes(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	const hs = "dsapp:{id-1}:hs"
	r := record("id-1")
	create(t, s, r)
	takeErr := func() error {
		_, _, err := s.Take(t.Context(), "id-1", activation.Token{9}, activation.Tag{}, 3)
		return err
	}
	putErr := func() error {
		_, err := s.PutHandshake(t.Context(), "id-1", handshake(r))
		return err
	}
	if err := putErr(); err != nil {
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
			errs := map[string]error{"take": takeErr()}
			if field != "1" {
				// PutHandshake does not read other handshakes.
				errs["put"] = putErr()
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
	if err := takeErr(); err != nil {
		t.Errorf("the handshake as it was: %v", err)
	}
}

// For random changes of a handshake or of a field of a registration, calls succeed or fail with
// activation.ErrDamaged, and counters stay within their limits.
func TestRandomDamage(t *testing.T) {
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
		createInUse(t, s, r)
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

// A value of another type in place of a registration or of handshakes is damaged.
func TestOtherTypesAreDamaged(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	create(t, s, r)
	server.Command(t, "SET", "dsapp:{id-1}:hs", "a string")
	if _, err := s.PutHandshake(t.Context(), "id-1", handshake(r)); !errors.Is(err, activation.ErrDamaged) {
		t.Errorf("put handshake: error %v", err)
	}
	if _, _, err := s.Take(t.Context(), "id-1", activation.Token{1}, activation.Tag{}, 3); !errors.Is(err, activation.ErrDamaged) {
		t.Errorf("take: error %v", err)
	}
	server.Command(t, "DEL", "dsapp:{id-1}:hs")
	server.Command(t, "SET", "dsapp:{id-1}:reg", "a string")
	for name, call := range readers(s, r) {
		if err := call(t.Context()); !errors.Is(err, activation.ErrDamaged) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
