package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

const (

	// wrongPasswordCode is the sandbox's number of STAT_LOCAL_PASSWORD_MISMATCH, relayed unchanged.
	wrongPasswordCode = 9001
)

// The table has every situation that a request can bring about by itself.
func TestStatusOfRequests(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		keys := dsapp["api_keys"].([]testbed.Object)
		dsapp["api_keys"] = append(keys, testbed.Object{
			"name": "elsewhere", "class": "back_end", "key": "key-of-another-network", "allow": []string{"192.0.2.0/24"},
		})
	})
	front, back := testbed.BasicAuth(testbed.FrontEndKey+":"), testbed.BasicAuth(testbed.BackEndKey+":")
	success := testbed.Expect(http.StatusOK, "STAT_SUCCESS", 0)
	invalid := testbed.Expect(http.StatusBadRequest, "STAT_INVPARAM", -2)
	unauthorized := testbed.Expect(http.StatusUnauthorized, "STAT_INVCREDENTIALS", 1000)
	forbidden := testbed.Expect(http.StatusForbidden, "STAT_PERMISSION", 1005)
	refusal := testbed.Expect(http.StatusOK, "STAT_INVCREDENTIALS", 1000)
	const v1Key = "/rest/activation/DSAPPSRPGenerateEphemeralKey"

	for _, tc := range []struct {
		name          string
		method        string // POST unless set
		path          string
		authorization string
		contentType   string // application/json unless set
		body          string
		want          testbed.Expectation
		header        map[string]string
		mentions      string
	}{
		{name: "success", path: testbed.RegisterPath, authorization: back, body: testbed.RegisterBody, want: success},
		{name: "success without body", path: testbed.ServerTimePath, authorization: front, want: success},
		{name: "success in version 1", path: v1Key, authorization: front, body: `{"registrationID":"Unknown1","clientEphemeralPublicKey":"05"}`, want: success},
		{name: "refused by the authentication server", path: testbed.RegisterPath, authorization: back, body: strings.Replace(testbed.RegisterBody, "a static", "wrong", 1), want: testbed.Expect(http.StatusOK, "STAT_LOCAL_PASSWORD_MISMATCH", wrongPasswordCode)},
		{name: "refused by rule", path: testbed.AddDevicePath, authorization: front, body: `{"registrationIdentifier":"Unknown1","deviceCode":"12345678901234567890123456"}`, want: refusal},
		{name: "refused by rule in version 1", path: "/rest/activation/MdlActivate", authorization: front, body: `{"registrationID":"Unknown1","signature":"1234567890123456"}`, want: refusal},
		{name: "no JSON", path: testbed.RegisterPath, authorization: back, body: `{"userID":`, want: invalid},
		{name: "no object", path: testbed.RegisterPath, authorization: back, body: `[]`, want: invalid},
		{name: "no UTF-8", path: testbed.RegisterPath, authorization: back, body: "{\"userID\":\"\xff\"}", want: invalid},
		{name: "duplicate member", path: testbed.RegisterPath, authorization: back, body: `{"userID":"a","userID":"b","staticPassword":"c"}`, want: invalid, mentions: "userID"},
		{name: "name in another case is missing", path: testbed.RegisterPath, authorization: back, body: `{"UserID":"jane.doe","staticPassword":"c"}`, want: invalid, mentions: "userID"},
		{name: "missing member", path: testbed.RegisterPath, authorization: back, body: `{"userID":"jane.doe"}`, want: invalid, mentions: "staticPassword"},
		{name: "wrong type", path: testbed.RegisterPath, authorization: back, body: `{"userID":7,"staticPassword":"c"}`, want: invalid, mentions: "userID"},
		{name: "invalid client public key", path: testbed.EphemeralKeyPath, authorization: front, body: `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"01"}`, want: invalid, mentions: "clientEphemeralPublicKey"},
		{name: "invalid evidence", path: testbed.ActivationDataPath, authorization: front, body: `{"registrationIdentifier":"Unknown1","clientEvidenceMessage":"0x"}`, want: invalid, mentions: "clientEvidenceMessage"},
		{name: "invalid identifier", path: testbed.EphemeralKeyPath, authorization: front, body: `{"registrationIdentifier":"a/b/c","clientEphemeralPublicKey":"05"}`, want: invalid, mentions: "registrationIdentifier"},
		{name: "invalid identifier in version 1", path: v1Key, authorization: front, body: `{"registrationID":"a/b/c","clientEphemeralPublicKey":"05"}`, want: invalid, mentions: "registrationID"},
		{name: "no key", path: testbed.ServerTimePath, want: unauthorized, header: map[string]string{"WWW-Authenticate": `Basic `}},
		{name: "wrong key", path: testbed.ServerTimePath, authorization: testbed.BasicAuth("no-such-front-end-key:"), want: unauthorized, header: map[string]string{"WWW-Authenticate": `Basic `}},
		{name: "key with a password", path: testbed.ServerTimePath, authorization: testbed.BasicAuth(testbed.FrontEndKey + ":x"), want: unauthorized, header: map[string]string{"WWW-Authenticate": `Basic `}},
		{name: "another scheme", path: testbed.ServerTimePath, authorization: "Bearer " + testbed.FrontEndKey, want: unauthorized, header: map[string]string{"WWW-Authenticate": `Basic `}},
		{name: "wrong class", path: testbed.RegisterPath, authorization: front, body: testbed.RegisterBody, want: forbidden},
		{name: "wrong class the other way", path: testbed.EphemeralKeyPath, authorization: back, body: `{}`, want: forbidden},
		{name: "wrong source range", path: testbed.RegisterPath, authorization: testbed.BasicAuth("key-of-another-network:"), body: testbed.RegisterBody, want: forbidden},
		{name: "unknown service", path: "/rest/v2/provisioning/unknown", authorization: front, body: `{}`, want: testbed.Expect(http.StatusNotFound, "STAT_NOT_FOUND", -13)},
		{name: "unknown service in version 1", path: "/rest/activation/unknown", authorization: front, body: `{}`, want: testbed.Expect(http.StatusNotFound, "STAT_NOT_FOUND", -13)},
		{name: "wrong method", method: http.MethodGet, path: testbed.ServerTimePath, authorization: front, want: testbed.Expect(http.StatusMethodNotAllowed, "STAT_INVPARAM", -2), header: map[string]string{"Allow": "POST"}},
		{name: "too large", path: testbed.RegisterPath, authorization: back, body: `{"userID":"` + strings.Repeat("a", 70_000) + `"}`, want: testbed.Expect(http.StatusRequestEntityTooLarge, "STAT_INVPARAM", -2)},
		{name: "wrong media type", path: testbed.RegisterPath, authorization: back, contentType: "text/plain", body: testbed.RegisterBody, want: testbed.Expect(http.StatusUnsupportedMediaType, "STAT_INVPARAM", -2)},
		{name: "wrong charset", path: testbed.RegisterPath, authorization: back, contentType: "application/json; charset=iso-8859-1", body: testbed.RegisterBody, want: testbed.Expect(http.StatusUnsupportedMediaType, "STAT_INVPARAM", -2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			method, contentType := tc.method, tc.contentType
			if method == "" {
				method = http.MethodPost
			}
			if contentType == "" {
				contentType = "application/json"
			}
			r, err := http.NewRequestWithContext(t.Context(), method, g.URL+tc.path, strings.NewReader(tc.body))
			require.NoError(t, err)
			r.Header.Set("Content-Type", contentType)
			if tc.authorization != "" {
				r.Header.Set("Authorization", tc.authorization)
			}
			got, err := g.Do(r)
			require.NoError(t, err)
			tc.want.Check(t, got)
			assert.Contains(t, got.Header.Get("Content-Type"), "application/json")
			assert.Equal(t, "no-store", got.Header.Get("Cache-Control"))
			for name, prefix := range tc.header {
				assert.True(t, strings.HasPrefix(got.Header.Get(name), prefix), "%s: %s", name, got.Header.Get(name))
			}
			if tc.mentions != "" {
				var decoded struct{ ErrorDescription string }
				require.NoError(t, json.Unmarshal([]byte(got.Body), &decoded))
				assert.Contains(t, decoded.ErrorDescription, tc.mentions)
			}
		})
	}
}

