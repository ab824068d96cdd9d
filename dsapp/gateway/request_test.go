package gateway

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

var (
	notFound  = &Refusal{Codes: ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_NOT_FOUND", ReturnCode: -1, StatusCode: -13}}
	noSupport = &Refusal{Codes: ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_NOSUPPORT", ReturnCode: -1, StatusCode: -77}}
)

// The operations on each kind of pending requests, with their commands.
var kinds = []struct {
	kind                          ownership.Kind
	onRetrieve, onComplete        Operation
	onCancel                      Operation
	retrieve                      func(*Gateway, context.Context, Caller, RetrieveRequest) (RetrieveResult, error)
	complete                      func(*Gateway, context.Context, Caller, CompleteRequest) (AuthenticatedResult, error)
	cancel                        func(*Gateway, context.Context, Caller, CancelRequest) (CancelResult, error)
	toRetrieve, toComplete, toEnd string
	completion                    any
}{
	{
		ownership.Login, OpRetrieveLogin, OpCompleteLogin, OpCancelLogin,
		(*Gateway).RetrieveLogin, (*Gateway).CompleteLogin, (*Gateway).CancelLogin,
		"getPreparedSecureChallenge", "authUser", "cancelAuthUser",
		soap.AuthUserRequest{UserID: "jane.doe", Domain: "mydomain.com", ChallengeKey: theKey, Password: theSignature},
	},
	{
		ownership.Signature, OpRetrieveSignature, OpCompleteSignature, OpCancelSignature,
		(*Gateway).RetrieveSignature, (*Gateway).CompleteSignature, (*Gateway).CancelSignature,
		"getPreparedSignatureRequest", "authSignature", "cancelAuthSignatureRequest",
		soap.AuthSignatureRequest{UserID: "jane.doe", Domain: "mydomain.com", RequestKey: theKey, Signature: theSignature},
	},
}

// remembering returns an ownership service over a store, and what has a rig use it instead
// of the fake.
func remembering(t *testing.T, store ownership.Store, unknown ownership.UnknownRequests) (*ownership.Service, func(*Config)) {
	t.Helper()
	keyring, err := seal.NewKeyring(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	service, err := ownership.New(ownership.Config{
		Open:    func(context.Context) (ownership.Store, *seal.Keyring, error) { return store, keyring, nil },
		Unknown: unknown,
	})
	if err != nil {
		t.Fatal(err)
	}
	return service, func(c *Config) { c.Ownership = service }
}

// ownedKeys returns the keys of the requests of a kind with an owner, in order.
func ownedKeys(store *storetest.Memory, kind ownership.Kind) (keys []string) {
	store.Do(func(m *storetest.Model) {
		for r := range m.Owners {
			if r.Kind == kind {
				keys = append(keys, r.Key)
			}
		}
	})
	slices.Sort(keys)
	return keys
}

// breakDown has every call of the store fail with err.
func breakDown(store *storetest.Memory, err error) {
	for _, method := range []string{"Owner", "Pending", "Claim", "Release"} {
		store.Fail(method, err)
	}
}

// For every call and every known owner: whether and where the call is forwarded, what is
// answered, and which requests have an owner afterwards.
func TestOwnershipDecides(t *testing.T) {
	t.Parallel()
	mine := ownership.Owner{Application: "bank-site", SerialNumber: "VDS1000003-1", Instance: "backup"}
	otherDevice := ownership.Owner{Application: "bank-site", SerialNumber: "VDS1000003-2", Instance: "backup"}
	otherApplication := ownership.Owner{Application: "other-app", SerialNumber: "VDS1000003-1", Instance: "backup"}
	elsewhere := ownership.Owner{Application: "bank-site", SerialNumber: "VDS1000003-1", Instance: "primary"}
	foreignElsewhere := ownership.Owner{Application: "other-app", SerialNumber: "VDS1000003-1", Instance: "primary"}
	type owners map[string]ownership.Owner
	const retrieve, complete, cancelPlain, cancelWrapped = "retrieve", "complete", "cancel, plain key", "cancel, wrapped key"
	// What an instance says when it has no such request, which is relayed as it is.
	absent := &authserver.Refusal{Instance: "backup", Codes: notFound.Codes}
	for _, c := range []struct {
		name     string
		call     string
		known    owners
		refuse   bool // requests.unknown
		server   error
		to       []string // "-" if nothing is forwarded
		want     error
		verdicts []Verdict
		actions  []AuditAction
		after    owners
	}{
		{"mine", retrieve, owners{theKey: mine}, false, nil, at("-"), notFound, []Verdict{"already_owned"}, nil, owners{theKey: mine}},
		{"another's", retrieve, owners{theKey: otherApplication}, false, nil, at("-"), notFound, []Verdict{"already_owned"}, nil, owners{theKey: otherApplication}},
		{"unknown", retrieve, nil, false, nil, nil, nil, []Verdict{"unknown", "claimed"}, []AuditAction{"retrieved"}, owners{theKey: mine}},
		{"unknown, unknown refused", retrieve, nil, true, nil, nil, nil, []Verdict{"unknown", "claimed"}, []AuditAction{"retrieved"}, owners{theKey: mine}},
		{"unknown, absent", retrieve, nil, false, absent, nil, notFound, []Verdict{"unknown"}, nil, nil},
		{"unknown, undecided", retrieve, nil, false, callError(authserver.ErrUndecided), nil, &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second}, []Verdict{"unknown"}, nil, nil},
		{"unknown, timeout", retrieve, nil, false, callError(authserver.ErrTimeout), nil, &Failure{Kind: Timeout}, []Verdict{"unknown"}, nil, nil},
		{"another known", retrieve, owners{"1111111111": otherDevice}, false, nil, nil, nil, []Verdict{"unknown", "claimed"}, []AuditAction{"retrieved"}, owners{"1111111111": otherDevice, theKey: mine}},

		{"mine", complete, owners{theKey: elsewhere}, false, nil, at("primary"), nil, []Verdict{"owned"}, []AuditAction{"completed"}, nil},
		{"another's", complete, owners{theKey: foreignElsewhere}, false, nil, at("primary"), nil, []Verdict{"owned"}, []AuditAction{"completed"}, nil},
		{"mine, refused", complete, owners{theKey: elsewhere}, false, errRefusal, at("primary"), &Refusal{Codes: errRefusal.Codes}, []Verdict{"owned"}, []AuditAction{"completion_refused"}, owners{theKey: elsewhere}},
		{"unknown", complete, owners{"1111111111": mine}, false, nil, nil, nil, []Verdict{"unknown"}, []AuditAction{"completed"}, owners{"1111111111": mine}},
		{"unknown, absent", complete, nil, false, absent, nil, notFound, []Verdict{"unknown"}, []AuditAction{"completion_refused"}, nil},
		{"unknown, unknown refused", complete, nil, true, nil, nil, nil, []Verdict{"unknown"}, []AuditAction{"completed"}, nil},

		{"mine", cancelPlain, owners{theKey: mine}, false, nil, at("backup"), nil, []Verdict{"owned"}, []AuditAction{"cancelled"}, nil},
		{"mine among others", cancelPlain, owners{theKey: mine, "1111111111": mine}, false, nil, at("backup"), nil, []Verdict{"owned"}, []AuditAction{"cancelled"}, owners{"1111111111": mine}},
		{"mine, absent", cancelPlain, owners{theKey: mine}, false, absent, at("backup"), notFound, []Verdict{"owned"}, []AuditAction{"cancel_refused"}, owners{theKey: mine}},
		{"another application's", cancelPlain, owners{theKey: otherApplication}, false, nil, at("-"), noSupport, []Verdict{"foreign"}, []AuditAction{"cancel_refused"}, owners{theKey: otherApplication}},
		{"another device's", cancelPlain, owners{theKey: otherDevice}, false, nil, at("-"), noSupport, []Verdict{"foreign"}, []AuditAction{"cancel_refused"}, owners{theKey: otherDevice}},
		{"unknown", cancelPlain, nil, false, nil, nil, nil, []Verdict{"unknown"}, []AuditAction{"cancelled"}, nil},
		{"unknown, unknown refused", cancelPlain, nil, true, nil, at("-"), noSupport, []Verdict{"refused_unknown"}, []AuditAction{"cancel_refused"}, nil},
		{"mine, unknown refused", cancelPlain, owners{theKey: mine}, true, nil, at("backup"), nil, []Verdict{"owned"}, []AuditAction{"cancelled"}, nil},

		{"one of mine", cancelWrapped, owners{theKey: mine}, false, nil, at("backup"), nil, []Verdict{"owned"}, []AuditAction{"cancelled"}, nil},
		{"several of mine", cancelWrapped, owners{theKey: mine, "1111111111": mine, "2222222222": elsewhere}, false, nil, []string{"backup", "primary"}, nil, []Verdict{"owned"}, []AuditAction{"cancelled"}, owners{theKey: mine, "1111111111": mine, "2222222222": elsewhere}},
		{"mine and others'", cancelWrapped, owners{theKey: mine, "1111111111": foreignElsewhere}, false, nil, at("backup"), nil, []Verdict{"owned"}, []AuditAction{"cancelled"}, owners{theKey: mine, "1111111111": foreignElsewhere}},
		{"only others'", cancelWrapped, owners{theKey: otherApplication}, false, nil, at("-"), noSupport, []Verdict{"foreign"}, []AuditAction{"cancel_refused"}, owners{theKey: otherApplication}},
		{"only of another device", cancelWrapped, owners{theKey: otherDevice}, false, nil, nil, nil, []Verdict{"unknown"}, []AuditAction{"cancelled"}, owners{theKey: otherDevice}},
		{"none", cancelWrapped, nil, false, nil, nil, nil, []Verdict{"unknown"}, []AuditAction{"cancelled"}, nil},
		{"none, unknown refused", cancelWrapped, nil, true, nil, at("-"), noSupport, []Verdict{"refused_unknown"}, []AuditAction{"cancel_refused"}, nil},
		{"mine, refused", cancelWrapped, owners{theKey: mine}, false, errRefusal, at("backup"), &Refusal{Codes: errRefusal.Codes}, []Verdict{"owned"}, []AuditAction{"cancel_refused"}, owners{theKey: mine}},
		{"mine, undecided", cancelWrapped, owners{theKey: mine}, false, callError(authserver.ErrUndecided), at("backup"), &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second}, []Verdict{"owned"}, nil, owners{theKey: mine}},
	} {
		for _, k := range kinds {
			t.Run(c.call+", "+c.name+", "+string(k.kind), func(t *testing.T) {
				t.Parallel()
				unknown := ownership.ForwardUnknown
				if c.refuse {
					unknown = ownership.RefuseUnknown
				}
				store := storetest.NewMemory(time.Now)
				service, remember := remembering(t, store, unknown)
				r := newRig(t, "", remember)
				r.servers.err = c.server
				for key, owner := range c.known {
					if won, err := service.RecordOwner(t.Context(), k.kind, form.PlainKey(key), owner); !won || err != nil {
						t.Fatal(won, err)
					}
				}
				// Requests of the other kind are of no interest.
				for _, other := range kinds {
					if other.kind != k.kind {
						if _, err := service.RecordOwner(t.Context(), other.kind, theKey, foreignElsewhere); err != nil {
							t.Fatal(err)
						}
					}
				}

				var op Operation
				var command string
				var err error
				switch c.call {
				case retrieve:
					op, command = k.onRetrieve, k.toRetrieve
					_, err = k.retrieve(r.Gateway, t.Context(), theCaller, theRetrieve)
				case complete:
					op, command = k.onComplete, k.toComplete
					_, err = k.complete(r.Gateway, t.Context(), theCaller, theCompletion)
				case cancelPlain:
					op, command = k.onCancel, k.toEnd
					_, err = k.cancel(r.Gateway, t.Context(), theCaller, CancelRequest{SerialNumber: "VDS1000003-1", Key: theKey})
				case cancelWrapped:
					op, command = k.onCancel, k.toEnd
					_, err = k.cancel(r.Gateway, t.Context(), theCaller, theCancel)
				}

				if c.want == nil && err != nil {
					t.Errorf("error is %v", err)
				} else if c.want != nil {
					wantError(t, err, c.want)
				}
				if slices.Equal(c.to, at("-")) {
					r.wantTrace(t)
				} else {
					r.wantTrace(t, command)
					if !slices.Equal(r.servers.to.Instances, c.to) {
						t.Errorf("command went to %q, want %q", r.servers.to.Instances, c.to)
					}
				}
				if got := r.events.verdictsOf(op); !slices.Equal(got, c.verdicts) {
					t.Errorf("verdicts are %q, want %q", got, c.verdicts)
				}
				r.wantActions(t, c.actions...)
				if got, want := ownedKeys(store, k.kind), slices.Sorted(maps.Keys(c.after)); !slices.Equal(got, want) {
					t.Errorf("known afterwards are %q, want %q", got, want)
				}
				for key, owner := range c.after {
					// Whose it is shows in who may cancel it.
					d, err := service.Cancelling(t.Context(), k.kind, form.Key(key), ownership.Caller{Application: owner.Application, SerialNumber: owner.SerialNumber})
					if err != nil || d.Verdict != ownership.Forward || !slices.Equal(d.Instances, at(owner.Instance)) {
						t.Errorf("%s is not %+v's: %+v, %v", key, owner, d, err)
					}
				}
			})
		}
	}
}

// verdictsOf returns the verdicts in order, "?" for those about another operation.
func (e *events) verdictsOf(op Operation) []Verdict {
	var verdicts []Verdict
	for _, v := range e.verdicts {
		if v.Operation != op {
			v.Verdict = "?"
		}
		verdicts = append(verdicts, v.Verdict)
	}
	return verdicts
}

// The owner of a retrieved request is the application and device that asked, with the
// instance that answered.
func TestRetrieve(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		r := newRig(t, "")
		got, err := k.retrieve(r.Gateway, t.Context(), theCaller, theRetrieve)
		if want := (RetrieveResult{RequestMessage: strings.ToUpper(theMessage)}); err != nil || got != want {
			t.Errorf("%s: result is %+v, %v, want %+v", k.kind, got, err, want)
		}
		r.wantTrace(t, "retrieving", k.toRetrieve, "claim")
		if want := (soap.RetrieveRequest{SerialNumber: "VDS1000003-1", Key: theKey}); r.servers.sent != want || !r.servers.to.Search {
			t.Errorf("%s: command is %+v, searched %t, want %+v", k.kind, r.servers.sent, r.servers.to.Search, want)
		}
		want := ownership.Owner{Application: "bank-site", SerialNumber: "VDS1000003-1", Instance: "backup"}
		if r.ownership.kind != k.kind || r.ownership.key != theKey || r.ownership.claimed != want {
			t.Errorf("%s: claimed %s %s for %+v, want %+v", k.kind, r.ownership.kind, r.ownership.key, r.ownership.claimed, want)
		}
		r.wantAudits(t, AuditEvent{
			Action: AuditRetrieved, Operation: k.onRetrieve, Application: "bank-site", Subject: form.Subject{SerialNumber: "VDS1000003-1", Instance: "backup"},
		})
	}
}

