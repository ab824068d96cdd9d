package srp

import "errors"

// The refusals of ParsePublic and ParseEvidence. They say what is wrong with a value and
// never carry it.
var (
	ErrMissing    = errors.New("is missing")
	ErrTooLong    = errors.New("is too long")
	ErrNotHex     = errors.New("is not hexadecimal")
	ErrOutOfRange = errors.New("is out of range")
)

// The refusals of NewClient.
var (
	ErrIdentityMissing  = errors.New("srp: identity is missing")
	ErrIdentityLength   = errors.New("srp: identity has not 4 to 64 characters")
	ErrIdentityNotASCII = errors.New("srp: identity has characters outside ASCII")
	ErrPasswordMissing  = errors.New("srp: password is missing")
	ErrPasswordLength   = errors.New("srp: password has not 4 to 64 characters")
	ErrPasswordNotASCII = errors.New("srp: password has characters outside ASCII")
)

// The refusals of Client.Prove.
var (
	ErrSaltMissing         = errors.New("srp: salt is missing")
	ErrSaltLength          = errors.New("srp: salt has the wrong length")
	ErrServerPublicMissing = errors.New("srp: server public value is missing")
	ErrServerPublicTooLong = errors.New("srp: server public value is longer than the prime")
	ErrServerPublicInvalid = errors.New("srp: server public value is unusable")
)

// The refusals of Client.Confirm.
var (
	ErrServerEvidenceMissing  = errors.New("srp: server evidence is missing")
	ErrServerEvidenceLength   = errors.New("srp: server evidence has the wrong length")
	ErrServerEvidenceMismatch = errors.New("srp: server evidence does not match")
)
