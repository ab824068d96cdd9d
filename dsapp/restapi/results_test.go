package restapi

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// randomOperations succeed with random results.
type randomOperations struct {
	t      *rapid.T
	result any
}

func randomResult[R any](d *randomOperations, result R) (R, error) {
	fill(d.t, reflect.ValueOf(&result).Elem(), "result")
	d.result = result
	return result, nil
}

// fill sets all fields to random values. Pointers may be nil.
func fill(t *rapid.T, v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.String().Draw(t, name))
	case reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, name))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, name) {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), name)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			if rapid.Bool().Draw(t, name) {
				v.Set(reflect.ValueOf(time.Unix(rapid.Int64Range(0, 1<<35).Draw(t, name), rapid.Int64Range(0, 999_999_999).Draw(t, name)).In(time.FixedZone("", 3600))))
			}
			return
		}
		for i := range v.NumField() {
			fill(t, v.Field(i), v.Type().Field(i).Name)
		}
	default:
		t.Fatalf("%s is of kind %s", name, v.Kind())
	}
}

func (d *randomOperations) RegisterActivation(context.Context, gateway.Caller, gateway.RegisterActivationRequest) (gateway.RegisterActivationResult, error) {
	return randomResult(d, gateway.RegisterActivationResult{})
}

func (d *randomOperations) RegisterOffline(context.Context, gateway.Caller, gateway.RegisterOfflineRequest) (gateway.RegisterOfflineResult, error) {
	return randomResult(d, gateway.RegisterOfflineResult{})
}

func (d *randomOperations) GenerateEphemeralKey(context.Context, gateway.Caller, gateway.GenerateEphemeralKeyRequest) (gateway.GenerateEphemeralKeyResult, error) {
	return randomResult(d, gateway.GenerateEphemeralKeyResult{})
}

func (d *randomOperations) GenerateActivationData(context.Context, gateway.Caller, gateway.GenerateActivationDataRequest) (gateway.GenerateActivationDataResult, error) {
	return randomResult(d, gateway.GenerateActivationDataResult{})
}

func (d *randomOperations) AddDevice(context.Context, gateway.Caller, gateway.AddDeviceRequest) (gateway.AddDeviceResult, error) {
	return randomResult(d, gateway.AddDeviceResult{})
}

func (d *randomOperations) Activate(context.Context, gateway.Caller, gateway.ActivateRequest) (gateway.ActivateResult, error) {
	return randomResult(d, gateway.ActivateResult{})
}

func (d *randomOperations) ActivateStandard(context.Context, gateway.Caller, gateway.ActivateStandardRequest) (gateway.ActivateResult, error) {
	return randomResult(d, gateway.ActivateResult{})
}

func (d *randomOperations) Authenticate(context.Context, gateway.Caller, gateway.AuthenticateRequest) (gateway.AuthenticatedResult, error) {
	return randomResult(d, gateway.AuthenticatedResult{})
}

func (d *randomOperations) RetrieveLogin(context.Context, gateway.Caller, gateway.RetrieveRequest) (gateway.RetrieveResult, error) {
	return randomResult(d, gateway.RetrieveResult{})
}

func (d *randomOperations) CompleteLogin(context.Context, gateway.Caller, gateway.CompleteRequest) (gateway.AuthenticatedResult, error) {
	return randomResult(d, gateway.AuthenticatedResult{})
}

func (d *randomOperations) CancelLogin(context.Context, gateway.Caller, gateway.CancelRequest) (gateway.CancelResult, error) {
	return randomResult(d, gateway.CancelResult{})
}

func (d *randomOperations) RetrieveSignature(context.Context, gateway.Caller, gateway.RetrieveRequest) (gateway.RetrieveResult, error) {
	return randomResult(d, gateway.RetrieveResult{})
}

func (d *randomOperations) CompleteSignature(context.Context, gateway.Caller, gateway.CompleteRequest) (gateway.AuthenticatedResult, error) {
	return randomResult(d, gateway.AuthenticatedResult{})
}

func (d *randomOperations) CancelSignature(context.Context, gateway.Caller, gateway.CancelRequest) (gateway.CancelResult, error) {
	return randomResult(d, gateway.CancelResult{})
}

func (d *randomOperations) UpdateNotificationID(context.Context, gateway.Caller, gateway.UpdateNotificationIDRequest) (gateway.UpdateNotificationIDResult, error) {
	return randomResult(d, gateway.UpdateNotificationIDResult{})
}

func (d *randomOperations) ServerTime(context.Context, gateway.Caller, gateway.ServerTimeRequest) (gateway.ServerTimeResult, error) {
	return randomResult(d, gateway.ServerTimeResult{})
}

var _ Operations = (*randomOperations)(nil)

type object = map[string]any

