//go:build linux

package testbed

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A call that the description of the services does not allow is noticed: a wrong request that
// succeeds, and an answer with a wrong status, header, member or value.
func TestContract(t *testing.T) {
	t.Parallel()
	const registered = `{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0},` +
		`"result":{"registrationIdentifier":"e3wfISG9","activationPassword":"Tb048aX1","activationImage":"3031","expiresAt":"2026-03-04T05:06:07Z"}}`
	for name, c := range map[string]struct {
		request, answer string
		status          int
		without         string // header field
		fits            bool
	}{
		"success":                      {RegisterBody, registered, 200, "", true},
		"refusal":                      {RegisterBody, Refused, 200, "", true},
		"failure":                      {`{}`, Refused, 500, "", true},
		"unknown member":               {RegisterBody, strings.Replace(registered, `"expiresAt"`, `"x":1,"expiresAt"`, 1), 200, "", false},
		"missing member":               {RegisterBody, strings.Replace(registered, `"activationImage":"3031",`, ``, 1), 200, "", false},
		"wrong type":                   {RegisterBody, strings.Replace(registered, `"3031"`, `3031`, 1), 200, "", false},
		"wrong time":                   {RegisterBody, strings.Replace(registered, "T05:06", " 05-06", 1), 200, "", false},
		"codes of both kinds":          {RegisterBody, strings.Replace(registered, `"returnCode":0`, `"returnCode":-1`, 1), 200, "", false},
		"success without result":       {RegisterBody, Success, 200, "", false},
		"success with status 500":      {RegisterBody, Success, 500, "", false},
		"undocumented status":          {RegisterBody, Refused, 418, "", false},
		"no Retry-After":               {RegisterBody, Refused, 503, "Retry-After", false},
		"no X-Request-Id":              {RegisterBody, registered, 200, "X-Request-Id", false},
		"no Content-Type":              {RegisterBody, registered, 200, "Content-Type", false},
		"request without a member":     {`{"domain":"d","staticPassword":"x"}`, registered, 200, "", false},
		"request with wrong character": {`{"userID":"a;b","staticPassword":"x"}`, registered, 200, "", false},
		"request with control":         {`{"userID":"a\u0007","staticPassword":"x"}`, registered, 200, "", false},
		"request with wrong value":     {`{"userID":"a","staticPassword":"x","licenseType":"other"}`, registered, 200, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://localhost"+RegisterPath, strings.NewReader(c.request))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/json")
			header := http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"abc"}, "Retry-After": {"1"}}
			header.Del(c.without)
			err = compare(r, &http.Response{StatusCode: c.status, Header: header}, []byte(c.answer))
			assert.Equal(t, c.fits, err == nil, "%v", err)
		})
	}
}