// If another owner was faster the request is answered as one that does not exist.
func TestLostClaim(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		r := newRig(t, "")
		r.ownership.won = false
		got, err := k.retrieve(r.Gateway, t.Context(), theCaller, theRetrieve)
		if got != (RetrieveResult{}) || !reflect.DeepEqual(err, notFound) {
			t.Errorf("%s: result is %+v, %v, want %v", k.kind, got, err, notFound)
		}
		if got, want := r.events.verdictsOf(k.onRetrieve), []Verdict{VerdictUnknown, VerdictLost}; !slices.Equal(got, want) {
			t.Errorf("%s: verdicts are %q, want %q", k.kind, got, want)
		}
		r.wantAudits(t, AuditEvent{
			Action: AuditRequestLost, Operation: k.onRetrieve, Application: "bank-site", Subject: form.Subject{SerialNumber: "VDS1000003-1", Instance: "backup"},
		})
		if !strings.Contains(r.log.String(), "level=WARN") {
			t.Errorf("%s: nothing in the log", k.kind)
		}
	}
}

// A request whose owner could not be stored is still handed out, because the server gives
// it out only once. The failure is reported.
func TestUnownedRequest(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		r := newRig(t, "")
		r.ownership.claimErr = errOwnership
		got, err := k.retrieve(r.Gateway, t.Context(), theCaller, theRetrieve)
		if want := (RetrieveResult{RequestMessage: strings.ToUpper(theMessage)}); err != nil || got != want {
			t.Errorf("%s: result is %+v, %v, want %+v", k.kind, got, err, want)
		}
		if got, want := r.events.verdictsOf(k.onRetrieve), []Verdict{VerdictUnknown, VerdictUnowned}; !slices.Equal(got, want) {
			t.Errorf("%s: verdicts are %q, want %q", k.kind, got, want)
		}
		if !strings.Contains(r.log.String(), "level=ERROR") {
			t.Errorf("%s: no error in the log", k.kind)
		}
		r.wantActions(t, AuditRetrieved)
	}
}

