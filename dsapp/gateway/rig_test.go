package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
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
	theActivationCode     = "ACTIVATE-5ec2e7"
	theEventCounter       = "COUNTER-5ec2e7"
	theResponse           = "535627"
	theDerivationCode     = "5ec2e7d1"
	theServerPublic       = "5ec2e7b0"
	theSalt               = "5EC2e75a"
	theServerEvidence     = "5ec2e7e2"
	theKey                = "0535628535"
	theWrappedKey         = "5ec2e7a1b2c3d4e5f60718293a4b5c6d7e8f"
	theNotificationID     = "5ec2e7f0f1"
	theOneTimePassword    = "ROSEBUD-535627"
)

var secrets = []string{
	theStaticPassword, theActivationPassword, theMessage, theClientPublic, theClientEvidence, theDeviceCode, theSignature,
	theActivationCode, theEventCounter, theResponse, theDerivationCode, theServerPublic, theSalt, theServerEvidence,
	theKey, theWrappedKey, theNotificationID, theOneTimePassword,
}

var (
	theTime       = time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)
	theExpiry     = theTime.Add(10 * time.Minute)
	theCaller     = Caller{Application: "bank-site", Source: "192.0.2.7"}
	theGeneration = activation.Generation{1, 2, 3}
	theAdmission  = activation.Admission{
		Identifier: "e3wfISG9", Generation: theGeneration, Kind: activation.KindMDL,
		Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "backup"},
	}
)

