package gateway

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

type fakeActivation struct {
	rig *rig

	mu           sync.Mutex
	reserveErr   error
	registration activation.Registration
	registered   activation.Registered
	registerErr  error
	store        activation.Store // for registrations; nil to keep none
	begun        [2]string
	from         activation.Origin
	challenge    activation.Challenge
	beginErr     error
	proved       [2]string
	proof        activation.Proof
	proveErr     error
	located      string
	locateErr    error
	admission    activation.Admission
	admitErr     error
	kinds        []activation.Kind
	returned     activation.Admission
	returnErr    error
	completed    activation.Admission
	completeErr  error
}

func (f *fakeActivation) Reserve(context.Context) (func(), error) {
	f.rig.did("reserve")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reserveErr != nil {
		return nil, f.reserveErr
	}
	return func() { f.rig.did("release") }, nil
}

// Profile knows the profile "other", and "default" for none.
func (f *fakeActivation) Profile(name form.ProfileName) (string, error) {
	switch name {
	case "", "default":
		return "default", nil
	case "other":
		return "other", nil
	}
	return "", &activation.InvalidError{Member: "profile", Problem: "is not known to the fake"}
}

func (f *fakeActivation) Register(ctx context.Context, r activation.Registration) (activation.Registered, error) {
	f.rig.did("register")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registration = r
	if f.registerErr != nil {
		return activation.Registered{}, f.registerErr
	}
	if f.store != nil {
		record := activation.Record{Identifier: string(f.registered.Identifier), Kind: r.Kind, Lifetime: time.Minute}
		if r.Answer != nil {
			record.Answer, _ = r.Answer(f.registered)
		}
		if _, _, err := repeat.Activation(ctx, f.store).Create(ctx, record, activation.Generation{}); err != nil {
			return activation.Registered{}, err
		}
	}
	return f.registered, nil
}

func (f *fakeActivation) Begin(_ context.Context, identifier form.Identifier, clientPublic form.ClientPublic, from activation.Origin) (activation.Challenge, error) {
	f.rig.did("begin")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun, f.from = [2]string{string(identifier), string(clientPublic)}, from
	if f.beginErr != nil {
		return activation.Challenge{}, f.beginErr
	}
	return f.challenge, nil
}

func (f *fakeActivation) Prove(_ context.Context, identifier form.Identifier, evidence form.ClientEvidence, from activation.Origin) (activation.Proof, error) {
	f.rig.did("prove")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proved, f.from = [2]string{string(identifier), string(evidence)}, from
	if f.proveErr != nil {
		return activation.Proof{}, f.proveErr
	}
	return f.proof, nil
}

func (f *fakeActivation) Locate(_ context.Context, identifier form.Identifier) (activation.Admission, error) {
	f.rig.did("locate")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.located = string(identifier)
	if f.locateErr != nil {
		return activation.Admission{}, f.locateErr
	}
	return f.admission, nil
}

func (f *fakeActivation) AdmitDevice(context.Context, form.Identifier) (activation.Admission, error) {
	f.rig.did("admit device")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.admitErr != nil {
		return activation.Admission{}, f.admitErr
	}
	return f.admission, nil
}

func (f *fakeActivation) ReturnDevice(_ context.Context, a activation.Admission) error {
	f.rig.did("return device")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.returned = a
	return f.returnErr
}

func (f *fakeActivation) AdmitConfirmation(_ context.Context, _ form.Identifier, kinds ...activation.Kind) (activation.Admission, error) {
	f.rig.did("admit confirmation")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kinds = kinds
	if f.admitErr != nil {
		return activation.Admission{}, f.admitErr
	}
	return f.admission, nil
}

func (f *fakeActivation) ReturnConfirmation(_ context.Context, a activation.Admission) error {
	f.rig.did("return confirmation")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.returned = a
	return f.returnErr
}

func (f *fakeActivation) Complete(_ context.Context, a activation.Admission) error {
	f.rig.did("complete")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.completed = a
	return f.completeErr
}

// fakeOwnership returns what a test sets.
type fakeOwnership struct {
	rig *rig

	mu         sync.Mutex
	decision   ownership.Decision
	decideErr  error
	kind       ownership.Kind
	key        string
	claimant   ownership.Caller
	won        bool
	claimErr   error
	claimed    ownership.Owner
	released   ownership.Decision
	releaseErr error
}

func (f *fakeOwnership) decide(call string, kind ownership.Kind, key string, c ownership.Caller) (ownership.Decision, error) {
	f.rig.did(call)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kind, f.key, f.claimant = kind, key, c
	if f.decideErr != nil {
		return ownership.Decision{}, f.decideErr
	}
	return f.decision, nil
}