// Without the store nothing is begun that needs it. A client is not told to repeat a call whose
// registration was lost.
func TestStatusWithoutStore(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	redis := redistest.Start(t)
	g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
		dsapp["store"] = testbed.RedisStore(redis.Addr())
	})
	registered := g.Register(t)
	_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)

	// The store stops while the authentication server works: the registration there is of no
	// use, and another call would make another one.
	server.Intercept(func(http.ResponseWriter, *http.Request) bool {
		redis.Stop()
		return false
	})
	got := g.Post(t, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
	testbed.Expect(http.StatusInternalServerError, "STAT_ERROR", -1).Check(t, got)
	assert.Empty(t, got.Header.Get("Retry-After"))
	server.Intercept(nil)

	commands := server.Calls("PROVISIONCMD_MDL_REGISTER")
	for path, body := range map[string]string{
		testbed.RegisterPath:       testbed.RegisterBody,
		testbed.EphemeralKeyPath:   `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"05"}`,
		testbed.ActivationDataPath: fmt.Sprintf(`{"registrationIdentifier":"Unknown1","clientEvidenceMessage":%q}`, strings.Repeat("0", 64)),
		testbed.AddDevicePath:      `{"registrationIdentifier":"Unknown1","deviceCode":"12345678901234567890123456"}`,
		testbed.ActivatePath:       `{"registrationIdentifier":"Unknown1","signature":"1234567890123456"}`,
	} {
		key := testbed.FrontEndKey
		if path == testbed.RegisterPath {
			key = testbed.BackEndKey
		}
		testbed.Expect(http.StatusServiceUnavailable, "STAT_COMMS", -10).Check(t, g.Post(t, path, key, body))
	}
	assert.Equal(t, commands, server.Calls("PROVISIONCMD_MDL_REGISTER"), "nothing is registered that could not be stored")
}
