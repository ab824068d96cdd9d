// Package store_test checks that the stores read what earlier versions stored.
package store_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

// The folder testdata has what versions of the program stored: the file of an embedded store,
// the keys of a Redis server, and what their phones know. Every later version must be able to use
// it. The number at the end of a name is that of the form: in form 1, registrations in a file
// have their counters among the sealed parts, and activation messages are hex digits.

var update = flag.Bool("update", false, "write the stores of the latest form anew")

// latest is the form that this version stores.
const latest = 2

// forever is longer than these files will be used.
const forever = 100 * 365 * 24 * time.Hour

// Identifiers of the registrations that were stored.
const (
	fresh    = "fresh-1"
	waiting  = "waiting-1" // between the two calls of an exchange
	proven   = "proven-1"
	burned   = "burned-1"
	affinity = "affinity-1"
	unknown  = "unknown-1"
)

const (
	activationMessage = "0A1B2C3D4E5F60718293A4B5C6D7E8F9"
	loginKey          = "8408980524"
	serialNumber      = "VDS1000003-1"
)

// phones is what the phones of a stored state know.
type phones struct {
	// Passwords by identifier.
	Passwords map[string]string
	// Evidence for the exchange that waits for it.
	Evidence string
	// Salt of the unknown identifier.
	Salt string
}

var (
	profile = "rfc5054-2048-sha256"
	origin  = activation.Origin{Address: "192.0.2.1", Application: "mobile-app"}
	device  = ownership.Caller{Application: "mobile-app", SerialNumber: serialNumber}
)

type bothStores interface {
	activation.Store
	ownership.Store
}

// lasting is a store in which no lifetime ends.
type lasting struct{ bothStores }

func (s lasting) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (activation.Record, bool, error) {
	r.Lifetime = forever
	return s.bothStores.Create(ctx, r, replaces)
}

func (s lasting) PutHandshake(ctx context.Context, identifier string, h activation.Handshake) (bool, error) {
	h.Lifetime, h.RecordLifetime = forever, forever
	return s.bothStores.PutHandshake(ctx, identifier, h)
}

func (s lasting) Claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, _ time.Duration) (bool, error) {
	return s.bothStores.Claim(ctx, kind, c, serialNumber, forever)
}

type services struct {
	*activation.Service

	owners *ownership.Service
}

