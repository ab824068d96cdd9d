package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// otherProfile is a profile beside the default one, with values of the same sizes, and changedProfile
// one with the same name and another choice.
var (
	otherProfile   = testbed.Object{"module": "srp6a", "name": "other", "preset": "nimbus"}
	changedProfile = testbed.Object{"module": "srp6a", "name": "other", "preset": "nimbus", "k": []string{"N", "g.minimal"}}
)

// offerProfiles has a gateway offer profiles. The other application has the last one, and the first
// application the first.
func offerProfiles(profiles ...any) func(dsapp testbed.Object) {
	return func(dsapp testbed.Object) {
		dsapp["activation"] = testbed.Object{"profiles": profiles, "max_attempts": 50}
		keys := dsapp["api_keys"].([]testbed.Object)
		if len(keys) == 2 {
			testbed.AddOtherApplication(dsapp)
			keys = dsapp["api_keys"].([]testbed.Object)
		}
		if last, ok := profiles[len(profiles)-1].(testbed.Object); ok {
			keys[2]["profile"] = last["name"]
		} else {
			delete(keys[2], "profile")
		}
	}
}

// application is a front-end application of a gateway with the default profile and otherProfile.
type application struct {
	key     string
	profile *srp.Profile
	name    string // of the profile, in a registration
}

func applications(t *testing.T) []application {
	t.Helper()
	standard, err := srp.LookupProfile(srp.DefaultProfile)
	require.NoError(t, err)
	other, err := srp.New("other", variant.Variant{Preset: "nimbus"})
	require.NoError(t, err)
	return []application{{testbed.FrontEndKey, standard, srp.DefaultProfile}, {testbed.OtherFrontEndKey, other, "other"}}
}

// register registers the test user for an exchange with the profile of the application.
func (a application) register(t *testing.T, g *testbed.Gateway) testbed.Registration {
	t.Helper()
	return g.RegisterFor(t, testbed.Object{"profile": a.name})
}

// exchange makes both calls of an exchange. It returns the answers.
func (a application) exchange(t *testing.T, g *testbed.Gateway, identifier, password string) (salt, public []byte, second string) {
	t.Helper()
	c, salt, public := g.BeginExchangeAs(t, a.key, a.profile, identifier, password)
	m1, err := c.Prove(salt, public)
	require.NoError(t, err)
	return salt, public, testbed.Answer(g.ProveAs(t, a.key, identifier, m1))
}

// Two profiles side by side: the app of each profile activates the registrations of its own, and
// those of the other are unknown to it. They get the same refusal as an identifier that nobody
// registered, after a first answer of the same size, and stay usable. Audit log and metrics name
// the profiles. Nothing about this depends on the store.
func TestProfilesSideBySide(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"embedded", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			g, _ := testbed.Start(t, func(dsapp testbed.Object) {
				offerProfiles("rfc5054-2048-sha256", otherProfile)(dsapp)
				if store == "redis" {
					dsapp["store"] = testbed.RedisStore(redistest.Start(t).Addr())
				}
			})
			apps := applications(t)
			for i, own := range apps {
				stranger := apps[1-i]
				registered := own.register(t, g)
				salt, public, second := stranger.exchange(t, g, registered.Identifier, registered.Password)
				unknownSalt, unknownPublic, unknownSecond := stranger.exchange(t, g, "unknown-"+own.name, registered.Password)
				assert.Len(t, salt, len(unknownSalt))
				assert.Len(t, public, len(unknownPublic))
				assert.Equal(t, testbed.Refused, second)
				assert.Equal(t, unknownSecond, second)
				g.AwaitLog(t, "another profile")

				phone := g.Phone()
				phone.APIKey, phone.Profile = own.key, own.profile
				_, err := phone.Activate(t.Context(), registered.Identifier, registered.Password)
				require.NoError(t, err, own.name)
				g.AwaitLog(t, fmt.Sprintf(`"profile":%q`, own.name))
			}
			metrics := scrape(t, g)
			for _, a := range apps {
				assert.Positive(t, metrics[fmt.Sprintf(`caddy_dsapp_exchange_steps_total{outcome="proven",profile=%q,step="activation_data"}`, a.name)])
			}
			assert.Len(t, metrics.prefixed("caddy_dsapp_exchange_info{"), 2)

			status, answer := g.Call(t, testbed.RegisterPath, testbed.BackEndKey, strings.Replace(testbed.RegisterBody, "{", `{"profile":"rfc5054-4096-sha256",`, 1))
			assert.Equal(t, http.StatusBadRequest, status, answer)
			assert.Contains(t, answer, "profile must be the name of a profile that the gateway offers")
		})
	}
}

