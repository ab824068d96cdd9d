package embedded

import (
	"errors"
	"math"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// Every call that reads an entry with values that no Store writes fails with
// activation.ErrDamaged and changes nothing.
func TestDamagedEntries(t *testing.T) {
	t.Parallel()
	const id = "id-1"
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	inFlight := activation.Token{3}
	good := func() *entry {
		return &entry{
			generation: activation.Generation{1}, kind: activation.KindMDL, expires: now.Add(time.Minute).UnixNano(),
			reserved: 2, inFlight: []activation.Token{inFlight}, activations: 2, devices: 1, confirmations: 1,
			parts: parts{facts: []byte("facts"), verifier: []byte("verifier"), data: []byte("data")},
		}
	}
	for name, c := range map[string]struct {
		forge func(e *entry)
		valid bool
	}{
		"as it was":             {func(*entry) {}, true},
		"all rights":            {func(e *entry) { e.devices = e.activations }, true},
		"standard":              {func(e *entry) { e.kind = activation.KindStandard }, true},
		"simulated":             {func(e *entry) { e.kind, e.activations, e.devices = activation.KindSimulated, 0, 0 }, true},
		"affinity":              {func(e *entry) { e.kind, e.activations = activation.KindAffinity, 0 }, true},
		"the greatest":          {func(e *entry) { e.reserved, e.confirmations = activation.MaxCounter, activation.MaxCounter }, true},
		"more rights":           {func(e *entry) { e.devices = e.activations + 1 }, false},
		"more in flight":        {func(e *entry) { e.reserved = 0 }, false},
		"absurd attempts":       {func(e *entry) { e.reserved = activation.MaxCounter + 1 }, false},
		"absurd activations":    {func(e *entry) { e.activations = activation.MaxCounter + 1 }, false},
		"absurd confirmations":  {func(e *entry) { e.confirmations = math.MaxUint32 }, false},
		"absurd device calls":   {func(e *entry) { e.kind, e.devices = activation.KindAffinity, activation.MaxCounter+1 }, false},
		"no kind":               {func(e *entry) { e.kind = "" }, false},
		"another kind":          {func(e *entry) { e.kind = "other" }, false},
		"no lifetime":           {func(e *entry) { e.expires = 0 }, false},
		"a negative lifetime":   {func(e *entry) { e.expires = -1 }, false},
		"an endless tombstone":  {func(e *entry) { e.burned, e.expires = true, math.MaxInt64 }, false},
		"a tombstone, in bound": {func(e *entry) { e.burned = true }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(filepath.Join(t.TempDir(), "dsapp.db"), Options{Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ctx := t.Context()
			g := activation.Generation{1}
			h := activation.Handshake{Generation: g, State: []byte("state"), Lifetime: time.Minute}
			if _, _, err := s.Create(ctx, activation.Record{Identifier: id, Generation: g, Kind: activation.KindMDL, Lifetime: time.Minute}, activation.Generation{}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.PutHandshake(ctx, id, h); err != nil {
				t.Fatal(err)
			}
			e := good()
			c.forge(e)
			forged := e.encode()
			err = s.db.Update(func(tx *bolt.Tx) error {
				return errors.Join(
					bucket(tx, bucketEntries).Put([]byte(id), forged),
					bucket(tx, bucketSealed).Put(indexKey(id, e.removeAt()), e.parts.encode(e.generation)),
				)
			})
			if err != nil {
				t.Fatal(err)
			}
			calls := map[string]func() error{
				"Load":         func() error { _, _, err := s.Load(ctx, id); return err },
				"PutHandshake": func() error { _, err := s.PutHandshake(ctx, id, h); return err },
				"Create": func() error {
					_, _, err := s.Create(ctx, activation.Record{Identifier: id, Generation: activation.Generation{2}, Kind: activation.KindMDL}, activation.Generation{3})
					return err
				},
				"Take": func() error { _, _, err := s.Take(ctx, id, activation.Token{9}, activation.Tag{}, 3); return err },
				"Settle": func() error {
					_, _, err := s.Settle(ctx, id, activation.Settlement{Generation: g, Token: inFlight, Proven: true, MaxAttempts: 3, MaxActivations: 9})
					return err
				},
				"AdmitDevice":  func() error { _, _, err := s.AdmitDevice(ctx, id, 3); return err },
				"ReturnDevice": func() error { return s.ReturnDevice(ctx, id, g) },
				"AdmitConfirmation": func() error {
					_, _, err := s.AdmitConfirmation(ctx, id, 3, activation.KindMDL, activation.KindAffinity)
					return err
				},
				"ReturnConfirmation": func() error { return s.ReturnConfirmation(ctx, id, g) },
			}
			for call, do := range calls {
				err := do()
				if c.valid && err == nil {
					continue
				}
				if c.valid || !errors.Is(err, activation.ErrDamaged) || !errors.Is(err, activation.ErrUnavailable) {
					t.Errorf("%s: error %v", call, err)
				}
			}
			if c.valid {
				return
			}
			err = s.db.View(func(tx *bolt.Tx) error {
				if got := bucket(tx, bucketEntries).Get([]byte(id)); string(got) != string(forged) {
					t.Error("the entry was changed")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
