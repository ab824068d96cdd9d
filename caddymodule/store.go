package caddymodule

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Store is what a module of the namespace `dsapp.stores` provides. It is shared
// by all configurations that name the same store, opens on first use and stays
// open until the last request of the last of them has ended.
type Store interface {
	activation.Store
	ownership.Store

	// Begin tells that a request begins that may use the store. The request
	// calls the returned function once when it is over.
	Begin() (end func())

	// CheckSealingKeys reports why the store cannot be used with that many
	// configured keys.
	CheckSealingKeys(configured int) error

	// Keyring returns the ring of the configured keys and those of the store
	// itself. It may open the store.
	Keyring(ctx context.Context, configured [][]byte) (*seal.Keyring, error)
}

// storePool holds the stores of all configurations that are in use or still have
// requests.
var storePool = caddy.NewUsagePool()

type closableStore interface {
	activation.Store
	ownership.Store
	io.Closer
}

// leasedStore is a store that is opened by the first method called. Not being
// able to open it is an outage like any other.
type leasedStore[T closableStore] struct {
	*lease[T]
}

// Begin counts a request. See Store.
func (s leasedStore[T]) Begin() (end func()) {
	s.begin()
	return s.end
}

func (s leasedStore[T]) store(ctx context.Context) (T, error) {
	store, err := s.get(ctx)
	if err != nil {
		return store, fmt.Errorf("%w: opening the store: %w", activation.ErrUnavailable, err)
	}
	return store, nil
}

// Reserve is part of activation.Store.
func (s leasedStore[T]) Reserve(ctx context.Context) (release func(), err error) {
	store, err := s.store(ctx)
	if err != nil {
		return nil, err
	}
	return store.Reserve(ctx)
}

// Create is part of activation.Store.
func (s leasedStore[T]) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (activation.Record, bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return activation.Record{}, false, err
	}
	return store.Create(ctx, r, replaces)
}

// Load is part of activation.Store.
func (s leasedStore[T]) Load(ctx context.Context, identifier string) (activation.Record, bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return activation.Record{}, false, err
	}
	return store.Load(ctx, identifier)
}

// PutHandshake is part of activation.Store.
func (s leasedStore[T]) PutHandshake(ctx context.Context, identifier string, h activation.Handshake) (bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return false, err
	}
	return store.PutHandshake(ctx, identifier, h)
}

// Take is part of activation.Store.
func (s leasedStore[T]) Take(
	ctx context.Context, identifier string, token activation.Token, source activation.Tag, maxAttempts int,
) (activation.Handshake, bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return activation.Handshake{}, false, err
	}
	return store.Take(ctx, identifier, token, source, maxAttempts)
}

// Settle is part of activation.Store.
func (s leasedStore[T]) Settle(ctx context.Context, identifier string, settlement activation.Settlement) (activation.Record, bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return activation.Record{}, false, err
	}
	return store.Settle(ctx, identifier, settlement)
}

// AdmitDevice is part of activation.Store.
func (s leasedStore[T]) AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (activation.Record, bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return activation.Record{}, false, err
	}
	return store.AdmitDevice(ctx, identifier, maxAttempts)
}

// ReturnDevice is part of activation.Store.
func (s leasedStore[T]) ReturnDevice(ctx context.Context, identifier string, generation activation.Generation) error {
	store, err := s.store(ctx)
	if err != nil {
		return err
	}
	return store.ReturnDevice(ctx, identifier, generation)
}

// AdmitConfirmation is part of activation.Store.
func (s leasedStore[T]) AdmitConfirmation(ctx context.Context, identifier string, maxAttempts int, kinds ...activation.Kind) (activation.Record, bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return activation.Record{}, false, err
	}
	return store.AdmitConfirmation(ctx, identifier, maxAttempts, kinds...)
}

// ReturnConfirmation is part of activation.Store.
func (s leasedStore[T]) ReturnConfirmation(ctx context.Context, identifier string, generation activation.Generation) error {
	store, err := s.store(ctx)
	if err != nil {
		return err
	}
	return store.ReturnConfirmation(ctx, identifier, generation)
}

// Remove is part of activation.Store.
func (s leasedStore[T]) Remove(ctx context.Context, identifier string, generation activation.Generation) error {
	store, err := s.store(ctx)
	if err != nil {
		return err
	}
	return store.Remove(ctx, identifier, generation)
}

// SimulationSecret is part of activation.Store.
func (s leasedStore[T]) SimulationSecret(ctx context.Context, candidate []byte) ([]byte, error) {
	store, err := s.store(ctx)
	if err != nil {
		return nil, err
	}
	return store.SimulationSecret(ctx, candidate)
}

// ReplaceSimulationSecret is part of activation.Store.
func (s leasedStore[T]) ReplaceSimulationSecret(ctx context.Context, current, next []byte) (bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return false, err
	}
	return store.ReplaceSimulationSecret(ctx, current, next)
}

// Owner is part of ownership.Store.
func (s leasedStore[T]) Owner(ctx context.Context, kind ownership.Kind, key string) (ownership.Claim, bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return ownership.Claim{}, false, err
	}
	return store.Owner(ctx, kind, key)
}

// Pending is part of ownership.Store.
func (s leasedStore[T]) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) ([]ownership.Claim, error) {
	store, err := s.store(ctx)
	if err != nil {
		return nil, err
	}
	return store.Pending(ctx, kind, serialNumber)
}

// Claim is part of ownership.Store.
func (s leasedStore[T]) Claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) (bool, error) {
	store, err := s.store(ctx)
	if err != nil {
		return false, err
	}
	return store.Claim(ctx, kind, c, serialNumber, lifetime)
}

// Release is part of ownership.Store.
func (s leasedStore[T]) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error {
	store, err := s.store(ctx)
	if err != nil {
		return err
	}
	return store.Release(ctx, kind, key, token, serialNumber)
}

var (
	_ activation.Store = leasedStore[closableStore]{}
	_ ownership.Store  = leasedStore[closableStore]{}
)
