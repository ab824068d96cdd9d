package caddymodule

import (
	"context"
	"fmt"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Store is what a module of the namespace `dsapp.stores` provides: the share of one
// configuration in a store that belongs to all configurations which name it. Neither
// Provision nor Validate open it or write anything: the configuration may be refused
// yet.
type Store interface {
	// Begin tells that a request begins that may use the store. The request
	// calls the returned function once when it is over. The store stays open until
	// the last request of the last configuration has ended.
	Begin() (end func())

	// CheckSealingKeys reports why the store cannot be used with that many
	// configured keys.
	CheckSealingKeys(configured int) error

	// Open returns the store. It is called for every operation: it opens the store
	// the first time, and anew if that failed or the store was lost; otherwise it
	// returns the same pointer. It waits no longer than ctx lasts.
	Open(ctx context.Context) (OpenStore, error)
}

// OpenStore is a store that is open. It must be a pointer.
type OpenStore interface {
	activation.Store
	ownership.Store

	// Keys returns the configured keys and the store's own, first the one that seals.
	// It is called once for each configuration that uses the store, and again after an
	// error. If none are configured it may make one.
	Keys(ctx context.Context, configured [][]byte) ([][]byte, error)
}

// storePool holds the stores of all configurations that are in use or still have
// requests.
var storePool = caddy.NewUsagePool()

// keyedStore is a store with the ring of one configuration's keys, which differ
// between configurations while keys are replaced.
type keyedStore struct {
	module     Store
	configured [][]byte

	mu   sync.Mutex
	made OpenStore // that ring was made for
	ring *seal.Keyring
}

// open returns the store, and the ring of its keys as long as it is the same store. An
// error about the keys comes with the store.
func (k *keyedStore) open(ctx context.Context) (OpenStore, *seal.Keyring, error) {
	store, err := k.module.Open(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the store: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.made == store {
		return store, k.ring, nil
	}
	keys, err := store.Keys(ctx, k.configured)
	if err != nil {
		return store, nil, fmt.Errorf("sealing keys: %w", err)
	}
	ring, err := seal.NewKeyring(keys...)
	if err != nil {
		return store, nil, fmt.Errorf("sealing keys: %w", err)
	}
	k.made, k.ring = store, ring
	return store, ring, nil
}

// registrations is what activation opens.
func (k *keyedStore) registrations(ctx context.Context) (activation.Store, *seal.Keyring, error) {
	return k.open(ctx)
}

// claims is what ownership opens.
func (k *keyedStore) claims(ctx context.Context) (ownership.Store, *seal.Keyring, error) {
	return k.open(ctx)
}
