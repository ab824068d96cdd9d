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

// secretRefresh is how long a fetched simulation secret is used before it is
// looked at again.
const secretRefresh = time.Minute

// simulation is the simulation secret and when it was last looked at.
type simulation struct {
	secret  []byte
	fetched time.Time
}

// simulationSecret returns the secret that profiles derive salts and simulated
// credentials from. It belongs to the store, so that all nodes answer alike, now and after a
// restart; what a node knows it gives back to a store that has lost it. A node
// that looks at it also seals it anew if its key is not the first.
func (s *Service) simulationSecret(ctx context.Context, v vault) ([]byte, error) {
	known := s.simulation.Load()
	if known == nil {
		return s.fetchSecret(ctx, v, nil)
	}
	if now := s.now(); now.Sub(known.fetched) >= secretRefresh {
		// One caller fetches, the others go on with what is known. So does that
		// one if it fails: the store's failure is met elsewhere.
		if s.simulation.CompareAndSwap(known, &simulation{known.secret, now}) {
			if secret, err := s.fetchSecret(ctx, v, known.secret); err == nil {
				return secret, nil
			}
		}
	}
	return known.secret, nil
}

// fetchSecret fetches the secret from the store, to which it offers known or, if
// nothing is known, a new one.
func (s *Service) fetchSecret(ctx context.Context, v vault, known []byte) ([]byte, error) {
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
		return nil, s.failed(ctx, "", "fetching simulation secret", err)
	}
	secret, err := v.ring.Open(secretLabel, stored)
	if err != nil || len(secret) != secretSize {
		return nil, s.unopened(ctx, "", "simulation secret")
	}
	if !v.ring.Current(stored) {
		next, err := v.ring.Seal(secretLabel, secret)
		if err != nil {
			return nil, err
		}
		// If another node was faster, its record holds the same secret.
		if _, err := v.store.ReplaceSimulationSecret(ctx, stored, next); err != nil {
			return nil, fmt.Errorf("sealing simulation secret anew: %w", err)
		}
		s.logger.InfoContext(ctx, "simulation secret sealed with the first sealing key")
	}
	s.simulation.Store(&simulation{secret, s.now()})
	return secret, nil
}

// What tag derives. No profile derives anything from a text that begins like these.
const (
	tagSource      = "source"
	tagApplication = "application"
	tagGeneration  = "generation"
)

// tag derives what stands for a value among the handshakes of an identifier. Whoever
// reads the store sees whether two values of one identifier are the same, and
// nothing of the value itself, nor of other identifiers.
func tag(secret []byte, what, identifier, value string) Tag {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(what + "\x00" + identifier + "\x00" + value))
	return Tag(h.Sum(nil)[:len(Tag{})])
}

// decoy is what is opened and computed with when there is nothing real, so that
// the work is the same. It has the form and size of the real thing.
type decoy struct {
	ring                  *seal.Keyring
	credential, handshake sealedValue
}

// decoyFor returns the decoy sealed by ring, which is made at the first use.
func (s *Service) decoyFor(ring *seal.Keyring) (*decoy, error) {
	if d := s.decoy.Load(); d != nil && d.ring == ring {
		return d, nil
	}
	p := s.profiles[0]
	secret := make([]byte, secretSize)
	rand.Read(secret)
	simulated := p.SimulatedCredential(secret, "")
	credential, value := named(p, len(simulated))
	copy(value, simulated)
	handshake, value := named(p, 1+p.StateSize())
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
	s.decoy.Store(d)
	return d, nil
}
