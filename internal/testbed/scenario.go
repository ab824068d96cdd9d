//go:build linux

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Scenario is a sequence of requests whose answers are known beforehand.
type Scenario struct {
	Name string
	play func(w *worker)
}

// The scenarios.
var (
	activations          = Scenario{"activation", (*worker).activation}
	wrongPasswords       = Scenario{"wrong activation password", (*worker).wrongPassword}
	unknownRegistrations = Scenario{"unknown registration", (*worker).unknownRegistration}
	completions          = Scenario{"completion", (*worker).completion}
	cancellations        = Scenario{"cancellation", (*worker).cancellation}
	ForeignCancels       = Scenario{"foreign cancel", (*worker).foreignCancel}
	oneTimePasswords     = Scenario{"one-time password", (*worker).oneTimePassword}
	serverTimes          = Scenario{"server time", (*worker).serverTime}

	// AllScenarios has those that cost little twice.
	AllScenarios = []Scenario{
		activations, serverTimes, oneTimePasswords, completions, unknownRegistrations,
		wrongPasswords, ForeignCancels, serverTimes, oneTimePasswords, cancellations,
	}
)

// register has the bank's site register a user.
func (w *worker) register(user string) (sandbox.RegisteredUser, bool) {
	registered, err := w.phone.RegisterUser(w.ctx, BackEndKey, sandbox.UserRegistration{
		UserID: user, Domain: Domain, StaticPassword: StaticPassword,
	})
	_, known := w.identifiers.LoadOrStore(registered.RegistrationIdentifier, nil)
	return registered, w.require(err, err != nil || !known, "a new registration identifier")
}

// activate has the phone complete a registration.
func (w *worker) activate(user string, r sandbox.RegisteredUser) (*sandbox.Authenticator, bool) {
	done, err := w.phone.Activate(w.ctx, r.RegistrationIdentifier, r.ActivationPassword)
	ok := w.require(err, done.UserID == user && done.Domain == Domain, "an activation of the registered user")
	return done.Authenticator, ok
}

// closed tries to add a device to a registration that must not admit one.
func (w *worker) closed(r sandbox.RegisteredUser) bool {
	err := w.post(AddDevicePath, FrontEndKey, Object{
		"registrationIdentifier": r.RegistrationIdentifier, "deviceCode": "12345678901234567890123456",
	})
	return w.require(err, w.status == http.StatusOK && w.body == Refused, "no admission")
}

// activation is a whole activation. Afterwards the registration is gone.
func (w *worker) activation() {
	user := ActivationUser(w.number)
	r, ok := w.register(user)
	if !ok {
		return
	}
	if _, ok := w.activate(user, r); ok {
		w.closed(r)
	}
}

// wrongPassword tries a wrong activation password, which must not activate anything, and then
// the right one.
func (w *worker) wrongPassword() {
	user := ActivationUser(w.number)
	r, ok := w.register(user)
	if !ok {
		return
	}
	_, err := w.phone.Activate(w.ctx, r.RegistrationIdentifier, "wrong-password")
	if err != nil && w.path == EphemeralKeyPath {
		w.passed(err) // the first answer cannot tell that the password is wrong
		return
	}
	if w.refusedWith(err, "STAT_INVCREDENTIALS", Refused) && w.closed(r) {
		w.activate(user, r)
	}
}

// unknownRegistration makes both calls of an exchange for an identifier that nobody registered.
// The salt of an identifier never changes.
func (w *worker) unknownRegistration() {
	identifier := fmt.Sprintf("LoadUnknown%d", w.turn%8)
	err := w.post(EphemeralKeyPath, FrontEndKey, Object{"registrationIdentifier": identifier, "clientEphemeralPublicKey": "05"})
	var answer struct{ Result struct{ Salt string } }
	ok := err == nil && w.status == http.StatusOK && json.Unmarshal([]byte(w.body), &answer) == nil && answer.Result.Salt != ""
	if ok {
		salt, _ := w.salts.LoadOrStore(identifier, answer.Result.Salt)
		ok = salt == answer.Result.Salt
	}
	if !w.require(err, ok, "the salt of before") {
		return
	}
	err = w.post(ActivationDataPath, FrontEndKey, Object{"registrationIdentifier": identifier, "clientEvidenceMessage": strings.Repeat("5A", 32)})
	w.require(err, w.status == http.StatusOK && w.body == Refused, "a refusal")
}

// device returns one of two devices, and activates it if there is none.
func (w *worker) device(i int) (*sandbox.Authenticator, bool) {
	if w.devices[i] != nil {
		return w.devices[i], true
	}
	// Each device has a user of its own: its one-time password could be that of another one.
	user := deviceUser(int(w.ledger.devices.Add(1)) % maxDevices)
	r, ok := w.register(user)
	if !ok {
		return nil, false
	}
	a, ok := w.activate(user, r)
	if !ok || !w.passed(w.phone.UpdateNotificationID(w.ctx, a, "push-"+a.SerialNumber)) {
		return nil, false
	}
	w.devices[i] = a
	return a, true
}

