package srp

import "errors"

// Errors of ParsePublic and ParseEvidence. Their texts complete a sentence that begins with
// the name of the value.
var (
	ErrMissing    = errors.New("is missing")
	ErrTooLong    = errors.New("is too long")
	ErrNotHex     = errors.New("is not hexadecimal")
	ErrOutOfRange = errors.New("is out of range")
)

// Errors of NewClient.
var (
	ErrIdentityMissing  = errors.New("srp: identity is missing")
	ErrIdentityLength   = errors.New("srp: identity has not 4 to 64 characters")
	ErrIdentityNotASCII = errors.New("srp: identity has characters outside ASCII")
	ErrPasswordMissing  = errors.New("srp: password is missing")
	ErrPasswordLength   = errors.New("srp: password has not 4 to 64 characters")
	ErrPasswordNotASCII = errors.New("srp: password has characters outside ASCII")
)

// Errors of Client.Prove.
var (
	ErrSaltMissing         = errors.New("srp: salt is missing")
	ErrSaltLength          = errors.New("srp: salt has the wrong length")
	ErrServerPublicMissing = errors.New("srp: server public value is missing")
	ErrServerPublicTooLong = errors.New("srp: server public value is longer than the prime")
	ErrServerPublicInvalid = errors.New("srp: server public value is unusable")
)

// Errors of Client.Confirm.
var (
	ErrServerEvidenceMissing  = errors.New("srp: server evidence is missing")
	ErrServerEvidenceLength   = errors.New("srp: server evidence has the wrong length")
	ErrServerEvidenceMismatch = errors.New("srp: server evidence does not match")
)
