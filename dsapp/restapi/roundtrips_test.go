package restapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const (
	frontEndKey = "round-trips-front-end"
	otherKey    = "round-trips-other"
	backEndKey  = "round-trips-back-end"
)

var jane = sandbox.User{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "a static password", Licenses: 50, StandardLicenses: 50}

// Each service makes no more round trips to Redis than necessary: none if it has no
// state, else one to read the state and one to write the result. The end of a request is written
// later, together with that of others. Repeats cost a mark if nothing else is written before the
// command, and its removal after a refusal.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		repeats time.Duration
		once    int64
	}{{"without repeats", 0, 1}, {"with repeats", time.Minute, 2}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			testRoundTrips(t, newWholeGateway(t, test.repeats), test.once)
		})
	}
}

// testRoundTrips compares the numbers of round trips. once is that of a call that needs the store once:
// adding a device, and what is refused.
func testRoundTrips(t *testing.T, g *wholeGateway, once int64) {
	t.Helper()
	phone := &sandbox.Phone{BaseURL: g.url, APIKey: frontEndKey, Client: g.client}

	// The first activation loads the scripts and creates the simulation secret.
	registered := g.register(t, phone, "mdl")
	_, err := phone.Activate(t.Context(), registered.RegistrationIdentifier, registered.ActivationPassword)
	must(t, err)
	clear(g.trips)

	registered = g.register(t, phone, "mdl")
	device, err := phone.Activate(t.Context(), registered.RegistrationIdentifier, registered.ActivationPassword)
	must(t, err)
	must(t, phone.UpdateNotificationID(t.Context(), device.Authenticator, "push"))
	_, err = phone.Authenticate(t.Context(), device.Authenticator)
	must(t, err)
	g.expect(t, map[string]int64{
		"DSAPPSRPRegister":               1,
		"DSAPPSRPGenerateEphemeralKey":   2, // the registration, the handshake
		"DSAPPSRPGenerateActivationData": 2, // take, settle
		"MdlAddDevice":                   once,
		"MdlActivate":                    2, // before and after the call
		"updateNotificationID":           0,
		"authUser":                       0,
	})

	registered = g.register(t, phone, "standard")
	_, err = phone.ActivateStandard(t.Context(), registered.RegistrationIdentifier, registered.ActivationPassword, false)
	must(t, err)
	g.expect(t, map[string]int64{
		"DSAPPSRPRegister":               1,
		"DSAPPSRPGenerateEphemeralKey":   2,
		"DSAPPSRPGenerateActivationData": 2,
		"DSAPPSRPActivate":               2,
	})

	a := device.Authenticator
	// The first calls load further scripts.
	warm := g.ask(t, sandbox.KindLogin, a)
	_, err = phone.Retrieve(t.Context(), sandbox.KindLogin, a, warm)
	must(t, err)
	refused(t, (&sandbox.Phone{BaseURL: g.url, APIKey: otherKey, Client: g.client}).Cancel(t.Context(), sandbox.KindLogin, a, warm, true))
	must(t, phone.Cancel(t.Context(), sandbox.KindLogin, a, warm, false))
	clear(g.trips)

	for _, kind := range []struct {
		sandbox.Kind
		retrieve, complete, cancel string
	}{
		{sandbox.KindLogin, "getPreparedSecureChallenge", "authUser", "cancelAuthUser"},
		{sandbox.KindSignature, "getPreparedSignatureRequest", "authSignature", "cancelAuthSignatureRequest"},
	} {
		pending, err := phone.Retrieve(t.Context(), kind.Kind, a, g.ask(t, kind.Kind, a))
		must(t, err)
		_, err = phone.Complete(t.Context(), kind.Kind, a, pending)
		must(t, err)
		g.expect(t, map[string]int64{kind.retrieve: 2, kind.complete: 1})

		for _, wrapped := range []bool{false, true} {
			key := g.ask(t, kind.Kind, a)
			_, err = phone.Retrieve(t.Context(), kind.Kind, a, key)
			must(t, err)
			other := *phone
			other.APIKey = otherKey
			refused(t, other.Cancel(t.Context(), kind.Kind, a, key, wrapped))
			g.expect(t, map[string]int64{kind.retrieve: 2, kind.cancel: once})
			_, err = other.Retrieve(t.Context(), kind.Kind, a, key)
			refused(t, err)
			must(t, phone.Cancel(t.Context(), kind.Kind, a, key, wrapped))
			g.expect(t, map[string]int64{kind.retrieve: once, kind.cancel: 1})
		}
	}
}

