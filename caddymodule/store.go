package caddymodule

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Store is a module in the namespace `dsapp.stores`. It is one configuration's share of
// a store that all configurations with the same settings have in common. Provision and
// Validate must neither open the store nor write anything, because the configuration may
// still be rejected.
type Store interface {
	// Begin counts a request that may use the store. The caller calls the returned
	// function exactly once, when the request has ended. The store stays open until the
	// last request of the last configuration has ended.
	Begin() (end func())

	// CheckSealingKeys returns an error if the store cannot be used with that number of
	// configured keys.
	CheckSealingKeys(configured int) error

	// Open returns the open store. It is called for every operation. It opens the store
	// if it is not open, if the last attempt failed, or if the store was lost; otherwise
	// it returns the same pointer as before. It returns at the latest when ctx ends.
	Open(ctx context.Context) (OpenStore, error)

	// Ready returns since when the store is open and ready, or since when it is not and
	// why. It answers at once: it neither opens the store nor calls it.
	Ready() (since time.Time, err error)
}

// OpenStore is an open store. Its implementations are pointers.
type OpenStore interface {
	activation.Store
	ownership.Store
	repeat.Store

	// Keys returns the configured keys and the key of the store itself, if it has one.
	// The first key is the one that seals. If none is configured, the store may create
	// one. Keys is called once for each configuration, and again after an error.
	Keys(ctx context.Context, configured [][]byte) ([][]byte, error)

	// Ready returns since when the store works, or since when it does not and why, as far
	// as is known from the calls that were made. It answers at once.
	Ready() (since time.Time, err error)

	// Sealed calls visit with every sealed value in the store, so that they can be counted
	// by their keys. It may take long and leave out what lives for minutes only.
	Sealed(ctx context.Context, visit func(value []byte)) error
}

// storePool holds the stores of the configurations that run or still have requests.
var storePool = caddy.NewUsagePool()

// keyringStore combines a store with the keyring of one configuration. While keys are
// being replaced, configurations that share a store have different keyrings.
type keyringStore struct {
	module         Store
	configuredKeys [][]byte

	mu        sync.Mutex
	ringStore OpenStore // the store whose keys ring holds
	ring      *seal.Keyring
}

// open returns the open store and its keyring. The keyring is made once for each time
// that the store is opened. If only the keys are missing or wrong, open returns the store
// together with the error.
func (k *keyringStore) open(ctx context.Context) (OpenStore, *seal.Keyring, error) {
	store, err := k.module.Open(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the store: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ringStore == store {
		return store, k.ring, nil
	}
	keys, err := store.Keys(ctx, k.configuredKeys)
	if err != nil {
		return store, nil, fmt.Errorf("sealing keys: %w", err)
	}
	ring, err := seal.NewKeyring(keys...)
	if err != nil {
		return store, nil, fmt.Errorf("sealing keys: %w", err)
	}
	ring.Opened = metrics.opened
	k.ringStore, k.ring = store, ring
	return store, ring, nil
}

// openActivation is open with the store as package activation needs it. Its first admission
// marks the call of ctx, if it has one.
func (k *keyringStore) openActivation(ctx context.Context) (activation.Store, *seal.Keyring, error) {
	store, ring, err := k.open(ctx)
	return repeat.Activation(ctx, store), ring, err
}

// openOwnership is open with the store as package ownership needs it. Its first look-up marks
// the call of ctx, if it has one.
func (k *keyringStore) openOwnership(ctx context.Context) (ownership.Store, *seal.Keyring, error) {
	store, ring, err := k.open(ctx)
	return repeat.Ownership(ctx, store), ring, err
}

// openRepeats is open with the store as package repeat needs it.
func (k *keyringStore) openRepeats(ctx context.Context) (repeat.Store, *seal.Keyring, error) {
	return k.open(ctx)
}
