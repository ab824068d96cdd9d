package gateway

import (
	"errors"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// Verdict is a decision about a pending request, or the result of recording its owner.
type Verdict string

// The decisions before anything is forwarded.
const (
	// VerdictOwned forwards the call to the instance that holds the request.
	VerdictOwned Verdict = "owned"
	// VerdictUnknown forwards the call although the request has no known owner.
	VerdictUnknown Verdict = "unknown"
	// VerdictBlind forwards the call although the store could not be asked for the owner.
	VerdictBlind Verdict = "blind"
	// VerdictAlreadyOwned refuses to retrieve a request that was retrieved before.
	VerdictAlreadyOwned Verdict = "already_owned"
	// VerdictForeign refuses to cancel a request of another owner.
	VerdictForeign Verdict = "foreign"
	// VerdictRefusedPlain refuses to cancel a request by its plain key.
	VerdictRefusedPlain Verdict = "refused_plain"
	// VerdictRefusedUnknown refuses to cancel a request without a known owner.
	VerdictRefusedUnknown Verdict = "refused_unknown"
)

// The results of recording the owner of a request that an authentication server gave out.
const (
	// VerdictClaimed means that the caller owns the request now.
	VerdictClaimed Verdict = "claimed"
	// VerdictLost means that another caller owns the request. Its message was dropped.
	VerdictLost Verdict = "lost"
	// VerdictUnowned means that the owner could not be stored.
	VerdictUnowned Verdict = "unowned"
)

// OwnershipEvent is a verdict with the operation that it is about.
type OwnershipEvent struct {
	Operation Operation
	Verdict   Verdict
}

// RepeatEvent is a call that came before, with what became of the first one.
type RepeatEvent struct {
	Operation Operation
	Outcome   RepeatOutcome
}

// AuditAction says what happened.
type AuditAction string

// The audited actions.
const (
	// AuditRegistered is a registration for an activation exchange.
	AuditRegistered AuditAction = "registered"
	// AuditRegisteredOffline is a registration whose Activation Message 1 was returned
	// unencrypted.
	AuditRegisteredOffline AuditAction = "registered_offline"
	// AuditRegistrationRefused is a registration that the authentication server
	// refused, for example because of a wrong static password.
	AuditRegistrationRefused AuditAction = "registration_refused"
	// AuditRegistrationLost is a registration that the authentication server made and
	// the gateway did not store, because the server's answer cannot be used or the store
	// failed. The event has the usable parts of the answer.
	AuditRegistrationLost AuditAction = "registration_lost"
	// AuditIdentifierExists is a registration under an identifier that belongs
	// to another user, domain or instance.
	AuditIdentifierExists AuditAction = "identifier_exists"
	// AuditExchangeContended is a first call of an exchange while an exchange of another
	// address or application waits for its proof. The event is about the later call;
	// which of the two calls is the user's is not known. There is at most one event a
	// minute for each identifier, known or not, and none for relayed exchanges.
	AuditExchangeContended AuditAction = "exchange_contended"
	// AuditProven is a successful exchange: activation data was handed out.
	AuditProven AuditAction = "proven"
	// AuditProofRefused is a proof that was refused for any reason.
	AuditProofRefused AuditAction = "proof_refused"
	// AuditRegistrationBurned is a registration whose attempts were used up by refused
	// proofs, of which it is not known who sent them. The user has to register again.
	// The event AuditProofRefused of the last proof follows. There is none for relayed
	// exchanges.
	AuditRegistrationBurned AuditAction = "registration_burned"
	// AuditDeviceAdded is a device added to a licence.
	AuditDeviceAdded AuditAction = "device_added"
	// AuditDeviceRefused is a device that the gateway or the authentication server
	// refused to add.
	AuditDeviceRefused AuditAction = "device_refused"
	// AuditActivated is a completed activation.
	AuditActivated AuditAction = "activated"
	// AuditConfirmationRefused is a final call that the gateway or the
	// authentication server refused.
	AuditConfirmationRefused AuditAction = "confirmation_refused"
	// AuditAuthenticated is a one-time password that the authentication server accepted.
	AuditAuthenticated AuditAction = "authenticated"
	// AuditAuthenticationRefused is a one-time password that the authentication
	// server refused.
	AuditAuthenticationRefused AuditAction = "authentication_refused"
	// AuditRetrieved is a pending request that was handed out to a device. In this event
	// and the other events about pending requests, the operation says which kind of
	// request it is.
	AuditRetrieved AuditAction = "retrieved"
	// AuditRequestLost is a pending request that the authentication server gave out
	// although it has another owner. The device that asked for it did not get it.
	AuditRequestLost AuditAction = "request_lost"
	// AuditCompleted is a pending request that its user approved.
	AuditCompleted AuditAction = "completed"
	// AuditCompletionRefused is an approval that the authentication server refused.
	AuditCompletionRefused AuditAction = "completion_refused"
	// AuditCancelled is a pending request that its user rejected.
	AuditCancelled AuditAction = "cancelled"
	// AuditCancelRefused is an attempt to cancel a pending request that the gateway or an
	// authentication server refused. The gateway refuses it if the request is not known
	// to be the caller's; that event has no instance.
	AuditCancelRefused AuditAction = "cancel_refused"
	// AuditRepeated is a call that got the answer of the same call before. The event of
	// that one says what was done.
	AuditRepeated AuditAction = "repeated"
	// AuditNotificationIDUpdated is a device with a new push notification ID.
	AuditNotificationIDUpdated AuditAction = "notification_id_updated"
	// AuditNotificationIDRefused is a notification ID that the authentication server
	// refused.
	AuditNotificationIDRefused AuditAction = "notification_id_refused"
)

// AuditEvent is an event for an audit trail. Members that do not apply or are not known
// are empty. No member is secret or longer than 255 bytes.
type AuditEvent struct {
	Action       AuditAction
	Operation    Operation
	Application  string
	Registration form.Identifier
	form.Subject
	// Profile is the name of the profile of an exchange of the gateway: that of a new
	// registration, else that of the calling application.
	Profile string
	// Status of a refusal. It is the authentication server's own, even if the client
	// gets another one.
	Status string
}

const maxAuditValue = 255

// truncated returns e with every value from outside cut to maxAuditValue bytes.
func (e AuditEvent) truncated() AuditEvent {
	for _, v := range []*string{&e.Application, (*string)(&e.Registration), &e.UserID, &e.Domain, &e.SerialNumber, &e.Instance, &e.Status} {
		*v = strings.ToValidUTF8((*v)[:min(len(*v), maxAuditValue)], "")
	}
	return e
}

// instanceOf returns the instance that a failed command was sent to, if err names one.
func instanceOf(err error) string {
	if refusal, ok := errors.AsType[*authserver.Refusal](err); ok {
		return refusal.Instance
	}
	if call, ok := errors.AsType[*authserver.CallError](err); ok {
		return call.Instance
	}
	return ""
}
