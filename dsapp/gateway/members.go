package gateway

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// Member is the name of a request's member in the REST interface.
type Member string

// The members that an InvalidError can be about: those with rules that need more than
// the form of the single value.
const (
	MemberLicenseType    Member = "licenseType"
	MemberSerialNumber   Member = "serialNumber"
	MemberProfile        Member = "profile"
	MemberClientPublic   Member = "clientEphemeralPublicKey"
	MemberClientEvidence Member = "clientEvidenceMessage"
	MemberResponse       Member = "response"
	MemberDerivationCode Member = "derivationCode"
)

// plainDescription replaces every character of a device's description that is neither a
// letter, a mark, a digit, a space nor one of "-_." by a space. What remains can be shown
// by every console of an authentication server.
func plainDescription(description form.Description) string {
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.L, unicode.M, unicode.Nd) && r != utf8.RuneError || strings.ContainsRune("-_.", r) {
			return r
		}
		return ' '
	}, string(description))
}