// Without an activation exchange, adding a device takes one more round trip: the call is
// returned to the registration unless the authentication server refused it.
func TestRoundTripsWithoutExchange(t *testing.T) {
	t.Parallel()
	g := newWholeGateway(t, 0)
	call := func(service, key, body string, answer any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/rest/v2/provisioning/"+service, strings.NewReader(body))
		must(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth(key, "")
		resp, err := g.client.Do(r)
		must(t, err)
		defer resp.Body.Close()
		must(t, json.NewDecoder(resp.Body).Decode(answer))
	}
	for range 2 {
		var registered struct {
			Result struct{ RegistrationIdentifier, ActivationMessageImage string }
		}
		call("MdlRegister", backEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,"password":%q}`, jane.Name, jane.Domain, jane.StaticPassword), &registered)
		device := sandbox.NewDevice(1)
		code, err := device.ActivateLicense(registered.Result.ActivationMessageImage)
		must(t, err)
		var added, done struct {
			ResultCodes struct{ StatusCodeEnum string }
			Result      struct{ InstanceActivationMessage string }
		}
		// The first calls load the scripts.
		clear(g.trips)
		identifier := registered.Result.RegistrationIdentifier
		call("MdlAddDevice", frontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"deviceCode":%q}`, identifier, code), &added)
		signature, err := device.ActivateInstance(added.Result.InstanceActivationMessage)
		must(t, err)
		call("MdlActivate", frontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"signature":%q}`, identifier, signature), &done)
		if done.ResultCodes.StatusCodeEnum != "STAT_SUCCESS" {
			t.Fatalf("activation ended with %+v", done)
		}
	}
	g.expect(t, map[string]int64{"MdlAddDevice": 2, "MdlActivate": 2})
}

// With an idempotency key, registering takes one more round trip: the key is looked up first, and
// what it leads to is written at the same time as the registration. A repeat takes two.
func TestRoundTripsWithIdempotencyKey(t *testing.T) {
	t.Parallel()
	g := newWholeGateway(t, 0)
	g.register(t, &sandbox.Phone{BaseURL: g.url, Client: g.client}, "mdl")
	for service, password := range map[string]string{"DSAPPSRPRegister": "staticPassword", "MdlRegister": "password"} {
		n := 0
		register := func() string {
			t.Helper()
			body := fmt.Sprintf(`{"userID":%q,"domain":%q,%q:%q}`, jane.Name, jane.Domain, password, jane.StaticPassword)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/rest/v2/provisioning/"+service, strings.NewReader(body))
			must(t, err)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Idempotency-Key", fmt.Sprintf("%s-number-%d", service, n))
			r.SetBasicAuth(backEndKey, "")
			resp, err := g.client.Do(r)
			must(t, err)
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			must(t, err)
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s", resp.Status, answer)
			}
			return string(answer)
		}
		var first string
		poll.Until(t, "a registration with three calls of Redis", func() bool {
			n++
			first = register()
			return g.trips[service] == 3
		})
		clear(g.trips)
		if again := register(); again != first {
			t.Errorf("%s: %s, at first %s", service, again, first)
		}
		g.expect(t, map[string]int64{service: 2})
	}
}

// wholeGateway is a real gateway with Redis and a simulated authentication server.
type wholeGateway struct {
	url    string
	client *http.Client
	server *sandbox.Server
	oas    string
	// trips is the number of round trips to Redis of the last call of each service.
	trips map[string]int64
	// flush makes the changes of the store that are delayed.
	flush func() error
}

// newWholeGateway starts a gateway that keeps answers for repeats for that long.
func newWholeGateway(t *testing.T, repeats time.Duration) *wholeGateway {
	t.Helper()
	g := &wholeGateway{server: sandbox.New(sandbox.Options{Users: []sandbox.User{jane}}), trips: make(map[string]int64)}
	oas := serve(t, g.server)
	g.oas = oas.URL
	address, err := url.Parse(oas.URL)
	must(t, err)
	commands := httpclient.New(httpclient.Config{
		URL: address, TLS: oas.Client().Transport.(*http.Transport).TLSClientConfig, Dial: new(net.Dialer).DialContext,
		HandshakeTimeout: poll.Patience, IdleTimeout: poll.Patience, MaxIdle: 4,
	})
	t.Cleanup(commands.CloseIdleConnections)
	servers, err := authserver.New(authserver.Config{
		Instances: []authserver.Instance{{Name: "primary", URL: address, Transport: commands, MaxConnections: 4}},
		Timeout:   poll.Patience,
		ComponentTypes: authserver.ComponentTypes{
			Provisioning: sandbox.DefaultComponentType, Authentication: sandbox.PushComponentType,
			Signature: sandbox.PushComponentType, Notification: sandbox.PushComponentType,
		},
	})
	must(t, err)

	client, err := redis.NewClient(redis.Settings{Addresses: []string{redistest.Start(t).Addr()}, Timeout: poll.Patience})
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	var count roundTrips
	client.AddHook(&count)
	store := redis.New(client, redis.Options{Gather: time.Hour})
	g.flush = store.Flush
	ring, err := seal.NewKeyring(bytes.Repeat([]byte{7}, 32))
	must(t, err)
	profile, err := srp.LookupProfile(srp.DefaultProfile)
	must(t, err)
	registrations, err := activation.New(activation.Config{
		Open: func(ctx context.Context) (activation.Store, *seal.Keyring, error) {
			return repeat.Activation(ctx, store), ring, nil
		},
		Profiles: []activation.Profile{profile},
	})
	must(t, err)
	requests, err := ownership.New(ownership.Config{
		Open: func(ctx context.Context) (ownership.Store, *seal.Keyring, error) {
			return repeat.Ownership(ctx, store), ring, nil
		},
	})
	must(t, err)
	kept, err := repeat.New(repeat.Config{
		Open:     func(context.Context) (repeat.Store, *seal.Keyring, error) { return store, ring, nil },
		Lifetime: repeats, Timeout: poll.Patience,
	})
	must(t, err)
	named, err := repeat.NewKeys(repeat.Config{
		Open:     func(context.Context) (repeat.Store, *seal.Keyring, error) { return store, ring, nil },
		Lifetime: activation.DefaultRegistrationLifetime, Timeout: poll.Patience,
	})
	must(t, err)
	operations, err := gateway.New(gateway.Config{Activation: registrations, Ownership: requests, Servers: servers, Repeats: kept, Keys: named})
	must(t, err)
	keys, err := apikey.NewSet([]apikey.Key{
		{Name: "mobile-app", Class: apikey.FrontEnd, Hash: apikey.Hash(frontEndKey)},
		{Name: "other-app", Class: apikey.FrontEnd, Hash: apikey.Hash(otherKey)},
		{Name: "bank-site", Class: apikey.BackEnd, Hash: apikey.Hash(backEndKey)},
	})
	must(t, err)
	handler, err := restapi.New(restapi.Config{Operations: operations, Keys: keys})
	must(t, err)

	var mu sync.Mutex
	front := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		before := count.Load()
		handler.ServeHTTP(w, r)
		g.trips[path.Base(r.URL.Path)] = count.Load() - before
	}))
	g.url, g.client = front.URL, front.Client()
	return g
}

// expect compares trips with those that are wanted, and clears them. It makes what is delayed.
func (g *wholeGateway) expect(t *testing.T, want map[string]int64) {
	t.Helper()
	must(t, g.flush())
	if !maps.Equal(g.trips, want) {
		t.Errorf("round trips %v, want %v", g.trips, want)
	}
	clear(g.trips)
}

// register registers a user, as the bank's site does. A registration first checks that
// Redis accepts writes, unless something was written within the last second. On a slow
// machine register repeats it until that is the case.
func (g *wholeGateway) register(t *testing.T, phone *sandbox.Phone, license string) sandbox.RegisteredUser {
	t.Helper()
	var registered sandbox.RegisteredUser
	poll.Until(t, "a registration with one round trip", func() bool {
		var err error
		registered, err = phone.RegisterUser(t.Context(), backEndKey, sandbox.UserRegistration{
			UserID: jane.Name, Domain: jane.Domain, StaticPassword: jane.StaticPassword, LicenseType: license,
		})
		must(t, err)
		return g.trips["DSAPPSRPRegister"] == 1
	})
	return registered
}

// ask prepares a request for a phone to scan, as the application server does, and
// returns its key.
func (g *wholeGateway) ask(t *testing.T, kind sandbox.Kind, a *sandbox.Authenticator) string {
	t.Helper()
	application := &sandbox.ApplicationServer{URL: g.oas, Client: g.client}
	login := sandbox.LoginRequest{UserID: jane.Name, Domain: jane.Domain, Message: "Sign in?"}
	signature := sandbox.SignatureRequest{UserID: jane.Name, Domain: jane.Domain, SerialNumber: a.SerialNumber, Title: "Transfer", Fields: []sandbox.RequestField{{Key: "Amount", Value: "1"}}}
	var key string
	var err error
	if kind == sandbox.KindLogin {
		key, err = application.PrepareLogin(t.Context(), login)
	} else {
		key, err = application.PrepareSignature(t.Context(), signature)
	}
	must(t, err)
	return key
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// roundTrips is a hook of the Redis client that counts round trips: commands, scripts and
// pipelines.
type roundTrips struct{ atomic.Int64 }

func (*roundTrips) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (r *roundTrips) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		r.Add(1)
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		r.Add(1)
		return next(ctx, cmds)
	}
}

func refused(t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[*sandbox.RefusalError](err); !ok {
		t.Errorf("not refused: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
