package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

const (
	registerPath = "/rest/v2/provisioning/DSAPPSRPRegister"
	// wrongPasswordCode is the sandbox's number of STAT_LOCAL_PASSWORD_MISMATCH, relayed unchanged.
	wrongPasswordCode = 9001

	serverTimePath = "/rest/v2/provisioning/getServerTime"
	userBody       = `{"userID":"jane.doe","domain":"mydomain.com","staticPassword":"a static password"}`
)

// expectation is a row of the status table.
type expectation struct {
	status     int
	statusEnum string
	code       int
}

// check reads an answer in either shape and compares it with the row.
func (e expectation) check(t *testing.T, status int, answer string) {
	t.Helper()
	assert.Equal(t, e.status, status, answer)
	var decoded struct {
		ResultCodes *struct {
			ReturnCodeEnum, StatusCodeEnum string
			ReturnCode, StatusCode         int
		}
		Result       json.RawMessage
		ErrorCode    *int
		ErrorMessage string
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &decoded), answer)
	if decoded.ResultCodes == nil {
		require.NotNil(t, decoded.ErrorCode, answer)
		assert.Equal(t, e.statusEnum, decoded.ErrorMessage)
		if e.statusEnum == "STAT_SUCCESS" {
			assert.Zero(t, *decoded.ErrorCode)
		} else {
			assert.Equal(t, -1, *decoded.ErrorCode)
		}
		return
	}
	assert.Equal(t, e.statusEnum, decoded.ResultCodes.StatusCodeEnum)
	assert.Equal(t, e.code, decoded.ResultCodes.StatusCode)
	if e.statusEnum == "STAT_SUCCESS" {
		assert.Equal(t, "RET_SUCCESS", decoded.ResultCodes.ReturnCodeEnum)
		assert.Zero(t, decoded.ResultCodes.ReturnCode)
		return
	}
	assert.Equal(t, "RET_FAILURE", decoded.ResultCodes.ReturnCodeEnum)
	assert.Equal(t, -1, decoded.ResultCodes.ReturnCode)
	assert.Empty(t, decoded.Result, "a failure has no result")
}

func basic(userInfo string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(userInfo))
}