// Reloads that take a profile away, change a choice of it and bring it back, while registrations
// of it are pending: these are refused as unknown ones are, before the first call and between the
// two, and are usable when the profile is back. Nothing is an error of the gateway or an alarm.
func TestProfilesChangeUnderRegistrations(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, offerProfiles("rfc5054-2048-sha256", otherProfile))
	apps := applications(t)
	standard, other := apps[0], apps[1]
	changed := other
	var err error
	changed.profile, err = srp.New("other", variant.Variant{Preset: "nimbus", Multiplier: variant.Template{"N", "g.minimal"}})
	require.NoError(t, err)
	pending, unaffected := other.register(t, g), standard.register(t, g)

	for _, step := range []struct {
		name     string
		profiles []any
		then     application // what the other application is afterwards
	}{
		{"taken away", []any{"rfc5054-2048-sha256"}, application{testbed.OtherFrontEndKey, standard.profile, srp.DefaultProfile}},
		{"changed", []any{"rfc5054-2048-sha256", changedProfile}, changed},
	} {
		c, salt, public := g.BeginExchangeAs(t, other.key, other.profile, pending.Identifier, pending.Password)
		offerProfiles(step.profiles...)(g.App())
		loadAs(t, g, step.name)
		m1, err := c.Prove(salt, public)
		require.NoError(t, err)
		assert.Equal(t, testbed.Refused, testbed.Answer(g.ProveAs(t, other.key, pending.Identifier, m1)), step.name)
		_, _, answer := step.then.exchange(t, g, pending.Identifier, pending.Password)
		assert.Equal(t, testbed.Refused, answer, step.name)
		_, _, answer = other.exchange(t, g, pending.Identifier, pending.Password)
		assert.Equal(t, testbed.Refused, answer, step.name)

		offerProfiles("rfc5054-2048-sha256", otherProfile)(g.App())
		loadAs(t, g, "back after "+step.name)
	}
	for _, a := range []struct {
		application

		registered testbed.Registration
	}{{standard, unaffected}, {other, pending}} {
		phone := g.Phone()
		phone.APIKey, phone.Profile = a.key, a.profile
		_, err := phone.Activate(t.Context(), a.registered.Identifier, a.registered.Password)
		require.NoError(t, err, a.name)
	}
	for _, alarm := range []string{"record_unopened", "record_damaged", "panic"} {
		assert.NotContains(t, g.Logs.String(), alarm)
	}
}

// Phones of a profile that is taken away, changed and brought back again and again either activate
// with the right data or are refused. No call fails otherwise, and no answer comes from choices
// that the phone does not have.
func TestReloadsOfProfilesUnderLoad(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, offerProfiles("rfc5054-2048-sha256", otherProfile))
	other := applications(t)[1]
	done := make(chan struct{})
	go func() {
		defer close(done)
		configurations := [][]any{{"rfc5054-2048-sha256"}, {"rfc5054-2048-sha256", changedProfile}, {"rfc5054-2048-sha256", otherProfile}}
		for i := range 3 * len(configurations) {
			offerProfiles(configurations[i%len(configurations)]...)(g.App())
			g.Load(t)
		}
	}()
	var proven, refused int
	attempt := func() {
		status, answer := g.Call(t, testbed.RegisterPath, testbed.BackEndKey, strings.Replace(testbed.RegisterBody, "{", `{"profile":"other",`, 1))
		if status == http.StatusBadRequest {
			assert.Contains(t, answer, "profile must be", "the profile is not offered now")
			return
		}
		require.Equal(t, http.StatusOK, status, answer)
		var r struct{ Result testbed.Registration }
		require.NoError(t, json.Unmarshal([]byte(answer), &r))
		c, salt, public := g.BeginExchangeAs(t, other.key, other.profile, r.Result.Identifier, r.Result.Password)
		m1, err := c.Prove(salt, public)
		require.NoError(t, err)
		status, answer = g.ProveAs(t, other.key, r.Result.Identifier, m1)
		require.Equal(t, http.StatusOK, status, answer)
		if answer == testbed.Refused {
			refused++
			return
		}
		var proof struct {
			Result struct{ ServerEvidenceMessage string }
		}
		require.NoError(t, json.Unmarshal([]byte(answer), &proof), answer)
		m2, err := hex.DecodeString(proof.Result.ServerEvidenceMessage)
		require.NoError(t, err)
		_, err = c.Confirm(m2)
		require.NoError(t, err)
		proven++
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			attempt()
		}
	}
	poll.Until(t, "an activation with the profile that is back", func() bool {
		attempt()
		return proven > 0
	})
	t.Logf("%d proven, %d refused", proven, refused)
	for _, alarm := range []string{"record_unopened", "record_damaged", "panic"} {
		assert.NotContains(t, g.Logs.String(), alarm)
	}
}
