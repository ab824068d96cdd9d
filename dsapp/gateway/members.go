package gateway

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
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
)

// Limits of the members, in characters. The authentication server keeps no more.
// Of user and domain neither do registrations, which count bytes.
const (
	MaxUserID         = 255
	MaxDomain         = 255
	MaxStaticPassword = 128
	MaxDescription    = 255
)

// imageSeparator parts the fields of an activation image, which have no escape for it.
const imageSeparator = ";"

// imageFieldProblem tells why s cannot be a field of an activation image; empty if it can.
func imageFieldProblem(s string) string {
	if strings.Contains(s, imageSeparator) {
		return "must not contain a semicolon"
	}
	return textProblem(s)
}

// factProblem tells why s cannot be kept with a registration; empty if it can.
func factProblem(s string) string {
	if len(s) > activation.MaxFactLength {
		return fmt.Sprintf("must not be longer than %d bytes in UTF-8", activation.MaxFactLength)
	}
	return imageFieldProblem(s)
}

// textProblem tells why s cannot be forwarded as it is; empty if it can.
func textProblem(s string) string {
	if !utf8.ValidString(s) {
		return "must be valid UTF-8"
	}
	// U+FFFE and U+FFFF have no form in XML 1.0, nor do most control characters.
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\uFFFE' || r == '\uFFFF' }) {
		return "must not contain control characters"
	}
	return ""
}

// checkUser checks what names and authenticates a user.
func checkUser(userID, domain, staticPassword string) error {
	switch {
	case userID == "":
		return &InvalidError{Member: MemberUserID, Problem: "must not be empty"}
	case staticPassword == "":
		return &InvalidError{Member: MemberStaticPassword, Problem: "must not be empty"}
	}
	for _, c := range []struct {
		member  Member
		value   string
		max     int
		problem func(string) string
	}{
		{MemberUserID, userID, MaxUserID, factProblem},
		{MemberDomain, domain, MaxDomain, factProblem},
		{MemberStaticPassword, staticPassword, MaxStaticPassword, textProblem},
	} {
		if utf8.RuneCountInString(c.value) > c.max {
			return &InvalidError{Member: c.member, Problem: fmt.Sprintf("must not be longer than %d characters", c.max)}
		}
		if problem := c.problem(c.value); problem != "" {
			return &InvalidError{Member: c.member, Problem: problem}
		}
	}
	return nil
}

// checkIdentifier checks a registration identifier before anything is looked up by it.
func checkIdentifier(identifier string) error {
	if !activation.ValidIdentifier(identifier) {
		return &InvalidError{Member: MemberRegistration, Problem: "must be 4 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'"}
	}
	return nil
}

// plainDescription replaces every character of a device's description that is
// neither a letter, a mark, a digit, a space nor one of "-_." by a space, which
// is what an authentication server can show anywhere.
func plainDescription(description string) (string, error) {
	if utf8.RuneCountInString(description) > MaxDescription {
		return "", &InvalidError{Member: MemberDescription, Problem: fmt.Sprintf("must not be longer than %d characters", MaxDescription)}
	}
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.L, unicode.M, unicode.Nd) && r != utf8.RuneError || strings.ContainsRune("-_.", r) {
			return r
		}
		return ' '
	}, description), nil
}
