package restapi

import (
	"net/http"
	"slices"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// Flow is the part of a user's journey that a service belongs to.
type Flow string

// The flows.
const (
	FlowRegistration Flow = "Registration"
	FlowActivation   Flow = "Activation"
	FlowLogin        Flow = "Login"
	FlowSignature    Flow = "Signature"
	FlowPhone        Flow = "Phone"
)

// Flows returns all flows in the order in which a user meets them.
func Flows() []Flow {
	return []Flow{FlowRegistration, FlowActivation, FlowLogin, FlowSignature, FlowPhone}
}

// Describe says in one sentence what happens in the flow.
func (f Flow) Describe() string {
	switch f {
	case FlowRegistration:
		return "The bank's site registers a user and shows the user what the phone needs to activate itself."
	case FlowActivation:
		return "The phone proves that it knows the activation password, gets its activation data and becomes a device of the user."
	case FlowLogin:
		return "The user logs in with a one-time password, or approves or rejects on the phone a login that the bank requested."
	case FlowSignature:
		return "The user signs or rejects on the phone a transaction that the bank requested."
	default:
		return "The phone registers its push notification ID and asks for the time."
	}
}

// Description says what a service is for. Services of the same operation share it.
type Description struct {
	Flow Flow
	// Purpose is one sentence.
	Purpose string
	// Details are further sentences that a caller needs to know; may be empty.
	Details string
	// Refusals are the usual reasons for an answer without success and with HTTP status 200.
	Refusals []Refusal
}

// Refusal is a status with which the gateway or the authentication server refuses a request.
type Refusal struct {
	// Status is one of Statuses.
	Status string
	// When says when it comes.
	When string
	// Then says what the caller should do.
	Then string
}

// What a caller should do after a refusal.
const (
	thenAskAgain  = "Tell the user, and ask for the value again."
	thenRegister  = "Begin again with a new registration."
	thenGone      = "Tell the user that the request is over."
	thenTellUser  = "Tell the user to ask the bank."
	thenOperators = "Tell the operators."
)

// thenUnknown is what a caller should do if it is unknown whether a request was carried out.
const thenUnknown = "If the service can be repeated, send the same request again, up to three times within a minute: nothing is carried out twice. " +
	"If the answer stays the same, or the service cannot be repeated, find out whether the request was carried out, or begin again."

// What members mean that occur in several services.
var (
	userMeaning           = Meaning{"The name of the user within the domain.", "jane.doe"}
	domainMeaning         = Meaning{"The domain of the user. If it is empty, the authentication server uses its default domain.", "mydomain.com"}
	staticPasswordMeaning = Meaning{"The static password with which the user registers.", "sandbox"}
	identifierMeaning     = Meaning{"The identifier of the registration.", "e3wfISG9"}
	deviceMeaning         = Meaning{"The serial number of the device, that is, of its licence with a hyphen and the number of the device.", "VDS1000000-1"}
	counterMeaning        = Meaning{"The first half of the initial counter block of the encryption in hexadecimal digits.", "73BD6BC4C912DAD3"}
	macMeaning            = Meaning{"The message authentication code of counter and ciphertext in hexadecimal digits.", "1D9F3B70C2A4E68859B0D7F1A3C5E7092B4D6F8193A5B7C9DBEDF0123456789A"}
)

// Reasons for refusals of several services.
var (
	userUnknown = Refusal{"STAT_USER_UNKNOWN", "The authentication server does not know the user.", thenAskAgain}
	userLocked  = Refusal{"STAT_LOCKED", "The user is locked, for instance after too many wrong passwords.", thenTellUser}
	notProven   = Refusal{
		"STAT_INVCREDENTIALS",
		"There was no successful exchange for this registration, its proof was used before, or the registration is unknown, expired, burned or of another kind. All of these get the same answer.",
		thenRegister,
	}
	// notProvenNow is notProven where a new exchange can help.
	notProvenNow = Refusal{
		notProven.Status, notProven.When,
		"Begin again with the exchange. If that is refused, too, only a new registration helps.",
	}
	notPending = Refusal{"STAT_NOT_FOUND", "The request does not exist any longer: it was answered or cancelled, or it expired.", thenGone}
)

// keyDetails says how calls with idempotency keys are repeated.
const keyDetails = "The same key and body get the same registration as long as it is pending. After 500, 502 and 504 the same key gets the same error, and a new attempt needs a new key; after 503 the key is free again."

// describe returns the description of the services of an operation.
func describe(o gateway.Operation) Description {
	switch o {
	case gateway.OpRegisterActivation:
		return Description{
			FlowRegistration, "Registers a user for the activation of a phone.",
			"The answer has the registration identifier and the activation password, and the image that carries both to the phone. The gateway does not show the password again, except in the answer to the same call with its " + KeyField + ". " +
				"If the gateway relays exchanges, the authentication server chooses the licence, and licenseType and profile must be left out. " +
				"If it offers several profiles, the app of the user must have that of the registration: for an app of another profile the registration is unknown. " +
				"Every registration uses up a licence or counts towards its limits: name the call by an " + KeyField + ", so that it can be repeated without a second registration. " + keyDetails,
			[]Refusal{
				{"STAT_LOCAL_PASSWORD_MISMATCH", "The static password is wrong.", thenAskAgain},
				userUnknown, userLocked,
				{"STAT_DIGIPASS_NOT_AVAILABLE", "The user has no licence that can be activated.", thenTellUser},
				{"STAT_NOT_FOUND", "The user has no licence with this serial number.", "Tell the user, or leave the serial number out."},
				{"STAT_EXISTS", "The authentication server gave an identifier that another pending registration has.", "Try again once."},
			},
		}
	case gateway.OpRegisterOffline:
		return Description{
			FlowRegistration, "Registers a user for an offline activation, whose image carries Activation Message 1 itself.",
			"The phone needs no exchange then: it goes on with MdlAddDevice. " +
				"Every registration counts towards the limits of the licence: name the call by an " + KeyField + ", so that it can be repeated without a second registration. " + keyDetails,
			[]Refusal{
				{"STAT_LOCAL_PASSWORD_MISMATCH", "The static password is wrong.", thenAskAgain},
				userUnknown, userLocked,
				{"STAT_DIGIPASS_NOT_AVAILABLE", "The user has no licence that can be activated.", thenTellUser},
				{"STAT_EXISTS", "The authentication server gave an identifier that another pending registration has.", "Try again once."},
			},
		}
	case gateway.OpGenerateEphemeralKey:
		return Description{
			FlowActivation, "Begins the exchange with which the phone proves that it knows the activation password.",
			"This is the first call of SRP-6a: the phone sends A and gets B and the salt. It succeeds for every identifier, registered or not. A new call replaces an earlier one from the same address; a second call that belongs to the earlier one counts as a wrong proof.",
			nil,
		}
	case gateway.OpGenerateActivationData:
		return Description{
			FlowActivation, "Ends the exchange: the phone proves the activation password and gets its activation data, encrypted for it alone.",
			"This is the second call of SRP-6a: the phone sends M1 and gets M2, which it must verify before it uses anything else of the answer. " +
				"With a multi-device licence the answer has Activation Message 1, with a standard licence the member standard.",
			[]Refusal{{
				"STAT_INVCREDENTIALS",
				"The proof is wrong, the first call is missing or too old, or the registration is unknown, expired, burned or has no attempt left. All of these get the same answer.",
				"Tell the user to check the activation password, and begin again with the first call. After the last attempt only a new registration helps.",
			}},
		}
	case gateway.OpAddDevice:
		return Description{
			FlowActivation, "Adds the phone to the multi-device licence and returns Activation Message 2.",
			"One successful exchange admits one call. The description is what the bank's staff sees; characters other than letters, digits, spaces, '-', '_' and '.' become spaces.",
			[]Refusal{
				notProvenNow,
				{"STAT_DPERROR", "The device code is wrong.", "Mend the client."},
				{"STAT_DIGIPASS_NOT_AVAILABLE", "All devices of the licence are used.", thenTellUser},
				{"STAT_NOT_FOUND", "The authentication server does not know the registration any longer, for instance after an activation whose answer was lost.", thenRegister},
			},
		}
	case gateway.OpActivate:
		return Description{
			FlowActivation, "Ends the activation of a device of a multi-device licence with the confirmation that it derived from Activation Message 2.",
			"The registration is gone after a success.",
			[]Refusal{
				notProven,
				{"STAT_OTP_INCORRECT", "The confirmation is wrong.", "Mend the client. The call can be repeated with the right confirmation."},
				{"STAT_NOT_FOUND", "No device was added to this registration, or the authentication server does not know it.", thenRegister},
			},
		}
	case gateway.OpActivateStandard:
		return Description{
			FlowActivation, "Ends the activation of a standard licence with the first one-time password of the device or with a derivation code.",
			"Exactly one of response and derivationCode is needed. The registration is gone after a success.",
			[]Refusal{
				notProven,
				{"STAT_OTP_INCORRECT", "The one-time password or the derivation code is wrong.", thenAskAgain},
				userLocked,
			},
		}
	case gateway.OpServerTime:
		return Description{
			FlowPhone, "Returns the clock of the gateway, so that a phone can find out how wrong its own is.",
			"The body may be empty.",
			nil,
		}
	case gateway.OpAuthenticate:
		return Description{
			FlowLogin, "Logs a user in with a one-time password.",
			"A one-time password is used up by the call, whatever the answer.",
			[]Refusal{
				{"STAT_OTP_INCORRECT", "The one-time password is wrong or was used before.", "Tell the user, and send the next one-time password."},
				userUnknown, userLocked,
				{"STAT_LOCAL_PASSWORD_MISMATCH", "The password is neither a one-time password of a device of the user nor the static password.", thenAskAgain},
				{"STAT_INVCREDENTIALS", "One of the above, if the gateway or the authentication server is set to conceal which.", thenAskAgain},
			},
		}
	case gateway.OpRetrieveLogin, gateway.OpRetrieveSignature:
		d := Description{
			FlowLogin, "Retrieves a login that waits for the phone.",
			"The first application and device that retrieve a request own it. The message is encrypted for the device; the user must see what it says before approving it. After the call, the phone completes or cancels the request.",
			[]Refusal{{"STAT_NOT_FOUND", "There is no such request, it is for another device, it expired, or it was retrieved before, also by the same phone.", thenGone}},
		}
		if o == gateway.OpRetrieveSignature {
			d.Flow, d.Purpose = FlowSignature, "Retrieves a transaction that waits for a signature by the phone."
		}
		return d
	case gateway.OpCompleteLogin:
		return Description{
			FlowLogin, "Approves a login that the phone has retrieved.",
			"The signature is computed by the device over the retrieved message.",
			[]Refusal{
				notPending,
				{"STAT_EXP_CHALLENGE", "The approval came too late.", thenGone},
				{"STAT_OTP_INCORRECT", "The signature is wrong. The login stays open for the right one.", "Mend the client."},
				userUnknown, userLocked,
				{"STAT_INVCREDENTIALS", "One of the above, if the gateway or the authentication server is set to conceal which.", thenGone},
			},
		}
	case gateway.OpCompleteSignature:
		return Description{
			FlowSignature, "Signs a transaction that the phone has retrieved.",
			"The signature is computed by the device over the retrieved message.",
			[]Refusal{
				notPending,
				{"STAT_OTP_INCORRECT", "The signature is wrong. The transaction stays open for the right one.", "Mend the client."},
				userUnknown, userLocked,
			},
		}
	case gateway.OpCancelLogin, gateway.OpCancelSignature:
		d := Description{
			FlowLogin, "Rejects a login that the phone has retrieved.",
			"Only the application and the device that retrieved the request can cancel it. The device sends the key wrapped in a secure-channel message; a plain key is accepted unless the gateway is set to refuse it. " +
				"A rejection counts neither as a wrong password nor towards the lock of the user.",
			[]Refusal{
				{"STAT_NOSUPPORT", "Another application or device has retrieved the request, or nobody has, or the message with the wrapped key cannot be decrypted.", "Tell the user that the request is over. If this device has retrieved it, mend the client: the request stays open."},
				notPending,
			},
		}
		if o == gateway.OpCancelSignature {
			d.Flow, d.Purpose = FlowSignature, "Rejects a transaction that the phone has retrieved."
		}
		return d
	case gateway.OpUpdateNotificationID:
		return Description{
			FlowPhone, "Registers the push notification ID of a device.",
			"Phones call it after the activation and whenever the operating system has changed the ID. It can be repeated without harm.",
			[]Refusal{
				{"STAT_NOT_FOUND", "The user has no such device.", "Begin again with a new activation."},
				userUnknown,
				{"STAT_INVDATA", "The message with the ID cannot be decrypted.", "Mend the client."},
			},
		}
	}
	return Description{}
}

// Answer is one kind of answer of the services.
type Answer struct {
	Outcome Outcome
	// HTTPStatus is the status of HTTP.
	HTTPStatus int
	// Status is the statusCodeEnum, one of Statuses; empty for a refusal, which has one of its
	// own.
	Status string
	// When says in which situations it comes.
	When string
	// Then says what the caller should do.
	Then string
	// RetryAfter means that the answer has the header field Retry-After.
	RetryAfter bool
	// Elsewhere means that no service answers so: the path or the method of the request is not
	// that of a service.
	Elsewhere bool
}

// Answers returns all kinds of answers, in the order of their HTTP status.
func Answers() []Answer {
	answers := []Answer{
		{Outcome: Success, When: "The service was carried out.", Then: "Go on."},
		{Outcome: Refused, When: "The gateway or the authentication server has refused the request. Its statusCodeEnum says why.", Then: "See the statuses of the service."},
		{
			Outcome: Invalid,
			When: "The body is not one JSON object in UTF-8, or a member is missing, empty, too short, too long, no string, present twice or has characters that are not allowed. " +
				"A member whose name differs from a missing one only in case, '_' or '-', or by one character, is invalid, too; other unknown members are ignored.",
			Then: "Mend the client: errorDescription names the member and the problem, never a value.",
		},
		{Outcome: Unauthenticated, When: "There is no API key, the key is unknown, or the password of HTTP Basic is not empty.", Then: "Mend the client or its configuration."},
		{Outcome: Forbidden, When: "The key is of the wrong class for the service, or is not accepted from this address.", Then: "Mend the client or its configuration."},
		{Outcome: NotFound, When: "The path is not that of a service.", Then: "Mend the client.", Elsewhere: true},
		{Outcome: MethodNotAllowed, When: "The method is not POST.", Then: "Mend the client.", Elsewhere: true},
		{Outcome: TooSlow, When: "The body did not arrive in time.", Then: "Try again."},
		{Outcome: UnderWay, RetryAfter: true, When: "The first request with this " + KeyField + " is still under way.", Then: "Send it again after Retry-After seconds."},
		{Outcome: TooLarge, When: "The body is too large.", Then: "Mend the client."},
		{Outcome: UnsupportedMedia, When: "The content type is not application/json in UTF-8, or the body has a content encoding.", Then: "Mend the client."},
		{Outcome: KeyReused, When: "The " + KeyField + " was used with another body or for another service.", Then: "Mend the client: every registration has a key of its own."},
		{Outcome: TooEarly, When: "The request was sent in TLS early data.", Then: "Try again after the handshake."},
		{
			Outcome: Limited, RetryAfter: true,
			When: "The client address or the application has sent too many requests or has too many under way, its address has sent too many wrong keys, or the gateway computes too many exchanges.",
			Then: "Try again after Retry-After seconds.",
		},
		{
			Outcome: Internal,
			When:    "An error of the gateway. For a registration: the authentication server has made it and the gateway could not store it.",
			Then:    "Do not repeat the request; tell the operators the X-Request-Id.",
		},
		{
			Outcome: BadAnswer,
			When:    "The authentication server has given no usable answer, or the connection to it was lost. It is unknown whether it has carried out the request.",
			Then:    thenUnknown,
		},
		{
			Outcome: Unavailable, RetryAfter: true,
			When: "No authentication server can be reached, not all that may have the request could be asked, or the store is needed and cannot be used. Nothing was carried out, but an attempt of an activation may be used up.",
			Then: "Try again after Retry-After seconds.",
		},
		{
			Outcome: Timeout,
			When:    "The authentication server has not answered in time. It is unknown whether it has carried out the request.",
			Then:    thenUnknown,
		},
	}
	for i := range answers {
		r := responseFor(answers[i].Outcome)
		answers[i].HTTPStatus, answers[i].Status = r.status, r.codes.StatusCodeEnum
	}
	return answers
}

// Example returns the codes and the errorDescription of an example of the answer.
func (a Answer) Example() (codes gateway.ResultCodes, description string) {
	r := responseFor(a.Outcome)
	if a.Outcome == Invalid {
		r.description = "userID is missing"
	}
	return r.codes, r.description
}

// Answers returns the kinds of answers that a request to the path of the service with method
// POST can get.
func (s *Service) Answers() []Answer {
	return slices.DeleteFunc(Answers(), func(a Answer) bool {
		local := s.quota == localCalls
		switch a.HTTPStatus {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return local
		case http.StatusConflict, http.StatusUnprocessableEntity:
			return !s.Keyed
		}
		return a.Elsewhere || a.Outcome == Refused && local
	})
}

// Status is a documented status. An authentication server may use others.
type Status struct {
	// Name is the statusCodeEnum.
	Name string
	// Number is the statusCode, empty if the vendor does not publish it.
	Number string
	// When says when it comes.
	When string
}

// Statuses returns all statuses that are documented. An authentication server may use others.
func Statuses() []Status {
	return []Status{
		{"STAT_SUCCESS", "0", "Success."},
		{"STAT_ERROR", "-1", "An error without details: of the gateway with HTTP status 409, 429 or 500, of the authentication server with 200."},
		{"STAT_INVPARAM", "-2", "The request is malformed: of the gateway with HTTP status 400, 405, 408, 413, 415, 422 or 425, of the authentication server with 200."},
		{"STAT_MEMORY", "-3", "The authentication server has no memory left."},
		{"STAT_COMMS", "-10", "A server did not work: an authentication server or the store with HTTP status 502, 503 or 504; with 200, something that the authentication server needs."},
		{"STAT_LICENCE", "-11", "The authentication server has a problem with its own licence."},
		{"STAT_OS_FAILURE", "-12", "The operating system of the authentication server has a problem."},
		{"STAT_NOT_FOUND", "-13", "The request, device or licence does not exist, or the request was retrieved before; with HTTP status 404, the path is not that of a service."},
		{"STAT_EXISTS", "-14", "What should be made exists already."},
		{"STAT_INVCREDENTIALS", "1000", "A proof or password is refused, without the reason; with HTTP status 401, the API key."},
		{"STAT_GROUPCHK", "1002", "The user is not in the required group."},
		{"STAT_EXP_CHALLENGE", "1004", "The user answered too late."},
		{"STAT_PERMISSION", "1005", "A right is missing: with HTTP status 403, that of the API key."},
		{"STAT_LOCALAUTH", "1006", "The authentication server is not responsible for this user."},
		{"STAT_LOCKED", "1007", "The user is locked."},
		{"STAT_NOSUPPORT", "", "The caller may not cancel this request, since somebody else has retrieved it."},
		{"STAT_OTP_INCORRECT", "", "A one-time password, signature or confirmation is wrong."},
		{"STAT_LOCAL_PASSWORD_MISMATCH", "", "The static password is wrong."},
		{"STAT_USER_UNKNOWN", "", "The user does not exist."},
		{"STAT_DIGIPASS_NOT_AVAILABLE", "", "The user has no suitable licence or device."},
		{"STAT_INVDATA", "", "A message of the device cannot be used."},
		{"STAT_DPERROR", "", "A code of the device is wrong."},
		{"STAT_ADMIN_SESSION_STOPPED", "", "A session of the authentication server has ended. No service of the gateway needs one."},
	}
}
