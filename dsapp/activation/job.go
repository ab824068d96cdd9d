package activation

import (
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// job is a computation that needs a slot of the gate.
type job interface{ run() }

// credentialJob computes the credential of a registration.
type credentialJob struct {
	profile              Profile
	secret               []byte
	identifier, password string

	credential []byte
}

func (j *credentialJob) run() {
	j.credential = j.profile.Credential(j.secret, j.identifier, j.password)
}

// beginJob computes the answer to a first call.
type beginJob struct {
	profiles                 profiles
	ring                     *seal.Keyring
	secret                   []byte
	identifier, clientPublic string
	// credential is that of the registration if genuine is 1, else the decoy.
	credential, decoy sealedValue
	genuine           int
	label             seal.Label // of the handshake

	handshake []byte // sealed
	challenge Challenge
	err       error
}

// errOutOfRange is the error for an A that the first profile accepts and the profile of the
// registration does not. Such an exchange cannot succeed.
var errOutOfRange = errors.New("client public value is out of the range of the registration's profile")

func (j *beginJob) run() {
	if j.err = j.answer(j.credential, j.genuine); errors.Is(j.err, errOutOfRange) {
		j.err = j.answer(j.decoy, 0)
	}
}

// answer begins with the known credential if genuine is 1, else with a simulated one. It
// always opens the one and makes the other, so that the work is the same. The error is
// seal.ErrUnopened for a credential that cannot be read.
func (j *beginJob) answer(known sealedValue, genuine int) error {
	opened, err := j.ring.Open(known.label, known.bytes)
	if err != nil {
		return err
	}
	defer clear(opened)
	p, stored, ok := j.profiles.splitName(opened)
	if !ok {
		return seal.ErrUnopened
	}
	credential := p.SimulatedCredential(j.secret, j.identifier)
	defer clear(credential)
	if len(stored) != len(credential) {
		return seal.ErrUnopened
	}
	clientPublic, err := p.ParsePublic(j.clientPublic)
	if err != nil {
		return errOutOfRange
	}
	subtle.ConstantTimeCopy(genuine, credential, stored)
	plaintext, handshake := withName(p, 1+p.StateSize())
	defer clear(plaintext)
	handshake[0] = byte(genuine)
	if j.challenge.ServerPublic, j.challenge.Salt, err = p.Begin(handshake[1:], credential, clientPublic); err != nil {
		return fmt.Errorf("computing server public value: %w", err)
	}
	j.handshake, err = j.ring.Seal(j.label, plaintext)
	return err
}

// verifyJob verifies the evidence of a second call. The work does not depend on whether the
// handshake is genuine.
type verifyJob struct {
	profiles             profiles
	ring                 *seal.Keyring
	handshake            sealedValue
	identifier, evidence string

	outcome
}

// outcome is the result of a verifyJob.
type outcome struct {
	// unopened says that the handshake could not be read.
	unopened bool
	// genuine says that the handshake was that of a registration with an exchange.
	genuine bool
	// proven says that the handshake was genuine and the evidence right. Only then
	// session and serverEvidence are set.
	proven         bool
	session        seal.Session
	serverEvidence string
}

func (j *verifyJob) run() {
	plaintext, err := j.ring.Open(j.handshake.label, j.handshake.bytes)
	if err != nil {
		j.unopened = true
		return
	}
	defer clear(plaintext)
	p, handshake, ok := j.profiles.splitName(plaintext)
	if !ok || len(handshake) != 1+p.StateSize() || handshake[0] > 1 {
		j.unopened = true
		return
	}
	// Evidence that the first profile accepts and the profile of the handshake does not is
	// treated like any wrong evidence.
	evidence, _ := p.ParseEvidence(j.evidence)
	session, serverEvidence, right := p.Verify(handshake[1:], j.identifier, evidence)
	j.genuine = handshake[0] == 1
	if right && !j.genuine {
		session.Clear()
		return
	}
	if right {
		j.proven, j.session, j.serverEvidence = true, session, serverEvidence
	}
}