var (
	errOwnership = fmt.Errorf("%w: connection refused", ownership.ErrUnavailable)
	errStore     = fmt.Errorf("%w: connection refused", activation.ErrUnavailable)
	errRefusal   = &authserver.Refusal{Instance: "backup", Codes: soap.ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_LOCKED", ReturnCode: -7, StatusCode: 1007}}
	refused1000  = ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_INVCREDENTIALS", ReturnCode: -1, StatusCode: 1000}
)

func callError(reason error) error {
	return &authserver.CallError{Instance: "backup", Operation: "test", Reason: reason, Cause: errors.New("cause")}
}

// rig is a Gateway between fakes, which record every call in order.
type rig struct {
	mu    sync.Mutex
	trace []string

	activation fakeActivation
	ownership  fakeOwnership
	servers    fakeServers
	events     events
	log        bytes.Buffer
	now        time.Time
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

func (r *rig) wantActions(t *testing.T, want ...AuditAction) {
	t.Helper()
	if got := r.events.actions(); !slices.Equal(got, want) {
		t.Errorf("audited %q, want %q", got, want)
	}
}

// wantAudits fails unless these are the audited events.
func (r *rig) wantAudits(t *testing.T, want ...AuditEvent) {
	t.Helper()
	if !slices.Equal(r.events.audits, want) {
		t.Errorf("audited %+v, want %+v", r.events.audits, want)
	}
}

// wantSent fails unless this is the last command, for these instances.
func (r *rig) wantSent(t *testing.T, command any, instances ...string) {
	t.Helper()
	if r.servers.sent != command || !slices.Equal(r.servers.to.Instances, instances) {
		t.Errorf("sent %+v to %q, want %+v to %q", r.servers.sent, r.servers.to.Instances, command, instances)
	}
}

// wantRegistration fails unless this is the registration that was stored.
func (r *rig) wantRegistration(t *testing.T, want activation.Registration) {
	t.Helper()
	if !reflect.DeepEqual(r.activation.registration, want) {
		t.Errorf("registration is %+v, want %+v", r.activation.registration, want)
	}
}

// wantInvalid expects err to be about the member, and that nothing was called.
func (r *rig) wantInvalid(t *testing.T, err error, member Member) {
	t.Helper()
	invalid, ok := errors.AsType[*InvalidError](err)
	if !ok || invalid.Member != member || invalid.Problem == "" {
		t.Errorf("error is %v, want one about %q", err, member)
	}
	r.wantTrace(t)
	if len(r.events.audits) != 0 || len(r.events.verdicts) != 0 {
		t.Errorf("reported %v", &r.events)
	}
}

// wantError compares kinds, codes and times, not the cause of a failure.
func wantError(t *testing.T, got, want error) {
	t.Helper()
	if failure, ok := errors.AsType[*Failure](got); ok {
		got = &Failure{Kind: failure.Kind, RetryAfter: failure.RetryAfter}
		if failure.Err == nil {
			t.Error("failure without a cause")
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("error is %#v, want %#v", got, want)
	}
}

// newRig returns a Gateway whose fakes succeed in everything. The changes are applied to
// its configuration last.
func newRig(t *testing.T, unknown UnknownRegistrations, changes ...func(*Config)) *rig {
	t.Helper()
	r := &rig{now: theTime}
	r.activation = fakeActivation{
		rig:        r,
		registered: activation.Registered{Identifier: "e3wfISG9", Password: theActivationPassword, ExpiresAt: theExpiry},
		challenge:  activation.Challenge{ServerPublic: "B0", Salt: "5A17"},
		proof: activation.Proof{
			Evidence:                 "E2",
			LicenseActivationMessage: &form.Sealed{Data: "DA", Counter: "C0", MAC: "3A"},
		},
		admission: theAdmission,
	}
	r.ownership = fakeOwnership{rig: r, decision: ownership.Decision{Verdict: ownership.Forward}, won: true}
	r.servers = fakeServers{
		rig:           r,
		instance:      "backup",
		mdlRegistered: soap.MDLRegistered{RegistrationID: "e3wfISG9", ActivationMessage: theMessage, SerialNumber: "VDS1000003"},
		device:        soap.MDLDevice{InstanceActivationMessage: "aa82dd55", SerialNumber: "VDS1000003-1"},
		activated:     soap.Activated{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003"},
		registered:    soap.Registered{SerialNumber: "VDS1000003", ActivationCode: theActivationCode, EventReactivationCounter: theEventCounter},
		srpRegistered: soap.DSAPPSRPRegistered{
			RegistrationID: "e3wfISG9", ActivationPassword: theActivationPassword, SerialNumber: "VDS1000003", DIGIPASSGatewayID: "OTHER01",
		},
		challenge:     soap.DSAPPSRPChallenge{ServerPublic: theServerPublic, Salt: theSalt},
		data:          soap.DSAPPSRPActivationData{ServerEvidence: theServerEvidence, ActivationMessage: &form.Sealed{Data: "da", Counter: "c0", MAC: "3a"}},
		authenticated: soap.Authenticated{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", OrgUnit: "sales", SerialNumber: "VDS1000003-1"},
		retrieved:     soap.Retrieved{RequestMessage: theMessage},
	}
	c := Config{
		Activation:           &r.activation,
		Ownership:            &r.ownership,
		Servers:              &r.servers,
		GatewayID:            "GATEWAY01",
		UnknownRegistrations: unknown,
		NoSupportCode:        new(int32(-77)),
		Decided:              r.events.Ownership,
		Audit:                r.events.Audit,
		Logger:               slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:                  func() time.Time { return r.now },
	}
	for _, change := range changes {
		change(&c)
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r.Gateway = g
	return r
}

// relayed has the authentication servers carry out the exchange.
func relayed(c *Config) { c.Exchange = ExchangeRelay }

var (
	theRetrieve   = RetrieveRequest{SerialNumber: "VDS1000003-1", Key: theKey}
	theCompletion = CompleteRequest{UserID: "jane.doe", Domain: "mydomain.com", Key: theKey, Signature: theSignature}
	theCancel     = CancelRequest{SerialNumber: "VDS1000003-1", Key: theWrappedKey}
)

// Each operation with a request that succeeds in a new rig, reduced to its error.
var operations = map[Operation]func(context.Context, *rig) error{
	OpRegisterActivation: func(ctx context.Context, r *rig) error {
		_, err := r.RegisterActivation(ctx, theCaller, RegisterActivationRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword})
		return err
	},
	OpRegisterOffline: func(ctx context.Context, r *rig) error {
		_, err := r.RegisterOffline(ctx, theCaller, RegisterOfflineRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword})
		return err
	},
	OpGenerateEphemeralKey: func(ctx context.Context, r *rig) error {
		_, err := r.GenerateEphemeralKey(ctx, theCaller, GenerateEphemeralKeyRequest{RegistrationIdentifier: "e3wfISG9", ClientPublic: theClientPublic})
		return err
	},
	OpGenerateActivationData: func(ctx context.Context, r *rig) error {
		_, err := r.GenerateActivationData(ctx, theCaller, GenerateActivationDataRequest{RegistrationIdentifier: "e3wfISG9", ClientEvidence: theClientEvidence})
		return err
	},
	OpAddDevice: func(ctx context.Context, r *rig) error {
		_, err := r.AddDevice(ctx, theCaller, AddDeviceRequest{RegistrationIdentifier: "e3wfISG9", DeviceCode: theDeviceCode})
		return err
	},
	OpActivate: func(ctx context.Context, r *rig) error {
		_, err := r.Activate(ctx, theCaller, ActivateRequest{RegistrationIdentifier: "e3wfISG9", Signature: theSignature})
		return err
	},
	OpActivateStandard: func(ctx context.Context, r *rig) error {
		_, err := r.ActivateStandard(ctx, theCaller, ActivateStandardRequest{RegistrationIdentifier: "e3wfISG9", Response: theResponse})
		return err
	},
	OpAuthenticate: func(ctx context.Context, r *rig) error {
		_, err := r.Authenticate(ctx, theCaller, AuthenticateRequest{UserID: "jane.doe", Domain: "mydomain.com", Password: theOneTimePassword})
		return err
	},
	OpRetrieveLogin: func(ctx context.Context, r *rig) error {
		_, err := r.RetrieveLogin(ctx, theCaller, theRetrieve)
		return err
	},
	OpCompleteLogin: func(ctx context.Context, r *rig) error {
		_, err := r.CompleteLogin(ctx, theCaller, theCompletion)
		return err
	},
	OpCancelLogin: func(ctx context.Context, r *rig) error {
		_, err := r.CancelLogin(ctx, theCaller, theCancel)
		return err
	},
	OpRetrieveSignature: func(ctx context.Context, r *rig) error {
		_, err := r.RetrieveSignature(ctx, theCaller, theRetrieve)
		return err
	},
	OpCompleteSignature: func(ctx context.Context, r *rig) error {
		_, err := r.CompleteSignature(ctx, theCaller, theCompletion)
		return err
	},
	OpCancelSignature: func(ctx context.Context, r *rig) error {
		_, err := r.CancelSignature(ctx, theCaller, theCancel)
		return err
	},
	OpUpdateNotificationID: func(ctx context.Context, r *rig) error {
		_, err := r.UpdateNotificationID(ctx, theCaller, UpdateNotificationIDRequest{
			UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003-1", NotificationID: theNotificationID,
		})
		return err
	},
	OpServerTime: func(ctx context.Context, r *rig) error {
		_, err := r.ServerTime(ctx, theCaller, ServerTimeRequest{})
		return err
	},
}

// returns are the calls that give back what an operation consumed.
var returns = map[Operation]string{
	OpAddDevice: "return device", OpActivate: "return confirmation", OpActivateStandard: "return confirmation",
}

// calls are what an operation does up to its command to an authentication server,
// in the gateway's own exchange and in a relayed one, where that is different.
var calls = map[Operation]struct{ own, relayed []string }{
	OpRegisterActivation:     {[]string{"reserve", "MDL_REGISTER"}, []string{"reserve", "dsappSRPRegister"}},
	OpRegisterOffline:        {[]string{"reserve", "MDL_REGISTER"}, []string{"reserve", "MDL_REGISTER"}},
	OpGenerateEphemeralKey:   {nil, []string{"locate", "dsappSRPGenerateEphemeralKey"}},
	OpGenerateActivationData: {nil, []string{"locate", "dsappSRPGenerateActivationData"}},
	OpAddDevice:              {[]string{"admit device", "MDL_ADD_DEVICE"}, []string{"admit device", "MDL_ADD_DEVICE"}},
	OpActivate:               {[]string{"admit confirmation", "MDL_ACTIVATE"}, []string{"admit confirmation", "MDL_ACTIVATE"}},
	OpActivateStandard:       {[]string{"admit confirmation", "ACTIVATE"}, []string{"admit confirmation", "dsappSRPActivate"}},
	OpAuthenticate:           {[]string{"authUser"}, nil},
	OpRetrieveLogin:          {[]string{"retrieving", "getPreparedSecureChallenge"}, nil},
	OpCompleteLogin:          {[]string{"completing", "authUser"}, nil},
	OpCancelLogin:            {[]string{"cancelling", "cancelAuthUser"}, nil},
	OpRetrieveSignature:      {[]string{"retrieving", "getPreparedSignatureRequest"}, nil},
	OpCompleteSignature:      {[]string{"completing", "authSignature"}, nil},
	OpCancelSignature:        {[]string{"cancelling", "cancelAuthSignatureRequest"}, nil},
	OpUpdateNotificationID:   {[]string{"updateDevicePNID"}, nil},
}

// refusals are the operations whose refusal by an authentication server is audited.
var refusals = map[Operation]AuditAction{
	OpActivate: AuditConfirmationRefused, OpActivateStandard: AuditConfirmationRefused, OpGenerateActivationData: AuditProofRefused,
	OpAuthenticate: AuditAuthenticationRefused, OpCompleteLogin: AuditCompletionRefused, OpCompleteSignature: AuditCompletionRefused,
	OpCancelLogin: AuditCancelRefused, OpCancelSignature: AuditCancelRefused,
	OpAddDevice: AuditDeviceRefused, OpRegisterActivation: AuditRegistrationRefused, OpRegisterOffline: AuditRegistrationRefused,
	OpUpdateNotificationID: AuditNotificationIDRefused,
}
