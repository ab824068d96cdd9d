package srp

// Error is a value that was refused, under the name its check has in logs. It
// never carries the value.
type Error struct {
	outcome string
	problem string
}

// Error returns what was wrong, in words.
func (e *Error) Error() string { return "srp: " + e.problem }

// Outcome returns the name of the refusal for logs, such as
// CLIENT_PUBLIC_TOO_LONG.
func (e *Error) Outcome() string { return e.outcome }

// The refusals of ParsePublic.
var (
	ErrClientPublicMissing = &Error{"CLIENT_PUBLIC_MISSING", "client public value is missing"}
	ErrClientPublicTooLong = &Error{"CLIENT_PUBLIC_TOO_LONG", "client public value is longer than the prime"}
	ErrClientPublicNotHex  = &Error{"CLIENT_PUBLIC_NOT_HEX", "client public value is not hexadecimal"}
	ErrClientPublicInvalid = &Error{"CLIENT_PUBLIC_INVALID", "client public value is out of range"}
)

// The refusals of ParseEvidence.
var (
	ErrClientEvidenceMissing = &Error{"M1_MISSING", "client evidence is missing"}
	ErrClientEvidenceTooLong = &Error{"M1_TOO_LONG", "client evidence is too long"}
	ErrClientEvidenceNotHex  = &Error{"M1_NOT_HEX", "client evidence is not hexadecimal"}
)

// The refusals of NewClient.
var (
	ErrIdentityMissing  = &Error{"IDENTITY_MISSING", "identity is missing"}
	ErrIdentityLength   = &Error{"IDENTITY_LENGTH", "identity has not 4 to 64 characters"}
	ErrIdentityNotASCII = &Error{"IDENTITY_NOT_ASCII", "identity has characters outside ASCII"}
	ErrPasswordMissing  = &Error{"PASSWORD_MISSING", "password is missing"}
	ErrPasswordLength   = &Error{"PASSWORD_LENGTH", "password has not 4 to 64 characters"}
	ErrPasswordNotASCII = &Error{"PASSWORD_NOT_ASCII", "password has characters outside ASCII"}
)

// The refusals of Client.Prove.
var (
	ErrSaltMissing         = &Error{"SALT_MISSING", "salt is missing"}
	ErrSaltLength          = &Error{"SALT_LENGTH", "salt has the wrong length"}
	ErrServerPublicMissing = &Error{"SERVER_PUBLIC_MISSING", "server public value is missing"}
	ErrServerPublicTooLong = &Error{"SERVER_PUBLIC_TOO_LONG", "server public value is longer than the prime"}
	ErrServerPublicInvalid = &Error{"SERVER_PUBLIC_INVALID", "server public value is unusable"}
)

// The refusals of Client.Confirm.
var (
	ErrServerEvidenceMissing  = &Error{"M2_MISSING", "server evidence is missing"}
	ErrServerEvidenceLength   = &Error{"M2_LENGTH", "server evidence has the wrong length"}
	ErrServerEvidenceMismatch = &Error{"M2_MISMATCH", "server evidence does not match"}
)

// KernelError is a kernel that this machine should be able to use for a profile and
// that computed something wrong when it was tested. It is not used then.
type KernelError struct {
	// Kernel and Profile are the names of both.
	Kernel, Profile string
}

// Error returns what failed, in words.
func (e *KernelError) Error() string {
	return "srp: kernel " + e.Kernel + " failed its test for " + e.Profile
}

var (
	_ error = (*Error)(nil)
	_ error = (*KernelError)(nil)
)