// Every situation that a request by itself can bring about, over real HTTPS.
func TestStatusOfRequests(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	g := startGateway(t, certs, server.URL, func(dsapp object) {
		keys := dsapp["api_keys"].([]object)
		dsapp["api_keys"] = append(keys, object{
			"name": "elsewhere", "class": "back_end", "key": "key-of-another-network", "allow": []string{"192.0.2.0/24"},
		})
	})
	front, back := basic(frontEndKey+":"), basic(backEndKey+":")
	success := expectation{http.StatusOK, "STAT_SUCCESS", 0}
	invalid := expectation{http.StatusBadRequest, "STAT_INVPARAM", -2}
	unauthorized := expectation{http.StatusUnauthorized, "STAT_INVCREDENTIALS", 1000}
	forbidden := expectation{http.StatusForbidden, "STAT_PERMISSION", 1005}
	refusal := expectation{http.StatusOK, "STAT_INVCREDENTIALS", 1000}
	const v1Key = "/rest/activation/DSAPPSRPGenerateEphemeralKey"

	for _, tc := range []struct {
		name          string
		method        string // POST unless set
		path          string
		authorization string
		contentType   string // application/json unless set
		body          string
		want          expectation
		header        map[string]string
		mentions      string
	}{
		{name: "success", path: registerPath, authorization: back, body: userBody, want: success},
		{name: "success without body", path: serverTimePath, authorization: front, want: success},
		{name: "success in version 1", path: v1Key, authorization: front, body: `{"registrationID":"Unknown1","clientEphemeralPublicKey":"05"}`, want: success},
		{name: "refused by the authentication server", path: registerPath, authorization: back, body: strings.Replace(userBody, "a static", "wrong", 1), want: expectation{http.StatusOK, "STAT_LOCAL_PASSWORD_MISMATCH", wrongPasswordCode}},
		{name: "refused by rule", path: addDevicePath, authorization: front, body: `{"registrationIdentifier":"Unknown1","deviceCode":"12345678901234567890123456"}`, want: refusal},
		{name: "refused by rule in version 1", path: "/rest/activation/MdlActivate", authorization: front, body: `{"registrationID":"Unknown1","signature":"1234567890123456"}`, want: refusal},
		{name: "no JSON", path: registerPath, authorization: back, body: `{"userID":`, want: invalid},
		{name: "no object", path: registerPath, authorization: back, body: `[]`, want: invalid},
		{name: "no UTF-8", path: registerPath, authorization: back, body: "{\"userID\":\"\xff\"}", want: invalid},
		{name: "duplicate member", path: registerPath, authorization: back, body: `{"userID":"a","userID":"b","staticPassword":"c"}`, want: invalid, mentions: "userID"},
		{name: "name in another case is missing", path: registerPath, authorization: back, body: `{"UserID":"jane.doe","staticPassword":"c"}`, want: invalid, mentions: "userID"},
		{name: "missing member", path: registerPath, authorization: back, body: `{"userID":"jane.doe"}`, want: invalid, mentions: "staticPassword"},
		{name: "wrong type", path: registerPath, authorization: back, body: `{"userID":7,"staticPassword":"c"}`, want: invalid, mentions: "userID"},
		{name: "invalid client public key", path: ephemeralKeyPath, authorization: front, body: `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"01"}`, want: invalid, mentions: "clientEphemeralPublicKey"},
		{name: "invalid evidence", path: activationDataPath, authorization: front, body: `{"registrationIdentifier":"Unknown1","clientEvidenceMessage":"0x"}`, want: invalid, mentions: "clientEvidenceMessage"},
		{name: "invalid identifier", path: ephemeralKeyPath, authorization: front, body: `{"registrationIdentifier":"a/b/c","clientEphemeralPublicKey":"05"}`, want: invalid, mentions: "registrationIdentifier"},
		{name: "invalid identifier in version 1", path: v1Key, authorization: front, body: `{"registrationID":"a/b/c","clientEphemeralPublicKey":"05"}`, want: invalid, mentions: "registrationID"},
		{name: "no key", path: serverTimePath, want: unauthorized, header: map[string]string{"WWW-Authenticate": `Basic `}},
		{name: "wrong key", path: serverTimePath, authorization: basic("no-such-front-end-key:"), want: unauthorized, header: map[string]string{"WWW-Authenticate": `Basic `}},
		{name: "key with a password", path: serverTimePath, authorization: basic(frontEndKey + ":x"), want: unauthorized, header: map[string]string{"WWW-Authenticate": `Basic `}},
		{name: "another scheme", path: serverTimePath, authorization: "Bearer " + frontEndKey, want: unauthorized, header: map[string]string{"WWW-Authenticate": `Basic `}},
		{name: "wrong class", path: registerPath, authorization: front, body: userBody, want: forbidden},
		{name: "wrong class the other way", path: ephemeralKeyPath, authorization: back, body: `{}`, want: forbidden},
		{name: "wrong source range", path: registerPath, authorization: basic("key-of-another-network:"), body: userBody, want: forbidden},
		{name: "unknown service", path: "/rest/v2/provisioning/unknown", authorization: front, body: `{}`, want: expectation{http.StatusNotFound, "STAT_NOT_FOUND", -13}},
		{name: "unknown service in version 1", path: "/rest/activation/unknown", authorization: front, body: `{}`, want: expectation{http.StatusNotFound, "STAT_NOT_FOUND", -13}},
		{name: "wrong method", method: http.MethodGet, path: serverTimePath, authorization: front, want: expectation{http.StatusMethodNotAllowed, "STAT_INVPARAM", -2}, header: map[string]string{"Allow": "POST"}},
		{name: "too large", path: registerPath, authorization: back, body: `{"userID":"` + strings.Repeat("a", 70_000) + `"}`, want: expectation{http.StatusRequestEntityTooLarge, "STAT_INVPARAM", -2}},
		{name: "wrong media type", path: registerPath, authorization: back, contentType: "text/plain", body: userBody, want: expectation{http.StatusUnsupportedMediaType, "STAT_INVPARAM", -2}},
		{name: "wrong charset", path: registerPath, authorization: back, contentType: "application/json; charset=iso-8859-1", body: userBody, want: expectation{http.StatusUnsupportedMediaType, "STAT_INVPARAM", -2}},
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
			status, header, answer, err := g.Do(r)
			require.NoError(t, err)
			tc.want.check(t, status, answer)
			assert.Contains(t, header.Get("Content-Type"), "application/json")
			assert.Equal(t, "no-store", header.Get("Cache-Control"))
			for name, prefix := range tc.header {
				assert.True(t, strings.HasPrefix(header.Get(name), prefix), "%s: %s", name, header.Get(name))
			}
			if tc.mentions != "" {
				var decoded struct{ ErrorDescription string }
				require.NoError(t, json.Unmarshal([]byte(answer), &decoded))
				assert.Contains(t, decoded.ErrorDescription, tc.mentions)
			}
		})
	}
}