func newServices(t *testing.T, s bothStores) services {
	t.Helper()
	ring, err := seal.NewKeyring(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	p, err := srp.LookupProfile(profile)
	if err != nil {
		t.Fatal(err)
	}
	a, err := activation.New(activation.Config{
		Open:     func(context.Context) (activation.Store, *seal.Keyring, error) { return s, ring, nil },
		Profiles: []activation.Profile{p},
	})
	if err != nil {
		t.Fatal(err)
	}
	o, err := ownership.New(ownership.Config{
		Open: func(context.Context) (ownership.Store, *seal.Keyring, error) { return s, ring, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return services{a, o}
}

// begin makes the first call of an exchange and returns the client's evidence.
func (s services) begin(t *testing.T, identifier, password string) (c *srp.Client, evidence, salt string) {
	t.Helper()
	p, err := srp.LookupProfile(profile)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = p.NewClient(identifier, password); err != nil {
		t.Fatal(err)
	}
	challenge, err := s.Begin(t.Context(), form.Identifier(identifier), form.ClientPublic(hex.EncodeToString(c.Public())), origin)
	if err != nil {
		t.Fatal(err)
	}
	m1, err := c.Prove(digits.Decode(t, challenge.Salt), digits.Decode(t, challenge.ServerPublic))
	if err != nil {
		t.Fatal(err)
	}
	return c, hex.EncodeToString(m1), challenge.Salt
}

// fill stores a registration in every state, a begun exchange and an owner.
func (s services) fill(t *testing.T) phones {
	t.Helper()
	known := phones{Passwords: map[string]string{}}
	for _, identifier := range []string{fresh, waiting, proven, burned, affinity} {
		r := activation.Registration{
			Identifier: form.Identifier(identifier), Kind: activation.KindMDL, Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "primary"}, Data: activation.ActivationData{ActivationMessage: activationMessage}, Started: time.Now(),
		}
		if identifier == affinity {
			r.Kind, r.Data = activation.KindAffinity, activation.ActivationData{}
		}
		registered, err := s.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		known.Passwords[identifier] = registered.Password
	}
	for range 3 {
		_, evidence, _ := s.begin(t, burned, "a wrong password")
		if _, err := s.Prove(t.Context(), burned, form.ClientEvidence(evidence), origin); err == nil {
			t.Fatal("a wrong password is right")
		}
	}
	_, evidence, _ := s.begin(t, proven, known.Passwords[proven])
	if _, err := s.Prove(t.Context(), proven, form.ClientEvidence(evidence), origin); err != nil {
		t.Fatal(err)
	}
	_, known.Evidence, _ = s.begin(t, waiting, known.Passwords[waiting])
	_, _, known.Salt = s.begin(t, unknown, "any password")
	owner := ownership.Owner{Application: device.Application, SerialNumber: serialNumber, Instance: "backup"}
	if won, err := s.owners.RecordOwner(t.Context(), ownership.Login, loginKey, owner); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	return known
}

// check uses everything that was stored. handshakes says whether the store keeps
// handshakes over a restart.
func (s services) check(t *testing.T, known phones, handshakes bool) {
	t.Helper()
	if _, _, salt := s.begin(t, unknown, "any password"); salt != known.Salt {
		t.Error("the salt of an unknown identifier changed")
	}
	if _, err := s.Prove(t.Context(), waiting, form.ClientEvidence(known.Evidence), origin); (err == nil) != handshakes {
		t.Errorf("proof of an exchange that was begun before: error %v", err)
	}
	for identifier, want := range map[string]bool{fresh: true, proven: true, burned: false, affinity: false} {
		_, evidence, _ := s.begin(t, identifier, cmp.Or(known.Passwords[identifier], "any password"))
		_, err := s.Prove(t.Context(), form.Identifier(identifier), form.ClientEvidence(evidence), origin)
		if (err == nil) != want || err != nil && !errors.Is(err, activation.ErrRefused) {
			t.Errorf("%s: error %v", identifier, err)
		}
	}
	for _, identifier := range []string{proven, affinity} {
		a, err := s.AdmitDevice(t.Context(), form.Identifier(identifier))
		if err != nil || a.UserID != "jane.doe" || a.Domain != "mydomain.com" || a.Instance != "primary" {
			t.Errorf("%s: %+v, error %v", identifier, a, err)
		}
	}
	d, err := s.owners.Cancelling(t.Context(), ownership.Login, loginKey, device)
	if err != nil || d.Verdict != ownership.Forward || !slices.Equal(d.Instances, []string{"backup"}) {
		t.Errorf("cancel of the owner: %+v, error %v", d, err)
	}
	d, err = s.owners.Cancelling(t.Context(), ownership.Login, loginKey, ownership.Caller{Application: "other-app", SerialNumber: serialNumber})
	if err != nil || d.Verdict != ownership.Foreign {
		t.Errorf("cancel of another: %+v, error %v", d, err)
	}
	d, err = s.owners.Cancelling(t.Context(), ownership.Login, "0A1B2C3D4E5F60718293A4B5C6D7E8F90A1B2C3D4E5F6071", device)
	if err != nil || d.Verdict != ownership.Forward || !slices.Equal(d.Instances, []string{"backup"}) {
		t.Errorf("cancel with a wrapped key: %+v, error %v", d, err)
	}
}

func TestEmbeddedOfEarlierVersion(t *testing.T) {
	t.Parallel()
	for number := 1; number <= latest; number++ {
		t.Run(fmt.Sprintf("form %d", number), func(t *testing.T) {
			t.Parallel()
			file, known := fmt.Sprintf("testdata/embedded-%d.db", number), fmt.Sprintf("testdata/embedded-%d.json", number)
			path := filepath.Join(t.TempDir(), "dsapp.db")
			open := func() (*embedded.Store, services) {
				t.Helper()
				s, err := embedded.Open(path, embedded.Options{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s, newServices(t, lasting{s})
			}
			if *update && number == latest {
				s, services := open()
				write(t, known, services.fill(t))
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				copyFile(t, path, file)
				return
			}
			copyFile(t, file, path)
			contents, err := embedded.Check(path)
			if err != nil || contents.Registrations != 5 || contents.Claims != 1 {
				t.Errorf("%+v, error %v", contents, err)
			}
			s, services := open()
			services.check(t, read[phones](t, known), false)
			if n, _, err := s.Usage(); err != nil || n != 5 {
				t.Errorf("%d registrations, error %v", n, err)
			}
			// What was taken over is there after a restart.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			_, services = open()
			for _, identifier := range []form.Identifier{fresh, proven} {
				if _, err := services.AdmitConfirmation(t.Context(), identifier, activation.KindMDL); err != nil {
					t.Errorf("%s: error %v", identifier, err)
				}
			}
		})
	}
}

func TestRedisOfEarlierVersion(t *testing.T) {
	t.Parallel()
	for number := 1; number <= latest; number++ {
		t.Run(fmt.Sprintf("form %d", number), func(t *testing.T) {
			t.Parallel()
			keys, known := fmt.Sprintf("testdata/redis-keys-%d.json", number), fmt.Sprintf("testdata/redis-%d.json", number)
			server := redistest.Start(t)
			client, err := redis.NewClient(redis.Settings{Addresses: []string{server.Addr()}})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			s := newServices(t, lasting{redis.New(client, redis.Options{})})
			if *update && number == latest {
				write(t, known, s.fill(t))
				write(t, keys, dump(t, server))
				return
			}
			for key, v := range read[map[string]redisValue](t, keys) {
				v.restore(t, server, key)
			}
			s.check(t, read[phones](t, known), true)
		})
	}
}

// redisValue is the value of a key, in a form that every version of Redis takes.
type redisValue struct {
	Type string
	// Text of a string; fields and values of a hash; scores and members of a sorted set.
	Parts [][]byte
	// ExpireAt in milliseconds of Unix time, 0 for never.
	ExpireAt int64
}

func dump(t *testing.T, server *redistest.Server) map[string]redisValue {
	t.Helper()
	values := map[string]redisValue{}
	for key := range strings.FieldsSeq(server.Command(t, "KEYS", "*")) {
		v := redisValue{Type: server.Command(t, "TYPE", key)}
		at, err := strconv.ParseInt(server.Command(t, "PEXPIRETIME", key), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		v.ExpireAt = max(0, at)
		add := func(part string) { v.Parts = append(v.Parts, []byte(part)) }
		switch v.Type {
		case "string":
			add(server.Command(t, "GET", key))
		case "hash":
			n, err := strconv.Atoi(server.Command(t, "HLEN", key))
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Split(server.Command(t, "HKEYS", key), "\n")
			if len(fields) != n {
				t.Fatalf("%s has %d fields, read %q", key, n, fields)
			}
			for _, field := range fields {
				add(field)
				add(server.Command(t, "HGET", key, field))
			}
		case "zset":
			member := server.Command(t, "ZRANGE", key, "0", "0")
			add(server.Command(t, "ZSCORE", key, member))
			add(member)
		default:
			t.Fatalf("%s is a %s", key, v.Type)
		}
		values[key] = v
	}
	return values
}

func (v redisValue) restore(t *testing.T, server *redistest.Server, key string) {
	t.Helper()
	args := []string{map[string]string{"string": "SET", "hash": "HSET", "zset": "ZADD"}[v.Type], key}
	for _, part := range v.Parts {
		args = append(args, string(part))
	}
	server.Command(t, args...)
	if v.ExpireAt > 0 {
		server.Command(t, "PEXPIREAT", key, strconv.FormatInt(v.ExpireAt, 10))
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, v any) {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read[T any](t *testing.T, path string) (v T) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
