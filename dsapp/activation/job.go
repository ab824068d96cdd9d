package activation

import (
	"crypto/subtle"
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

// What a handshake says about the registration that it is for, in its first byte.
const (
	// stateSimulated is the handshake of an identifier without an exchange.
	stateSimulated = iota
	// stateGenuine is the handshake of a registration.
	stateGenuine
	// stateOtherProfile is the handshake of a registration of another profile. Nothing can
	// be proved with it, as with stateSimulated. It is for the log.
	stateOtherProfile
)

// beginJob computes the answer to a first call.
type beginJob struct {
	profile      Profile // of the application
	ring         *seal.Keyring
	secret       []byte
	identifier   string
	clientPublic []byte
	// credential is that of the registration if registered is true, else the decoy.
	credential sealedValue
	registered bool
	label      seal.Label // of the handshake

	handshake []byte // sealed
	challenge Challenge
	err       error
}

func (j *beginJob) run() { j.err = j.answer() }

// answer begins with the known credential if it is that of a registration of the profile, else
// with a simulated one. It always opens the one and makes the other, so that the work is the
// same. The error is seal.ErrUnopened for a credential that cannot be read.
func (j *beginJob) answer() error {
	opened, err := j.ring.Open(j.credential.label, j.credential.bytes)
	if err != nil {
		return err
	}
	defer clear(opened)
	p := j.profile
	stored, own, ok := splitName(p, opened)
	if !ok {
		return seal.ErrUnopened
	}
	credential := p.SimulatedCredential(j.secret, j.identifier)
	defer clear(credential)
	plaintext, handshake := withName(p, 1+p.StateSize())
	defer clear(plaintext)
	handshake[0] = stateSimulated
	switch {
	case !own:
		// Only a registration can be of another profile, the decoy is not. Choices that are
		// not configured any more count as another profile, too.
		stored, handshake[0] = credential, stateOtherProfile
	case len(stored) != len(credential):
		return seal.ErrUnopened
	case j.registered:
		handshake[0] = stateGenuine
	}
	subtle.ConstantTimeCopy(subtle.ConstantTimeByteEq(handshake[0], stateGenuine), credential, stored)
	if j.challenge.ServerPublic, j.challenge.Salt, err = p.Begin(handshake[1:], credential, j.clientPublic); err != nil {
		return fmt.Errorf("computing server public value: %w", err)
	}
	j.handshake, err = j.ring.Seal(j.label, plaintext)
	return err
}

// verifyJob verifies the evidence of a second call. The work does not depend on whether the
// handshake is genuine.
type verifyJob struct {
	profile Profile // of the application
	ring    *seal.Keyring
	// handshake is the one that was taken, else the decoy.
	handshake, decoy sealedValue
	identifier       string
	evidence         []byte

	outcome
}

// outcome is the result of a verifyJob.
type outcome struct {
	// unopened says that the handshake could not be read.
	unopened bool
	// otherProfile says that the handshake, or the registration that it is for, was of
	// another profile than that of the application.
	otherProfile bool
	// genuine says that the handshake was that of a registration with an exchange.
	genuine bool
	// proven says that the handshake was genuine and the evidence right. Only then
	// session and serverEvidence are set.
	proven         bool
	session        seal.Session
	serverEvidence string
}

func (j *verifyJob) run() {
	if own := j.verify(j.handshake); !own {
		// A handshake of another profile is treated like none.
		j.verify(j.decoy)
	}
}

// verify verifies the evidence with a handshake. It returns false for one of another profile.
func (j *verifyJob) verify(sealed sealedValue) (own bool) {
	plaintext, err := j.ring.Open(sealed.label, sealed.bytes)
	if err != nil {
		j.unopened = true
		return true
	}
	defer clear(plaintext)
	p := j.profile
	handshake, own, ok := splitName(p, plaintext)
	if ok && !own {
		j.otherProfile = true
		return false
	}
	if !ok || len(handshake) != 1+p.StateSize() || handshake[0] > stateOtherProfile {
		j.unopened = true
		return true
	}
	session, serverEvidence, right := p.Verify(handshake[1:], j.identifier, j.evidence)
	j.genuine = handshake[0] == stateGenuine
	j.otherProfile = j.otherProfile || handshake[0] == stateOtherProfile
	switch {
	case right && j.genuine:
		j.proven, j.session, j.serverEvidence = true, session, serverEvidence
	case right:
		session.Clear()
	}
	return true
}