// Too many requests of one client address are answered 429 with the seconds to wait.
func TestStatusOfTooManyRequests(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	tooMany := expectation{http.StatusTooManyRequests, "STAT_ERROR", -1}
	for _, tc := range []struct{ limit, path, key, body string }{
		{"exchanges_per_minute", ephemeralKeyPath, frontEndKey, `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"05"}`},
		{"registrations_per_minute", registerPath, backEndKey, userBody},
		{"failed_keys_per_minute", serverTimePath, "no-such-front-end-key", `{}`},
	} {
		t.Run(tc.limit, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, certs, server.URL, func(dsapp object) {
				dsapp["limits"] = object{"failed_keys_per_minute": 600, "exchanges_per_minute": 600, "registrations_per_minute": 600, tc.limit: 2}
			})
			var status int
			var answer string
			for range 10 {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+tc.path, strings.NewReader(tc.body))
				require.NoError(t, err)
				r.Header.Set("Content-Type", "application/json")
				r.SetBasicAuth(tc.key, "")
				var header http.Header
				status, header, answer, err = g.Do(r)
				require.NoError(t, err)
				if status == http.StatusTooManyRequests {
					seconds, err := strconv.Atoi(header.Get("Retry-After"))
					require.NoError(t, err)
					assert.Positive(t, seconds)
					assert.LessOrEqual(t, seconds, 60)
					break
				}
			}
			tooMany.check(t, status, answer)
		})
	}
}

// Without the store nothing is begun that needs it, and what it was lost for is
// not advised to be tried again.
func TestStatusWithoutStore(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	redis := redistest.Start(t)
	g := startGateway(t, certs, server.URL, func(dsapp object) {
		dsapp["store"] = object{"backend": "redis", "addresses": []string{redis.Addr()}}
	})
	registered := g.Register(t)
	_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)

	// The store goes away while the authentication server is working: the
	// registration there is of no use, and trying again makes another one.
	server.Intercept(func(http.ResponseWriter, *http.Request) bool {
		redis.Stop()
		return false
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+registerPath, strings.NewReader(userBody))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(backEndKey, "")
	status, header, answer, err := g.Do(r)
	require.NoError(t, err)
	expectation{http.StatusInternalServerError, "STAT_ERROR", -1}.check(t, status, answer)
	assert.Empty(t, header.Get("Retry-After"))
	server.Intercept(nil)

	commands := server.Calls("PROVISIONCMD_MDL_REGISTER")
	for path, body := range map[string]string{
		registerPath:       userBody,
		ephemeralKeyPath:   `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"05"}`,
		activationDataPath: fmt.Sprintf(`{"registrationIdentifier":"Unknown1","clientEvidenceMessage":%q}`, strings.Repeat("0", 64)),
		addDevicePath:      `{"registrationIdentifier":"Unknown1","deviceCode":"12345678901234567890123456"}`,
		activatePath:       `{"registrationIdentifier":"Unknown1","signature":"1234567890123456"}`,
	} {
		key := frontEndKey
		if path == registerPath {
			key = backEndKey
		}
		status, answer := g.Call(t, path, key, body)
		expectation{http.StatusServiceUnavailable, "STAT_COMMS", -10}.check(t, status, answer)
	}
	assert.Equal(t, commands, server.Calls("PROVISIONCMD_MDL_REGISTER"), "nothing is registered that could not be stored")
}