// ask has the bank ask for a login or signature, in turns.
func (w *worker) ask(a *sandbox.Authenticator) (*bankRequest, bool) {
	servers := w.servers()
	q := servers[w.turn%len(servers)].ask(w.ctx, RequestKinds[w.turn/len(w.o.Scenarios)%2], a)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(poll.Patience)
	for !q.pushed() {
		select {
		case <-tick.C:
		case err := <-q.answered:
			// The bank's own calls count only for what the gateway did to them.
			q.cancel()
			if w.o.Tolerate == nil {
				w.ledger.Broken("%s: the bank's call ended before the push: %v", w.played.Name, err)
			}
			return nil, false
		case <-timeout:
			q.cancel()
			w.ledger.Broken("%s: no push", w.played.Name)
			return nil, false
		}
	}
	return q, true
}

// outcome waits for the answer to the bank.
func (q *bankRequest) outcome() error {
	select {
	case err := <-q.answered:
		return err
	case <-time.After(poll.Patience):
		return context.DeadlineExceeded
	}
}

// retrieve retrieves a request. Afterwards another application must not get it.
func (w *worker) retrieve(a *sandbox.Authenticator, q *bankRequest) (sandbox.RetrievedRequest, bool) {
	pending, err := w.phone.Retrieve(w.ctx, q.kind.kind, a, q.key)
	if !w.passed(err) {
		return pending, false
	}
	_, err = w.other.Retrieve(w.ctx, q.kind.kind, a, q.key)
	return pending, w.refusedWith(err, "STAT_NOT_FOUND", "")
}

// complete approves a request. The bank must learn of it.
func (w *worker) complete(a *sandbox.Authenticator, q *bankRequest, pending sandbox.RetrievedRequest) {
	done, err := w.phone.Complete(w.ctx, q.kind.kind, a, pending)
	ok := err == nil && done.SerialNumber == a.SerialNumber && done.UserID == a.UserID && done.Domain == a.Domain
	what := "a completion by the device"
	if ok {
		if told := q.outcome(); told != nil {
			ok, what = false, fmt.Sprintf("a completion that the bank learns of, not %v", told)
		}
	}
	w.require(err, ok, what)
}

// begin has the bank ask the first device, which retrieves the request.
func (w *worker) begin() (*sandbox.Authenticator, *bankRequest, sandbox.RetrievedRequest, bool) {
	a, ok := w.device(0)
	if !ok {
		return nil, nil, sandbox.RetrievedRequest{}, false
	}
	q, ok := w.ask(a)
	if !ok {
		return nil, nil, sandbox.RetrievedRequest{}, false
	}
	pending, ok := w.retrieve(a, q)
	if !ok {
		q.cancel()
	}
	return a, q, pending, ok
}

// completion is a request that the device approves.
func (w *worker) completion() {
	if a, q, pending, ok := w.begin(); ok {
		defer q.cancel()
		w.complete(a, q, pending)
	}
}

// cancellation is a request that the device rejects.
func (w *worker) cancellation() {
	a, q, _, ok := w.begin()
	if !ok {
		return
	}
	defer q.cancel()
	// A wrapped key can be sent to every instance.
	w.cancels.Add(int64(len(w.servers())))
	err := w.phone.Cancel(w.ctx, q.kind.kind, a, q.key, w.wraps())
	what := "a rejection"
	if err == nil {
		told := q.outcome()
		if refusal := (*sandbox.RefusalError)(nil); !errors.As(told, &refusal) {
			ok, what = false, fmt.Sprintf("a rejection that the bank learns of, not %v", told)
		}
	}
	w.require(err, ok, what)
}

// wraps reports whether the device wraps the key of its next cancel. It takes turns.
func (w *worker) wraps() bool { return w.turn/len(w.o.Scenarios)%4 < 2 }

// foreignCancel is a request that another application and another device try to reject in
// vain, before the device approves it.
func (w *worker) foreignCancel() {
	b, ok := w.device(1)
	if !ok {
		return
	}
	a, q, pending, ok := w.begin()
	if !ok {
		return
	}
	defer q.cancel()
	for _, foreign := range []func() error{
		func() error { return w.other.Cancel(w.ctx, q.kind.kind, a, q.key, w.wraps()) },
		func() error { return w.phone.Cancel(w.ctx, q.kind.kind, b, q.key, false) },
	} {
		err := foreign()
		if !w.refusedWith(err, "STAT_NOSUPPORT", NoSupport) {
			w.cancels.Add(int64(len(w.servers()))) // reported, or tolerated
			return
		}
	}
	w.complete(a, q, pending)
}

// oneTimePassword is a login with a right one-time password, and then one with a wrong one,
// which is too long for any device.
func (w *worker) oneTimePassword() {
	a, ok := w.device(1)
	if !ok {
		return
	}
	done, err := w.phone.Authenticate(w.ctx, a)
	if !w.require(err, done.SerialNumber == a.SerialNumber && done.UserID == a.UserID, "a login by the device") {
		// The device may be too far ahead of the server next time.
		w.devices[1] = nil
		return
	}
	err = w.post(LoginPath, FrontEndKey, Object{"userID": a.UserID, "domain": a.Domain, "password": "0000000"})
	w.require(err, w.status == http.StatusOK && strings.Contains(w.body, `"STAT_OTP_INCORRECT"`), "a refusal")
}

// serverTime asks for the time, which must be that of this machine.
func (w *worker) serverTime() {
	before := time.Now().Unix()
	err := w.post(ServerTimePath, FrontEndKey, Object{})
	var answer struct{ Result struct{ ServerTime int64 } }
	ok := err == nil && w.status == http.StatusOK && json.Unmarshal([]byte(w.body), &answer) == nil &&
		answer.Result.ServerTime >= before && answer.Result.ServerTime <= time.Now().Unix()
	w.require(err, ok, "the time")
}
