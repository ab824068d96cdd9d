package gateway

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
)

// The values that must never turn up in an error, an event or the log.
const (
	theStaticPassword     = "static-SECRET-1"
	theActivationPassword = "Tb048aX1"
	theMessage            = "5ec2e7a001"
	theClientPublic       = "5EC2E70B"
	theClientEvidence     = "5EC2E70C"
	theDeviceCode         = "53562653562653562653562653"
	theSignature          = "5356265356265356"
)

var secrets = []string{
	theStaticPassword, theActivationPassword, theMessage, theClientPublic, theClientEvidence, theDeviceCode, theSignature,
}

var (
	theTime       = time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)
	theExpiry     = theTime.Add(10 * time.Minute)
	theCaller     = Caller{Application: "bank-site"}
	theGeneration = activation.Generation{1, 2, 3}
	theAdmission  = activation.Admission{
		Identifier: "e3wfISG9", Generation: theGeneration, Kind: activation.KindMDL,
		UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "backup",
	}
)

// rig is a Gateway between fakes. Every call of a fake is written down in order.
type rig struct {
	mu    sync.Mutex
	trace []string

	fakeActivation
	fakeServers
	events events
	log    bytes.Buffer
	now    time.Time
	*Gateway
}

func (r *rig) did(call string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trace = append(r.trace, call)
}

func (r *rig) wantTrace(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(r.trace, want) {
		t.Errorf("calls were %q, want %q", r.trace, want)
	}
}

