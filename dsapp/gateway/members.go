package gateway

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// Member names one member of a request, whatever it is called in the request's
// encoding.
type Member string

// The members of the requests.
const (
	MemberUserID         Member = "userID"
	MemberDomain         Member = "domain"
	MemberStaticPassword Member = "staticPassword"
	MemberLicenseType    Member = "licenseType"
	MemberSerialNumber   Member = "serialNumber"
	MemberRegistration   Member = "registrationIdentifier"
	MemberClientPublic   Member = "clientEphemeralPublicKey"
	MemberClientEvidence Member = "clientEvidenceMessage"
	MemberDeviceCode     Member = "deviceCode"
	MemberDescription    Member = "description"
	MemberSignature      Member = "signature"
	MemberKey            Member = "key"
	MemberPassword       Member = "password"
	MemberNotificationID Member = "notificationID"
	MemberResponse       Member = "response"
	MemberDerivationCode Member = "derivationCode"
)

// imageSeparator parts the fields of an activation image.
const imageSeparator = ";"

// plainDescription replaces every character of a device's description that is
// neither a letter, a mark, a digit, a space nor one of "-_." by a space, which
// is what an authentication server can show anywhere.
func plainDescription(description form.Description) string {
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.L, unicode.M, unicode.Nd) && r != utf8.RuneError || strings.ContainsRune("-_.", r) {
			return r
		}
		return ' '
	}, string(description))
}