// An unusable message is a failure. The owner is still stored, because the server gives
// the request out only once.
func TestNonsenseMessage(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		for _, message := range []string{"", "5ec2e", "XsLnoAE="} {
			r := newRig(t, "")
			r.servers.retrieved.RequestMessage = message
			_, err := k.retrieve(r.Gateway, t.Context(), theCaller, theRetrieve)
			wantError(t, err, &Failure{Kind: BadAnswer})
			r.wantTrace(t, "retrieving", k.toRetrieve, "claim")
			want := ownership.Owner{Application: "bank-site", SerialNumber: "VDS1000003-1", Instance: "backup"}
			if r.ownership.kind != k.kind || r.ownership.key != theKey || r.ownership.claimed != want {
				t.Errorf("%s: claimed %s %s for %+v, want %+v", k.kind, r.ownership.kind, r.ownership.key, r.ownership.claimed, want)
			}
			r.wantActions(t)

			r.ownership.won = false
			_, err = k.retrieve(r.Gateway, t.Context(), theCaller, theRetrieve)
			wantError(t, err, notFound)
			r.wantActions(t, AuditRequestLost)
		}
	}
}

// The result is that of the server. The audit event has the user of the request if the
// answer names none.
func TestComplete(t *testing.T) {
	t.Parallel()
	full := soap.Authenticated{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", OrgUnit: "sales", SerialNumber: "VDS1000003-1"}
	for _, k := range kinds {
		for _, c := range []struct {
			told soap.Authenticated
			want AuthenticatedResult
			user string
			in   string
		}{
			{full, AuthenticatedResult{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", OrgUnit: "sales", SerialNumber: "VDS1000003-1"}, "JANE.DOE", "MYDOMAIN.COM"},
			{soap.Authenticated{}, AuthenticatedResult{}, "jane.doe", "mydomain.com"},
		} {
			r := newRig(t, "")
			r.servers.authenticated, r.servers.instance = c.told, "primary"
			r.ownership.decision = ownership.Decision{Verdict: ownership.Forward, Known: true, Instances: []string{"backup", "third"}}
			got, err := k.complete(r.Gateway, t.Context(), theCaller, theCompletion)
			if err != nil || got != c.want {
				t.Errorf("%s: result is %+v, %v, want %+v", k.kind, got, err, c.want)
			}
			r.wantTrace(t, "completing", k.toComplete, "release")
			if r.servers.sent != k.completion || !slices.Equal(r.servers.to.Instances, at("backup")) {
				t.Errorf("%s: command is %+v to %q, want %+v", k.kind, r.servers.sent, r.servers.to.Instances, k.completion)
			}
			if r.ownership.kind != k.kind || r.ownership.key != theKey || !reflect.DeepEqual(r.ownership.released, r.ownership.decision) {
				t.Errorf("%s: asked for %s %s and released %+v", k.kind, r.ownership.kind, r.ownership.key, r.ownership.released)
			}
			r.wantAudits(t, AuditEvent{
				Action: AuditCompleted, Operation: k.onComplete, Application: "bank-site",
				Subject: form.Subject{UserID: c.user, Domain: c.in, SerialNumber: c.told.SerialNumber, Instance: "primary"},
			})
		}
	}
}

// A wrapped key is sent in upper case and searched for on several instances. A plain key
// is sent unchanged, even if it consists of hexadecimal digits.
func TestCancel(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		for _, c := range []struct{ key, sent string }{
			{theKey, theKey},
			{"abcdef", "abcdef"},
			{strings.Repeat("a", 31), strings.Repeat("a", 31)},
			{strings.Repeat("aB", 16), strings.Repeat("AB", 16)},
			{theWrappedKey, strings.ToUpper(theWrappedKey)},
			{strings.Repeat("0f", 100), strings.Repeat("0F", 100)},
		} {
			r := newRig(t, "")
			r.ownership.decision = ownership.Decision{Verdict: ownership.Forward, Known: true, Instances: []string{"backup", "third"}}
			if _, err := k.cancel(r.Gateway, t.Context(), theCaller, CancelRequest{SerialNumber: "VDS1000003-1", Key: form.Key(c.key)}); err != nil {
				t.Errorf("%s: %v", k.kind, err)
			}
			r.wantTrace(t, "cancelling", k.toEnd, "release")
			wrapped := len(c.key) >= 32
			if want := (soap.CancelRequest{SerialNumber: "VDS1000003-1", KeyMessage: form.Key(c.sent)}); r.servers.sent != want || r.servers.to.Search != wrapped || !slices.Equal(r.servers.to.Instances, []string{"backup", "third"}) {
				t.Errorf("%s: command is %+v to %q, want %+v", k.kind, r.servers.sent, r.servers.to.Instances, want)
			}
			if want := (ownership.Caller{Application: "bank-site", SerialNumber: "VDS1000003-1"}); r.ownership.claimant != want || r.ownership.kind != k.kind || r.ownership.key != c.sent {
				t.Errorf("%s: asked for %s of %+v, want %+v", k.kind, r.ownership.kind, r.ownership.claimant, want)
			}
			if !reflect.DeepEqual(r.ownership.released, r.ownership.decision) {
				t.Errorf("%s: released %+v", k.kind, r.ownership.released)
			}
			r.wantAudits(t, AuditEvent{
				Action: AuditCancelled, Operation: k.onCancel, Application: "bank-site", Subject: form.Subject{SerialNumber: "VDS1000003-1", Instance: "backup"},
			})
		}
	}
}

// The number of STAT_NOSUPPORT is the configured one.
func TestNoSupportCode(t *testing.T) {
	t.Parallel()
	for configured, want := range map[*int32]int{nil: -1, new(int32(-1)): -1, new(int32(-77)): -77, new(int32(1040)): 1040} {
		r := newRig(t, "", func(c *Config) { c.NoSupportCode = configured })
		r.ownership.decision = ownership.Decision{Verdict: ownership.Foreign, Known: true}
		_, err := r.CancelLogin(t.Context(), theCaller, theCancel)
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok || refusal.Codes != (ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_NOSUPPORT", ReturnCode: -1, StatusCode: want}) {
			t.Errorf("%d: error is %v", want, err)
		}
		r.wantAudits(t, AuditEvent{
			Action: AuditCancelRefused, Operation: OpCancelLogin, Application: "bank-site", Subject: form.Subject{SerialNumber: "VDS1000003-1"}, Status: "STAT_NOSUPPORT",
		})
	}
}

// pendingOperations are the operations on pending requests.
var pendingOperations = []Operation{
	OpRetrieveLogin, OpCompleteLogin, OpCancelLogin, OpRetrieveSignature, OpCompleteSignature, OpCancelSignature,
}

// Nothing is forwarded for an unknown verdict.
func TestStrangeVerdict(t *testing.T) {
	t.Parallel()
	for _, op := range pendingOperations {
		r := newRig(t, "")
		r.ownership.decision = ownership.Decision{Verdict: "new"}
		wantError(t, operations[op](t.Context(), r), noSupport)
		if r.servers.sent != nil {
			t.Errorf("%s: forwarded", op)
		}
	}
}

// If many retrieve a request at once, one of them gets it, even if the authentication
// server gave it to all of them.
func TestOneOwner(t *testing.T) {
	t.Parallel()
	const devices = 64
	for _, k := range kinds {
		store := storetest.NewMemory(time.Now)
		_, remember := remembering(t, store, "")
		r := newRig(t, "", remember)
		var owners, others sync.Map
		var all sync.WaitGroup
		start := make(chan struct{})
		for i := range devices {
			all.Go(func() {
				<-start
				_, err := k.retrieve(r.Gateway, t.Context(), theCaller, theRetrieve)
				if err == nil {
					owners.Store(i, true)
				} else if reflect.DeepEqual(err, notFound) {
					others.Store(i, true)
				} else {
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
		if won, lost := size(&owners), size(&others); won != 1 || lost != devices-1 {
			t.Errorf("%s: %d of %d got the request, %d did not", k.kind, won, devices, lost)
		}
		if claimed := len(slices.DeleteFunc(r.events.verdictsOf(k.onRetrieve), func(v Verdict) bool { return v != VerdictClaimed })); claimed != 1 {
			t.Errorf("%s: claimed %d times", k.kind, claimed)
		}
	}
}

func size(m *sync.Map) int {
	n := 0
	m.Range(func(any, any) bool { n++; return true })
	return n
}

// All operations are safe for concurrent use.
func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	_, remember := remembering(t, storetest.NewMemory(time.Now), "")
	for _, exchange := range []Exchange{ExchangeGateway, ExchangeRelay} {
		r := newRig(t, "", remember, func(c *Config) {
			c.Exchange = exchange
			c.Now = time.Now
		})
		var all sync.WaitGroup
		for _, do := range operations {
			for range 4 {
				all.Go(func() { _ = do(t.Context(), r) })
			}
		}
		all.Wait()
	}
}