// newRig returns a Gateway whose surroundings succeed in everything.
func newRig(t *testing.T, unknown UnknownRegistrations) *rig {
	t.Helper()
	r := &rig{now: theTime}
	r.fakeActivation = fakeActivation{
		rig:        r,
		registered: activation.Registered{Identifier: "e3wfISG9", Password: theActivationPassword, ExpiresAt: theExpiry},
		challenge:  activation.Challenge{ServerPublic: "B0", Salt: "5A17"},
		proof: activation.Proof{
			Evidence:                 "E2",
			LicenseActivationMessage: &activation.Sealed{Data: "DA", Counter: "C0", MAC: "3A"},
		},
		admission: theAdmission,
	}
	r.fakeServers = fakeServers{
		rig:        r,
		registered: authserver.MDLRegistered{Instance: "backup", RegistrationID: "e3wfISG9", ActivationMessage: theMessage, SerialNumber: "VDS1000003"},
		device:     authserver.MDLDevice{InstanceActivationMessage: "aa82dd55", SerialNumber: "VDS1000003-1"},
		activated:  authserver.MDLActivated{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003"},
	}
	g, err := New(Config{
		Activation:           &r.fakeActivation,
		Servers:              &r.fakeServers,
		GatewayID:            "GATEWAY01",
		UnknownRegistrations: unknown,
		Observer:             &r.events,
		Logger:               slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:                  func() time.Time { return r.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Gateway = g
	return r
}

type fakeActivation struct {
	rig *rig

	writableErr  error
	registration activation.Registration
	registered   activation.Registered
	registerErr  error
	begun        [2]string
	challenge    activation.Challenge
	beginErr     error
	proved       [2]string
	proof        activation.Proof
	proveErr     error
	admission    activation.Admission
	admitErr     error
	kinds        []activation.Kind
	returned     activation.Admission
	returnErr    error
	completed    activation.Admission
	completeErr  error
}

func (f *fakeActivation) Writable(context.Context) error {
	f.rig.did("writable")
	return f.writableErr
}

func (f *fakeActivation) Register(_ context.Context, r activation.Registration) (activation.Registered, error) {
	f.rig.did("register")
	f.registration = r
	if f.registerErr != nil {
		return activation.Registered{}, f.registerErr
	}
	return f.registered, nil
}

func (f *fakeActivation) Begin(_ context.Context, identifier, clientPublic string) (activation.Challenge, error) {
	f.rig.did("begin")
	f.begun = [2]string{identifier, clientPublic}
	if f.beginErr != nil {
		return activation.Challenge{}, f.beginErr
	}
	return f.challenge, nil
}

func (f *fakeActivation) Prove(_ context.Context, identifier, evidence string) (activation.Proof, error) {
	f.rig.did("prove")
	f.proved = [2]string{identifier, evidence}
	if f.proveErr != nil {
		return activation.Proof{}, f.proveErr
	}
	return f.proof, nil
}

func (f *fakeActivation) AdmitDevice(context.Context, string) (activation.Admission, error) {
	f.rig.did("admit device")
	if f.admitErr != nil {
		return activation.Admission{}, f.admitErr
	}
	return f.admission, nil
}

func (f *fakeActivation) ReturnDevice(_ context.Context, a activation.Admission) error {
	f.rig.did("return device")
	f.returned = a
	return f.returnErr
}

func (f *fakeActivation) AdmitConfirmation(_ context.Context, _ string, kinds ...activation.Kind) (activation.Admission, error) {
	f.rig.did("admit confirmation")
	f.kinds = kinds
	if f.admitErr != nil {
		return activation.Admission{}, f.admitErr
	}
	return f.admission, nil
}

func (f *fakeActivation) ReturnConfirmation(_ context.Context, a activation.Admission) error {
	f.rig.did("return confirmation")
	f.returned = a
	return f.returnErr
}

func (f *fakeActivation) Complete(_ context.Context, a activation.Admission) error {
	f.rig.did("complete")
	f.completed = a
	return f.completeErr
}

type fakeServers struct {
	rig *rig

	err        error
	command    authserver.MDLRegister
	registered authserver.MDLRegistered
	instance   string
	add        authserver.MDLAddDevice
	device     authserver.MDLDevice
	activate   authserver.MDLActivate
	activated  authserver.MDLActivated
}

func (f *fakeServers) MDLRegister(_ context.Context, c authserver.MDLRegister) (authserver.MDLRegistered, error) {
	f.rig.did("MDL_REGISTER")
	f.command = c
	// The call takes its time.
	f.rig.now = f.rig.now.Add(3 * time.Second)
	if f.err != nil {
		return authserver.MDLRegistered{}, f.err
	}
	return f.registered, nil
}

func (f *fakeServers) MDLAddDevice(_ context.Context, instance string, c authserver.MDLAddDevice) (authserver.MDLDevice, error) {
	f.rig.did("MDL_ADD_DEVICE")
	f.instance, f.add = instance, c
	if f.err != nil {
		return authserver.MDLDevice{}, f.err
	}
	return f.device, nil
}

func (f *fakeServers) MDLActivate(_ context.Context, instance string, c authserver.MDLActivate) (authserver.MDLActivated, error) {
	f.rig.did("MDL_ACTIVATE")
	f.instance, f.activate = instance, c
	if f.err != nil {
		return authserver.MDLActivated{}, f.err
	}
	return f.activated, nil
}

// events is an Observer that writes everything down.
type events struct {
	operations []OperationEvent
	exchanges  []ExchangeEvent
	commands   []Command
	outcomes   []InstanceOutcome
	troubles   []StoreTrouble
	audits     []AuditEvent
}

func (e *events) Operation(_ context.Context, o OperationEvent) {
	e.operations = append(e.operations, o)
}

func (e *events) Exchange(_ context.Context, x ExchangeEvent) { e.exchanges = append(e.exchanges, x) }

func (e *events) InstanceCall(ctx context.Context, c Command) (context.Context, func(InstanceOutcome)) {
	e.commands = append(e.commands, c)
	return ctx, func(o InstanceOutcome) { e.outcomes = append(e.outcomes, o) }
}

func (e *events) StoreTrouble(_ context.Context, s StoreTrouble) { e.troubles = append(e.troubles, s) }
func (e *events) Audit(_ context.Context, a AuditEvent)          { e.audits = append(e.audits, a) }

// actions are the audited actions in order.
func (e *events) actions() []AuditAction {
	var actions []AuditAction
	for _, a := range e.audits {
		actions = append(actions, a.Action)
	}
	return actions
}

var (
	_ Activation = (*fakeActivation)(nil)
	_ Servers    = (*fakeServers)(nil)
	_ Observer   = (*events)(nil)
)
