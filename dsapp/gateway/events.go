package gateway

import (
	"errors"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// Verdict is what the ownership of a pending request means for a call.
type Verdict string

// What is decided before anything is forwarded.
const (
	// VerdictOwned forwards the call to where the request's owner retrieved it.
	VerdictOwned Verdict = "owned"
	// VerdictUnknown forwards the call without knowing an owner.
	VerdictUnknown Verdict = "unknown"
	// VerdictBlind does so because the owner could not be asked for.
	VerdictBlind Verdict = "blind"
	// VerdictAlreadyOwned refuses to retrieve a request once more.
	VerdictAlreadyOwned Verdict = "already_owned"
	// VerdictForeign refuses to cancel a request that another retrieved.
	VerdictForeign Verdict = "foreign"
	// VerdictRefusedPlain refuses to cancel a request by its plain key.
	VerdictRefusedPlain Verdict = "refused_plain"
	// VerdictRefusedUnknown refuses to cancel a request that nobody is known to
	// have retrieved.
	VerdictRefusedUnknown Verdict = "refused_unknown"
)

// What becomes of a request that an authentication server gave out.
const (
	// VerdictClaimed means that the caller owns it now.
	VerdictClaimed Verdict = "claimed"
	// VerdictLost means that another one owns it: its message was dropped.
	VerdictLost Verdict = "lost"
	// VerdictUnowned means that nobody is known to own it, because that could not
	// be kept.
	VerdictUnowned Verdict = "unowned"
)

// OwnershipEvent is a verdict on a call.
type OwnershipEvent struct {
	Operation Operation
	Verdict   Verdict
}

// AuditAction is what happened.
type AuditAction string

// The audited actions.
const (
	// AuditRegistered is a registration for an activation exchange.
	AuditRegistered AuditAction = "registered"
	// AuditRegisteredOffline is a registration whose Activation Message 1 was
	// handed out in clear.
	AuditRegisteredOffline AuditAction = "registered_offline"
	// AuditRegistrationRefused is a registration that the authentication server
	// refused, for a wrong static password, say.
	AuditRegistrationRefused AuditAction = "registration_refused"
	// AuditRegistrationLost is a registration that the authentication server made
	// and that was not kept: its answer cannot be used, or the store did not take
	// it. Of the answer it tells what can be used.
	AuditRegistrationLost AuditAction = "registration_lost"
	// AuditIdentifierExists is a registration under an identifier that belongs
	// to another user, domain or instance.
	AuditIdentifierExists AuditAction = "identifier_exists"
	// AuditExchangeContended is a first call of an exchange while one of another
	// address or application waits for its proof. It is told at most once a minute
	// for each identifier, known or not, of the call that came later: which of the
	// two is the user's is not known. It is not told of exchanges that an
	// authentication server carries out.
	AuditExchangeContended AuditAction = "exchange_contended"
	// AuditProven is an exchange that ended well: activation data was handed out.
	AuditProven AuditAction = "proven"
	// AuditProofRefused is a refused proof, whatever the reason.
	AuditProofRefused AuditAction = "proof_refused"
	// AuditRegistrationBurned is a registration whose attempts were used up by
	// refused proofs: its user has to register anew. The event of the last of these
	// proofs follows it; whose they were is not known. It is not told of exchanges
	// that an authentication server carries out.
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
	// AuditAuthenticated is a one-time password that was right.
	AuditAuthenticated AuditAction = "authenticated"
	// AuditAuthenticationRefused is a one-time password that the authentication
	// server refused.
	AuditAuthenticationRefused AuditAction = "authentication_refused"
	// AuditRetrieved is a pending request that was handed out to a device. The
	// operation of this event and of the other events of pending requests tells
	// which kind of request it is.
	AuditRetrieved AuditAction = "retrieved"
	// AuditRequestLost is a pending request that the authentication server gave
	// out although another owns it: it was kept from the device that asked.
	AuditRequestLost AuditAction = "request_lost"
	// AuditCompleted is a pending request that its user approved.
	AuditCompleted AuditAction = "completed"
	// AuditCompletionRefused is an approval that the authentication server refused.
	AuditCompletionRefused AuditAction = "completion_refused"
	// AuditCancelled is a pending request that its user rejected.
	AuditCancelled AuditAction = "cancelled"
	// AuditCancelRefused is an attempt to cancel a pending request that the gateway
	// refused, because the request is not known to be the caller's, or an
	// authentication server. The event of the gateway's own refusal has no instance.
	AuditCancelRefused AuditAction = "cancel_refused"
	// AuditNotificationIDUpdated is a device that gets its notifications at
	// another place from now on.
	AuditNotificationIDUpdated AuditAction = "notification_id_updated"
	// AuditNotificationIDRefused is a notification ID that the authentication server
	// refused.
	AuditNotificationIDRefused AuditAction = "notification_id_refused"
)

// AuditEvent is an event for an audit trail. Members that do not apply or are
// not known are empty. None is a secret, and none is longer than 255 bytes.
type AuditEvent struct {
	Action       AuditAction
	Operation    Operation
	Application  string
	Registration form.Identifier
	form.Subject
	// Status of a refusal: the authentication server's own, also where the client
	// is told another one.
	Status string
}

const maxAuditValue = 255

// bounded returns e with every value of foreign origin cut to the limit.
func (e AuditEvent) bounded() AuditEvent {
	for _, v := range []*string{&e.Application, (*string)(&e.Registration), &e.UserID, &e.Domain, &e.SerialNumber, &e.Instance, &e.Status} {
		*v = strings.ToValidUTF8((*v)[:min(len(*v), maxAuditValue)], "")
	}
	return e
}

// instanceOf tells which instance a failed command was given to.
func instanceOf(err error) string {
	if refusal, ok := errors.AsType[*authserver.Refusal](err); ok {
		return refusal.Instance
	}
	if call, ok := errors.AsType[*authserver.CallError](err); ok {
		return call.Instance
	}
	return ""
}
