package activation

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// secretSize is the size of the simulation secret in bytes.
const secretSize = 32

var secretLabel = seal.Label{Kind: sealedSecret}

// secretRefresh is how long a fetched simulation secret is used before it is fetched again.
const secretRefresh = time.Minute

// simulation is the simulation secret and when it was last fetched.
type simulation struct {
	secret  []byte
	fetched time.Time
}

// simulationSecret returns the secret that profiles derive salts and simulated credentials
// from. It is in the store, so that all nodes give the same answers, also after a restart. A
// node stores the secret again if the store has lost it, and seals it again if it is not
// sealed with the first key.
func (s *Service) simulationSecret(ctx context.Context, v openStore) ([]byte, error) {
	known := s.simulation.Load()
	if known == nil {
		return s.fetchSimulationSecret(ctx, v, nil)
	}
	if now := s.now(); now.Sub(known.fetched) >= secretRefresh {
		// One caller fetches the secret, the others use the known one meanwhile. If
		// fetching fails the known one is used too: a store that fails is noticed by the
		// other calls.
		if s.simulation.CompareAndSwap(known, &simulation{known.secret, now}) {
			if secret, err := s.fetchSimulationSecret(ctx, v, known.secret); err == nil {
				return secret, nil
			}
		}
	}
	return known.secret, nil
}

// fetchSimulationSecret fetches the secret from the store. If the store has none, it stores
// the known one or, if that is nil, a new one.
func (s *Service) fetchSimulationSecret(ctx context.Context, v openStore, known []byte) ([]byte, error) {
	candidate := make([]byte, secretSize)
	defer clear(candidate)
	if known == nil {
		rand.Read(candidate)
	} else {
		copy(candidate, known)
	}
	sealed, err := v.ring.Seal(secretLabel, candidate)
	if err != nil {
		return nil, err
	}
	stored, err := v.store.SimulationSecret(ctx, sealed)
	if err != nil {
		return nil, s.storeError(ctx, "", "fetching simulation secret", err)
	}
	secret, err := v.ring.Open(secretLabel, stored)
	if err != nil || len(secret) != secretSize {
		return nil, s.unopenedError(ctx, "", "simulation secret")
	}
	if !v.ring.Current(stored) {
		next, err := v.ring.Seal(secretLabel, secret)
		if err != nil {
			return nil, err
		}
		// If another node was faster, it stored the same secret.
		if _, err := v.store.ReplaceSimulationSecret(ctx, stored, next); err != nil {
			return nil, fmt.Errorf("resealing simulation secret: %w", err)
		}
		s.logger.InfoContext(ctx, "simulation secret sealed with the first sealing key")
	}
	s.simulation.Store(&simulation{secret, s.now()})
	return secret, nil
}

// The uses of tag. No profile derives anything from a text that begins with one of them.
const (
	tagSource      = "source"
	tagApplication = "application"
	tagGeneration  = "generation"
)

// tag returns a keyed hash of a value for the handshakes of an identifier. Whoever reads the
// store sees whether two values of one identifier are the same, but neither the values nor
// whether they are those of another identifier.
func tag(secret []byte, what, identifier, value string) Tag {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(what + "\x00" + identifier + "\x00" + value))
	return Tag(h.Sum(nil)[:len(Tag{})])
}

// decoy has the values of a profile that are opened and computed with if there is no genuine one, so that
// the work is the same. They have the form and the size of genuine values.
type decoy struct {
	ring                  *seal.Keyring
	credential, handshake sealedValue
}

// decoyFor returns the decoy sealed by ring. It is made at the first use.
func (p *offer) decoyFor(ring *seal.Keyring) (*decoy, error) {
	if d := p.decoy.Load(); d != nil && d.ring == ring {
		return d, nil
	}
	secret := make([]byte, secretSize)
	rand.Read(secret)
	simulated := p.SimulatedCredential(secret, "")
	credential, value := withName(p, len(simulated))
	copy(value, simulated)
	handshake, value := withName(p, 1+p.StateSize())
	if err := p.SimulatedState(value[1:], simulated); err != nil {
		return nil, err
	}

	d := &decoy{
		ring:       ring,
		credential: sealedValue{label: seal.Label{Kind: "decoy " + sealedVerifier}},
		handshake:  sealedValue{label: seal.Label{Kind: "decoy " + sealedHandshake}},
	}
	var err error
	if d.credential.bytes, err = ring.Seal(d.credential.label, credential); err != nil {
		return nil, err
	}
	if d.handshake.bytes, err = ring.Seal(d.handshake.label, handshake); err != nil {
		return nil, err
	}
	p.decoy.Store(d)
	return d, nil
}
