package activation

import (
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// job is arithmetic that the gate has a slot for.
type job interface{ run() }

// makingCredential is the arithmetic of a registration.
type makingCredential struct {
	profile              Profile
	secret               []byte
	identifier, password string

	credential []byte
}

func (j *makingCredential) run() {
	j.credential = j.profile.Credential(j.secret, j.identifier, j.password)
}

// beginning is the arithmetic of a first call.
type beginning struct {
	profiles                 profiles
	ring                     *seal.Keyring
	secret                   []byte
	identifier, clientPublic string
	// credential is a known one if genuine is 1, else the decoy.
	credential, decoy sealedValue
	genuine           int
	label             seal.Label // of the handshake

	handshake []byte // sealed
	challenge Challenge
	err       error
}

// errOutOfRange is the error of an A that the configured profile takes and that of the
// registration does not, which is older then. Such an exchange cannot succeed.
var errOutOfRange = errors.New("client public value is out of the range of the registration's profile")

func (j *beginning) run() {
	if j.err = j.answer(j.credential, j.genuine); errors.Is(j.err, errOutOfRange) {
		j.err = j.answer(j.decoy, 0)
	}
}

// answer begins with the known credential if genuine is 1, else with a simulated one.
// One is opened and the other made, and one is selected, so that the work is the same.
// The error is seal.ErrUnopened for a credential that cannot be read.
func (j *beginning) answer(known sealedValue, genuine int) error {
	opened, err := j.ring.Open(known.label, known.bytes)
	if err != nil {
		return err
	}
	defer clear(opened)
	p, stored, ok := j.profiles.cut(opened)
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
	plaintext, handshake := named(p, 1+p.StateSize())
	defer clear(plaintext)
	handshake[0] = byte(genuine)
	if j.challenge.ServerPublic, j.challenge.Salt, err = p.Begin(handshake[1:], credential, clientPublic); err != nil {
		return fmt.Errorf("computing server public value: %w", err)
	}
	j.handshake, err = j.ring.Seal(j.label, plaintext)
	return err
}

// verifying is the arithmetic of a second call. The work does not depend on whether the
// handshake is real.
type verifying struct {
	profiles             profiles
	ring                 *seal.Keyring
	handshake            sealedValue
	identifier, evidence string

	outcome
}

// outcome is what the arithmetic of a proof gave.
type outcome struct {
	// unopened says that the handshake could not be read.
	unopened bool
	// genuine says that the handshake was of a registration with an exchange.
	genuine bool
	// proven says that it was and that the evidence is right; then session and
	// serverEvidence are set.
	proven         bool
	session        seal.Session
	serverEvidence string
}

func (j *verifying) run() {
	plaintext, err := j.ring.Open(j.handshake.label, j.handshake.bytes)
	if err != nil {
		j.unopened = true
		return
	}
	defer clear(plaintext)
	p, handshake, ok := j.profiles.cut(plaintext)
	if !ok || len(handshake) != 1+p.StateSize() || handshake[0] > 1 {
		j.unopened = true
		return
	}
	// Evidence that the configured profile takes and that of the handshake does not is
	// wrong like any other.
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
