package caddymodule

import (
	"errors"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const testTabletKey = "tablet-key-of-the-tests"

// refusedWith checks that err is a refusal with a status.
func refusedWith(t *testing.T, what string, err error, status string, code int) {
	t.Helper()
	refusal, ok := errors.AsType[*sandbox.RefusalError](err)
	if !ok || refusal.ResultCodes.StatusCodeEnum != status || refusal.ResultCodes.StatusCode != code {
		t.Errorf("%s: %v", what, err)
	}
}

// The owner of a request is stored and survives reloads. Others can neither retrieve nor
// cancel the request. Their refusals have the configured number.
func TestOwnership(t *testing.T) {
	for name, edit := range map[string]func(t *testing.T, c object){
		"embedded": func(*testing.T, object) {},
		"redis":    func(t *testing.T, c object) { redisConfig(c, redistest.Start(t).Addr()) },
		"redis behind a socket": func(t *testing.T, c object) {
			socket := t.TempDir() + "/redis.sock"
			redistest.Start(t, "--unixsocket", socket)
			redisConfig(c, socket)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			edit(t, s.dsapp())
			s.dsapp()["api_keys"] = append(s.dsapp()["api_keys"].([]object), object{"name": "tablets", "class": "front_end", "key": testTabletKey})
			s.dsapp()["status_codes"] = object{"STAT_NOSUPPORT": -42}
			s.load(t)
			a, key := s.authenticator(t), s.prepareLogin(t)
			phone, tablet := s.phone(testFrontEndKey), s.phone(testTabletKey)
			if _, err := phone.Retrieve(t.Context(), sandbox.KindLogin, a, key); err != nil {
				t.Fatal(err)
			}

			in(s.dsapp(), "requests")["lifetime"] = "1m"
			s.load(t)
			asked := s.simulated.Calls("getPreparedSecureChallenge")
			_, err := tablet.Retrieve(t.Context(), sandbox.KindLogin, a, key)
			refusedWith(t, "second retrieval", err, "STAT_NOT_FOUND", -13)
			if got := s.simulated.Calls("getPreparedSecureChallenge"); got != asked {
				t.Error("the second retrieval was forwarded")
			}
			for _, wrapped := range []bool{false, true} {
				refusedWith(t, "foreign cancel", tablet.Cancel(t.Context(), sandbox.KindLogin, a, key, wrapped), "STAT_NOSUPPORT", -42)
			}
			if n := s.simulated.Calls("cancelAuthUser"); n != 0 {
				t.Errorf("%d cancels were forwarded", n)
			}
			if err := phone.Cancel(t.Context(), sandbox.KindLogin, a, key, true); err != nil {
				t.Error(err)
			}

			// The gateway does not know the next request.
			key = s.prepareLogin(t)
			if err := phone.Cancel(t.Context(), sandbox.KindLogin, a, key, false); err == nil || s.simulated.Calls("cancelAuthUser") != 2 {
				t.Errorf("unknown cancel: %v", err)
			}
			in(s.dsapp(), "requests")["unknown"] = "refuse"
			s.load(t)
			refusedWith(t, "unknown cancel", phone.Cancel(t.Context(), sandbox.KindLogin, a, key, false), "STAT_NOSUPPORT", -42)
			if n := s.simulated.Calls("cancelAuthUser"); n != 2 {
				t.Errorf("%d cancels were forwarded", n)
			}
		})
	}
}

// If a configuration is replaced by one with another store during a retrieval, the owner is
// stored in the store of the first configuration.
func TestRetrievalOutlivesItsConfiguration(t *testing.T) {
	s := newSite(t)
	s.load(t)
	first := s.storePath()
	a, key := s.authenticator(t), s.prepareLogin(t)
	s.hold.Store(true)
	done := make(chan error, 1)
	go func() {
		_, err := s.phone(testFrontEndKey).Retrieve(t.Context(), sandbox.KindLogin, a, key)
		done <- err
	}()
	<-s.arrived
	in(s.dsapp(), "store")["path"] = first + "2"
	s.load(t)
	s.hold.Store(false)
	s.proceed <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the first store to be released", func() bool { return storeReferences(first) == 0 })

	in(s.dsapp(), "store")["path"] = first
	in(s.dsapp(), "requests")["unknown"] = "refuse"
	s.load(t)
	if err := s.phone(testFrontEndKey).Cancel(t.Context(), sandbox.KindLogin, a, key, false); err != nil {
		t.Error(err)
	}
}

// With `relay` the authentication server carries out the exchange. It also decides about
// registrations that the gateway does not know, unless `unknown` is `refuse`.
func TestRelay(t *testing.T) {
	s := newSite(t)
	in(s.dsapp(), "activation")["exchange"] = "relay"
	s.load(t)
	if err := s.activate(t, s.register(t)); err != nil {
		t.Error(err)
	}
	if n := s.simulated.Calls("dsappSRPGenerateActivationData"); n != 1 {
		t.Errorf("%d relayed proofs", n)
	}

	unknown := s.register(t)
	in(s.dsapp(), "store")["path"] = s.storePath() + "2"
	s.load(t)
	if err := s.activate(t, unknown); err != nil {
		t.Error(err)
	}
	unknown = s.register(t)
	in(s.dsapp(), "store")["path"] = s.storePath() + "3"
	in(s.dsapp(), "activation")["unknown"] = "refuse"
	s.load(t)
	if err := s.activate(t, unknown); err == nil || !strings.Contains(err.Error(), "STAT_INVCREDENTIALS") {
		t.Errorf("refused registration: %v", err)
	}
}

// A standard licence can be registered, activated and used.
func TestStandardLicence(t *testing.T) {
	s := newSite(t)
	s.simulated = sandbox.New(sandbox.Options{Users: []sandbox.User{{
		Name: testUser.Name, Domain: testUser.Domain, StaticPassword: testUser.StaticPassword, StandardLicenses: 1,
	}}})
	s.load(t)
	phone := s.phone(testFrontEndKey)
	r, err := phone.RegisterUser(t.Context(), testBackEndKey, sandbox.UserRegistration{
		UserID: testUser.Name, Domain: testUser.Domain, StaticPassword: testUser.StaticPassword, LicenseType: "standard",
	})
	if err != nil {
		t.Fatal(err)
	}
	activated, err := phone.ActivateStandard(t.Context(), r.RegistrationIdentifier, r.ActivationPassword, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := phone.Authenticate(t.Context(), activated.Authenticator); err != nil {
		t.Error(err)
	}
}
