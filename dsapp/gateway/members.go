package gateway

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
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

// Limits of the members, in characters. The authentication server keeps no more.
// Of user and domain neither do registrations, which count bytes.
const (
	MaxUserID         = 255
	MaxDomain         = 255
	MaxStaticPassword = 128
	MaxDescription    = 255
)

// MaxPassword is the greatest length of what verifies a user online, in
// characters: some policies want a static password in front of the one-time
// password.
const MaxPassword = 255

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

// rule is what one member has to comply with.
type rule struct {
	member Member
	value  string
	// required says that the member must not be empty.
	required bool
	// longest is the greatest length in characters.
	longest int
	// problem tells why a value is not acceptable; empty if it is.
	problem func(string) string
}

// check returns an *InvalidError for the first rule that is broken.
func check(rules ...rule) error {
	for _, r := range rules {
		if r.required && r.value == "" {
			return &InvalidError{Member: r.member, Problem: "must not be empty"}
		}
		if utf8.RuneCountInString(r.value) > r.longest {
			return &InvalidError{Member: r.member, Problem: fmt.Sprintf("must not be longer than %d characters", r.longest)}
		}
		if problem := r.problem(r.value); problem != "" {
			return &InvalidError{Member: r.member, Problem: problem}
		}
	}
	return nil
}

// checkRegistrant checks what names and authenticates a user for a registration,
// which keeps the names.
func checkRegistrant(userID, domain, staticPassword string) error {
	return check(
		rule{MemberUserID, userID, true, MaxUserID, factProblem},
		rule{MemberDomain, domain, false, MaxDomain, factProblem},
		rule{MemberStaticPassword, staticPassword, true, MaxStaticPassword, textProblem},
	)
}

// checkUser checks what names a user.
func checkUser(userID, domain string) error {
	return check(
		rule{MemberUserID, userID, true, MaxUserID, textProblem},
		rule{MemberDomain, domain, false, MaxDomain, textProblem},
	)
}

// serialNumbers are the characters of serial numbers.
var serialNumbers = regexp.MustCompile(`^[A-Za-z0-9-]{1,22}$`)

// checkSerialNumber checks the serial number of a licence or a device before
// anything is looked up by it.
func checkSerialNumber(serialNumber string) error {
	if !serialNumbers.MatchString(serialNumber) {
		return &InvalidError{Member: MemberSerialNumber, Problem: "must be 1 to 22 characters of A-Z, a-z, 0-9 and '-'"}
	}
	return nil
}

// plainKeyRule is the form of a plain key, which names the request.
const plainKeyRule = "1 to 64 characters of A-Z, a-z and 0-9"

// checkPlainKey checks the plain key of a pending request before anything is
// looked up by it.
func checkPlainKey(key string) error {
	if !ownership.ValidKey(key) {
		return &InvalidError{Member: MemberKey, Problem: "must be " + plainKeyRule}
	}
	return nil
}

// checkKey checks a key that may be wrapped.
func checkKey(key string) error {
	if !ownership.ValidKey(key) && !ownership.Wrapped(key) {
		return &InvalidError{Member: MemberKey, Problem: "must be " + plainKeyRule + ", or an even number of hex digits, at least 32"}
	}
	return nil
}

// checkNotificationID checks the form of a wrapped notification ID.
func checkNotificationID(id string) error {
	if _, err := hex.DecodeString(id); err != nil || id == "" {
		return &InvalidError{Member: MemberNotificationID, Problem: "must be an even number of hex digits, at least 2"}
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
