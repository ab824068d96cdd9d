package activation

// What tests of a whole Service need to seal values as it does.
var (
	RecordLabel    = recordLabel
	HandshakeLabel = handshakeLabel
	SecretLabel    = secretLabel
	EncodeSubject  = encodeSubject
	WithName       = withName
)

const (
	SealedFacts    = sealedFacts
	SealedVerifier = sealedVerifier
	SealedData     = sealedData
	SecretSize     = secretSize
	SecretRefresh  = secretRefresh
)