// documentedMembers returns the members of an answer for a result, of the service with
// the most members. Members that are left out are nil.
func documentedMembers(t *rapid.T, result any) object {
	sealed := func(s *form.Sealed) any {
		if s == nil {
			return nil
		}
		return object{"data": s.Data, "encryptedCounter": s.Counter, "mac": s.MAC}
	}
	switch r := result.(type) {
	case gateway.RegisterActivationResult:
		members := object{"registrationIdentifier": r.RegistrationIdentifier, "activationPassword": r.ActivationPassword, "activationImage": r.ActivationImage, "expiresAt": nil}
		if !r.ExpiresAt.IsZero() {
			members["expiresAt"] = r.ExpiresAt.UTC().Truncate(time.Second).Format("2006-01-02T15:04:05Z")
		}
		return members
	case gateway.RegisterOfflineResult:
		return object{"registrationIdentifier": r.RegistrationIdentifier, "activationMessageImage": r.ActivationMessageImage}
	case gateway.GenerateEphemeralKeyResult:
		return object{"serverEphemeralPublicKey": r.ServerPublic, "salt": r.Salt}
	case gateway.GenerateActivationDataResult:
		members := object{"serverEvidenceMessage": r.ServerEvidence, "encryptedLicenseActivationMessage": nil, "encryptedCounter": nil, "mac": nil, "standard": nil}
		if m := r.LicenseActivationMessage; m != nil {
			members["encryptedLicenseActivationMessage"], members["encryptedCounter"], members["mac"] = m.Data, m.Counter, m.MAC
		}
		if r.ActivationCode != nil {
			standard := object{"activationCode": sealed(r.ActivationCode)}
			if r.EventReactivationCounter != nil {
				standard["eventReactivationCounter"] = sealed(r.EventReactivationCounter)
			}
			members["standard"] = standard
		}
		return members
	case gateway.AddDeviceResult:
		return object{"instanceActivationMessage": r.InstanceActivationMessage}
	case gateway.ActivateResult:
		return object{"userID": r.UserID, "domain": r.Domain, "serialNumber": r.SerialNumber}
	case gateway.AuthenticatedResult:
		members := object{"userID": r.UserID, "domain": r.Domain, "orgUnit": r.OrgUnit, "serialNo": nil}
		if r.SerialNumber != "" {
			members["serialNo"] = r.SerialNumber
		}
		return members
	case gateway.RetrieveResult:
		return object{"requestMessage": r.RequestMessage, "encryptedLoginDetails": r.RequestMessage}
	case gateway.ServerTimeResult:
		return object{"serverTime": r.Time}
	case gateway.CancelResult, gateway.UpdateNotificationIDResult:
		return nil
	}
	t.Fatalf("unknown result %T", result)
	return nil
}

// The answer of a service has its result, in version 1 beside errorCode and errorMessage,
// in version 2 below result, and no other members.
func TestResultsRoundTrip(t *testing.T) {
	t.Parallel()
	keySet := testKeys(t)
	rapid.Check(t, func(t *rapid.T) {
		ops := &randomOperations{t: t}
		h, err := New(Config{Operations: ops, Keys: keySet})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range slices.Sorted(maps.Keys(services)) {
			service := services[path]
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(bodies[path]))
			r.RemoteAddr = "127.0.0.1:1"
			r.Header.Set("Content-Type", "application/json")
			r.SetBasicAuth(map[bool]string{true: backKey, false: frontKey}[service.classes == "back_end"], "")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				t.Fatalf("%s: status %d", path, w.Code)
			}
			want := object{}
			for name := range strings.FieldsSeq(service.result) {
				name, optional := strings.CutSuffix(name, "?")
				value, known := documentedMembers(t, ops.result)[name]
				if !known || value == nil && !optional {
					t.Fatalf("%s: no value of %s in %+v", path, name, ops.result)
				}
				if value != nil {
					want[name] = value
				}
			}
			whole := object{"errorCode": 0, "errorMessage": "STAT_SUCCESS"}
			maps.Copy(whole, want)
			if service.shape == V2 {
				whole = object{"resultCodes": object{"returnCodeEnum": "RET_SUCCESS", "statusCodeEnum": "STAT_SUCCESS", "returnCode": 0, "statusCode": 0}}
				if len(want) > 0 {
					whole["result"] = want
				}
			}
			// Encoded and decoded, so that numbers and texts have the same types.
			encoded, err := json.Marshal(whole)
			if err != nil {
				t.Fatal(err)
			}
			if got := decoded(t, w.Body.Bytes()); !reflect.DeepEqual(got, decoded(t, encoded)) {
				t.Fatalf("%s: answer %v, want %s", path, got, encoded)
			}
		}
	})
}

func decoded(t *rapid.T, text []byte) any {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return value
}

// Answers are UTF-8 also if a result is not: invalid bytes are replaced as encoding/json
// does.
func TestEncodeAnyBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.SampledFrom([]byte("a\"\\\x00\x1f\x7f<\xe2\x80\xa8\xed\xa0\xff"))).Draw(t, "text"))
		var got, want string
		encoded, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encoded, &want); err != nil {
			t.Fatal(err)
		}
		if text := appendString(nil, s); json.Unmarshal(text, &got) != nil || got != want {
			t.Fatalf("%q is encoded as %q", s, text)
		}
	})
}