func (f *fakeOwnership) Retrieving(_ context.Context, kind ownership.Kind, key form.PlainKey) (ownership.Decision, error) {
	return f.decide("retrieving", kind, string(key), ownership.Caller{})
}

func (f *fakeOwnership) Completing(_ context.Context, kind ownership.Kind, key form.PlainKey) (ownership.Decision, error) {
	return f.decide("completing", kind, string(key), ownership.Caller{})
}

func (f *fakeOwnership) Cancelling(_ context.Context, kind ownership.Kind, key form.Key, c ownership.Caller) (ownership.Decision, error) {
	return f.decide("cancelling", kind, string(key), c)
}

func (f *fakeOwnership) RecordOwner(_ context.Context, kind ownership.Kind, key form.PlainKey, o ownership.Owner) (bool, error) {
	f.rig.did("claim")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kind, f.key, f.claimed = kind, string(key), o
	if f.claimErr != nil {
		return false, f.claimErr
	}
	return f.won, nil
}

func (f *fakeOwnership) Release(_ context.Context, d ownership.Decision) error {
	f.rig.did("release")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.released = d
	return f.releaseErr
}

type fakeServers struct {
	rig *rig

	mu    sync.Mutex
	err   error
	leave func() // makes the client leave while the command is carried out
	// ctx and sent are those of the last command, and to is where it went.
	ctx  context.Context
	sent any
	to   authserver.Target
	// replicated says that every request is on one of several instances.
	replicated bool
	instance   string // that carries out every command

	mdlRegistered soap.MDLRegistered
	device        soap.MDLDevice
	registered    soap.Registered
	activated     soap.Activated
	srpRegistered soap.DSAPPSRPRegistered
	challenge     soap.DSAPPSRPChallenge
	data          soap.DSAPPSRPActivationData
	authenticated soap.Authenticated
	retrieved     soap.Retrieved
}

// takes is how much time a registration takes on the rig's clock.
const takes = 3 * time.Second

// Send records a command and answers it.
func (f *fakeServers) Send(ctx context.Context, to authserver.Target, c soap.Call) (string, error) {
	name := strings.TrimPrefix(c.String(), "PROVISIONCMD_")
	f.rig.did(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ctx, f.to, f.sent = ctx, to, reflect.ValueOf(c.Request).Elem().Interface()
	if f.leave != nil {
		f.leave()
	}
	switch name {
	case "MDL_REGISTER", "REGISTER", "dsappSRPRegister":
		f.rig.now = f.rig.now.Add(takes)
	}
	if f.err != nil {
		return "", f.err
	}
	switch answer := c.Answer.(type) {
	case *soap.MDLRegistered:
		*answer = f.mdlRegistered
	case *soap.MDLDevice:
		*answer = f.device
	case *soap.Registered:
		*answer = f.registered
	case *soap.Activated:
		*answer = f.activated
	case *soap.DSAPPSRPRegistered:
		*answer = f.srpRegistered
	case *soap.DSAPPSRPChallenge:
		*answer = f.challenge
	case *soap.DSAPPSRPActivationData:
		*answer = f.data
	case *soap.Authenticated:
		*answer = f.authenticated
	case *soap.Retrieved:
		*answer = f.retrieved
	}
	return f.instance, nil
}

func (f *fakeServers) Replicated() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicated
}

// at returns the instances of a command for the named one.
func at(instance string) []string { return []string{instance} }

// events are the events that a Gateway reported.
type events struct {
	mu       sync.Mutex
	verdicts []OwnershipEvent
	audits   []AuditEvent
}

// note appends an event to one of the lists of e.
func note[E any](e *events, list *[]E, event E) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*list = append(*list, event)
}

func (e *events) Ownership(_ context.Context, o OwnershipEvent) { note(e, &e.verdicts, o) }

func (e *events) Audit(_ context.Context, a AuditEvent) { note(e, &e.audits, a) }

// String returns all events as text.
func (e *events) String() string {
	return fmt.Sprintf("%+v", []any{e.verdicts, e.audits})
}

// actions returns the audited actions in order.
func (e *events) actions() []AuditAction {
	var actions []AuditAction
	for _, a := range e.audits {
		actions = append(actions, a.Action)
	}
	return actions
}

var (
	_ Activation = (*fakeActivation)(nil)
	_ Ownership  = (*fakeOwnership)(nil)
	_ Servers    = (*fakeServers)(nil)
)
